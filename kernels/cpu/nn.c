/* nn.c - the kernels of nn_loops.h for the CPU as it is: the loops of its instruction
 * set, cut over the threads.
 *
 * Elements are cut in whole blocks and rows are not cut at all, so every element is
 * computed by the same instructions whatever the cut, and sums run in one order. */
#include "kernels/cpu/fast.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/nn_table.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/split.h"

/* What one element costs, in steps of plain streaming. */
#define COST_CHEAP 1
#define COST_ELEMENTARY 6

static const struct mo_nn_loops *loops_of(const struct mo_device *dev)
{
#if defined(__x86_64__)
    if (dev->isa >= MO_ISA_AVX512)
        return &mo_nn_avx512;
    if (dev->isa >= MO_ISA_AVX2)
        return &mo_nn_avx2;
#endif
    (void)dev;
    return &mo_nn_c;
}

static int64_t blocks(size_t n)
{
    return (int64_t)((n + MO_NN_BLOCK - 1) / MO_NN_BLOCK);
}

/* Elements of the blocks begin to end of n. */
static size_t elements(int64_t begin, int64_t end, size_t n, size_t *first)
{
    *first = (size_t)begin * MO_NN_BLOCK;
    size_t last = (size_t)end * MO_NN_BLOCK;
    return (last < n ? last : n) - *first;
}

static int cost_of(enum mo_unary f)
{
    switch (f) {
    case MO_ABS: case MO_NEG: case MO_SQUARE: case MO_RELU: case MO_LEAKY_RELU: case MO_CLIP: case MO_HARD_SIGMOID:
    case MO_HARD_SWISH: case MO_FLOOR: case MO_CEIL: case MO_ROUND: case MO_SIGN: case MO_THRESHOLDED_RELU:
        return COST_CHEAP;
    default:
        return COST_ELEMENTARY;
    }
}

struct unary_job {
    const struct mo_nn_loops *loops;
    enum mo_unary f;
    float a, b;
    size_t n;
    const float *x, *y, *dy;
    float *out;
    bool add;
};

static void unary_part(void *arg, int64_t begin, int64_t end)
{
    const struct unary_job *j = arg;
    size_t at, n = elements(begin, end, j->n, &at);
    j->loops->unary(j->f, j->a, j->b, n, j->x + at, j->out + at);
}

void mo_cpu_unary(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x, float *y)
{
    struct unary_job j = {loops_of(dev), f, a, b, n, x, NULL, NULL, y, false};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK * cost_of(f)), unary_part, &j);
}

/* Not every function looks at x and at y, and what it does not look at may be NULL. */
static const float *shifted(const float *x, size_t at)
{
    return x ? x + at : NULL;
}

static void unary_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct unary_job *j = arg;
    size_t at, n = elements(begin, end, j->n, &at);
    j->loops->unary_grad(j->f, j->a, j->b, n, shifted(j->x, at), shifted(j->y, at), j->dy + at, j->out + at, j->add);
}

void mo_cpu_unary_grad(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const float *x,
                       const float *y, const float *dy, float *dx, bool add)
{
    struct unary_job j = {loops_of(dev), f, a, b, n, x, y, dy, dx, add};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK * cost_of(f)), unary_grad_part, &j);
}

/* The same over bfloat16: a block at a time is widened and rounded back. */
struct unary16_job {
    const struct mo_nn_loops *loops;
    const struct mo_loops *loops16;         /* NULL on the plain C tier */
    enum mo_unary f;
    float a, b;
    size_t n;
    const uint16_t *x, *y, *dy;
    uint16_t *out;
    bool add;
};

static void widen16(const struct mo_loops *loops, size_t n, const uint16_t *x, float *y)
{
    if (x && loops)
        loops->widen(n, x, y);
    for (size_t i = 0; x && !loops && i < n; i++)
        y[i] = mo_float_of_bf16(x[i]);
}

static void narrow16(const struct mo_loops *loops, size_t n, const float *x, uint16_t *y)
{
    if (loops)
        loops->narrow(n, x, y);
    for (size_t i = 0; !loops && i < n; i++)
        y[i] = mo_bf16_of_float(x[i]);
}

static const uint16_t *shifted16(const uint16_t *x, size_t at)
{
    return x ? x + at : NULL;
}

static void unary16_part(void *arg, int64_t begin, int64_t end)
{
    const struct unary16_job *j = arg;
    float v[MO_NN_BLOCK];
    for (; begin < end; begin++) {
        size_t at, n = elements(begin, begin + 1, j->n, &at);
        widen16(j->loops16, n, j->x + at, v);
        j->loops->unary(j->f, j->a, j->b, n, v, v);
        narrow16(j->loops16, n, v, j->out + at);
    }
}

void mo_cpu_unary_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x, uint16_t *y)
{
    struct unary16_job j = {loops_of(dev), dev->loops16, f, a, b, n, x, NULL, NULL, y, false};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK * cost_of(f)), unary16_part, &j);
}

static void unary16_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct unary16_job *j = arg;
    float x[MO_NN_BLOCK], y[MO_NN_BLOCK], dy[MO_NN_BLOCK], dx[MO_NN_BLOCK];
    size_t first, count = elements(begin, end, j->n, &first);
    if (j->f == MO_RELU && j->y && j->loops16 && !j->add) {
        j->loops16->relu_grad(count, j->y + first, j->dy + first, j->out + first);
        return;
    }
    for (; begin < end; begin++) {
        size_t at, n = elements(begin, begin + 1, j->n, &at);
        widen16(j->loops16, n, shifted16(j->x, at), x);
        widen16(j->loops16, n, shifted16(j->y, at), y);
        widen16(j->loops16, n, j->dy + at, dy);
        widen16(j->loops16, n, j->add ? j->out + at : NULL, dx);
        j->loops->unary_grad(j->f, j->a, j->b, n, j->x ? x : NULL, j->y ? y : NULL, dy, dx, j->add);
        narrow16(j->loops16, n, dx, j->out + at);
    }
}

void mo_cpu_unary_grad_bf16(struct mo_device *dev, enum mo_unary f, float a, float b, size_t n, const uint16_t *x,
                            const uint16_t *y, const uint16_t *dy, uint16_t *dx, bool add)
{
    struct unary16_job j = {loops_of(dev), dev->loops16, f, a, b, n, x, y, dy, dx, add};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK * cost_of(f)), unary16_grad_part, &j);
}

struct axpy16_job {
    const struct mo_loops *loops16;
    float a;
    const uint16_t *x;
    uint16_t *y;
    bool add;
};

static void axpy16_part(void *arg, int64_t begin, int64_t end)
{
    const struct axpy16_job *j = arg;
    const uint16_t *x = j->x;
    uint16_t *y = j->y;
    if (j->loops16 && x != y) {
        j->loops16->axpy16((size_t)(end - begin), j->a, x + begin, y + begin, j->add);
        return;
    }
    for (int64_t i = begin; i < end && j->add; i++)
        y[i] = mo_bf16_of_float(mo_float_of_bf16(y[i]) + j->a * mo_float_of_bf16(x[i]));
    for (int64_t i = begin; i < end && !j->add; i++)
        y[i] = mo_bf16_of_float(j->a * mo_float_of_bf16(x[i]));
}

void mo_cpu_axpy_bf16(struct mo_device *dev, size_t n, float a, const uint16_t *x, uint16_t *y, bool add)
{
    struct axpy16_job j = {dev->loops16, a, x, y, add};
    mo_split(dev, (int64_t)n, mo_split_grain(1), axpy16_part, &j);
}

struct softmax_job {
    const struct mo_nn_loops *loops;
    bool log, add;
    int64_t axis, inner;
    const float *x, *dy;
    float *out;
};

static void softmax_part(void *arg, int64_t begin, int64_t end)
{
    const struct softmax_job *j = arg;
    j->loops->softmax(j->log, begin, end, j->axis, j->inner, j->x, j->out);
}

void mo_cpu_softmax(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *x,
                    float *y)
{
    struct softmax_job j = {loops_of(dev), log, false, axis, inner, x, NULL, y};
    mo_split(dev, outer, mo_split_grain(axis * inner * COST_ELEMENTARY), softmax_part, &j);
}

static void softmax_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct softmax_job *j = arg;
    j->loops->softmax_grad(j->log, begin, end, j->axis, j->inner, j->x, j->dy, j->out, j->add);
}

void mo_cpu_softmax_grad(struct mo_device *dev, bool log, int64_t outer, int64_t axis, int64_t inner, const float *y,
                         const float *dy, float *dx, bool add)
{
    struct softmax_job j = {loops_of(dev), log, add, axis, inner, y, dy, dx};
    mo_split(dev, outer, mo_split_grain(axis * inner * COST_ELEMENTARY), softmax_grad_part, &j);
}

struct layernorm_job {
    const struct mo_nn_loops *loops;
    int64_t rows, n;
    float eps;
    const float *x, *scale, *bias, *dy;
    float *y, *mean, *inv_std;
    const float *given_mean, *given_inv_std;
    float *dscale, *dbias;
};

static void layernorm_part(void *arg, int64_t begin, int64_t end)
{
    const struct layernorm_job *j = arg;
    j->loops->layernorm(begin, end, j->n, j->eps, j->x, j->scale, j->bias, j->y, j->mean, j->inv_std);
}

void mo_cpu_layernorm(struct mo_device *dev, int64_t rows, int64_t n, float eps, const float *x, const float *scale,
                      const float *bias, float *y, float *mean, float *inv_std)
{
    struct layernorm_job j = {.loops = loops_of(dev), .rows = rows, .n = n, .eps = eps, .x = x, .scale = scale,
                              .bias = bias, .y = y, .mean = mean, .inv_std = inv_std};
    mo_split(dev, rows, mo_split_grain(3 * n), layernorm_part, &j);
}

static void layernorm_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct layernorm_job *j = arg;
    j->loops->layernorm_grad(begin, end, j->n, j->x, j->scale, j->given_mean, j->given_inv_std, j->dy, j->y);
}

/* Units are blocks of columns. */
static void layernorm_columns_part(void *arg, int64_t begin, int64_t end)
{
    const struct layernorm_job *j = arg;
    for (int64_t i = begin; i < end; i++) {
        int64_t last = (i + 1) * MO_NN_COLUMNS;
        j->loops->layernorm_columns(i * MO_NN_COLUMNS, last < j->n ? last : j->n, j->rows, j->n, j->x, j->given_mean,
                                    j->given_inv_std, j->dy, j->dscale, j->dbias);
    }
}

void mo_cpu_layernorm_grad(struct mo_device *dev, int64_t rows, int64_t n, const float *x, const float *scale,
                           const float *mean, const float *inv_std, const float *dy, float *dx, float *dscale,
                           float *dbias)
{
    struct layernorm_job j = {.loops = loops_of(dev), .rows = rows, .n = n, .x = x, .scale = scale, .dy = dy, .y = dx,
                              .given_mean = mean, .given_inv_std = inv_std, .dscale = dscale, .dbias = dbias};
    if (dx)
        mo_split(dev, rows, mo_split_grain(4 * n), layernorm_grad_part, &j);
    if (dscale || dbias)
        mo_split(dev, (n + MO_NN_COLUMNS - 1) / MO_NN_COLUMNS, mo_split_grain(rows * MO_NN_COLUMNS),
                 layernorm_columns_part, &j);
}

struct dropout_job {
    const struct mo_nn_loops *loops;
    uint64_t seed, stream;
    float p;
    size_t n;
    const float *x;
    float *y;
    uint8_t *mask;
    const uint8_t *given_mask;
    bool add;
};

static void dropout_part(void *arg, int64_t begin, int64_t end)
{
    const struct dropout_job *j = arg;
    size_t at, n = elements(begin, end, j->n, &at);
    j->loops->dropout(j->seed, j->stream, j->p, at, at + n, j->x, j->y, j->mask);
}

void mo_cpu_dropout(struct mo_device *dev, uint64_t seed, uint64_t stream, float p, size_t n, const float *x, float *y,
                    uint8_t *mask)
{
    struct dropout_job j = {loops_of(dev), seed, stream, p, n, x, y, mask, NULL, false};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK * COST_ELEMENTARY), dropout_part, &j);
}

static void dropout_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct dropout_job *j = arg;
    size_t at, n = elements(begin, end, j->n, &at);
    j->loops->dropout_grad(j->p, n, j->given_mask + at, j->x + at, j->y + at, j->add);
}

void mo_cpu_dropout_grad(struct mo_device *dev, float p, size_t n, const uint8_t *mask, const float *dy, float *dx,
                         bool add)
{
    struct dropout_job j = {loops_of(dev), 0, 0, p, n, dy, dx, NULL, mask, add};
    mo_split(dev, blocks(n), mo_split_grain(MO_NN_BLOCK), dropout_grad_part, &j);
}

struct csr_job {
    const struct mo_nn_loops *loops;
    int64_t m, n, k, width;
    const int64_t *row_start;
    const int32_t *column;
    const float *value, *b, *bias;
    bool tb;
    float *out;
};

static void gemm_csr_part(void *arg, int64_t begin, int64_t end)
{
    const struct csr_job *j = arg;
    j->loops->gemm_csr(begin, end, j->n, j->k, j->row_start, j->column, j->value, j->tb, j->b, j->bias, j->out);
}

void mo_cpu_gemm_csr(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                     const int32_t *column, const float *value, bool tb, const float *b, const float *bias, float *y)
{
    struct csr_job j = {loops_of(dev), m, n, k, 0, row_start, column, value, b, bias, tb, y};
    int64_t per_row = m ? n * (1 + (row_start[m] - row_start[0]) / m) : 1;
    mo_split(dev, m, mo_split_grain(per_row), gemm_csr_part, &j);
}

/* Each part looks through all of X for its columns, so parts are few and wide. */
#define MAX_CSR_PARTS 8

static void gemm_csr_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct csr_job *j = arg;
    int64_t last = end * j->width;
    j->loops->gemm_csr_grad(begin * j->width, last < j->k ? last : j->k, j->m, j->n, j->k, j->row_start, j->column,
                            j->value, j->tb, j->b, j->out);
}

void mo_cpu_gemm_csr_grad(struct mo_device *dev, int64_t m, int64_t n, int64_t k, const int64_t *row_start,
                          const int32_t *column, const float *value, bool tb, const float *dy, float *db)
{
    int64_t width = 1 + (k - 1) / MAX_CSR_PARTS;
    struct csr_job j = {loops_of(dev), m, n, k, width, row_start, column, value, dy, NULL, tb, db};
    int64_t steps = n * (k + (m ? row_start[m] - row_start[0] : 0)) / MAX_CSR_PARTS;
    mo_split(dev, k ? (k + j.width - 1) / j.width : 0, mo_split_grain(steps), gemm_csr_grad_part, &j);
}

/* ---- recurrent cells ---- */

#define COST_CELL (5 * COST_ELEMENTARY)

struct cell_job {
    const struct mo_nn_loops *loops;
    const struct mo_cell *d;
    float *gates, *h, *c, *extra, *dh, *dc;
    const float *peep, *given_extra, *before_h, *before_c, *given_c, *dy;
};

static void cell_part(void *arg, int64_t begin, int64_t end)
{
    const struct cell_job *j = arg;
    j->loops->cell(j->d, begin, end, j->gates, j->peep, j->given_extra, j->before_h, j->before_c, j->h, j->c);
}

void mo_cpu_cell(struct mo_device *dev, const struct mo_cell *d, float *gates, const float *peep, const float *extra,
                 const float *before_h, const float *before_c, float *h, float *c)
{
    struct cell_job j = {.loops = loops_of(dev), .d = d, .gates = gates, .peep = peep, .given_extra = extra,
                         .before_h = before_h, .before_c = before_c, .h = h, .c = c};
    mo_split(dev, d->batch, mo_split_grain(d->hidden * COST_CELL), cell_part, &j);
}

static void cell_grad_part(void *arg, int64_t begin, int64_t end)
{
    const struct cell_job *j = arg;
    j->loops->cell_grad(j->d, begin, end, j->gates, j->peep, j->extra, j->before_h, j->before_c, j->given_c, j->dy, j->dh,
                        j->dc);
}

void mo_cpu_cell_grad(struct mo_device *dev, const struct mo_cell *d, float *gates, const float *peep, float *extra,
                      const float *before_h, const float *before_c, const float *c, const float *dy, float *dh, float *dc)
{
    struct cell_job j = {.loops = loops_of(dev), .d = d, .gates = gates, .peep = peep, .extra = extra, .before_h = before_h,
                         .before_c = before_c, .given_c = c, .dy = dy, .dh = dh, .dc = dc};
    mo_split(dev, d->batch, mo_split_grain(d->hidden * COST_CELL), cell_grad_part, &j);
}
