/* gemm16.c - products of bfloat16 matrices: packing, cutting and what follows a product.
 *
 * As much of B as fits is packed into the device's workspace; then each slice packs
 * some rows of A at a time into its own part of it and multiplies them while they are
 * near, in blocks of 32 x 32 over a whole chunk of k. The sum of an element runs over k
 * in order whatever the cut. Small products are done in one go by the thread that has
 * them. */
#include "kernels/cpu/gemm16.h"

#include <string.h>

#include "kernels/cpu/act.h"
#include "kernels/cpu/fast.h"
#include "kernels/cpu/small_float.h"
#include "kernels/cpu/split.h"
#include "kernels/cpu/team.h"

enum { F32 = 1 };                       /* ONNX's number; the other is 16 */

#define BLOCK 32                        /* two tiles */
#define HALF_ELEMS ((int64_t)(MO_WORKSPACE_BYTES / 4))      /* of the workspace, for A and for B */
#define K_CHUNK 2048                    /* k at once where sums go on in a float32 result */
#define SMALL_TILES 48                  /* of both operands: on a thread's stack */
#define SLICE_MACS (8 << 20)
#define MAX_SLICES 16
#define MAX_ROWS 256                    /* of A packed at a time */

/* ---- plain C ------------------------------------------------------------------------ */

static void nothing(void)
{
}

static uint16_t element(const struct mo_pack16 *p, int64_t x, int64_t k)
{
    int64_t at = x * p->step_x + k * p->step_k;
    if (x >= p->n_x || k >= p->n_k)
        return 0;
    return p->is_f32 ? mo_bf16_of_float(((const float *)p->from)[at]) : ((const uint16_t *)p->from)[at];
}

static void pack_c(const struct mo_pack16 *p)
{
    uint16_t *to = p->to;
    for (int64_t k = 0; k < p->n_k; k += MO_TILE16_K, to += MO_TILE16_ELEMS)
        for (int i = 0; i < MO_TILE16_ELEMS; i++) {
            int row = i / MO_TILE16_K, pair = i % MO_TILE16_K / 2, odd = i % 2;
            to[i] = p->as_b ? element(p, pair, k + 2 * row + odd) : element(p, row, k + 2 * pair + odd);
        }
}

/* One tile by one tile: 16 x 16 sums in rows of 32. */
static void product_of_tiles(int64_t n_tiles, const uint16_t *a, const uint16_t *b, float *restrict c)
{
    for (int i = 0; i < MO_TILE16; i++)
        memset(c + i * BLOCK, 0, MO_TILE16 * sizeof *c);
    for (int64_t t = 0; t < n_tiles; t++, a += MO_TILE16_ELEMS, b += MO_TILE16_ELEMS)
        for (int row = 0; row < MO_TILE16; row++) {
            float low[MO_TILE16], high[MO_TILE16];
            for (int j = 0; j < MO_TILE16; j++) {
                low[j] = mo_float_of_bf16(b[row * MO_TILE16_K + 2 * j]);
                high[j] = mo_float_of_bf16(b[row * MO_TILE16_K + 2 * j + 1]);
            }
            for (int i = 0; i < MO_TILE16; i++) {
                float first = mo_float_of_bf16(a[i * MO_TILE16_K + 2 * row]);
                float second = mo_float_of_bf16(a[i * MO_TILE16_K + 2 * row + 1]);
                for (int j = 0; j < MO_TILE16; j++)
                    c[i * BLOCK + j] += first * low[j] + second * high[j];
            }
        }
}

static void product_c(const struct mo_product16 *p)
{
    for (int i = 0; i <= p->two_rows; i++)
        for (int j = 0; j <= p->two_columns; j++)
            product_of_tiles(p->n_tiles, p->a + i * p->a_step, p->b + j * p->b_step,
                             p->c + i * MO_TILE16 * BLOCK + j * MO_TILE16);
}

void mo_finish16_c(const struct mo_finish16 *f)
{
    for (int64_t i = 0; i < f->rows; i++)
        for (int64_t j = 0; j < f->columns; j++) {
            float *y32 = (float *)f->y + i * f->ldy + j, v = f->alpha * f->c[i * BLOCK + j];
            uint16_t *y16 = (uint16_t *)f->y + i * f->ldy + j;
            if (f->beta != 0)
                v += f->beta * (f->to_f32 ? *y32 : mo_float_of_bf16(*y16));
            v = mo_act(f->act, f->act_lo, f->act_hi, f->bias ? v + f->bias[j] : v);
            if (f->to_f32)
                *y32 = v;
            else
                *y16 = mo_bf16_of_float(v);
        }
}

const struct mo_gemm16_loops mo_gemm16_c = {
    .begin = nothing, .end = nothing, .pack = pack_c, .product = product_c, .finish = mo_finish16_c,
};

/* ---- one product ---------------------------------------------------------------------- */

struct matrix {
    int type;
    const char *data;
    int64_t step_x, step_k;     /* x: rows of A, columns of B */
};

struct product {
    const struct mo_gemm16_loops *loops;
    struct matrix a, b;
    int64_t m, n, k, ldc;
    float alpha, beta;
    int type_c;
    char *c;
    const struct mo_epilogue *e;
    /* the part that is being done: rows m0.., columns n0.., k0.. */
    int64_t m0, mc, n0, nc, k0, kc;
    bool is_first, is_last;     /* of the chunks of k */
    uint16_t *packed_a, *packed_b;
    int64_t row_slices, column_slices;
};

static int64_t ceil_div(int64_t n, int64_t d)
{
    return (n + d - 1) / d;
}

static size_t bytes_of(int type)
{
    return type == F32 ? sizeof(float) : sizeof(uint16_t);
}

static int64_t tile_row(const struct product *p)        /* elements of one row of packed tiles */
{
    return ceil_div(p->kc, MO_TILE16_K) * MO_TILE16_ELEMS;
}

/* Tile row i: those of A first, then those of B. */
static void pack_one(const struct product *p, int64_t i)
{
    int64_t of_a = ceil_div(p->mc, MO_TILE16);
    bool is_b = i >= of_a;
    const struct matrix *m = is_b ? &p->b : &p->a;
    int64_t at = (is_b ? i - of_a : i) * MO_TILE16, left = (is_b ? p->nc : p->mc) - at;
    int64_t first = (is_b ? p->n0 : p->m0) + at;
    struct mo_pack16 pack = {
        .from = m->data + (size_t)(first * m->step_x + p->k0 * m->step_k) * bytes_of(m->type),
        .is_f32 = m->type == F32, .as_b = is_b, .step_x = m->step_x, .step_k = m->step_k,
        .n_x = left < MO_TILE16 ? left : MO_TILE16, .n_k = p->kc,
        .to = (is_b ? p->packed_b : p->packed_a) + at / MO_TILE16 * tile_row(p),
    };
    p->loops->pack(&pack);
}

static void multiply_block(const struct product *p, int64_t i, int64_t j)
{
    float c[BLOCK * BLOCK] __attribute__((aligned(64)));
    int64_t each = tile_row(p), rows = p->mc - i * BLOCK, columns = p->nc - j * BLOCK;
    struct mo_product16 product = {
        .a = p->packed_a + 2 * i * each, .b = p->packed_b + 2 * j * each, .n_tiles = ceil_div(p->kc, MO_TILE16_K),
        .a_step = each, .b_step = each, .two_rows = rows > MO_TILE16, .two_columns = columns > MO_TILE16, .c = c,
    };
    p->loops->product(&product);
    int64_t column = p->n0 + j * BLOCK;
    struct mo_finish16 f = {
        .c = c, .rows = rows < BLOCK ? rows : BLOCK, .columns = columns < BLOCK ? columns : BLOCK, .ldy = p->ldc,
        .alpha = p->alpha, .beta = p->is_first ? p->beta : 1, .to_f32 = p->type_c == F32,
        .y = p->c + (size_t)((p->m0 + i * BLOCK) * p->ldc + column) * bytes_of(p->type_c),
    };
    if (p->is_last && p->e) {
        f.bias = p->e->bias ? p->e->bias + column : NULL;
        f.act = p->e->act;
        f.act_lo = p->e->act_lo;
        f.act_hi = p->e->act_hi;
    }
    p->loops->finish(&f);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Elements of A's half of the workspace that a slice has, and the rows that it packs at a time. */
static int64_t slice_elems(const struct product *p)
{
    return HALF_ELEMS / (p->row_slices * p->column_slices) / BLOCK * BLOCK;
}

static int64_t rows_at_once(const struct product *p)
{
    int64_t fit = slice_elems(p) / tile_row(p) / 2 * BLOCK;
    return fit < MAX_ROWS ? fit : MAX_ROWS;
}

/* Blocks of rows r of row_slices, of columns c of column_slices. */
static void multiply_slice(void *arg, int slice)
{
    struct product p = *(const struct product *)arg;
    int64_t rows = ceil_div(p.m, BLOCK), columns = ceil_div(p.nc, BLOCK);
    int64_t r = slice / p.column_slices, c = slice % p.column_slices;
    int64_t row = r * rows / p.row_slices * BLOCK, last_row = smaller((r + 1) * rows / p.row_slices * BLOCK, p.m);
    int64_t first = c * columns / p.column_slices, last = (c + 1) * columns / p.column_slices;
    p.packed_a += slice * slice_elems(&p);
    p.loops->begin();
    for (; row < last_row; row += rows_at_once(&p)) {
        p.m0 = row;
        p.mc = smaller(rows_at_once(&p), last_row - row);
        for (int64_t i = 0; i < ceil_div(p.mc, MO_TILE16); i++)
            pack_one(&p, i);
        for (int64_t j = first; j < last; j++)
            for (int64_t i = 0; i < ceil_div(p.mc, BLOCK); i++)
                multiply_block(&p, i, j);
    }
    p.loops->end();
}

static void pack_b_range(void *arg, int64_t begin, int64_t end)
{
    const struct product *p = arg;
    for (; begin < end; begin++)
        pack_one(p, ceil_div(p->mc, MO_TILE16) + begin);
}

/* One chunk of k, in parts of B that fit. Every slice needs room for a block of rows. */
static void multiply_chunk(struct mo_device *dev, struct product *p)
{
    int64_t fit = HALF_ELEMS / tile_row(p) / 2 * BLOCK, most = smaller(MAX_SLICES, HALF_ELEMS / (2 * tile_row(p)));
    p->m0 = p->mc = 0;
    for (p->n0 = 0; p->n0 < p->n; p->n0 += fit) {
        p->nc = smaller(fit, p->n - p->n0);
        double work = (double)p->m * (double)p->nc * (double)p->kc / SLICE_MACS;
        int64_t wanted = work < 1 ? 1 : work > (double)most ? most : (int64_t)work;
        p->row_slices = smaller(wanted, ceil_div(p->m, BLOCK));
        p->column_slices = smaller(wanted / p->row_slices, ceil_div(p->nc, BLOCK));
        mo_split(dev, ceil_div(p->nc, MO_TILE16), mo_split_grain(MO_TILE16 * p->kc / 4), pack_b_range, p);
        mo_team_run(dev->team, (int)(p->row_slices * p->column_slices), multiply_slice, p);
    }
}

static bool is_small(const struct product *p)
{
    return (ceil_div(p->m, MO_TILE16) + ceil_div(p->n, MO_TILE16)) * ceil_div(p->k, MO_TILE16_K) <= SMALL_TILES;
}

/* All of it here and now, on this thread's stack. */
static void multiply_small(struct product *p)
{
    uint16_t packed[SMALL_TILES * MO_TILE16_ELEMS] __attribute__((aligned(64)));
    p->mc = p->m;
    p->nc = p->n;
    p->kc = p->k;
    p->is_first = p->is_last = true;
    p->packed_a = packed;
    p->packed_b = packed + ceil_div(p->m, MO_TILE16) * tile_row(p);
    for (int64_t i = 0; i < ceil_div(p->m, MO_TILE16) + ceil_div(p->n, MO_TILE16); i++)
        pack_one(p, i);
    for (int64_t i = 0; i < ceil_div(p->m, BLOCK); i++)
        for (int64_t j = 0; j < ceil_div(p->n, BLOCK); j++)
            multiply_block(p, i, j);
}

static const struct mo_gemm16_loops *loops_of(const struct mo_device *dev)
{
#if defined(__x86_64__)
    if (dev->isa >= MO_ISA_AMX)
        return &mo_gemm16_amx;
#endif
    (void)dev;
    return &mo_gemm16_c;
}

static struct product product_of(const struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k,
                                 float alpha, int type_a, const void *a, int64_t lda, int type_b, const void *b,
                                 int64_t ldb, float beta, int type_c, void *c, int64_t ldc, const struct mo_epilogue *e)
{
    return (struct product){ .loops = loops_of(dev), .m = m, .n = n, .k = k, .ldc = ldc, .alpha = alpha, .beta = beta,
                             .a = { type_a, a, ta ? 1 : lda, ta ? lda : 1 }, .b = { type_b, b, tb ? ldb : 1, tb ? 1 : ldb },
                             .type_c = type_c, .c = c, .e = e };
}

/* Sums that go on in a bfloat16 result would be rounded in between; k is longer than anybody's then. */
static bool is_fast(int64_t k, int type_c)
{
    return k > 0 && (type_c == F32 || k * BLOCK <= HALF_ELEMS);
}

void mo_cpu_gemm_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, int type_a,
                      const void *a, int64_t lda, int type_b, const void *b, int64_t ldb, float beta, int type_c, void *c,
                      int64_t ldc, const struct mo_epilogue *e)
{
    if (m <= 0 || n <= 0)
        return;
    if (!is_fast(k, type_c)) {
        mo_ref_gemm_bf16(dev, ta, tb, m, n, k, alpha, type_a, a, lda, type_b, b, ldb, beta, type_c, c, ldc, e);
        return;
    }
    struct product p = product_of(dev, ta, tb, m, n, k, alpha, type_a, a, lda, type_b, b, ldb, beta, type_c, c, ldc, e);
    if (is_small(&p)) {
        p.loops->begin();
        multiply_small(&p);
        p.loops->end();
        return;
    }
    p.packed_a = dev->workspace;
    p.packed_b = p.packed_a + HALF_ELEMS;
    int64_t chunk = type_c == F32 ? K_CHUNK : k;
    for (p.k0 = 0; p.k0 < k; p.k0 += chunk) {
        p.kc = smaller(chunk, k - p.k0);
        p.is_first = p.k0 == 0;
        p.is_last = p.k0 + p.kc == k;
        multiply_chunk(dev, &p);
    }
}

struct batch {
    struct product p;
    const int64_t *offset_a, *offset_b, *offset_c;
};

static void batch_range(void *arg, int64_t begin, int64_t end)
{
    const struct batch *b = arg;
    b->p.loops->begin();
    for (; begin < end; begin++) {
        struct product p = b->p;
        p.a.data += (size_t)b->offset_a[begin] * bytes_of(p.a.type);
        p.b.data += (size_t)b->offset_b[begin] * bytes_of(p.b.type);
        p.c += (size_t)b->offset_c[begin] * bytes_of(p.type_c);
        multiply_small(&p);
    }
    b->p.loops->end();
}

void mo_cpu_gemm_batched_bf16(struct mo_device *dev, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                              int type_a, const void *a, int64_t lda, const int64_t *offset_a, int type_b, const void *b,
                              int64_t ldb, const int64_t *offset_b, float beta, int type_c, void *c, int64_t ldc,
                              const int64_t *offset_c, int64_t n_batch)
{
    if (m <= 0 || n <= 0 || n_batch <= 0)
        return;
    struct batch all = { product_of(dev, ta, tb, m, n, k, alpha, type_a, a, lda, type_b, b, ldb, beta, type_c, c, ldc, NULL),
                         offset_a, offset_b, offset_c };
    if (k > 0 && is_small(&all.p)) {
        mo_split(dev, n_batch, mo_split_grain(m * n * k / 64 + (m + n) * k / 4), batch_range, &all);
        return;
    }
    for (int64_t i = 0; i < n_batch; i++)
        mo_cpu_gemm_bf16(dev, ta, tb, m, n, k, alpha, type_a, (const char *)a + (size_t)offset_a[i] * bytes_of(type_a), lda,
                         type_b, (const char *)b + (size_t)offset_b[i] * bytes_of(type_b), ldb, beta, type_c,
                         (char *)c + (size_t)offset_c[i] * bytes_of(type_c), ldc, NULL);
}
