/* ref_move.c - fill, strided copies and sums, gather: plain C.
 *
 * copy_strided orders the axes so that y is written in its own order. What then
 * remains is either a contiguous row, or a transpose of two axes (channels first
 * to last and back), which is done in tiles that stay in the first cache. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/loop.h"
#include "kernels/cpu/split.h"

#include <stdlib.h>
#include <string.h>

/* ---- fill ---- */

#define FILL(T)                                                                                                 \
    {                                                                                                           \
        T v;                                                                                                    \
        memcpy(&v, value, sizeof v);                                                                            \
        for (size_t i = 0; i < n; i++)                                                                          \
            ((T *)y)[i] = v;                                                                                    \
        break;                                                                                                  \
    }

void mo_ref_fill(struct mo_device *dev, size_t elem_bytes, size_t n, const void *value, void *y)
{
    (void)dev;
    if (!n)
        return;
    switch (elem_bytes) {
    case 1: memset(y, *(const unsigned char *)value, n); break;
    case 2: FILL(uint16_t)
    case 4: FILL(uint32_t)
    case 8: FILL(uint64_t)
    default: FILL(struct mo_bytes16)
    }
}

/* ---- copy ---- */

struct copy_work {
    struct mo_loop loop;        /* operand 0: y, 1: x; of the rows, or of the planes when transposing */
    int64_t elem_bytes;
    const char *x;
    char *y;
    /* transpose: y[j * p_sy + i] = x[j + i * q_sx], j < p, i < q, at each row of the loop */
    int64_t p, q, p_sy, q_sx;
};

#define ROW_OF(T)                                                                                               \
    {                                                                                                           \
        const T *in = px;                                                                                       \
        T *out = py;                                                                                            \
        if (sx == 0 && sy == 1) {                                                                               \
            T v = *in;                                                                                          \
            for (int64_t i = 0; i < n; i++)                                                                     \
                out[i] = v;                                                                                     \
        } else {                                                                                                \
            for (int64_t i = 0; i < n; i++)                                                                     \
                out[i * sy] = in[i * sx];                                                                       \
        }                                                                                                       \
        break;                                                                                                  \
    }

static void copy_row(int64_t elem_bytes, int64_t n, const void *px, int64_t sx, void *py, int64_t sy)
{
    if (sx == 1 && sy == 1 && n * elem_bytes >= 32) {
        memcpy(py, px, (size_t)(n * elem_bytes));
        return;
    }
    switch (elem_bytes) {
    case 1: ROW_OF(uint8_t)
    case 2: ROW_OF(uint16_t)
    case 4: ROW_OF(uint32_t)
    case 8: ROW_OF(uint64_t)
    default: ROW_OF(struct mo_bytes16)
    }
}

/* Tiles of TILE x TILE: reads run along x, writes along y, and both fit the first cache. */
enum { TILE = 16 };
#define TRANSPOSE(T)                                                                                            \
    {                                                                                                           \
        const T *in = px;                                                                                       \
        T *out = py;                                                                                            \
        for (int64_t j0 = begin; j0 < end; j0 += TILE)                                                          \
            for (int64_t i0 = 0; i0 < w->q; i0 += TILE) {                                                       \
                int64_t j1 = j0 + TILE < end ? j0 + TILE : end, i1 = i0 + TILE < w->q ? i0 + TILE : w->q;       \
                for (int64_t j = j0; j < j1; j++)                                                               \
                    for (int64_t i = i0; i < i1; i++)                                                           \
                        out[j * w->p_sy + i] = in[j + i * w->q_sx];                                             \
            }                                                                                                   \
        break;                                                                                                  \
    }

static void transpose(const struct copy_work *w, const void *px, void *py, int64_t begin, int64_t end)
{
    switch (w->elem_bytes) {
    case 1: TRANSPOSE(uint8_t)
    case 2: TRANSPOSE(uint16_t)
    case 4: TRANSPOSE(uint32_t)
    case 8: TRANSPOSE(uint64_t)
    default: TRANSPOSE(struct mo_bytes16)
    }
}

static void copy_rows(void *arg, int64_t begin, int64_t end)
{
    const struct copy_work *w = arg;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX];
    int last = w->loop.rank - 1;
    mo_loop_seek(&w->loop, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(&w->loop, index, offset))
        copy_row(w->elem_bytes, w->loop.row, w->x + offset[1] * w->elem_bytes, w->loop.stride[1][last],
                 w->y + offset[0] * w->elem_bytes, w->loop.stride[0][last]);
}

static void copy_elems(void *arg, int64_t begin, int64_t end)
{
    const struct copy_work *w = arg;
    int64_t sy = w->loop.stride[0][0], sx = w->loop.stride[1][0];
    copy_row(w->elem_bytes, end - begin, w->x + begin * sx * w->elem_bytes, sx, w->y + begin * sy * w->elem_bytes, sy);
}

/* Units are strips of STRIP columns p of a plane, plane by plane. */
enum { STRIP = 64 };
static void copy_planes(void *arg, int64_t begin, int64_t end)
{
    const struct copy_work *w = arg;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], n_strips = (w->p + STRIP - 1) / STRIP;
    for (int64_t u = begin; u < end; u++) {
        int64_t plane = u / n_strips, j = u % n_strips * STRIP;
        mo_loop_seek(&w->loop, plane, index, offset);
        transpose(w, w->x + offset[1] * w->elem_bytes, w->y + offset[0] * w->elem_bytes, j,
                  j + STRIP < w->p ? j + STRIP : w->p);
    }
}

/* The axes sorted by y's stride, largest first, stable: y is then written in memory order. */
static void order_by_y(int rank, int64_t *dims, int64_t *sy, int64_t *sx)
{
    for (int i = 1; i < rank; i++)
        for (int j = i; j > 0 && llabs(sy[j]) > llabs(sy[j - 1]); j--) {
            int64_t *const lists[] = { dims, sy, sx };
            for (int k = 0; k < 3; k++) {
                int64_t t = lists[k][j];
                lists[k][j] = lists[k][j - 1];
                lists[k][j - 1] = t;
            }
        }
}

/* Takes the pair of axes to transpose out of the loop: the last (y runs along it) and the one x runs along.
 * The loop then walks planes; its row becomes one element. */
static bool take_plane(struct copy_work *w)
{
    struct mo_loop *l = &w->loop;
    int last = l->rank - 1, along = -1;
    if (l->stride[0][last] != 1 || l->stride[1][last] == 1 || l->stride[1][last] == 0)
        return false;
    for (int axis = 0; axis < last; axis++)
        if (l->stride[1][axis] == 1)
            along = axis;
    if (along < 0 || l->dims[along] * l->dims[last] < 16)
        return false;
    w->p = l->dims[along], w->p_sy = l->stride[0][along];
    w->q = l->dims[last], w->q_sx = l->stride[1][last];
    l->dims[last] = l->row = 1;
    for (int axis = along; axis < last; axis++) {
        l->dims[axis] = l->dims[axis + 1];
        l->stride[0][axis] = l->stride[0][axis + 1];
        l->stride[1][axis] = l->stride[1][axis + 1];
    }
    l->rank--;
    l->n_rows /= w->p;
    return true;
}

void mo_ref_copy_strided(struct mo_device *dev, size_t elem_bytes, int rank, const int64_t *dims,
                         const int64_t *stride_x, const int64_t *stride_y, const void *x, void *y)
{
    struct copy_work w = { .elem_bytes = (int64_t)elem_bytes, .x = x, .y = y };
    int64_t d[MO_K_MAX_RANK], sy[MO_K_MAX_RANK], sx[MO_K_MAX_RANK];
    for (int axis = 0; axis < rank; axis++)
        d[axis] = dims[axis], sy[axis] = stride_y[axis], sx[axis] = stride_x[axis];
    order_by_y(rank, d, sy, sx);
    const int64_t *const strides[] = { sy, sx };
    mo_loop_init(&w.loop, rank, d, 2, strides);
    if (w.loop.n_rows > 1 && take_plane(&w)) {
        int64_t n_strips = (w.p + STRIP - 1) / STRIP;
        mo_split(dev, w.loop.n_rows * n_strips, mo_split_grain((w.p < STRIP ? w.p : STRIP) * w.q), copy_planes, &w);
    } else if (w.loop.n_rows == 1) {
        mo_split(dev, w.loop.row, mo_split_grain(1), copy_elems, &w);
    } else {
        mo_split(dev, w.loop.n_rows, mo_split_grain(w.loop.row), copy_rows, &w);
    }
}

/* ---- y[strided] += x[strided] ---- */

/* Eight running sums, added as a tree: fixed whatever the compiler makes of it. */
static float row_sum(int64_t n, const float *x, int64_t sx)
{
    double lane[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            lane[k] += x[(i + k) * sx];
    for (; i < n; i++)
        lane[i & 7] += x[i * sx];
    return (float)(((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])));
}

static void add_row(int64_t n, const float *x, int64_t sx, float *y, int64_t sy)
{
    if (sy == 0)
        *y += row_sum(n, x, sx);
    else if (sx == 1 && sy == 1)
        for (int64_t i = 0; i < n; i++)
            y[i] += x[i];
    else
        for (int64_t i = 0; i < n; i++)
            y[i * sy] += x[i * sx];
}

struct add_work {
    struct mo_loop kept, summed;    /* operand 0: y, 1: x */
    const float *x;
    float *y;
};

/* Columns start .. start+n-1 of the row at x, y: all terms are added up in float64 first. */
enum { COLUMNS = 64 };
static void add_columns(const struct add_work *w, const float *x, float *y, int64_t start, int64_t n)
{
    const struct mo_loop *k = &w->kept, *s = &w->summed;
    int64_t sx = k->stride[1][k->rank - 1], sy = k->stride[0][k->rank - 1], step = s->stride[1][s->rank - 1];
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX];
    double sum[COLUMNS] = { 0 };
    mo_loop_seek(s, 0, index, offset);
    for (int64_t r = 0; r < s->n_rows; r++, mo_loop_next(s, index, offset))
        for (int64_t i = 0; i < s->row; i++) {
            const float *in = x + offset[1] + i * step + start * sx;
            if (sx == 1)
                for (int64_t j = 0; j < n; j++)
                    sum[j] += in[j];
            else
                for (int64_t j = 0; j < n; j++)
                    sum[j] += in[j * sx];
        }
    for (int64_t j = 0; j < n; j++)
        y[(start + j) * sy] += (float)sum[j];
}

/* Units: blocks of COLUMNS of each kept row. */
static void add_blocks(void *arg, int64_t begin, int64_t end)
{
    const struct add_work *w = arg;
    const struct mo_loop *k = &w->kept;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], per_row = (k->row + COLUMNS - 1) / COLUMNS;
    for (int64_t u = begin; u < end; u++) {
        int64_t start = u % per_row * COLUMNS, n = k->row - start < COLUMNS ? k->row - start : COLUMNS;
        mo_loop_seek(k, u / per_row, index, offset);
        add_columns(w, w->x + offset[1], w->y + offset[0], start, n);
    }
}

/* Nothing is summed: row by row. Or sums run along x's rows: one y at a time. */
static void add_rows(void *arg, int64_t begin, int64_t end)
{
    const struct add_work *w = arg;
    const struct mo_loop *k = &w->kept;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX];
    int last = k->rank - 1;
    mo_loop_seek(k, begin, index, offset);
    for (int64_t i = begin; i < end; i++, mo_loop_next(k, index, offset))
        add_row(k->row, w->x + offset[1], k->stride[1][last], w->y + offset[0], k->stride[0][last]);
}

static void add_dots(void *arg, int64_t begin, int64_t end)
{
    const struct add_work *w = arg;
    const struct mo_loop *k = &w->kept, *s = &w->summed;
    int64_t index[MO_K_MAX_RANK], offset[MO_LOOP_MAX], in_index[MO_K_MAX_RANK], in_offset[MO_LOOP_MAX];
    int64_t sx = s->stride[1][s->rank - 1];
    for (int64_t u = begin; u < end; u++) {
        mo_loop_seek(k, u / k->row, index, offset);
        int64_t j = u % k->row;
        const float *x = w->x + offset[1] + j * k->stride[1][k->rank - 1];
        float *y = w->y + offset[0] + j * k->stride[0][k->rank - 1];
        double sum = 0;
        mo_loop_seek(s, 0, in_index, in_offset);
        for (int64_t r = 0; r < s->n_rows; r++, mo_loop_next(s, in_index, in_offset))
            sum += row_sum(s->row, x + in_offset[1], sx);
        *y += (float)sum;
    }
}

/* Axes along which y does not move are summed over. */
void mo_ref_add_strided(struct mo_device *dev, int rank, const int64_t *dims, const int64_t *stride_x,
                        const int64_t *stride_y, const float *x, float *y)
{
    struct add_work w = { .x = x, .y = y };
    int64_t d[2][MO_K_MAX_RANK] = { 0 }, sx[2][MO_K_MAX_RANK], sy[2][MO_K_MAX_RANK], n_summed = 1;
    int n[2] = { 0, 0 };
    for (int axis = 0; axis < rank; axis++) {
        int part = stride_y[axis] == 0;
        d[part][n[part]] = dims[axis];
        sx[part][n[part]] = stride_x[axis];
        sy[part][n[part]++] = stride_y[axis];
        n_summed *= part ? dims[axis] : 1;
    }
    const int64_t *const kept[] = { sy[0], sx[0] }, *const summed[] = { sy[1], sx[1] };
    mo_loop_init(&w.kept, n[0], d[0], 2, kept);
    mo_loop_init(&w.summed, n[1], d[1], 2, summed);
    if (n_summed == 0 || w.kept.n_rows == 0)
        return;
    if (n_summed == 1)
        mo_split(dev, w.kept.n_rows, mo_split_grain(w.kept.row), add_rows, &w);
    else if (w.summed.stride[1][w.summed.rank - 1] == 1 && w.summed.row >= 8)
        mo_split(dev, w.kept.n_rows * w.kept.row, mo_split_grain(n_summed), add_dots, &w);
    else
        mo_split(dev, w.kept.n_rows * ((w.kept.row + COLUMNS - 1) / COLUMNS), mo_split_grain(n_summed * COLUMNS),
                 add_blocks, &w);
}

/* ---- gather ---- */

struct gather_work {
    struct mo_device *dev;
    int64_t axis, n_index, inner_bytes;
    const char *x;
    const int64_t *index;
    char *y;
};

/* Index i of axis, from the end when negative; -1 (and an error) when it is out of range. */
static int64_t checked(struct mo_device *dev, int64_t i, int64_t axis)
{
    int64_t at = i < 0 ? i + axis : i;
    if (at >= 0 && at < axis)
        return at;
    mo_device_latch(dev, "gather: index %lld is outside an axis of %lld", (long long)i, (long long)axis);
    return -1;
}

static void gather_rows(void *arg, int64_t begin, int64_t end)
{
    const struct gather_work *w = arg;
    size_t bytes = (size_t)w->inner_bytes;
    for (int64_t u = begin; u < end; u++) {
        int64_t at = checked(w->dev, w->index[u % w->n_index], w->axis);
        if (at < 0)
            memset(w->y + u * w->inner_bytes, 0, bytes);
        else
            memcpy(w->y + u * w->inner_bytes, w->x + (u / w->n_index * w->axis + at) * w->inner_bytes, bytes);
    }
}

void mo_ref_gather(struct mo_device *dev, size_t elem_bytes, int64_t outer, int64_t axis, int64_t n_index,
                   int64_t inner, const void *x, const int64_t *index, void *y)
{
    struct gather_work w = { dev, axis, n_index, inner * (int64_t)elem_bytes, x, index, y };
    mo_split(dev, outer * n_index, mo_split_grain(inner), gather_rows, &w);
}

void mo_ref_gather_grad(struct mo_device *dev, int64_t outer, int64_t axis, int64_t n_index, int64_t inner,
                        const float *dy, const int64_t *index, float *dx)
{
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < n_index; i++) {
            int64_t at = checked(dev, index[i], axis);
            if (at < 0)
                continue;
            float *to = dx + (o * axis + at) * inner;
            const float *from = dy + (o * n_index + i) * inner;
            for (int64_t k = 0; k < inner; k++)
                to[k] += from[k];
        }
}
