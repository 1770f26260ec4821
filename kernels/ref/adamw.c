/* SPDX-License-Identifier: MIT */
/*
 * AdamW (Loshchilov and Hutter 2019) in the order of torch.optim.AdamW's single-tensor loop: decay,
 * moments, then the step. Constants are made in f64 and rounded once, as torch rounds its scalars.
 * Also the sum of squares for the norm of all gradients. State and schedule belong to qlora/.
 */
#include <math.h>

#include "ref.h"

void hm_adamw_ref(float *param, const float *grad, float *m, float *v, size_t n,
                  const struct hm_adamw_step *step)
{
    const float keep = (float)(1.0 - step->lr * step->weight_decay);
    const float to_m = (float)(1.0 - step->beta1);
    const float keep_v = (float)step->beta2;
    const float to_v = (float)(1.0 - step->beta2);
    const float rate = (float)(step->lr / step->bias1);
    const float root_bias2 = (float)sqrt(step->bias2);
    const float eps = (float)step->eps;

    for (size_t i = 0; i < n; i++) {
        float g = grad[i] * step->grad_scale;
        m[i] = m[i] + to_m * (g - m[i]);
        v[i] = v[i] * keep_v + to_v * g * g;
        float denominator = sqrtf(v[i]) / root_bias2 + eps;
        param[i] = param[i] * keep - rate * m[i] / denominator;
    }
}

double hm_sum_squares_ref(const float *x, size_t n)
{
    double lane[HM_LANES_F64] = { 0 };

    for (size_t i = 0; i < n; i++)
        lane[i % HM_LANES_F64] += (double)x[i] * (double)x[i];
    for (size_t width = HM_LANES_F64 / 2; width > 0; width /= 2)
        for (size_t l = 0; l < width; l++)
            lane[l] += lane[l + width];
    return lane[0];
}
