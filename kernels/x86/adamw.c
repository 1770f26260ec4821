/* SPDX-License-Identifier: MIT */
/*
 * AdamW and the sum of squares for x86: the reference's operations in its order, the same bits
 * (division and square root are exact roundings everywhere; the square of an f32 is exact in f64).
 */
#include "adamw_values.h"

#define LINE_FLOATS   16
#define SQUARES_AHEAD 2048 /* values between use and prefetch: beyond the page that is read */

void HM_ISA(hm_adamw)(float *param, const float *grad, float *m, float *v, size_t n,
                      const struct hm_adamw_step *step)
{
    const struct adamw constants = adamw_constants(step);
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf g = vf_next(grad + i, left, zero), p = vf_next(param + i, left, zero);
        vf ms = vf_next(m + i, left, zero), vs = vf_next(v + i, left, zero);
        p = adamw_values(&constants, p, g, &ms, &vs);
        vf_put(m + i, ms, left);
        vf_put(v + i, vs, left);
        vf_put(param + i, p, left);
    }
}

enum { PARTS = HM_LANES_F64 / (VW / 2) };

/* HM_LANES_F64 values more, or `left` of them; `left` is a constant but at the end. */
static inline void squares_add(const float *x, size_t left, vd sum[PARTS])
{
    UNROLL for (size_t j = 0; j < PARTS / 2; j++)
    {
        size_t at = j * VW;
        if (at >= left)
            break;
        vf a = vf_next(x + at, left - at, vf_set1(0.0f));
        sum[2 * j] = vd_fma(vd_low(a), vd_low(a), sum[2 * j]);
        sum[2 * j + 1] = vd_fma(vd_high(a), vd_high(a), sum[2 * j + 1]);
    }
}

double HM_ISA(hm_sum_squares)(const float *x, size_t n)
{
    vd sum[PARTS];
    size_t i = 0;

    UNROLL for (size_t j = 0; j < PARTS; j++) sum[j] = vd_zero();
    for (; i + HM_LANES_F64 <= n; i += HM_LANES_F64) {
        UNROLL for (size_t line = 0; line < HM_LANES_F64; line += LINE_FLOATS)
            __builtin_prefetch(x + i + SQUARES_AHEAD + line, 0);
        squares_add(x + i, HM_LANES_F64, sum);
    }
    squares_add(x + i, n - i, sum);
    UNROLL for (size_t width = PARTS / 2; width > 0; width /= 2)
        UNROLL for (size_t j = 0; j < width; j++) sum[j] = vd_add(sum[j], sum[j + width]);
    return vd_join(sum[0]);
}
