/* MatMulNBits of com.microsoft: y = a W^T (+ bias), W (N x K) in 2, 4 or 8 bits, block_size elements of a row sharing a
 * scale and a zero point:
 *
 *     w[n, k] = (code[n, k] - zero[n, k / block]) scale[n, k / block]
 *
 * Codes lie packed, the first in the low bits, rows filled up to whole blocks; zero points likewise, 2^(bits - 1)
 * where there are none. W is unpacked for each product. */
#include "lib/ops/contrib.h"

enum { IN_A, IN_B, IN_SCALES, IN_ZEROS, IN_GROUPS, IN_BIAS };

struct nbits {
    int64_t k, n, block, n_blocks, bits;
};

static enum mopt_status read_attrs(struct mopt_ctx *ctx, const struct mo_node *n, struct nbits *p)
{
    p->k = mo_node_int(n, "K", 0);
    p->n = mo_node_int(n, "N", 0);
    p->bits = mo_node_int(n, "bits", 4);
    p->block = mo_node_int(n, "block_size", 32);
    if (p->k < 1 || p->n < 1 || p->block < 16 || p->block > 1 << 20 || p->block & (p->block - 1))
        return mo_fail(ctx, MOPT_DATA, "K %lld, N %lld, block_size %lld; blocks are of 16, 32, 64 ...", (long long)p->k,
                       (long long)p->n, (long long)p->block);
    if (p->bits != 2 && p->bits != 4 && p->bits != 8)
        return mo_fail(ctx, MOPT_UNSUPPORTED, "%lld bits, 2, 4 or 8 would do", (long long)p->bits);
    p->n_blocks = p->k / p->block + (p->k % p->block != 0);
    int64_t factors[] = { p->n, p->n_blocks, p->block, (int64_t)sizeof(float) };
    if (mo_product(factors, (int)MO_COUNT(factors)) == MO_UNKNOWN)
        return mo_fail(ctx, MOPT_DATA, "weights of %lldx%lld are too large", (long long)p->n, (long long)p->k);
    return MOPT_OK;
}

/* Bytes of a row of packed zero points. */
static int64_t zero_bytes(const struct nbits *p)
{
    return (p->n_blocks * p->bits + 7) / 8;
}

static enum mopt_status check_elems(struct mopt_ctx *ctx, const struct mo_value *v, int64_t want)
{
    int64_t elems = v ? mo_value_elems(v) : MO_UNKNOWN;
    if (elems == MO_UNKNOWN || elems == want)
        return MOPT_OK;
    return mo_fail(ctx, MOPT_DATA, "'%s' has %lld elements, there should be %lld", v->name, (long long)elems,
                   (long long)want);
}

static enum mopt_status infer(struct mopt_ctx *ctx, struct mo_graph *g, struct mo_node *n)
{
    struct nbits *p = n->params;
    const struct mo_value *a = mo_in(g, n, IN_A), *b = mo_in(g, n, IN_B), *zeros = mo_in(g, n, IN_ZEROS);
    struct mo_shape y = a->shape;
    MO_TRY(read_attrs(ctx, n, p));
    if (mo_in(g, n, IN_GROUPS))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "g_idx, blocks in order would do");
    if (b->dtype != MO_U8 || (zeros && zeros->dtype != MO_U8))
        return mo_fail(ctx, MOPT_UNSUPPORTED, "codes and zero points that are not packed into uint8");
    MO_TRY(check_elems(ctx, b, p->n * p->n_blocks * p->block * p->bits / 8));
    MO_TRY(check_elems(ctx, mo_in(g, n, IN_SCALES), p->n * p->n_blocks));
    MO_TRY(check_elems(ctx, zeros, p->n * zero_bytes(p)));
    MO_TRY(check_elems(ctx, mo_in(g, n, IN_BIAS), p->n));
    if (y.rank == 0 || (y.rank > 0 && y.dim[y.rank - 1] != MO_UNKNOWN && y.dim[y.rank - 1] != p->k))
        return mo_fail(ctx, MOPT_DATA, "rows of A should have %lld elements", (long long)p->k);
    if (y.rank > 0)
        y.dim[y.rank - 1] = p->n;
    mo_set_out(g, n, 0, a->dtype, &y);
    return MOPT_OK;
}

static enum mopt_status prepare(struct mo_run *r, const struct mo_node *n)
{
    static const uint32_t floats[] = { IN_A, IN_SCALES, IN_BIAS };
    for (size_t i = 0; i < MO_COUNT(floats); i++) {
        const struct mo_value *v = mo_in(r->graph, n, floats[i]);
        if (v && v->dtype != MO_F32)
            return mo_fail(r->ctx, MOPT_UNSUPPORTED, "input %u is %s, it is computed for float32 only", floats[i],
                           mo_dtype_name(v->dtype));
    }
    return MOPT_OK;
}

struct parts {
    float *w;
    uint8_t *codes, *zero_codes;
    int32_t *zeros, *row;       /* one for each block; those of padded rows */
    size_t bytes;
};

static void *take(char *base, size_t *at, int64_t n, size_t elem_bytes)
{
    void *part = base ? base + *at : NULL;
    *at += mo_part_bytes((size_t)n * elem_bytes);
    return part;
}

static struct parts parts(const struct nbits *p, bool has_zeros, char *base)
{
    int64_t wide = p->n * zero_bytes(p) * (8 / p->bits);
    struct parts s = { 0 };
    s.w = take(base, &s.bytes, p->n * p->n_blocks * p->block, sizeof *s.w);
    s.codes = take(base, &s.bytes, p->bits < 8 ? p->n * p->n_blocks * p->block : 0, 1);
    s.zero_codes = take(base, &s.bytes, has_zeros && p->bits < 8 ? wide : 0, 1);
    s.zeros = take(base, &s.bytes, p->n * p->n_blocks, sizeof *s.zeros);
    s.row = take(base, &s.bytes, has_zeros ? wide : 0, sizeof *s.row);
    return s;
}

static size_t scratch_bytes(const struct mo_run *r, const struct mo_node *n, bool backward)
{
    return backward ? 0 : parts(n->params, mo_in(r->graph, n, IN_ZEROS), NULL).bytes;
}

/* n codes to a byte each. */
static const uint8_t *unpacked(struct mo_run *r, const struct nbits *p, int64_t n, const uint8_t *x, uint8_t *y)
{
    if (p->bits == 8)
        return x;
    r->be->unpack_bits(r->dev, p->bits == 4 ? MO_U4 : MO_U2, (size_t)n, x, y);
    return y;
}

static void load_zeros(struct mo_run *r, const struct nbits *p, const uint8_t *packed, const struct parts *s)
{
    const int32_t middle = (int32_t)1 << (p->bits - 1);
    if (!packed) {
        r->be->fill(r->dev, sizeof middle, (size_t)(p->n * p->n_blocks), &middle, s->zeros);
        return;
    }
    int64_t width = zero_bytes(p) * (8 / p->bits);
    const int64_t dims[2] = { p->n, p->n_blocks }, of_row[2] = { width, 1 }, dense[2] = { p->n_blocks, 1 };
    const uint8_t *codes = unpacked(r, p, p->n * width, packed, s->zero_codes);
    r->be->cast(r->dev, MO_U8, MO_I32, (size_t)(p->n * width), codes, s->row);
    r->be->copy_strided(r->dev, sizeof *s->zeros, 2, dims, of_row, dense, s->row, s->zeros);
}

static enum mopt_status forward(struct mo_run *r, const struct mo_node *n)
{
    const struct nbits *p = n->params;
    struct parts s = parts(p, mo_in(r->graph, n, IN_ZEROS), mo_run_scratch(r, n));
    const struct mo_epilogue e = { .bias = mo_run_in(r, n, IN_BIAS), .act = MO_ACT_NONE };
    int64_t rows = mo_value_elems(mo_in(r->graph, n, IN_A)) / p->k, wide = p->n_blocks * p->block;
    load_zeros(r, p, mo_run_in(r, n, IN_ZEROS), &s);
    r->be->dequantize(r->dev, MO_U8, 1, p->n * p->n_blocks, p->block,
                      unpacked(r, p, p->n * wide, mo_run_in(r, n, IN_B), s.codes), mo_run_in(r, n, IN_SCALES), s.zeros, s.w);
    r->be->gemm(r->dev, false, true, rows, p->n, p->k, 1, mo_run_in(r, n, IN_A), p->k, s.w, wide, 0,
                mo_run_out(r, n, 0), p->n, &e);
    return MOPT_OK;
}

static int64_t macs(const struct mo_graph *g, const struct mo_node *n)
{
    const struct nbits *p = n->params;
    int64_t elems = mo_value_elems(mo_in(g, n, IN_A));
    int64_t factors[] = { elems, p->n };
    return elems == MO_UNKNOWN ? MO_UNKNOWN : mo_product(factors, 2);
}

const struct mo_op mo_op_matmul_nbits = {
    .type = "MatMulNBits",
    .domain = MO_CONTRIB,
    .since_opset = 1,
    .min_in = 3, .max_in = 6, .min_out = 1, .max_out = 1,
    .params_bytes = sizeof(struct nbits),
    .infer = infer, .prepare = prepare, .forward = forward,
    .macs = macs,
    .scratch_bytes = scratch_bytes,
};
