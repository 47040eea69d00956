/* qconv_amx.c - products of qconv.h on AMX: two tiles of 16 rows by two panels,
 * a step of up to 64 bytes of k at a time. What follows the sums is AVX-512's. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/qconv.h"

/* tile registers; the intrinsics want literals */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* GCC's tile intrinsics do not say that they read memory: what they read must have been written. */
#define IN_MEMORY(p) __asm__ volatile("" : : "r"(p) : "memory")

struct config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void begin(int step)
{
    struct config c = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)(i < B0 ? 16 : step);
        c.row_bytes[i] = (uint16_t)(i == A0 || i == A1 ? step * 4 : 64);
    }
    IN_MEMORY(&c);
    _tile_loadconfig(&c);
}

static void end(void)
{
    _tile_release();
}

#define ZERO(two_rows, two_panels)                                  \
    _tile_zero(C00);                                                \
    if (two_panels)                                                 \
        _tile_zero(C01);                                            \
    if (two_rows)                                                   \
        _tile_zero(C10);                                            \
    if (two_rows && two_panels)                                     \
        _tile_zero(C11);

/* Both flags are constants where this is inlined. */
static inline __attribute__((always_inline)) void multiply(const bool two_rows, const bool two_panels,
                                                           const struct mo_qtile *t)
{
    const int8_t *b = t->b;
    const int64_t stride = t->a_stride;
    IN_MEMORY(t);
    ZERO(two_rows, two_panels)
    for (int s = 0; s < t->n_segments; s++) {
        const uint8_t *a = t->a + t->segment[s];
        for (int g = 0; g < t->n_groups; g += t->step, a += 4 * t->step, b += 64 * t->step) {
            _tile_loadd(A0, a, stride);
            _tile_loadd(B0, b, 64);
            _tile_dpbusd(C00, A0, B0);
            if (two_rows) {
                _tile_loadd(A1, a + 16 * stride, stride);
                _tile_dpbusd(C10, A1, B0);
            }
            if (two_panels) {
                _tile_loadd(B1, b + t->b_panel, 64);
                _tile_dpbusd(C01, A0, B1);
            }
            if (two_rows && two_panels)
                _tile_dpbusd(C11, A1, B1);
        }
    }
    const int width = MO_QTILE_WIDTH * (int)sizeof *t->c;
    _tile_stored(C00, t->c, width);
    if (two_panels)
        _tile_stored(C01, t->c + MO_QPANEL, width);
    if (two_rows)
        _tile_stored(C10, t->c + 16 * MO_QTILE_WIDTH, width);
    if (two_rows && two_panels)
        _tile_stored(C11, t->c + 16 * MO_QTILE_WIDTH + MO_QPANEL, width);
    IN_MEMORY(t->c);
}

static void product(const struct mo_qtile *t)
{
    if (t->rows > 16 && t->panels == 2)
        multiply(true, true, t);
    else if (t->rows > 16)
        multiply(true, false, t);
    else if (t->panels == 2)
        multiply(false, true, t);
    else
        multiply(false, false, t);
}

const struct mo_qproduct mo_qproduct_amx = {
    .rows = { 0, 32, 32, 0, 0 }, .whole_tiles = true, .begin = begin, .end = end, .product = product,
};
#endif
