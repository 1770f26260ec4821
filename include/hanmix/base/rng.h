/* SPDX-License-Identifier: MIT */
/*
 * Counter-based random numbers: a value depends only on (key, counter), never on call order or
 * thread. Philox4x32-10 (Salmon et al., SC 2011). Thread class: pure.
 */
#ifndef HANMIX_BASE_RNG_H
#define HANMIX_BASE_RNG_H

#include <stdint.h>

struct hm_rng_key {
    uint64_t seed;
    uint64_t stream; /* hash of what the numbers are for: step, module, sample */
};

void hm_rng_block(struct hm_rng_key key, uint64_t counter, uint32_t out[4]);
uint64_t hm_rng_u64(struct hm_rng_key key, uint64_t counter);
double hm_rng_uniform(struct hm_rng_key key, uint64_t counter); /* [0, 1), 53 bits */
double hm_rng_normal(struct hm_rng_key key, uint64_t counter);  /* Box-Muller */
/* unbiased enough: 128-bit product */
uint64_t hm_rng_below(struct hm_rng_key key, uint64_t counter, uint64_t bound);

#endif
