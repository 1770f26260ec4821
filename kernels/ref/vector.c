/* SPDX-License-Identifier: MIT */
/*
 * Sums, scaling and inner products of plain arrays. Products are rounded before they are added.
 */
#include "ref.h"

double hm_lanes_join_ref(const float lane[HM_LANES])
{
    double sum[HM_LANES / 2];

    for (size_t l = 0; l < HM_LANES / 2; l++)
        sum[l] = (double)lane[l] + (double)lane[l + HM_LANES / 2];
    for (size_t width = HM_LANES / 4; width > 0; width /= 2)
        for (size_t l = 0; l < width; l++)
            sum[l] += sum[l + width];
    return sum[0];
}

void hm_axpy_ref(float a, const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

void hm_scale_ref(float a, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= a;
}

void hm_add_ref(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

double hm_dot_ref(const float *x, const float *y, size_t n)
{
    float lane[HM_LANES] = { 0 };

    for (size_t i = 0; i < n; i++)
        lane[i % HM_LANES] += x[i] * y[i];
    return hm_lanes_join_ref(lane);
}
