/* SPDX-License-Identifier: MIT */
/*
 * One small language of vectors for all kernels of x86: VW floats (vf), VW/2 doubles (vd), VW
 * 32-bit integers (vi). Below: what is the same for every width. Products and sums are rounded one
 * by one as in the reference; only exp and the f64 squares (exact products) use FMA.
 */
#ifndef HANMIX_KERNELS_X86_SIMD_H
#define HANMIX_KERNELS_X86_SIMD_H

#if defined(__AVX512F__)
#include "simd_avx512.h"
#else
#include "simd_avx2.h"
#endif

#include "../ref/ref.h"

/* Before a loop of constant length whose arrays are to live in registers. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The next vector of `left` values at p; missing ones are `rest`. */
static inline vf vf_next(const float *p, size_t left, vf rest)
{
    return left >= VW ? vf_load(p) : vf_load_part(p, left, rest);
}

static inline void vf_put(float *p, vf a, size_t left)
{
    if (left >= VW)
        vf_store(p, a);
    else
        vf_store_part(p, a, left);
}

/*
 * exp within 1.01 units of the last place (measured; check_attn samples it), gradual underflow,
 * infinity above 88.73, NaN kept. x = n log 2 + r (Cody and Waite), |r| <= log 2 / 2, and
 * exp r = 1 + r + r^2 q(r) with q minimax for the relative error.
 */
static inline vf vf_exp(vf x)
{
    x = vf_min(vf_set1(90.0f), vf_max(vf_set1(-105.0f), x));
    vf n = vf_nearest(vf_mul(x, vf_set1(0x1.715476p+0f)));
    vf r = vf_fnma(n, vf_set1(0x1.62e4p-1f), x);
    r = vf_fnma(n, vf_set1(0x1.7f7d1cp-20f), r);
    vf q = vf_set1(0x1.6a23dp-10f);
    q = vf_fma(q, r, vf_set1(0x1.123a2p-7f));
    q = vf_fma(q, r, vf_set1(0x1.5558f2p-5f));
    q = vf_fma(q, r, vf_set1(0x1.555492p-3f));
    q = vf_fma(q, r, vf_set1(0x1.fffffcp-2f));
    vf p = vf_fma(vf_mul(r, r), q, r);
    return vf_ldexp(vf_add(p, vf_set1(1.0f)), n);
}

/* The lanes of ref.h: HM_LANES floats in HM_LANES / VW vectors. */
struct lanes {
    vf part[HM_LANES / VW];
};

static inline struct lanes lanes_zero(void)
{
    struct lanes lanes;

    UNROLL for (size_t i = 0; i < HM_LANES / VW; i++) lanes.part[i] = vf_set1(0.0f);
    return lanes;
}

static inline double lanes_join(const struct lanes *lanes)
{
    enum { HALF = HM_LANES / VW / 2 };
    vd sum[2 * HALF];

    UNROLL for (size_t i = 0; i < HALF; i++)
    {
        vf a = lanes->part[i], b = lanes->part[i + HALF];
        sum[2 * i] = vd_add(vd_low(a), vd_low(b));
        sum[2 * i + 1] = vd_add(vd_high(a), vd_high(b));
    }
    UNROLL for (size_t width = HALF; width > 0; width /= 2)
        UNROLL for (size_t i = 0; i < width; i++) sum[i] = vd_add(sum[i], sum[i + width]);
    return vd_join(sum[0]);
}

#endif
