/* SPDX-License-Identifier: MIT */
/*
 * Matrix products as plain loops: what kernels/blas.c is tested against and what HM_CPU=ref runs.
 * C[m,n] = alpha op(A) op(B) + beta C; products are added in order of k in f32; beta 0 never reads
 * C.
 */
#include "ref.h"

static void store(float alpha, float sum, float beta, float *c)
{
    *c = beta == 0.0f ? alpha * sum : alpha * sum + beta * *c;
}

void hm_gemm_nt_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (size_t l = 0; l < k; l++)
                sum += a[i * lda + l] * b[j * ldb + l];
            store(alpha, sum, beta, &c[i * ldc + j]);
        }
}

void hm_gemm_nn_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (size_t l = 0; l < k; l++)
                sum += a[i * lda + l] * b[l * ldb + j];
            store(alpha, sum, beta, &c[i * ldc + j]);
        }
}

void hm_gemm_tn_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (size_t l = 0; l < k; l++)
                sum += a[l * lda + i] * b[l * ldb + j];
            store(alpha, sum, beta, &c[i * ldc + j]);
        }
}
