/* The kernels of which the CPU has only the plain C form, on a CUDA device against that
 * form over random shapes. Where no device opens the reason must be said, and that every
 * kernel has a case, here or in test_kernels.c, is checked all the same. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/reference.h"
#include "tests/support/kernel_bench.h"

#define N_ROUNDS 16
#define MAX_RANK 4

static const int whole_types[] = { 2, 3, 4, 5, 6, 7, 12, 13 }, real_types[] = { 1, 10, 11, 16 };
static const int ordered_types[] = { 1, 2, 3, 4, 5, 6, 7, 11, 12, 13 };
#define ANY_OF(b, list) (list)[pick(b, 0, (int)MO_COUNT(list) - 1)]

static int number_type(struct bench *b)
{
    return pick(b, 0, 1) ? ANY_OF(b, whole_types) : ANY_OF(b, real_types);
}

static size_t bytes_of(int dtype)
{
    switch (dtype) {
    case 7: case 11: case 13: return 8;
    case 1: case 6: case 12: return 4;
    case 4: case 5: case 10: case 16: return 2;
    default: return 1;
    }
}

/* n elements of a type; results of a type are looked at as float32. */
static void *typed(struct bench *b, int dtype, size_t n)
{
    float *x = operand(b, n, 6, 1);
    void *y = table(b, NULL, n * bytes_of(dtype));
    b->be->cast(b->dev, 1, dtype, n, x, y);
    return y;
}

static void result_typed(struct bench *b, int dtype, const void *x, size_t n)
{
    float *wide = table(b, NULL, n * sizeof *wide);
    b->be->cast(b->dev, dtype, 1, n, x, wide);
    result(b, wide, n);
}

/* n indices into an axis, some of them from its end. */
static int64_t *indices(struct bench *b, size_t n, int64_t dim)
{
    int64_t *list = mo_mem_new(n + 1, sizeof *list);
    for (size_t i = 0; i < n; i++)
        list[i] = pick(b, (int)-dim, (int)dim - 1);
    int64_t *at = table(b, list, n * sizeof *list);
    mo_mem_free(list);
    return at;
}

/* n bytes of 0 and 1 */
static uint8_t *flags(struct bench *b, size_t n)
{
    uint8_t *list = mo_mem_new(n + 1, 1);
    for (size_t i = 0; i < n; i++)
        list[i] = (uint8_t)pick(b, 0, 1);
    uint8_t *at = table(b, list, n);
    mo_mem_free(list);
    return at;
}

struct box {
    int rank;
    int64_t dims[MAX_RANK], dense[MAX_RANK];
    size_t n;
};

static struct box any_box(struct bench *b, int least_rank)
{
    struct box x = { .rank = (int)pick(b, least_rank, MAX_RANK), .n = 1 };
    for (int k = x.rank - 1; k >= 0; k--) {
        x.dims[k] = pick(b, 1, pick(b, 0, 3) ? 6 : 20);
        x.dense[k] = (int64_t)x.n;
        x.n *= (size_t)x.dims[k];
    }
    return x;
}

/* Dense strides, of which some axes are repeated instead. */
static void broadcast(struct bench *b, const struct box *x, int64_t *stride)
{
    for (int k = 0; k < x->rank; k++)
        stride[k] = pick(b, 0, 3) ? x->dense[k] : 0;
}

/* ---- element by element ------------------------------------------------------------------------ */

static void case_unary_typed(struct bench *b)
{
    static const enum mo_unary exact[] = { MO_ABS, MO_NEG, MO_SIGN, MO_SQUARE, MO_RELU, MO_CLIP, MO_FLOOR };
    static const enum mo_unary smooth[] = { MO_TANH, MO_EXP, MO_ERF, MO_GELU, MO_SOFTPLUS, MO_ATAN };
    bool is_smooth = pick(b, 0, 1);
    int dtype = is_smooth ? 11 : number_type(b);
    enum mo_unary f = is_smooth ? ANY_OF(b, smooth) : ANY_OF(b, exact);
    size_t n = (size_t)pick(b, 0, 3000);
    void *x = typed(b, dtype, n), *y = typed(b, dtype, n);
    b->be->unary_typed(b->dev, f, dtype, 0, 3, n, x, y);
    result_typed(b, dtype, y, n);
}

static void case_binary(struct bench *b)
{
    struct box x = any_box(b, 0);
    int64_t sa[MAX_RANK], sb[MAX_RANK];
    bool is_whole = pick(b, 0, 1);
    int dtype = is_whole ? ANY_OF(b, whole_types) : ANY_OF(b, real_types);
    enum mo_binary f = (enum mo_binary)pick(b, 0, is_whole ? MO_SHIFT_RIGHT : MO_FMOD);
    if (pick(b, 0, 3) == 0)
        f = (enum mo_binary)pick(b, MO_EQUAL, MO_GREATER_EQUAL);
    if (f == MO_POW && !is_whole)
        dtype = 1;      /* powers may differ in the last bit, which is much of a half */
    broadcast(b, &x, sa);
    broadcast(b, &x, sb);
    void *u = typed(b, dtype, x.n), *v = typed(b, dtype, x.n), *y = typed(b, dtype, x.n);
    b->be->binary(b->dev, f, dtype, x.rank, x.dims, sa, sb, u, v, y);
    result_typed(b, f >= MO_EQUAL ? 9 : dtype, y, x.n);
}

static void case_where(struct bench *b)
{
    struct box x = any_box(b, 0);
    int64_t sc[MAX_RANK], sa[MAX_RANK], sb[MAX_RANK];
    int dtype = number_type(b);
    broadcast(b, &x, sc);
    broadcast(b, &x, sa);
    broadcast(b, &x, sb);
    const uint8_t *c = flags(b, x.n);
    void *u = typed(b, dtype, x.n), *v = typed(b, dtype, x.n), *y = typed(b, dtype, x.n);
    b->be->where(b->dev, bytes_of(dtype), x.rank, x.dims, sc, sa, sb, c, u, v, y);
    result_typed(b, dtype, y, x.n);
}

static void case_not_(struct bench *b)
{
    size_t n = (size_t)pick(b, 0, 3000);
    uint8_t *x = typed(b, 2, n), *y = typed(b, 2, n);
    b->be->not_(b->dev, n, x, y);
    result_bytes(b, y, n);
    b->be->bit_not(b->dev, n, x, y);
    result_bytes(b, y, n);
}

static void case_cast(struct bench *b)
{
    static const int all[] = { 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26 };
    int from = ANY_OF(b, all), to = ANY_OF(b, all), flags = (int)pick(b, 0, 3) * 256;
    size_t n = (size_t)pick(b, 0, 3000);
    void *x = typed(b, from, n), *y = typed(b, to, n);
    b->be->cast(b->dev, from, to | flags, n, x, y);
    result_typed(b, to, y, n);
}

static void case_pack_bits(struct bench *b)
{
    static const int small[] = { 21, 22, 25, 26 };
    int dtype = ANY_OF(b, small);
    size_t n = (size_t)pick(b, 0, 3000);
    uint8_t *x = typed(b, dtype, n), *packed = table(b, NULL, n), *y = typed(b, dtype, n);
    b->be->pack_bits(b->dev, dtype, n, x, packed);
    b->be->unpack_bits(b->dev, dtype, n, packed, y);
    result_bytes(b, packed, n / (dtype < 25 ? 2 : 4));
    result_bytes(b, y, n);
}

static void case_fill(struct bench *b)
{
    const float value[4] = { 1.5f, 2.5f, -3, 4 };
    size_t bytes = (size_t)1 << pick(b, 0, 4), n = (size_t)pick(b, 0, 3000);
    uint8_t *y = table(b, NULL, n * bytes);
    b->be->fill(b->dev, bytes, n, value, y);
    result_bytes(b, y, n * bytes);
}

/* ---- moving --------------------------------------------------------------------------------------- */

/* y is x with its axes turned around; some of them backwards. */
static void case_copy_strided(struct bench *b)
{
    struct box x = any_box(b, 1);
    int64_t sy[MAX_RANK], sx[MAX_RANK], step = 1, start = 0;
    int dtype = number_type(b), turn = (int)pick(b, 0, x.rank - 1);
    for (int k = x.rank - 1; k >= 0; k--) {
        int axis = (k + turn) % x.rank;
        sy[axis] = step;
        step *= x.dims[axis];
        bool backwards = pick(b, 0, 3) == 0;
        sx[axis] = backwards ? -x.dense[axis] : x.dense[axis];
        start += backwards ? (x.dims[axis] - 1) * x.dense[axis] : 0;
    }
    char *from = typed(b, dtype, x.n);
    void *y = typed(b, dtype, x.n);
    b->be->copy_strided(b->dev, bytes_of(dtype), x.rank, x.dims, sx, sy, from + start * (int64_t)bytes_of(dtype), y);
    result_typed(b, dtype, y, x.n);
}

static void case_add_strided(struct bench *b)
{
    struct box x = any_box(b, 0);
    int64_t sy[MAX_RANK];
    broadcast(b, &x, sy);
    float *from = operand(b, x.n, 1, 0), *y = operand(b, x.n, 1, 0);
    b->be->add_strided(b->dev, x.rank, x.dims, x.dense, sy, from, y);
    result(b, y, x.n);
}

static void case_gather(struct bench *b)
{
    int64_t outer = pick(b, 1, 8), axis = pick(b, 1, 20), n_index = pick(b, 0, 40), inner = pick(b, 1, 20);
    int dtype = number_type(b);
    size_t n_x = (size_t)(outer * axis * inner), n_y = (size_t)(outer * n_index * inner);
    void *x = typed(b, dtype, n_x), *y = typed(b, dtype, n_y);
    int64_t *index = indices(b, (size_t)n_index, axis);
    b->be->gather(b->dev, bytes_of(dtype), outer, axis, n_index, inner, x, index, y);
    result_typed(b, dtype, y, n_y);
    float *dx = operand(b, n_x, 1, 0), *dy = operand(b, n_y, 1, 0);
    b->be->gather_grad(b->dev, outer, axis, n_index, inner, dy, index, dx);
    result(b, dx, n_x);
}

static void case_gather_elements(struct bench *b)
{
    struct box x = any_box(b, 1);
    int axis = (int)pick(b, 0, x.rank - 1), dtype = number_type(b);
    void *from = typed(b, dtype, x.n), *y = typed(b, dtype, x.n), *to = typed(b, dtype, x.n);
    int64_t *index = indices(b, x.n, x.dims[axis]);
    b->be->gather_elements(b->dev, bytes_of(dtype), x.rank, x.dims, x.dense, axis, x.dims[axis], from, index, y);
    result_typed(b, dtype, y, x.n);
    b->be->scatter_elements(b->dev, dtype, (enum mo_scatter)pick(b, 0, MO_SCATTER_MAX), x.rank, x.dims, x.dense, axis,
                            x.dims[axis], index, from, to);
    result_typed(b, dtype, to, x.n);
}

static void case_gather_nd(struct bench *b)
{
    int64_t batch = pick(b, 1, 4), n_index = pick(b, 0, 20), inner = pick(b, 1, 9), dim = pick(b, 1, 6);
    const int64_t dims[2] = { dim, dim };
    int n_coords = (int)pick(b, 1, 2), dtype = number_type(b);
    size_t n_x = (size_t)(batch * dim * (n_coords == 2 ? dim : 1) * inner), n_y = (size_t)(batch * n_index * inner);
    void *x = typed(b, dtype, n_x), *y = typed(b, dtype, n_y);
    int64_t *index = indices(b, (size_t)(batch * n_index * n_coords), dim);
    b->be->gather_nd(b->dev, bytes_of(dtype), batch, n_index, n_coords, dims, inner, x, index, y);
    result_typed(b, dtype, y, n_y);
    b->be->scatter_nd(b->dev, dtype, (enum mo_scatter)pick(b, 0, MO_SCATTER_MAX), batch, n_index, n_coords, dims, inner,
                      index, y, x);
    result_typed(b, dtype, x, n_x);
}

static void case_resample(struct bench *b)
{
    int64_t outer = pick(b, 1, 5), n_x = pick(b, 1, 20), inner = pick(b, 1, 20), n_y = pick(b, 1, 40);
    int n_taps = (int)pick(b, 1, 4);
    int32_t from[40 * 4];
    for (int64_t i = 0; i < n_y * n_taps; i++)
        from[i] = (int32_t)pick(b, 0, (int)n_x - 1);
    const int32_t *taps = table(b, from, (size_t)(n_y * n_taps) * sizeof *from);
    float *weight = operand(b, (size_t)(n_y * n_taps), 1, 0);
    float *x = operand(b, (size_t)(outer * n_x * inner), 1, 0), *y = operand(b, (size_t)(outer * n_y * inner), 1, 0);
    b->be->resample(b->dev, outer, n_x, inner, n_y, n_taps, taps, weight, x, y);
    result(b, y, (size_t)(outer * n_y * inner));
    b->be->resample_grad(b->dev, outer, n_x, inner, n_y, n_taps, taps, weight, y, x);
    result(b, x, (size_t)(outer * n_x * inner));
}

static void case_sample(struct bench *b)
{
    struct mo_sample_desc d = { .mode = (enum mo_sample_mode)pick(b, 0, 2), .padding = (enum mo_sample_padding)pick(b, 0, 2),
                                .n_axes = (int)pick(b, 1, 3), .batch = pick(b, 1, 3), .channels = pick(b, 1, 4),
                                .n_places = pick(b, 1, 30) };
    int64_t n_pixels = d.batch * d.channels;
    for (int k = 0; k < d.n_axes; k++) {
        bool align = pick(b, 0, 1);
        d.in[k] = pick(b, 2, 6);
        n_pixels *= d.in[k];
        d.shift[k] = (float)(d.in[k] - 1) / 2;
        d.scale[k] = (float)(align ? d.in[k] - 1 : d.in[k]) / 2;
        d.low[k] = align ? 0 : -0.5f;
        d.high[k] = (float)(d.in[k] - 1) - d.low[k];
    }
    size_t n_places = (size_t)(d.batch * d.n_places * d.n_axes), n_y = (size_t)(d.batch * d.channels * d.n_places);
    float *x = operand(b, (size_t)n_pixels, 1, 0), *at = operand(b, n_places, 1.7f, 0), *y = operand(b, n_y, 1, 0);
    float *dx = operand(b, (size_t)n_pixels, 1, 0), *dat = operand(b, n_places, 1, 0);
    b->be->sample(b->dev, &d, x, at, y);
    result(b, y, n_y);
    b->be->sample_grad(b->dev, &d, x, at, y, dx, dat);
    result(b, dx, (size_t)n_pixels);
    result(b, dat, n_places);
}

static void case_linear_attention(struct bench *b)
{
    struct mo_linear_attention_desc d = { .is_delta = pick(b, 0, 1), .decays_by_key = pick(b, 0, 1), .batch = pick(b, 1, 3),
                                          .steps = pick(b, 1, 5), .heads = pick(b, 1, 3), .d_k = pick(b, 1, 9),
                                          .d_v = pick(b, 1, 9), .scale = 0.5f };
    d.q_heads = d.heads * pick(b, 1, 3);
    d.beta_heads = pick(b, 0, 1) ? d.heads : 1;
    int64_t tokens = d.batch * d.steps;
    size_t n_state = (size_t)(d.batch * d.heads * d.d_k * d.d_v), n_y = (size_t)(tokens * d.q_heads * d.d_v);
    float *q = operand(b, (size_t)(tokens * d.q_heads * d.d_k), 1, 0), *k = operand(b, (size_t)(tokens * d.heads * d.d_k), 0.5f, 0);
    float *v = operand(b, (size_t)(tokens * d.heads * d.d_v), 1, 0), *beta = operand(b, (size_t)(tokens * d.heads), 0.5f, 0.5f);
    float *decay = operand(b, (size_t)(tokens * d.heads * d.d_k), 0.5f, -0.5f);
    float *state = operand(b, n_state, 1, 0), *y = operand(b, n_y, 1, 0);
    b->be->linear_attention(b->dev, &d, q, k, v, pick(b, 0, 1) ? decay : NULL, d.is_delta ? beta : NULL, state, y);
    result(b, state, n_state);
    result(b, y, n_y);
}

static void case_matmul_typed(struct bench *b)
{
    static const int types[] = { 6, 7, 11, 12, 13 };
    int dtype = types[pick(b, 0, 4)];
    int64_t m = pick(b, 1, 12), n = pick(b, 1, 12), k = pick(b, 0, 12), count = pick(b, 1, 4), at[3][4];
    for (int64_t i = 0; i < count; i++) {
        at[0][i] = (count - 1 - i) * m * k;
        at[1][i] = i / 2 * k * n;
        at[2][i] = i * m * n;
    }
    const void *x = typed(b, dtype, (size_t)(m * k * count)), *w = typed(b, dtype, (size_t)(k * n * count));
    void *y = typed(b, dtype, (size_t)(m * n * count));
    b->be->matmul_typed(b->dev, dtype, m, n, k, x, at[0], w, at[1], y, at[2], count);
    result_typed(b, dtype, y, (size_t)(m * n * count));
}

/* ---- making ----------------------------------------------------------------------------------------- */

static void case_arange(struct bench *b)
{
    int dtype = number_type(b);
    size_t n = (size_t)pick(b, 0, 300);
    void *y = typed(b, dtype, n);
    b->be->arange(b->dev, dtype, 3, -2, n, y);
    result_typed(b, dtype, y, n);
}

static void case_one_hot(struct bench *b)
{
    int64_t outer = pick(b, 1, 30), depth = pick(b, 1, 12), inner = pick(b, 1, 5);
    int dtype = number_type(b);
    size_t n = (size_t)(outer * depth * inner);
    int64_t *index = indices(b, (size_t)(outer * inner), depth + 1);
    void *values = typed(b, dtype, 2), *y = typed(b, dtype, n);
    b->be->one_hot(b->dev, bytes_of(dtype), outer, depth, inner, index, values, y);
    result_typed(b, dtype, y, n);
}

static void case_trilu(struct bench *b)
{
    int64_t batch = pick(b, 1, 4), rows = pick(b, 1, 20), columns = pick(b, 1, 20);
    int dtype = number_type(b);
    size_t n = (size_t)(batch * rows * columns);
    void *x = typed(b, dtype, n), *y = typed(b, dtype, n);
    b->be->trilu(b->dev, bytes_of(dtype), pick(b, 0, 1), pick(b, -5, 5), batch, rows, columns, x, y);
    result_typed(b, dtype, y, n);
}

static void case_classify(struct bench *b)
{
    static const int floats[] = { 1, 10, 11, 16, 17, 18, 19, 20 };
    int dtype = ANY_OF(b, floats);
    size_t n = (size_t)pick(b, 0, 2000);
    float *x = operand(b, n, 1, 0);
    uint8_t *y = table(b, NULL, n);
    void *of = table(b, NULL, n * bytes_of(dtype));
    b->be->unary(b->dev, MO_LOG, 0, 0, n, x, x);            /* some of it NaN */
    b->be->binary(b->dev, MO_DIV, 1, 1, &(int64_t){ (int64_t)n }, &(int64_t){ 1 }, &(int64_t){ 0 }, x,
                  table(b, &(float){ 0 }, sizeof(float)), x);     /* the rest infinite */
    b->be->cast(b->dev, 1, dtype | 256, n, x, of);
    b->be->classify(b->dev, dtype, (unsigned)pick(b, 1, 7), n, of, y);
    result_bytes(b, y, n);
}

/* Counted on the host, as its caller does. */
static void case_nonzero(struct bench *b)
{
    struct box x = any_box(b, 1);
    uint8_t *from = flags(b, x.n), *host = (uint8_t *)b->draft;
    b->be->download(b->dev, host, from, x.n);
    int64_t n_found = 0;
    for (size_t i = 0; i < x.n; i++)
        n_found += host[i] != 0;
    int64_t *y = table(b, NULL, (size_t)(n_found * x.rank) * sizeof *y);
    b->be->nonzero(b->dev, 9, x.rank, x.dims, n_found, from, y);
    result_typed(b, 7, y, (size_t)(n_found * x.rank));
}

/* ---- reducing ----------------------------------------------------------------------------------------- */

static void case_reduce(struct bench *b)
{
    static const int types[] = { 1, 6, 7, 11 };
    struct box x = any_box(b, 1);
    bool is_reduced[MAX_RANK];
    size_t n_y = 1;
    int dtype = ANY_OF(b, types);
    enum mo_reduce f = (enum mo_reduce)pick(b, 0, MO_N_REDUCE - 1);
    for (int k = 0; k < x.rank; k++) {
        is_reduced[k] = pick(b, 0, 1);
        n_y *= is_reduced[k] ? 1 : (size_t)x.dims[k];
    }
    if (f == MO_REDUCE_PROD || f == MO_REDUCE_LOG_SUM || f == MO_REDUCE_L2 || f == MO_REDUCE_LOG_SUM_EXP)
        dtype = 1;      /* products overflow, negative sums have no logarithm, and 2.999.. is 2 as an integer */
    void *from = typed(b, dtype, x.n), *y = typed(b, dtype, n_y);
    float *near_one = operand(b, x.n, 0.1f, 1), *small = operand(b, n_y, 0, 0);
    b->be->reduce(b->dev, f, dtype, x.rank, x.dims, is_reduced, dtype == 1 ? near_one : from, dtype == 1 ? small : y);
    if (dtype != 1) {
        result_typed(b, dtype, y, n_y);
        return;
    }
    result(b, small, n_y);
    float *dy = operand(b, n_y, 1, 0), *dx = operand(b, x.n, 1, 0);
    b->be->reduce_grad(b->dev, f, x.rank, x.dims, is_reduced, near_one, small, dy, dx, pick(b, 0, 1));
    result(b, dx, x.n);
}

static void case_argmax(struct bench *b)
{
    int64_t outer = pick(b, 1, 20), axis = pick(b, 1, 30), inner = pick(b, 1, 9), k = pick(b, 1, (int)axis);
    int dtype = ANY_OF(b, ordered_types);
    size_t n = (size_t)(outer * axis * inner), n_y = (size_t)(outer * inner), n_top = (size_t)(outer * k * inner);
    void *x = typed(b, dtype, n), *top = typed(b, dtype, n_top);
    int64_t *y = table(b, NULL, n_y * sizeof *y), *index = table(b, NULL, n_top * sizeof *index);
    int64_t *work = table(b, NULL, (size_t)axis * sizeof *work);
    b->be->argmax(b->dev, dtype, outer, axis, inner, pick(b, 0, 1), pick(b, 0, 1), x, y);
    result_typed(b, 7, y, n_y);
    b->be->topk(b->dev, dtype, outer, axis, inner, k, pick(b, 0, 1), x, top, index, work);
    result_typed(b, dtype, top, n_top);
    result_typed(b, 7, index, n_top);
}

static void case_cumsum(struct bench *b)
{
    static const int types[] = { 1, 6, 7, 11, 12, 13 };
    int64_t outer = pick(b, 1, 20), axis = pick(b, 1, 30), inner = pick(b, 1, 9);
    int dtype = ANY_OF(b, types);
    size_t n = (size_t)(outer * axis * inner);
    void *x = typed(b, dtype, n), *y = typed(b, dtype, n);
    b->be->cumsum(b->dev, dtype, pick(b, 0, 1), pick(b, 0, 1), outer, axis, inner, x, y);
    result_typed(b, dtype, y, n);
}

/* ---- integers ------------------------------------------------------------------------------------------- */

static void case_gemm_int8(struct bench *b)
{
    int64_t m = pick(b, 1, 40), n = pick(b, 1, 40), k = pick(b, 0, 60);
    bool a_signed = pick(b, 0, 1), b_signed = pick(b, 0, 1), by_column = pick(b, 0, 1);
    void *a = typed(b, a_signed ? 3 : 2, (size_t)(m * k)), *w = typed(b, b_signed ? 3 : 2, (size_t)(k * n));
    int32_t *zero = typed(b, 6, (size_t)n), *y = typed(b, 6, (size_t)(m * n));
    b->be->gemm_int8(b->dev, m, n, k, a, a_signed, 2, w, b_signed, zero, by_column, y);
    result_typed(b, 6, y, (size_t)(m * n));
}

static void case_conv_int8(struct bench *b)
{
    int64_t groups = pick(b, 1, 3), ic = groups * pick(b, 1, 4), oc = groups * pick(b, 1, 4), size = pick(b, 3, 9);
    struct mo_conv_desc d = { .n_spatial = 2, .batch = pick(b, 1, 3), .groups = groups, .in_channels = ic,
                              .out_channels = oc, .in = { size, size, 1 }, .out = { size, size, 1 }, .kernel = { 3, 3, 1 },
                              .stride = { 1, 1, 1 }, .dilation = { 1, 1, 1 }, .pad_begin = { 1, 1, 0 },
                              .pad_end = { 1, 1, 0 } };
    bool x_signed = pick(b, 0, 1), w_signed = pick(b, 0, 1);
    size_t n_y = (size_t)(d.batch * size * size * oc);
    void *x = typed(b, x_signed ? 3 : 2, (size_t)(d.batch * size * size * ic));
    void *w = typed(b, w_signed ? 3 : 2, (size_t)(oc * ic / groups * 9));
    int32_t *zero = typed(b, 6, (size_t)oc), *y = typed(b, 6, n_y);
    b->be->conv_int8(b->dev, &d, x, x_signed, 3, w, w_signed, zero, pick(b, 0, 1), y);
    result_typed(b, 6, y, n_y);
}

static void case_lookup(struct bench *b)
{
    size_t n = (size_t)pick(b, 1, 70000);
    uint8_t list[256], *x = typed(b, 2, n), *y = typed(b, 2, n);
    for (size_t i = 0; i < sizeof list; i++)
        list[i] = (uint8_t)pick(b, 0, 255);
    b->be->lookup(b->dev, n, list, x, y);
    result_typed(b, 2, y, n);
}

static void case_quantize(struct bench *b)
{
    static const int types[] = { 2, 3, 4, 5, 21, 22, 25, 26 };
    int64_t outer = pick(b, 1, 9), channels = pick(b, 1, 9), inner = pick(b, 1, 30);
    int dtype = ANY_OF(b, types);
    size_t n = (size_t)(outer * channels * inner);
    float *x = operand(b, n, 4, 0), *scale = operand(b, (size_t)channels, 0.02f, 0.05f), *y = operand(b, n, 0, 0);
    int32_t *zero = typed(b, 6, (size_t)channels);
    void *q = typed(b, dtype, n);
    float *dy = operand(b, n, 1, 0), *dx = operand(b, n, 1, 0);
    b->be->quantize(b->dev, dtype, outer, channels, inner, x, scale, zero, q);
    result_typed(b, dtype, q, n);
    b->be->dequantize(b->dev, dtype, outer, channels, inner, q, scale, zero, y);
    result(b, y, n);
    b->be->quantize_grad(b->dev, dtype, outer, channels, inner, x, scale, zero, dy, dx, pick(b, 0, 1));
    result(b, dx, n);
}

static void case_range(struct bench *b)
{
    size_t n = (size_t)pick(b, 0, 60000);
    float *x = operand(b, n, 3, 0), *range = operand(b, 2, 0, 0);
    uint64_t *n_nan = table(b, &(uint64_t){ 5 }, sizeof *n_nan), none[16] = { 0 }, *counts = table(b, none, sizeof none);
    b->be->range(b->dev, n, x, range, n_nan);
    result(b, range, 2);
    result_typed(b, 13, n_nan, 1);
    b->be->histogram(b->dev, n, x, -2, 0.25f, MO_COUNT(none), counts);
    result_typed(b, 13, counts, MO_COUNT(none));
}

/* ---- the table, and walking it ------------------------------------------------------------------------------ */

static const struct { const char *names; void (*run)(struct bench *); } cases[] = {
    { "unary_typed", case_unary_typed }, { "binary", case_binary }, { "where", case_where },
    { "not_ bit_not", case_not_ }, { "cast", case_cast }, { "pack_bits unpack_bits", case_pack_bits },
    { "fill", case_fill }, { "copy_strided", case_copy_strided }, { "add_strided", case_add_strided },
    { "gather gather_grad", case_gather }, { "gather_elements scatter_elements", case_gather_elements },
    { "gather_nd scatter_nd", case_gather_nd }, { "resample resample_grad", case_resample }, { "arange", case_arange },
    { "sample sample_grad", case_sample }, { "linear_attention", case_linear_attention },
    { "matmul_typed", case_matmul_typed },
    { "one_hot", case_one_hot }, { "trilu", case_trilu }, { "classify", case_classify }, { "nonzero", case_nonzero },
    { "reduce reduce_grad", case_reduce }, { "argmax topk", case_argmax }, { "cumsum", case_cumsum },
    { "gemm_int8", case_gemm_int8 }, { "conv_int8", case_conv_int8 }, { "lookup", case_lookup },
    { "quantize dequantize quantize_grad", case_quantize }, { "range histogram", case_range },
};

static bool is_named(const char *names, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = names; (at = strstr(at, name)); at += n)
        if ((at == names || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
            return true;
    return false;
}

/* Those of the CPU's own are in test_kernels.c, which looks after itself. */
START_TEST(every_plain_kernel_has_a_case)
{
    const struct mo_backend *cpu = mo_backend_find("cpu");
#define MO_KERNEL(kernel, args)                                                                        \
    {                                                                                                  \
        bool has_case = (void (*)(void))cpu->kernel != (void (*)(void))mo_backend_reference.kernel;    \
        for (size_t i = 0; i < MO_COUNT(cases); i++)                                                   \
            has_case |= is_named(cases[i].names, #kernel);                                             \
        ck_assert_msg(has_case, "no case for kernel '%s'", #kernel);                                   \
    }
#include "kernels/kernels.def"
#undef MO_KERNEL
}
END_TEST

static void run_case(struct bench *b, size_t i, uint64_t round)
{
    char why[200];
    b->rng = mo_rng_new(23 + i, MO_RNG_TEST, round);
    b->n_out = b->used = 0;
    cases[i].run(b);
    ck_assert_msg(!b->be->sync(b->dev, why, sizeof why), "%s: %s", cases[i].names, why);
}

static bool is_near(double want, double got)
{
    return want == got || (isnan(want) && isnan(got)) || fabs(want - got) <= 2e-4 * (1 + fabs(want));
}

static void compare_with_plain_c(const struct mo_backend *be)
{
    struct bench cuda = bench_new(be, 1), plain = bench_new(&mo_backend_reference, 1);
    for (size_t i = 0; i < MO_COUNT(cases); i++)
        for (uint64_t round = 0; round < N_ROUNDS; round++) {
            run_case(&plain, i, round);
            run_case(&cuda, i, round);
            ck_assert_uint_eq(cuda.n_out, plain.n_out);
            for (size_t k = 0; k < plain.n_out; k++)
                ck_assert_msg(is_near((double)plain.out[k], (double)cuda.out[k]),
                              "%s round %d element %zu: %g, plain C %g", cases[i].names, (int)round, k,
                              (double)cuda.out[k], (double)plain.out[k]);
        }
    bench_free(&cuda);
    bench_free(&plain);
}

START_TEST(cuda_agrees_with_plain_c)
{
    const struct mo_backend *be = cuda_backend();
    if (be)
        compare_with_plain_c(be);
}
END_TEST

/* The same kernels on the CPU, threads and blocks from the first to the last and the other way. */
START_TEST(emulated_agrees_with_plain_c)
{
    const struct mo_backend *be = emulated_backend(_i);
    if (be)
        compare_with_plain_c(be);
}
END_TEST

Suite *suite_cuda_kernels(void);
Suite *suite_cuda_kernels(void)
{
    Suite *s = suite_create("cuda_kernels");
    TCase *c = tcase_create("cuda_kernels");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, every_plain_kernel_has_a_case);
    tcase_add_test(c, cuda_agrees_with_plain_c);
    tcase_add_loop_test(c, emulated_agrees_with_plain_c, 0, 2);
    suite_add_tcase(s, c);
    return s;
}
