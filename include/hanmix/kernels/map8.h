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
 * are evenly spaced. A magnitude a, at least `least`, lies in run r of them, the runs rising: of
 * the low five bits of its exponent (f32 bits 23 to 27) `run`, one more where a > `turn`. The f32
 * bits of min(a * scale[r] + offset[r], most[r]), which is between 256 and 512, hold its code in
 * bits 15 to 22 and behind them the distance to the border below, shifted by 4: the code is certain
 * where HM_MAP8_CERTAIN finds a bit. Negative values: 254 - min(code, 254), not certain where a is
 * `turn`.
 */
#define HM_MAP8_CERTAIN 0x7ff8 /* of the bits: at least 4 from 0 and from 2^15 before the shift */
struct hm_map8_runs {
    float turn[32];
    int32_t run[32];
    float scale[16], offset[16], most[16];
    float least;
};

struct hm_map8 {
    struct hm_map8_runs runs;
    float value[256];
    uint16_t half[2][256]; /* the low and the high halves of the entries' bits */
    float low;             /* the lowest value that is looked up: -1 or 0 */
    /* The lowest code given: 0; without sign 1, so that no second moment becomes 0 beside a large
       one and leaves AdamW's eps alone in the denominator. */
    int low_code;
    unsigned shift;    /* magnitude bits of a piece */
    uint32_t negative; /* first piece of negative values */
    int32_t piece[HM_MAP8_PIECES];
};

void hm_map8_init(bool with_sign, struct hm_map8 *ret_map);

#endif
