/* SPDX-License-Identifier: MIT */
/*
 * The table entries of one instruction set. Kernels that are not named keep the reference: routing
 * works on a handful of experts per token.
 */
#include "isa.h"
#include "x86.h"

void HM_ISA(hm_kernels_fill)(struct hm_kernels *kernels)
{
    kernels->nf4_decode = HM_ISA(hm_nf4_decode);
    kernels->nf4_encode = HM_ISA(hm_nf4_encode);
    kernels->bf16_to_f32 = HM_ISA(hm_bf16_to_f32);
    kernels->f16_to_f32 = HM_ISA(hm_f16_to_f32);
    kernels->f32_to_bf16 = HM_ISA(hm_f32_to_bf16);
    kernels->f32_round_bf16 = HM_ISA(hm_f32_round_bf16);
    kernels->rmsnorm = HM_ISA(hm_rmsnorm);
    kernels->rmsnorm_backward = HM_ISA(hm_rmsnorm_backward);
    kernels->rope = HM_ISA(hm_rope);
    kernels->softmax_tile = HM_ISA(hm_softmax_tile);
    kernels->prob_tile = HM_ISA(hm_prob_tile);
    kernels->dscore_tile = HM_ISA(hm_dscore_tile);
    kernels->swiglu = HM_ISA(hm_swiglu);
    kernels->swiglu_backward = HM_ISA(hm_swiglu_backward);
    kernels->xent = HM_ISA(hm_xent);
    kernels->adamw = HM_ISA(hm_adamw);
    kernels->adamw8 = HM_ISA(hm_adamw8);
    kernels->sum_squares = HM_ISA(hm_sum_squares);
    kernels->axpy = HM_ISA(hm_axpy);
    kernels->scale = HM_ISA(hm_scale);
    kernels->add = HM_ISA(hm_add);
    kernels->dot = HM_ISA(hm_dot);
    kernels->gemm_nt = HM_ISA(hm_gemm_nt);
    kernels->gemm_nn = HM_ISA(hm_gemm_nn);
    kernels->gemm_tn = HM_ISA(hm_gemm_tn);
}
