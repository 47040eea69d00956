/* ops.c - the table of operators, made from ops.def, and the members that many
 * operators share. */
#include <string.h>

#include "lib/ops/ops.h"

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
        .has_forward = op->forward || op->flags & MO_OP_VIEW,
        .has_backward = op->backward || op->flags & MO_OP_VIEW,
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
    return MOPT_OK;
}

enum mopt_status mo_infer_broadcast(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    const struct mo_value *a = mo_in(g, n, 0), *b = mo_in(g, n, 1);
    if (!a || !b)
        return mo_fail(ctx, MOPT_DATA, "input %d is left out", a ? 1 : 0);
    struct mo_shape shape;
    char text_a[128], text_b[128];
    if (!mo_shape_broadcast(&a->shape, &b->shape, &shape))
        return mo_fail(ctx, MOPT_DATA, "shapes %s and %s do not fit together",
                       mo_shape_text(&a->shape, text_a, sizeof text_a),
                       mo_shape_text(&b->shape, text_b, sizeof text_b));
    mo_set_out(g, n, 0, a->dtype, &shape);
    return MOPT_OK;
}

void mo_couple_through(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n)
{
    for (int axis = 0; axis < mo_in(g, n, 0)->shape.rank; axis++)
        mo_couple_same(c, n->in[0], axis, n->out[0], axis);
}
