/* SPDX-License-Identifier: MIT */
/*
 * RMSNorm (Zhang and Sennrich 2019) and its gradient. Sums over a row run in the lanes of ref.h.
 * y = (x rho) w;  dx += rho g' - x c with g' = dy w, c = rho^3 <x, g'> / d;  dw += (x rho) dy.
 */
#include <math.h>

#include "ref.h"

void hm_rmsnorm_ref(const float *x, const float *w, size_t n, size_t d, float eps, float *y,
                    float *rho)
{
    for (size_t t = 0; t < n; t++, x += d, y += d) {
        float mean = (float)(hm_dot_ref(x, x, d) / (double)d);
        rho[t] = 1.0f / sqrtf(mean + eps);
        for (size_t j = 0; j < d; j++)
            y[j] = x[j] * rho[t] * w[j];
    }
}

void hm_rmsnorm_backward_ref(const float *x, const float *w, const float *rho, const float *dy,
                             size_t n, size_t d, float *dx, float *dw)
{
    for (size_t t = 0; t < n; t++, x += d, dy += d, dx += d) {
        float lane[HM_LANES] = { 0 };
        float r = rho[t];

        for (size_t j = 0; j < d; j++)
            lane[j % HM_LANES] += dy[j] * w[j] * x[j];
        float c = (float)(hm_lanes_join_ref(lane) / (double)d) * (r * r * r);
        for (size_t j = 0; j < d; j++)
            dx[j] += dy[j] * w[j] * r - x[j] * c;
        for (size_t j = 0; dw && j < d; j++)
            dw[j] += x[j] * r * dy[j];
    }
}
