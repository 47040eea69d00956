/* rng.c - Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers, as easy as
 * 1, 2, 3; SC'11, section 4). key = seed, counter = (block index, stream). */
#include "lib/base/base.h"

#include <math.h>

static void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4])
{
    const uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u, w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)m0 * c0, p1 = (uint64_t)m1 * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += w0;
        k1 += w1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

struct mo_rng mo_rng_new(uint64_t seed, enum mo_rng_use use, uint64_t which)
{
    return (struct mo_rng){.seed = seed, .stream = (uint64_t)use << 48 | (which & (((uint64_t)1 << 48) - 1))};
}

uint32_t mo_rng_u32(struct mo_rng *rng)
{
    if (rng->next % 4 == 0)
        philox(rng->seed, rng->stream, rng->next / 4, rng->block);
    return rng->block[rng->next++ % 4];
}

/* Lemire's multiply-and-reject (ACM TOMACS 29(1), 2019). */
uint32_t mo_rng_below(struct mo_rng *rng, uint32_t bound)
{
    if (bound <= 1)
        return 0;
    uint32_t reject_below = (0u - bound) % bound;
    for (;;) {
        uint64_t wide = (uint64_t)mo_rng_u32(rng) * bound;
        if ((uint32_t)wide >= reject_below)
            return (uint32_t)(wide >> 32);
    }
}

float mo_rng_float(struct mo_rng *rng)
{
    return (float)(mo_rng_u32(rng) >> 8) * 0x1p-24f;
}

float mo_rng_normal(struct mo_rng *rng)
{
    double u = 1.0 - (double)mo_rng_float(rng), angle = 6.283185307179586 * (double)mo_rng_float(rng);
    return (float)(sqrt(-2.0 * log(u)) * cos(angle));
}

void mo_rng_shuffle(struct mo_rng *rng, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = mo_rng_below(rng, (uint32_t)i);
        uint32_t swap = items[i - 1];
        items[i - 1] = items[j];
        items[j] = swap;
    }
}
