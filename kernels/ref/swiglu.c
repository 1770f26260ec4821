/* SPDX-License-Identifier: MIT */
/*
 * The gated unit of the LLaMA feed-forward (Shazeer 2020): m = silu(a1) a3, silu(a) = a sig(a), and
 * its gradient.
 */
#include <math.h>

#include "ref.h"

static float sigmoid(float a)
{
    return 1.0f / (1.0f + expf(-a));
}

void hm_swiglu_ref(const float *a1, const float *a3, size_t n, float *m)
{
    for (size_t i = 0; i < n; i++)
        m[i] = a1[i] * sigmoid(a1[i]) * a3[i];
}

void hm_swiglu_backward_ref(const float *a1, const float *a3, const float *dm, size_t n, float *da1,
                            float *da3)
{
    for (size_t i = 0; i < n; i++) {
        float a = a1[i], gate = a3[i], s = sigmoid(a);
        da1[i] = dm[i] * gate * s * (1.0f + a * (1.0f - s));
        da3[i] = dm[i] * (a * s);
    }
}
