/* SPDX-License-Identifier: MIT */
/*
 * The only caller of cblas, for machines without vector kernels of ours. OpenBLAS runs one thread,
 * as its manual asks of threaded programs; the loops above cut the work. Sizes beyond its 32-bit
 * integers are a caller's error: tiles are small.
 */
#include <cblas.h>
#include <limits.h>

#include "hanmix/base/status.h"

#include "blas.h"

void hm_blas_init(void)
{
    openblas_set_num_threads(1);
}

static void sgemm(CBLAS_TRANSPOSE op_a, CBLAS_TRANSPOSE op_b, size_t m, size_t n, size_t k,
                  float alpha, const float *a, size_t lda, const float *b, size_t ldb, float beta,
                  float *c, size_t ldc)
{
    if (m == 0 || n == 0)
        return;
    HM_BUG((m | n | k | lda | ldb | ldc) > INT_MAX);
    cblas_sgemm(CblasRowMajor, op_a, op_b, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb,
                beta, c, (int)ldc);
}

void hm_gemm_nt_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    sgemm(CblasNoTrans, CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void hm_gemm_nn_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    sgemm(CblasNoTrans, CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void hm_gemm_tn_blas(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                     const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    sgemm(CblasTrans, CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
