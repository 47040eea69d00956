/* amx.h - tiles of AMX as the kernels here use them: two of rows by two of columns, four of sums. Only for files that
 * are compiled for AMX. */
#ifndef MO_AMX_H
#define MO_AMX_H

#include <immintrin.h>
#include <stdint.h>

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

/* Tiles of 16 rows of 64 bytes, where a step along k is `step` groups of 4 bytes: so many rows of B, that much of a row of A. */
static inline void mo_amx_begin(int step)
{
    struct { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } c = { .palette = 1 };
    for (int i = 0; i < 8; i++) {
        c.rows[i] = (uint8_t)(i < B0 ? 16 : step);
        c.row_bytes[i] = (uint16_t)(i == A0 || i == A1 ? step * 4 : 64);
    }
    IN_MEMORY(&c);
    _tile_loadconfig(&c);
}

static inline void mo_amx_end(void)
{
    _tile_release();
}

/* The sums that are used become 0; both flags are constants where this stands. */
#define MO_AMX_ZERO(two_rows, two_columns)                          \
    do {                                                            \
        _tile_zero(C00);                                            \
        if (two_columns)                                            \
            _tile_zero(C01);                                        \
        if (two_rows)                                               \
            _tile_zero(C10);                                        \
        if ((two_rows) && (two_columns))                            \
            _tile_zero(C11);                                        \
    } while (0)

#endif
