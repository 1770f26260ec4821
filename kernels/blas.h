/* SPDX-License-Identifier: MIT */
/*
 * The matrix products of the table through cblas, private to kernels/. One thread each: callers cut
 * the work into tiles with hm_parallel_for. Thread class: thread safe after hm_blas_init.
 */
#ifndef HANMIX_KERNELS_BLAS_H
#define HANMIX_KERNELS_BLAS_H

#include <stddef.h>

void hm_blas_init(void); /* OpenBLAS to one thread */

void hm_gemm_nt_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc);
void hm_gemm_nn_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc);
void hm_gemm_tn_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc);

#endif
