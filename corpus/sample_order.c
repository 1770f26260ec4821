/* SPDX-License-Identifier: MIT */
/*
 * The order of training samples as a formula: a Feistel network over the smallest even number of
 * bits that holds n - 1, walked until the result is below n (Black and Rogaway 2002, "cycle
 * walking"). Pure; no table, no state.
 */
#include "hanmix/corpus/packed.h"

#define ROUNDS 6

static uint64_t feistel(uint64_t value, unsigned half_bits, uint64_t seed, uint64_t epoch)
{
    uint64_t mask = half_bits == 32 ? 0xffffffffu : (1ull << half_bits) - 1;
    uint64_t left = value >> half_bits;
    uint64_t right = value & mask;

    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t key = hm_mix64(seed ^ hm_mix64(epoch * ROUNDS + round));
        uint64_t next = left ^ (hm_mix64(right ^ key) & mask);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint64_t hm_sample_index(uint64_t n, uint64_t seed, bool shuffle, uint64_t position)
{
    unsigned half_bits = 1;

    HM_BUG(n == 0);
    uint64_t epoch = position / n;
    uint64_t index = position % n;
    if (!shuffle)
        return index;
    while (half_bits < 32 && (n - 1) >> 2 * half_bits > 0)
        half_bits++;
    do
        index = feistel(index, half_bits, seed, epoch);
    while (index >= n);
    return index;
}
