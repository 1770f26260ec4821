/* SPDX-License-Identifier: MIT */
/*
 * Scalar conversions between f32 and the 16-bit float formats, round to nearest even, NaN kept
 * (quieted). Inline, pure. Arrays go through the kernel table.
 * Thread class: pure.
 */
#ifndef HANMIX_KERNELS_CONVERT_H
#define HANMIX_KERNELS_CONVERT_H

#include <stdint.h>
#include <string.h>

static inline uint32_t hm_f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float hm_f32_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float hm_bf16_to_f32(uint16_t bits)
{
    return hm_f32_from_bits((uint32_t)bits << 16);
}

static inline uint16_t hm_f32_to_bf16(float value)
{
    uint32_t bits = hm_f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float hm_round_bf16(float value)
{
    return hm_bf16_to_f32(hm_f32_to_bf16(value));
}

float hm_f16_to_f32(uint16_t bits);
uint16_t hm_f32_to_f16(float value);

#endif
