/* SPDX-License-Identifier: MIT */
/*
 * Arrays of 16-bit floats for x86, the reference's bits: bf16 by integers (the bf16 instructions
 * flush denormals), f16 by F16C. The last values go through the reference.
 */
#include "isa.h"
#include "simd.h"

void HM_ISA(hm_bf16_to_f32)(const void *in, size_t n, float *out)
{
    const unsigned char *bytes = in;
    size_t i = 0;

    for (; i + VW <= n; i += VW)
        vf_store(out + i, vf_from_bf16(bytes + 2 * i));
    hm_bf16_to_f32_ref(bytes + 2 * i, n - i, out + i);
}

void HM_ISA(hm_f16_to_f32)(const void *in, size_t n, float *out)
{
    const unsigned char *bytes = in;
    size_t i = 0;

    for (; i + VW <= n; i += VW)
        vf_store(out + i, vf_from_f16(bytes + 2 * i));
    hm_f16_to_f32_ref(bytes + 2 * i, n - i, out + i);
}

void HM_ISA(hm_f32_to_bf16)(const float *in, size_t n, uint16_t *out)
{
    size_t i = 0;

    for (; i + VW <= n; i += VW)
        vf_to_bf16(out + i, vf_load(in + i));
    hm_f32_to_bf16_ref(in + i, n - i, out + i);
}

void HM_ISA(hm_f32_round_bf16)(float *values, size_t n)
{
    for (size_t i = 0; i < n; i += VW)
        vf_put(values + i, vf_round_bf16(vf_next(values + i, n - i, vf_set1(0.0f))), n - i);
}
