/* SPDX-License-Identifier: MIT */
/*
 * The table entries that AVX512-BF16 adds to those of AVX-512, and those of VBMI, which all but one
 * kind of these CPUs have.
 */
#include "hanmix/base/cpu.h"

#include "frozen.h"
#include "x86.h"

void hm_kernels_fill_avx512bf16(struct hm_kernels *kernels)
{
    kernels->frozen_pack = hm_frozen_pack_avx512bf16;
    kernels->frozen_forward = hm_frozen_forward_avx512bf16;
    kernels->frozen_backward = hm_frozen_backward_avx512bf16;
    kernels->low_project = hm_low_project_avx512bf16;
    kernels->low_sums = hm_low_sums_avx512bf16;
    kernels->low_join = hm_low_join_avx512bf16;
    kernels->low_a_gradient = hm_low_a_gradient_avx512bf16;
    kernels->low_b_gradient = hm_low_b_gradient_avx512bf16;
    if (hm_cpu_flags() & HM_CPU_AVX512VBMI)
        kernels->adamw8 = hm_adamw8_avx512vbmi;
}
