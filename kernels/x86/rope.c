/* SPDX-License-Identifier: MIT */
/*
 * Rotary positions for x86: the reference's operations, the same bits.
 */
#include "isa.h"
#include "simd.h"

static inline void head_turn(float *low, float *high, const float *c, const float *s, size_t half,
                             vf sign)
{
    const vf zero = vf_set1(0.0f);

    for (size_t j = 0; j < half; j += VW) {
        size_t left = half - j;
        vf a = vf_next(low + j, left, zero), b = vf_next(high + j, left, zero);
        vf cs = vf_next(c + j, left, zero);
        vf turn = vf_mul(sign, vf_next(s + j, left, zero));
        vf_put(low + j, vf_sub(vf_mul(a, cs), vf_mul(b, turn)), left);
        vf_put(high + j, vf_add(vf_mul(b, cs), vf_mul(a, turn)), left);
    }
}

void HM_ISA(hm_rope)(float *x, size_t n, size_t ldx, size_t heads, size_t head_dim,
                     const float *cos_table, const float *sin_table, const int32_t *pos, float sign)
{
    size_t half = head_dim / 2;

    for (size_t t = 0; t < n; t++) {
        const float *c = cos_table + (size_t)pos[t] * half;
        const float *s = sin_table + (size_t)pos[t] * half;
        for (size_t h = 0; h < heads; h++) {
            float *low = x + t * ldx + h * head_dim;
            head_turn(low, low + half, c, s, half, vf_set1(sign));
        }
    }
}
