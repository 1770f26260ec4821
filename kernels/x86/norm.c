/* SPDX-License-Identifier: MIT */
/*
 * RMSNorm and its gradient for x86: the reference's operations in its order and its lanes, the same
 * bits.
 */
#include <math.h>

#include "isa.h"
#include "simd.h"

void HM_ISA(hm_rmsnorm)(const float *x, const float *w, size_t n, size_t d, float eps, float *y,
                        float *rho)
{
    const vf zero = vf_set1(0.0f);

    for (size_t t = 0; t < n; t++, x += d, y += d) {
        float mean = (float)(HM_ISA(hm_dot)(x, x, d) / (double)d);
        rho[t] = 1.0f / sqrtf(mean + eps);
        vf r = vf_set1(rho[t]);
        for (size_t j = 0; j < d; j += VW) {
            size_t left = d - j;
            vf normed = vf_mul(vf_next(x + j, left, zero), r);
            vf_put(y + j, vf_mul(normed, vf_next(w + j, left, zero)), left);
        }
    }
}

/* <dy w, x> in the lanes of the reference. */
static double dot3(const float *dy, const float *w, const float *x, size_t d)
{
    const vf zero = vf_set1(0.0f);
    struct lanes sum = lanes_zero();

    for (size_t i = 0; i < d; i += HM_LANES)
        UNROLL for (size_t j = 0; j < HM_LANES / VW; j++)
        {
            size_t at = i + j * VW;
            if (at >= d)
                break;
            vf g = vf_mul(vf_next(dy + at, d - at, zero), vf_next(w + at, d - at, zero));
            vf product = vf_mul(g, vf_next(x + at, d - at, zero));
            sum.part[j] = vf_add(sum.part[j], product);
        }
    return lanes_join(&sum);
}

void HM_ISA(hm_rmsnorm_backward)(const float *x, const float *w, const float *rho, const float *dy,
                                 size_t n, size_t d, float *dx, float *dw)
{
    const vf zero = vf_set1(0.0f);

    for (size_t t = 0; t < n; t++, x += d, dy += d, dx += d) {
        float r = rho[t];
        vf rs = vf_set1(r);
        vf c = vf_set1((float)(dot3(dy, w, x, d) / (double)d) * (r * r * r));
        for (size_t j = 0; j < d; j += VW) {
            size_t left = d - j;
            vf xs = vf_next(x + j, left, zero), dys = vf_next(dy + j, left, zero);
            vf g = vf_mul(vf_mul(dys, vf_next(w + j, left, zero)), rs);
            vf step = vf_sub(g, vf_mul(xs, c));
            vf_put(dx + j, vf_add(vf_next(dx + j, left, zero), step), left);
        }
        for (size_t j = 0; dw && j < d; j += VW) {
            size_t left = d - j;
            vf xs = vf_next(x + j, left, zero), dys = vf_next(dy + j, left, zero);
            vf sum = vf_next(dw + j, left, zero);
            vf_put(dw + j, vf_add(sum, vf_mul(vf_mul(xs, rs), dys)), left);
        }
    }
}
