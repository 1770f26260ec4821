/* SPDX-License-Identifier: MIT */
/*
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011).
 *
 * The key of the cipher is the seed; its 128-bit counter is (counter, stream), low words first.
 */
#include <math.h>

#include "hanmix/base/hash.h"
#include "hanmix/base/rng.h"

#define PHILOX_M0     0xd2511f53u
#define PHILOX_M1     0xcd9e8d57u
#define PHILOX_W0     0x9e3779b9u
#define PHILOX_W1     0xbb67ae85u
#define PHILOX_ROUNDS 10

void hm_rng_block(struct hm_rng_key key, uint64_t counter, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)counter;
    uint32_t c1 = (uint32_t)(counter >> 32);
    uint32_t c2 = (uint32_t)key.stream;
    uint32_t c3 = (uint32_t)(key.stream >> 32);
    uint32_t k0 = (uint32_t)key.seed;
    uint32_t k1 = (uint32_t)(key.seed >> 32);

    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)PHILOX_M0 * c0;
        uint64_t p1 = (uint64_t)PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint64_t hm_rng_u64(struct hm_rng_key key, uint64_t counter)
{
    uint32_t word[4];

    hm_rng_block(key, counter, word);
    return (uint64_t)word[1] << 32 | word[0];
}

double hm_rng_uniform(struct hm_rng_key key, uint64_t counter)
{
    return hm_unit_interval(hm_rng_u64(key, counter));
}

double hm_rng_normal(struct hm_rng_key key, uint64_t counter)
{
    uint32_t word[4];

    hm_rng_block(key, counter, word);
    double radius_draw = 1.0 - hm_unit_interval((uint64_t)word[1] << 32 | word[0]); /* (0, 1] */
    double angle_draw = hm_unit_interval((uint64_t)word[3] << 32 | word[2]);
    return sqrt(-2.0 * log(radius_draw)) * cos(6.283185307179586476925 * angle_draw);
}

/* High half of the 128-bit product bits * bound (Lemire 2019, without the rejection step). */
uint64_t hm_rng_below(struct hm_rng_key key, uint64_t counter, uint64_t bound)
{
    uint64_t bits = hm_rng_u64(key, counter);
    uint64_t low = (bits & 0xffffffffu) * (bound & 0xffffffffu);
    uint64_t mid1 = (bits >> 32) * (bound & 0xffffffffu) + (low >> 32);
    uint64_t mid2 = (bits & 0xffffffffu) * (bound >> 32) + (mid1 & 0xffffffffu);

    return (bits >> 32) * (bound >> 32) + (mid1 >> 32) + (mid2 >> 32);
}
