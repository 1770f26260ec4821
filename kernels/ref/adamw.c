/* SPDX-License-Identifier: MIT */
/*
 * AdamW (Loshchilov and Hutter 2019) in the order of torch.optim.AdamW's single-tensor loop: decay,
 * moments, then the step. Constants are made in f64 and rounded once, as torch rounds its scalars.
 * The
 * 8-bit form decodes a block of moments, updates, and codes it again (Dettmers et al. 2022). Also
 * the sum of squares for the norm of all gradients. State and schedule belong to qlora/.
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

/* The nearest entry's code from low_code on: the midpoint of two neighbours belongs to the lower
 * one. */
static uint8_t map8_code(const struct hm_map8 *map, float x)
{
    int low = map->low_code, high = 255;

    x = x > map->low ? x : map->low;
    x = x < 1.0f ? x : 1.0f;
    while (low < high) {
        int middle = (low + high) / 2;
        if (x > (map->value[middle] + map->value[middle + 1]) / 2.0f)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}

/* Up to HM_BLOCK8 values of a block. */
static void block8_decode(const struct hm_map8 *map, const uint8_t *code, float absmax, size_t n,
                          float *values)
{
    for (size_t i = 0; i < n; i++)
        values[i] = map->value[code[i]] * absmax;
}

static void block8_encode(const struct hm_map8 *map, const float *values, size_t n, uint8_t *code,
                          float *absmax)
{
    float largest = 0.0f;

    for (size_t i = 0; i < n; i++)
        largest = fabsf(values[i]) > largest ? fabsf(values[i]) : largest;
    *absmax = largest;
    float inverse = 1.0f / (largest > HM_BLOCK8_ABSMAX_FLOOR ? largest : HM_BLOCK8_ABSMAX_FLOOR);
    for (size_t i = 0; i < n; i++)
        code[i] = map8_code(map, values[i] * inverse);
}

void hm_adamw8_ref(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                   const struct hm_adamw_step *step)
{
    float m[HM_BLOCK8], v[HM_BLOCK8];

    for (size_t at = 0, block = 0; at < n; at += HM_BLOCK8, block++) {
        size_t count = n - at < HM_BLOCK8 ? n - at : HM_BLOCK8;
        block8_decode(moments->m_map, moments->m + at, moments->m_absmax[block], count, m);
        block8_decode(moments->v_map, moments->v + at, moments->v_absmax[block], count, v);
        hm_adamw_ref(param + at, grad + at, m, v, count, step);
        block8_encode(moments->m_map, m, count, moments->m + at, &moments->m_absmax[block]);
        block8_encode(moments->v_map, v, count, moments->v + at, &moments->v_absmax[block]);
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
