/* SPDX-License-Identifier: MIT */
/*
 * Arrays between f32, bf16 and f16, from any alignment. Rounding is to nearest even; infinities,
 * denormals and the sign of zero are kept, NaN stays NaN (quiet once it was converted by value).
 */
#include "ref.h"

float hm_f16_to_f32(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    uint32_t exponent = bits >> 10 & 31u;
    uint32_t mantissa = bits & 0x3ffu;

    if (exponent == 31)
        return hm_f32_from_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
    if (exponent == 0) { /* zero or denormal: mantissa * 2^-24, exact in f32 */
        float size = (float)mantissa * 0x1p-24f;
        return hm_f32_from_bits(sign | hm_f32_bits(size));
    }
    return hm_f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t hm_f32_to_f16(float value)
{
    uint32_t bits = hm_f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t size = bits & 0x7fffffffu;

    if (size > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (size >> 13 & 0x3ffu));
    if (size >= 0x477ff000u) /* from 65520 on: infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u) {
        /* Denormal: adding 1/2 makes the unit of the last place 2^-24, the sum rounds to even. */
        float shifted = hm_f32_from_bits(size) + 0.5f;
        return (uint16_t)(sign | (hm_f32_bits(shifted) - 0x3f000000u));
    }
    size += 0xfffu + (size >> 13 & 1u);
    return (uint16_t)(sign | (size - 0x38000000u) >> 13);
}

static uint16_t load16(const void *in, size_t i)
{
    uint16_t bits;

    memcpy(&bits, (const unsigned char *)in + 2 * i, sizeof(bits));
    return bits;
}

void hm_bf16_to_f32_ref(const void *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = hm_bf16_to_f32(load16(in, i));
}

void hm_f16_to_f32_ref(const void *in, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = hm_f16_to_f32(load16(in, i));
}

void hm_f32_to_bf16_ref(const float *in, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = hm_f32_to_bf16(in[i]);
}

void hm_f32_round_bf16_ref(float *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = hm_round_bf16(values[i]);
}
