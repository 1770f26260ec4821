/* SPDX-License-Identifier: MIT */
/*
 * Plain array kernels for x86, the reference's bits: sums in its lanes, no FMA.
 */
#include "isa.h"
#include "simd.h"

void HM_ISA(hm_axpy)(float a, const float *x, size_t n, float *y)
{
    const vf factor = vf_set1(a), zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf product = vf_mul(factor, vf_next(x + i, left, zero));
        vf_put(y + i, vf_add(vf_next(y + i, left, zero), product), left);
    }
}

void HM_ISA(hm_scale)(float a, float *x, size_t n)
{
    const vf factor = vf_set1(a), zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW)
        vf_put(x + i, vf_mul(vf_next(x + i, n - i, zero), factor), n - i);
}

void HM_ISA(hm_add)(const float *x, size_t n, float *y)
{
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf_put(y + i, vf_add(vf_next(y + i, left, zero), vf_next(x + i, left, zero)), left);
    }
}

double HM_ISA(hm_dot)(const float *x, const float *y, size_t n)
{
    const vf zero = vf_set1(0.0f);
    struct lanes sum = lanes_zero();
    size_t i = 0;

    for (; i + HM_LANES <= n; i += HM_LANES)
        UNROLL for (size_t j = 0; j < HM_LANES / VW; j++)
        {
            vf product = vf_mul(vf_load(x + i + j * VW), vf_load(y + i + j * VW));
            sum.part[j] = vf_add(sum.part[j], product);
        }
    UNROLL for (size_t j = 0; j < HM_LANES / VW; j++)
    {
        size_t at = i + j * VW;
        if (at < n) {
            vf product = vf_mul(vf_next(x + at, n - at, zero), vf_next(y + at, n - at, zero));
            sum.part[j] = vf_add(sum.part[j], product);
        }
    }
    return lanes_join(&sum);
}
