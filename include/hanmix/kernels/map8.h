/* SPDX-License-Identifier: MIT */
/*
 * The dynamic 8-bit maps of Dettmers et al. 2022 (8-bit optimizers), as bitsandbytes computes them,
 * and the nearest entry of a map by one look-up and one comparison. Blocks of HM_BLOCK8 values
 * share a scale. Thread class: immutable once made.
 */
#ifndef HANMIX_KERNELS_MAP8_H
#define HANMIX_KERNELS_MAP8_H

#include <stdbool.h>
#include <stdint.h>

#define HM_BLOCK8 256 /* bitsandbytes' block of optimiser state */

/* With sign: for e = 0..6 the midpoints of 2^e equal parts of [0.1, 1], times 10^(e-6), with both
   signs; without: of 2^(e+1) parts. And 0 and 1. Ascending. */
void hm_dynamic_map(bool with_sign, float map[256]);

/*
 * Where the nearest entry is looked up: magnitudes from 2^-24 to 1 fall into pieces so narrow that
 * at most one midpoint of neighbours lies in each. A piece says the code at its lower end, and the
 * offset from which on the next code holds: offset << 8 | code; of negative values 255 - code.
 */
#define HM_MAP8_LOWEST_BITS 0x33800000u /* 2^-24: below the magnitude of every midpoint */
#define HM_MAP8_ONE_BITS    0x3f800000u
#define HM_MAP8_PIECES      (2 * (24 * 64 + 1)) /* more than 24 * 128 + 1, without sign */

/*
 * The same in arithmetic, for where tables of a few entries are cheap: entries of one power of ten
 * are evenly spaced. Magnitude a lies in run r of them, the runs rising: of its exponent (bits
 * above 23, from 2^-24 on) `run`, one more where a > `turn`. Its code is the whole part of clamp(a
 * * scale[r] + offset[r], least[r], most[r]), and certain when that is at least HM_MAP8_NEAR from a
 * whole number and a is not `turn`. Negative values: 254 - min(code, 254).
 */
#define HM_MAP8_NEAR 0x1p-13f
struct hm_map8_runs {
    float turn[32];
    int32_t run[32];
    float scale[16], offset[16], least[16], most[16];
};

struct hm_map8 {
    struct hm_map8_runs runs;
    float value[256];
    float low; /* the lowest value that is looked up: -1 or 0 */
    /* The lowest code given: 0; without sign 1, so that no second moment becomes 0 beside a large
       one and leaves AdamW's eps alone in the denominator. */
    int low_code;
    unsigned shift;    /* magnitude bits of a piece */
    uint32_t negative; /* first piece of negative values */
    int32_t piece[HM_MAP8_PIECES];
};

void hm_map8_init(bool with_sign, struct hm_map8 *ret_map);

#endif
