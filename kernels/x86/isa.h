/* SPDX-License-Identifier: MIT */
/*
 * Private to kernels/x86/, whose sources are compiled once for each instruction set: HM_ISA(name)
 * is the name of a function in the set at hand. Sources see the vectors of simd.h alone; nothing
 * here may be called before base/cpu.h has found the set. Contracts: hanmix/kernels/kernels.h.
 */
#ifndef HANMIX_KERNELS_X86_ISA_H
#define HANMIX_KERNELS_X86_ISA_H

#include "hanmix/kernels/kernels.h"

#if defined(__AVX512VBMI__)
#define HM_ISA(name) name##_avx512vbmi
#elif defined(__AVX512F__)
#define HM_ISA(name) name##_avx512
#else
#define HM_ISA(name) name##_avx2
#endif

void HM_ISA(hm_nf4_decode)(const uint8_t *codes, const float *scale, uint64_t first, size_t n,
                           uint32_t blocksize, enum hm_round round, float *out);
void HM_ISA(hm_nf4_encode)(const float *values, size_t n, uint32_t blocksize, uint8_t *codes,
                           float *absmax);

void HM_ISA(hm_bf16_to_f32)(const void *in, size_t n, float *out);
void HM_ISA(hm_f16_to_f32)(const void *in, size_t n, float *out);
void HM_ISA(hm_f32_to_bf16)(const float *in, size_t n, uint16_t *out);
void HM_ISA(hm_f32_round_bf16)(float *values, size_t n);

void HM_ISA(hm_rmsnorm)(const float *x, const float *w, size_t n, size_t d, float eps, float *y,
                        float *rho);
void HM_ISA(hm_rmsnorm_backward)(const float *x, const float *w, const float *rho, const float *dy,
                                 size_t n, size_t d, float *dx, float *dw);

void HM_ISA(hm_rope)(float *x, size_t n, size_t ldx, size_t heads, size_t head_dim,
                     const float *cos_table, const float *sin_table, const int32_t *pos,
                     float sign);

void HM_ISA(hm_softmax_tile)(float *score, size_t n_q, size_t n_k, size_t ld,
                             const int32_t *first_key, const int32_t *end_key, float scale,
                             float *row_max, float *row_sum, float *row_alpha);
void HM_ISA(hm_prob_tile)(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                          const int32_t *end_key, float scale, const float *lse);
void HM_ISA(hm_dscore_tile)(const float *p, float *dp, size_t n_q, size_t n_k, size_t ld,
                            float scale, const float *delta);

void HM_ISA(hm_swiglu)(const float *a1, const float *a3, size_t n, float *m);
void HM_ISA(hm_swiglu_backward)(const float *a1, const float *a3, const float *dm, size_t n,
                                float *da1, float *da3);

void HM_ISA(hm_xent)(float *logits, size_t n, size_t vocab, size_t ld, const int32_t *target,
                     const float *row_scale, bool want_gradient, double *loss);

void HM_ISA(hm_adamw)(float *param, const float *grad, float *m, float *v, size_t n,
                      const struct hm_adamw_step *step);
void HM_ISA(hm_adamw8)(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                       const struct hm_adamw_step *step);
double HM_ISA(hm_sum_squares)(const float *x, size_t n);

void HM_ISA(hm_axpy)(float a, const float *x, size_t n, float *y);
void HM_ISA(hm_scale)(float a, float *x, size_t n);
void HM_ISA(hm_add)(const float *x, size_t n, float *y);
double HM_ISA(hm_dot)(const float *x, const float *y, size_t n);

void HM_ISA(hm_gemm_nt)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc);
void HM_ISA(hm_gemm_nn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc);
void HM_ISA(hm_gemm_tn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc);

#endif
