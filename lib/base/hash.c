/* hash.c - XXH64 (Yann Collet's specification, version 0.1.1), so that `xxhsum -H64 FILE` tells whether a
 * report speaks of that file. */
#include "lib/base/base.h"

#include <endian.h>
#include <string.h>


static const uint64_t prime[] = {0x9e3779b185ebca87u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u, 0x85ebca77c2b2ae63u,
                                 0x27d4eb2f165667c5u};

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static uint64_t word8(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return le64toh(x);
}

static uint64_t word4(const unsigned char *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return le32toh(x);
}

static uint64_t fold_in(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * prime[1], 31) * prime[0];
}

uint64_t mo_xxh64(const void *bytes, size_t n)
{
    const unsigned char *p = bytes, *end = p + n;
    uint64_t hash = prime[4];
    if (n >= 32) {
        uint64_t lane[4] = {prime[0] + prime[1], prime[1], 0, 0 - prime[0]};
        for (; end - p >= 32; p += 32)
            for (int i = 0; i < 4; i++)
                lane[i] = fold_in(lane[i], word8(p + 8 * i));
        hash = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
        for (int i = 0; i < 4; i++)
            hash = (hash ^ fold_in(0, lane[i])) * prime[0] + prime[3];
    }
    hash += n;
    for (; end - p >= 8; p += 8)
        hash = rotate(hash ^ fold_in(0, word8(p)), 27) * prime[0] + prime[3];
    if (end - p >= 4) {
        hash = rotate(hash ^ word4(p) * prime[0], 23) * prime[1] + prime[2];
        p += 4;
    }
    for (; p < end; p++)
        hash = rotate(hash ^ *p * prime[4], 11) * prime[0];
    hash = (hash ^ hash >> 33) * prime[1];
    hash = (hash ^ hash >> 29) * prime[2];
    return hash ^ hash >> 32;
}
