/* SPDX-License-Identifier: MIT */
/*
 * Matrix products of every path (the reference too) against f64 sums, with row strides wider than
 * the rows, beta 0 over NaN, and sizes around the tiles of a BLAS. The bound is k rounding errors
 * of the sum of |a b|.
 */
#include <math.h>

#include "check.h"

enum form { NT, NN, TN };

static void product(const struct hm_kernels *k, enum form form, size_t m, size_t n, size_t depth,
                    float beta)
{
    size_t rows_a = form == TN ? depth : m, cols_a = form == TN ? m : depth;
    size_t rows_b = form == NT ? n : depth, cols_b = form == NT ? depth : n;
    size_t lda = cols_a + check_below(3), ldb = cols_b + check_below(3), ldc = n + check_below(3);
    float *a = check_normals(rows_a > 0 ? (rows_a - 1) * lda + cols_a : 0, 1);
    float *b = check_normals(rows_b > 0 ? (rows_b - 1) * ldb + cols_b : 0, 1);
    size_t size_c = (m - 1) * ldc + n;
    float *c = beta == 0.0f ? check_floats(size_c) : check_normals(size_c, 1);
    float *before = check_copy(c, size_c * sizeof(*c));

    (form == NT   ? k->gemm_nt
     : form == NN ? k->gemm_nn
                  : k->gemm_tn)(m, n, depth, 0.5f, a, lda, b, ldb, beta, c, ldc);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (size_t l = 0; l < depth; l++) {
                double product = (double)(form == TN ? a[l * lda + i] : a[i * lda + l]) *
                                 (double)(form == NT ? b[j * ldb + l] : b[l * ldb + j]);
                sum += product;
                size += fabs(product);
            }
            double old = beta == 0.0f ? 0 : (double)beta * (double)before[i * ldc + j];
            double got = (double)c[i * ldc + j], want = 0.5 * sum + old;
            double bound = 6e-8 * ((double)depth * size + 2 * fabs(old) + 1);
            check_that(fabs(got - want) <= bound, "c[%zu][%zu] is %.9g, expected %.9g", i, j, got,
                       want);
        }
    for (size_t i = 0; i + 1 < m; i++) /* between the rows of C */
        for (size_t j = n; j < ldc; j++)
            check_equal("gap", &c[i * ldc + j], &before[i * ldc + j], 1);
}

static void all(const struct hm_kernels *k)
{
    static const size_t sizes[] = { 1, 4, 7, 16, 33, 64, 150 },
                        depths[] = { 1, 3, 16, 64, 200, 393, 0 };
    static const size_t tall[][3] = { { 1100, 10, 5 }, { 600, 60, 20 }, { 3, 700, 9 } };

    for (size_t i = 0; i < 7; i++)
        for (size_t j = 0; j < 7; j++)
            for (int form = NT; form <= TN; form++) {
                size_t depth = depths[(i + j + (size_t)form) % 7];
                float beta = ((float[]){ 0.0f, 1.0f, -0.25f })[check_below(3)];
                check_context("%s gemm_%s m %zu n %zu k %zu beta %g", k->name,
                              ((const char *[]){ "nt", "nn", "tn" })[form], sizes[i], sizes[j],
                              depth, (double)beta);
                product(k, (enum form)form, sizes[i], sizes[j], depth, beta);
                check_release();
            }
    for (size_t i = 0; i < sizeof(tall) / sizeof(tall[0]); i++)
        for (int form = NT; form <= TN; form++) {
            check_context("%s gemm form %d m %zu", k->name, form, tall[i][0]);
            product(k, (enum form)form, tall[i][0], tall[i][1], tall[i][2], 1.0f);
            check_release();
        }
}

/* Rows and columns from the middle of a product have the bits of the whole one. */
static void cut(const struct hm_kernels *k)
{
    enum { M = 45, N = 130, K = 500, ROW = 13, ROWS = 20, COLUMN = 37, COLUMNS = 60 };
    float *a = check_normals(M * K, 1), *b = check_normals(N * K, 1);
    float *whole = check_floats(M * N), *part = check_floats(ROWS * COLUMNS);

    k->gemm_nt(M, N, K, 1.0f, a, K, b, K, 0.0f, whole, N);
    k->gemm_nt(ROWS, COLUMNS, K, 1.0f, a + ROW * K, K, b + COLUMN * K, K, 0.0f, part, COLUMNS);
    check_context("%s gemm_nt in part", k->name);
    for (size_t i = 0; i < ROWS; i++)
        check_equal("row", part + i * COLUMNS, whole + (ROW + i) * N + COLUMN, COLUMNS);
    check_release();
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    (void)ref;
    all(path);
    if (strcmp(path->name, "portable") != 0) /* OpenBLAS promises nothing of the kind */
        cut(path);
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "gemm", all, path);
}
