/* SPDX-License-Identifier: MIT */
/*
 * The gated unit for x86: the reference's operations with vf_exp for expf.
 */
#include "isa.h"
#include "simd.h"

static inline vf sigmoid(vf a)
{
    const vf one = vf_set1(1.0f);

    return vf_div(one, vf_add(one, vf_exp(vf_sub(vf_set1(0.0f), a))));
}

void HM_ISA(hm_swiglu)(const float *a1, const float *a3, size_t n, float *m)
{
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf a = vf_next(a1 + i, left, zero), gate = vf_next(a3 + i, left, zero);
        vf_put(m + i, vf_mul(vf_mul(a, sigmoid(a)), gate), left);
    }
}

void HM_ISA(hm_swiglu_backward)(const float *a1, const float *a3, const float *dm, size_t n,
                                float *da1, float *da3)
{
    const vf zero = vf_set1(0.0f), one = vf_set1(1.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf a = vf_next(a1 + i, left, zero), gate = vf_next(a3 + i, left, zero);
        vf d = vf_next(dm + i, left, zero), s = sigmoid(a);
        vf slope = vf_add(one, vf_mul(a, vf_sub(one, s)));
        vf_put(da1 + i, vf_mul(vf_mul(vf_mul(d, gate), s), slope), left);
        vf_put(da3 + i, vf_mul(d, vf_mul(a, s)), left);
    }
}
