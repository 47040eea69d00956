/* ops.c - the table of operators, made from ops.def, and the members that many
 * operators share. */
#include <string.h>

#include "lib/ops/ops.h"
#include "lib/run/run.h"

#define OP(name) extern const struct mo_op mo_op_##name;
#include "lib/ops/ops.def"
#undef OP

static const struct mo_op *const table[] = {
#define OP(name) &mo_op_##name,
#include "lib/ops/ops.def"
#undef OP
};

/* "", "ai.onnx" and NULL all name the default domain. */
static const char *domain_text(const char *domain)
{
    return !domain || !strcmp(domain, "ai.onnx") ? "" : domain;
}

/* Of several rows with the same type the newest that the opset knows is meant. */
const struct mo_op *mo_op_find(const char *type, const char *domain, int opset)
{
    const struct mo_op *best = NULL;
    domain = domain_text(domain);
    for (size_t i = 0; i < MO_COUNT(table); i++) {
        const struct mo_op *op = table[i];
        if (op->since_opset <= opset && (!best || best->since_opset < op->since_opset) &&
            !strcmp(op->type, type) && !strcmp(domain_text(op->domain), domain))
            best = op;
    }
    return best;
}

const struct mo_op *mo_op_at(size_t i)
{
    return i < MO_COUNT(table) ? table[i] : NULL;
}

bool mopt_op_at(size_t i, struct mopt_op_info *info)
{
    const struct mo_op *op = mo_op_at(i);
    if (!op)
        return false;
    *info = (struct mopt_op_info){
        .type = op->type,
        .domain = domain_text(op->domain),
        .since_opset = op->since_opset,
        .has_forward = mo_op_runs(op),
        .has_backward = mo_op_has_gradient(op),
        .has_macs = op->macs,
        .has_couple = op->couple,
        .has_quant = op->quant.kind != MO_QUANT_FLOAT,
    };
    return true;
}

int64_t mo_macs_zero(const struct mo_graph *g, const struct mo_node *n)
{
    (void)g, (void)n;
    return 0;
}

enum mopt_status mo_infer_like_input(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *x = mo_in(g, n, 0);
    if (!x)
        return mo_fail(ctx, MOPT_DATA, "input 0 is left out");
    struct mo_shape shape = x->shape;
    mo_set_out(g, n, 0, x->dtype, &shape);
    if (n->n_out && n->out[0] != MO_NONE)
        g->values[n->out[0]].element = x->element;
    return MOPT_OK;
}

enum mopt_status mo_infer_broadcast(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (!a || !b)
        return mo_fail(ctx, MOPT_DATA, "input %d is left out", a ? 1 : 0);
    struct mo_shape shape, aligned = mo_operand_shape(g, n);
    char text_a[128], text_b[128];
    if (!mo_shape_broadcast(&a->shape, &aligned, &shape))
        return mo_fail(ctx, MOPT_DATA, "shapes %s and %s do not fit together",
                       mo_shape_text(&a->shape, text_a, sizeof text_a),
                       mo_shape_text(&b->shape, text_b, sizeof text_b));
    mo_set_out(g, n, 0, a->dtype, &shape);
    return MOPT_OK;
}

void mo_couple_leading(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n, int n_axes)
{
    int rank = mo_in(g, n, 0)->shape.rank;
    for (int axis = 0; axis < rank && axis < n_axes; axis++)
        mo_couple_same(c, n->in[0], axis, n->out[0], axis);
}

void mo_couple_through(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_leading(c, g, n, MO_MAX_RANK);
}

void mo_couple_image(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    mo_couple_leading(c, g, n, 2);
}

mo_node_id mo_node_id_of(const struct mo_graph *g, const struct mo_node *n)
{
    return (mo_node_id)(n - g->nodes);
}

static enum mopt_status prepare_float32(struct mo_run *r, const struct mo_node *n, uint32_t n_inputs)
{
    for (uint32_t i = 0; i < n_inputs; i++) {
        const struct mo_value *v = mo_in(r->graph, n, i);
        bool may_be_half = i < 32 && n->op->bf16_in >> i & 1;
        if (v && v->dtype != MO_F32 && !(may_be_half && mo_dtype_is_half(v->dtype)))
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", i,
                           mo_dtype_name(v->dtype));
    }
    return MOPT_OK;
}

enum mopt_status mo_prepare_float32(struct mo_run *r, const struct mo_node *n)
{
    return prepare_float32(r, n, n->n_in);
}

enum mopt_status mo_prepare_float32_x(struct mo_run *r, const struct mo_node *n)
{
    return prepare_float32(r, n, 1);
}

int64_t mo_product(const int64_t *factors, int n)
{
    int64_t product = 1;
    for (int i = 0; i < n; i++)
        if (factors[i] < 0 || __builtin_mul_overflow(product, factors[i], &product))
            return MO_UNKNOWN;
    return product;
}

size_t mo_run_in_elems(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_in(r->graph, n, i);
    return v ? (size_t)mo_value_elems(v) : 0;
}

size_t mo_run_out_elems(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_out(r->graph, n, i);
    return v ? (size_t)mo_value_elems(v) : 0;
}

enum mo_dtype mo_run_in_type(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_in(r->graph, n, i);
    return v ? v->dtype : MO_F32;
}

enum mo_dtype mo_run_out_type(const struct mo_run *r, const struct mo_node *n, uint32_t i)
{
    const struct mo_value *v = mo_out(r->graph, n, i);
    return v ? v->dtype : MO_F32;
}

void mo_run_zero_of(struct mo_run *r, enum mo_dtype dtype, size_t n_elems, void *x)
{
    const uint64_t zero = 0;
    r->be->fill(r->dev, (size_t)mo_dtype_bits(dtype) / 8, n_elems, &zero, x);
}

void mo_run_zero(struct mo_run *r, size_t n_elems, float *x)
{
    const float zero = 0.0f;
    r->be->fill(r->dev, sizeof *x, n_elems, &zero, x);
}

bool mo_run_scalar(struct mo_run *r, const struct mo_node *n, uint32_t i, double *x)
{
    const struct mo_value *v = mo_in(r->graph, n, i);
    union {
        float f32;
        double f64;
        int64_t i64;
        uint64_t u64;
        int32_t i32;
        uint32_t u32;
        int16_t i16;
        uint16_t u16;
        int8_t i8;
        uint8_t u8;
    } raw;
    if (!v || mo_value_elems(v) != 1 || mo_value_bytes(v) > sizeof raw)
        return false;
    r->be->download(r->dev, &raw, mo_run_in(r, n, i), mo_value_bytes(v));
    switch (v->dtype) {
    case MO_F32: *x = (double)raw.f32; return true;
    case MO_F64: *x = raw.f64; return true;
    case MO_I64: *x = (double)raw.i64; return true;
    case MO_U64: *x = (double)raw.u64; return true;
    case MO_I32: *x = raw.i32; return true;
    case MO_U32: *x = raw.u32; return true;
    case MO_I16: *x = raw.i16; return true;
    case MO_U16: *x = raw.u16; return true;
    case MO_I8: *x = raw.i8; return true;
    case MO_U8: case MO_BOOL: *x = raw.u8; return true;
    default: return false;
    }
}
