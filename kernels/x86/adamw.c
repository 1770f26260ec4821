/* SPDX-License-Identifier: MIT */
/*
 * AdamW and the sum of squares for x86: the reference's operations in its order, the same bits
 * (division and square root are exact roundings everywhere; the square of an f32 is exact in f64).
 */
#include <math.h>

#include "isa.h"
#include "simd.h"

void HM_ISA(hm_adamw)(float *param, const float *grad, float *m, float *v, size_t n,
                      const struct hm_adamw_step *step)
{
    const vf keep = vf_set1((float)(1.0 - step->lr * step->weight_decay));
    const vf to_m = vf_set1((float)(1.0 - step->beta1));
    const vf keep_v = vf_set1((float)step->beta2);
    const vf to_v = vf_set1((float)(1.0 - step->beta2));
    const vf rate = vf_set1((float)(step->lr / step->bias1));
    const vf root_bias2 = vf_set1((float)sqrt(step->bias2));
    const vf eps = vf_set1((float)step->eps), clip = vf_set1(step->grad_scale);
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf g = vf_mul(vf_next(grad + i, left, zero), clip);
        vf ms = vf_next(m + i, left, zero), vs = vf_next(v + i, left, zero);
        vf p = vf_next(param + i, left, zero);
        ms = vf_add(ms, vf_mul(to_m, vf_sub(g, ms)));
        vs = vf_add(vf_mul(vs, keep_v), vf_mul(vf_mul(to_v, g), g));
        vf denominator = vf_add(vf_div(vf_sqrt(vs), root_bias2), eps);
        p = vf_sub(vf_mul(p, keep), vf_div(vf_mul(rate, ms), denominator));
        vf_put(m + i, ms, left);
        vf_put(v + i, vs, left);
        vf_put(param + i, p, left);
    }
}

double HM_ISA(hm_sum_squares)(const float *x, size_t n)
{
    enum { PARTS = HM_LANES_F64 / (VW / 2) };
    vd sum[PARTS];

    UNROLL for (size_t j = 0; j < PARTS; j++) sum[j] = vd_zero();
    for (size_t i = 0; i < n; i += HM_LANES_F64)
        UNROLL for (size_t j = 0; j < PARTS / 2; j++)
        {
            size_t at = i + j * VW;
            if (at >= n)
                break;
            vf a = vf_next(x + at, n - at, vf_set1(0.0f));
            sum[2 * j] = vd_fma(vd_low(a), vd_low(a), sum[2 * j]);
            sum[2 * j + 1] = vd_fma(vd_high(a), vd_high(a), sum[2 * j + 1]);
        }
    UNROLL for (size_t width = PARTS / 2; width > 0; width /= 2)
        UNROLL for (size_t j = 0; j < width; j++) sum[j] = vd_add(sum[j], sum[j + width]);
    return vd_join(sum[0]);
}
