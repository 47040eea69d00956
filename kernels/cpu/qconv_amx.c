/* qconv_amx.c - products of qconv.h on AMX: two tiles of 16 rows by two panels,
 * a step of up to 64 bytes of k at a time. What follows the sums is AVX-512's. */
#if defined(__x86_64__)
#include <string.h>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/qconv.h"

/* Both flags are constants where this is inlined. */
static inline __attribute__((always_inline)) void multiply(const bool two_rows, const bool two_panels,
                                                           const struct mo_qtile *t)
{
    const int8_t *b = t->b;
    const int64_t stride = t->a_stride;
    IN_MEMORY(t);
    MO_AMX_ZERO(two_rows, two_panels);
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
    .rows = { 0, 32, 32, 0, 0 }, .whole_tiles = true, .begin = mo_amx_begin, .end = mo_amx_end, .product = product,
};
#endif
