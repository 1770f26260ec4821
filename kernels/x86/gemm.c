/* SPDX-License-Identifier: MIT */
/*
 * Matrix products for x86 (after Goto and van de Geijn 2008). A panel of B, K_BLOCK deep and PANEL
 * columns wide, is packed on the stack and stays in L1 while the rows of A pass by, MR at a time,
 * read where they are (packed when A is transposed and wide); the sums stay in registers. Why not
 * OpenBLAS: at the sizes of the model's panels it reaches 60 to 95 % of this, at few rows less
 * (bench/kernels gemm), and only on CPUs that its version knows. Each element of C is one chain of
 * fused products in order of k per K_BLOCK, joined through C itself, wherever it lies in a tile:
 * the cut of a product into tiles does not change its bits, except at m <= FEW in gemm_nt, where
 * sums run in the lanes of a vector.
 */
#include "isa.h"
#include "simd.h"

#define MR        (VW / 2) /* rows of the register tile */
#define NV        3 /* its vectors in a row: MR * NV sums, NV of B and one of A fit the registers */
#define PANEL     (NV * VW) /* columns */
#define K_BLOCK   192       /* PANEL * K_BLOCK floats: 36 or 18 KB */
#define M_BLOCK   256       /* rows of A packed at once, where A is transposed */
#define IN_PLACE  512       /* rows of A read where they are: with K_BLOCK 384 KB, which L2 keeps */
#define N_BLOCK   528       /* columns for which C stays in L2: whole panels */
#define FEW       (VW == 16 ? 6 : 4) /* rows for which packing B would cost more than the products */
#define NARROW    16                 /* columns of C for which lanes run along its rows */
#define FEW_WIDTH 4                  /* rows of B that they meet at once */
#define INLINE    static inline __attribute__((always_inline))

_Static_assert(N_BLOCK % PANEL == 0, "a panel must not be split");
_Static_assert(M_BLOCK % MR == 0 && IN_PLACE % MR == 0, "a register tile must not be split");
_Static_assert(FEW <= MR && FEW_WIDTH * 2 <= MR * NV, "the sums of few rows fit the registers");

struct target { /* C of one register tile */
    float *c;
    size_t ldc, n; /* n: columns that exist */
    float alpha, beta;
};

INLINE void row_store(const struct target *to, size_t row, const vf *sum, size_t n_vectors)
{
    const vf zero = vf_set1(0.0f), alpha = vf_set1(to->alpha), beta = vf_set1(to->beta);
    float *c = to->c + row * to->ldc;

    UNROLL for (size_t v = 0; v < n_vectors; v++)
    {
        size_t left = to->n - v * VW;
        vf result = vf_mul(alpha, sum[v]);
        if (to->beta != 0.0f)
            result = vf_fma(beta, vf_next(c + v * VW, left, zero), result);
        vf_put(c + v * VW, result, left);
    }
}

/* C[rows][n_vectors * VW] from k steps: a[row * a_row + step * a_k], b[step * b_k + column]. */
INLINE void tile_run(size_t rows, size_t n_vectors, size_t k, const float *a, size_t a_row,
                     size_t a_k, const float *b, size_t b_k, const struct target *to)
{
    vf sum[MR][NV];

    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t v = 0; v < n_vectors; v++)
        sum[r][v] = vf_set1(0.0f);
    for (size_t step = 0; step < k; step++, a += a_k, b += b_k) {
        vf column[NV];
        UNROLL for (size_t v = 0; v < n_vectors; v++) column[v] = vf_load(b + v * VW);
        UNROLL for (size_t r = 0; r < rows; r++)
        {
            vf factor = vf_set1(a[r * a_row]);
            UNROLL for (size_t v = 0; v < n_vectors; v++) sum[r][v] =
                vf_fma(factor, column[v], sum[r][v]);
        }
    }
    UNROLL for (size_t r = 0; r < rows; r++) row_store(to, r, sum[r], n_vectors);
}

/* The same with the number of rows made a constant. */
INLINE void tile_rows(size_t rows, size_t n_vectors, size_t k, const float *a, size_t a_row,
                      size_t a_k, const float *b, size_t b_k, const struct target *to)
{
    switch (rows) {
#define CASE(count)                                               \
    case count:                                                   \
        tile_run(count, n_vectors, k, a, a_row, a_k, b, b_k, to); \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
#if MR > 4
        CASE(4)
        CASE(5)
        CASE(6)
        CASE(7)
#endif
    default:
        tile_run(MR, n_vectors, k, a, a_row, a_k, b, b_k, to);
#undef CASE
    }
}

struct rows { /* A: element (row, k) at a[row / MR * tile + row % MR * row_step + k * k_step] */
    const float *a;
    size_t tile, row_step, k_step;
};

INLINE void panel_rows(size_t n_vectors, size_t m, size_t k, const struct rows *rows,
                       const float *b, struct target to)
{
    const float *a = rows->a;

    for (size_t i = 0; i < m; i += MR, a += rows->tile, to.c += MR * to.ldc)
        tile_rows(m - i < MR ? m - i : MR, n_vectors, k, a, rows->row_step, rows->k_step, b, PANEL,
                  &to);
}

/* All rows of A against one packed panel of B. Apart from what surrounds it, whose variables would
 * take registers from the inner loops. */
static __attribute__((noinline)) void panel_run(size_t m, size_t k, const struct rows *rows,
                                                const float *b, struct target to)
{
    if (to.n > 2 * VW)
        panel_rows(3, m, k, rows, b, to);
    else if (to.n > VW)
        panel_rows(2, m, k, rows, b, to);
    else
        panel_rows(1, m, k, rows, b, to);
}

/* --- packing --- */

/* Columns of B[k][n] as they stand, zeros up to a whole vector. */
static void columns_copy(const float *b, size_t ldb, size_t k, size_t n, float *panel)
{
    const vf zero = vf_set1(0.0f);

    for (size_t step = 0; step < k; step++, b += ldb, panel += PANEL)
        for (size_t j = 0; j < n; j += VW)
            vf_store(panel + j, vf_next(b + j, n - j, zero));
}

/* Rows of B[n][k] turned into columns. */
static void rows_turn(const float *b, size_t ldb, size_t k, size_t n, float *panel)
{
    const vf zero = vf_set1(0.0f);

    for (size_t j = 0; j < n; j += VW)
        for (size_t step = 0; step < k; step += VW) {
            size_t left = k - step;
            vf block[VW];
            UNROLL for (size_t r = 0; r < VW; r++) block[r] =
                j + r < n ? vf_next(b + (j + r) * ldb + step, left, zero) : zero;
            vf_transpose(block);
            for (size_t r = 0; r < VW && r < left; r++)
                vf_store(panel + (step + r) * PANEL + j, block[r]);
        }
}

/* A[k][m] as tiles [k][MR]; columns that do not exist are not read by tile_run. */
static void tiles_copy(const float *a, size_t lda, size_t m, size_t k, float *tiles)
{
    for (size_t i = 0; i < m; i += MR, tiles += K_BLOCK * MR)
        for (size_t step = 0; step < k; step++) {
            const float *from = a + step * lda + i;
            if (m - i >= MR)
                memcpy(tiles + step * MR, from, MR * sizeof(*a)); /* one move */
            else
                memcpy(tiles + step * MR, from, (m - i) * sizeof(*a));
        }
}

/* --- products --- */

struct operand {
    const float *at;
    size_t ld;
    bool turned; /* A[k][m], B[n][k] */
};

/* One K_BLOCK of all columns for rows of A that are ready. */
static void block_run(size_t m, size_t n, size_t k, const struct rows *rows,
                      const struct operand *b, size_t k0, struct target to)
{
    float panel[K_BLOCK * PANEL] __attribute__((aligned(64)));
    float *c = to.c;

    for (size_t j = 0; j < n; j += PANEL) {
        to.n = n - j < PANEL ? n - j : PANEL;
        to.c = c + j;
        if (b->turned)
            rows_turn(b->at + j * b->ld + k0, b->ld, k, to.n, panel);
        else
            columns_copy(b->at + k0 * b->ld + j, b->ld, k, to.n, panel);
        panel_run(m, k, rows, panel, to);
    }
}

/* A block of C, all of k; C stays in L2 between the steps of k. */
static void block_product(size_t m, size_t n, size_t k, const struct operand *a,
                          const struct operand *b, bool packed, struct target to)
{
    float tiles[K_BLOCK * M_BLOCK];

    for (size_t k0 = 0; k0 == 0 || k0 < k; k0 += K_BLOCK, to.beta = 1.0f) {
        size_t depth = k - k0 < K_BLOCK ? k - k0 : K_BLOCK;
        struct rows rows = { a->at + k0, MR * a->ld, a->ld, 1 };
        if (a->turned)
            rows = (struct rows){ a->at + k0 * a->ld, MR, 1, a->ld };
        if (packed) {
            tiles_copy(rows.a, a->ld, m, depth, tiles);
            rows = (struct rows){ tiles, K_BLOCK * MR, 1, MR };
        }
        block_run(m, n, depth, &rows, b, k0, to);
    }
}

static void product(size_t m, size_t n, size_t k, float alpha, struct operand a, struct operand b,
                    float beta, float *c, size_t ldc)
{
    bool packed = a.turned && n > PANEL; /* for one panel every value of A is read once */
    size_t m_block = packed ? M_BLOCK : IN_PLACE;

    for (size_t i = 0; i < m; i += m_block)
        for (size_t j = 0; j < n; j += N_BLOCK) {
            size_t height = m - i < m_block ? m - i : m_block;
            size_t width = n - j < N_BLOCK ? n - j : N_BLOCK;
            struct operand rows = { a.at + (a.turned ? i : i * a.ld), a.ld, a.turned };
            struct operand columns = { b.at + (b.turned ? j * b.ld : j), b.ld, b.turned };
            struct target to = { c + i * ldc + j, ldc, width, alpha, beta };
            block_product(height, width, k, &rows, &columns, packed, to);
        }
}

/* A^T B with few columns, as the transpose of B^T A: rows of C would leave lanes empty. The same
 * bits, since factors may change places. */
static void tall_product(size_t m, size_t n, size_t k, float alpha, struct operand a,
                         struct operand b, float beta, float *c, size_t ldc)
{
    float turned[NARROW * M_BLOCK];

    for (size_t i = 0; i < m; i += M_BLOCK, c += M_BLOCK * ldc) {
        size_t rows = m - i < M_BLOCK ? m - i : M_BLOCK;
        for (size_t r = 0; beta != 0.0f && r < rows; r++)
            for (size_t j = 0; j < n; j++)
                turned[j * M_BLOCK + r] = c[r * ldc + j];
        product(n, rows, k, alpha, b, (struct operand){ a.at + i, a.ld, false }, beta, turned,
                M_BLOCK);
        for (size_t r = 0; r < rows; r++)
            for (size_t j = 0; j < n; j++)
                c[r * ldc + j] = turned[j * M_BLOCK + r];
    }
}

/* --- few rows --- */

INLINE void few_step(size_t m, size_t width, const float *a, size_t lda, const float *b, size_t ldb,
                     size_t left, vf (*sum)[FEW_WIDTH])
{
    const vf zero = vf_set1(0.0f);
    vf column[FEW_WIDTH];

    UNROLL for (size_t r = 0; r < width; r++) column[r] = vf_next(b + r * ldb, left, zero);
    UNROLL for (size_t i = 0; i < m; i++)
    {
        vf x = vf_next(a + i * lda, left, zero);
        UNROLL for (size_t r = 0; r < width; r++) sum[i][r] = vf_fma(x, column[r], sum[i][r]);
    }
}

/* C[m][width]: sums along k in the lanes of a vector. */
INLINE void few_columns(size_t m, size_t width, size_t k, const float *a, size_t lda,
                        const float *b, size_t ldb, const struct target *to, float *c)
{
    vf sum[FEW][FEW_WIDTH];
    size_t step = 0;

    UNROLL for (size_t i = 0; i < m; i++) UNROLL for (size_t r = 0; r < width; r++) sum[i][r] =
        vf_set1(0.0f);
    for (; step + VW <= k; step += VW)
        few_step(m, width, a + step, lda, b + step, ldb, VW, sum);
    if (step < k)
        few_step(m, width, a + step, lda, b + step, ldb, k - step, sum);
    UNROLL for (size_t i = 0; i < m; i++) UNROLL for (size_t r = 0; r < width; r++)
    {
        float *at = c + i * to->ldc + r;
        float result = to->alpha * vf_sum(sum[i][r]);
        *at = to->beta == 0.0f ? result : result + to->beta * *at;
    }
}

INLINE void few_rows(size_t m, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
                     const struct target *to)
{
    const size_t width = MR * NV / m < FEW_WIDTH ? MR * NV / m : FEW_WIDTH;
    size_t j = 0;

    for (; j + width <= to->n; j += width)
        few_columns(m, width, k, a, lda, b + j * ldb, ldb, to, to->c + j);
    for (; j < to->n; j++)
        few_columns(m, 1, k, a, lda, b + j * ldb, ldb, to, to->c + j);
}

void HM_ISA(hm_gemm_nt)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    struct target to = { c, ldc, n, alpha, beta };

    switch (m) {
#define CASE(count)                              \
    case count:                                  \
        few_rows(count, k, a, lda, b, ldb, &to); \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if VW == 16
        CASE(5)
        CASE(6)
#endif
    default:
        product(m, n, k, alpha, (struct operand){ a, lda, false }, (struct operand){ b, ldb, true },
                beta, c, ldc);
#undef CASE
    }
}

void HM_ISA(hm_gemm_nn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    product(m, n, k, alpha, (struct operand){ a, lda, false }, (struct operand){ b, ldb, false },
            beta, c, ldc);
}

void HM_ISA(hm_gemm_tn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                        const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (n <= NARROW && m > n)
        tall_product(m, n, k, alpha, (struct operand){ a, lda, true },
                     (struct operand){ b, ldb, true }, beta, c, ldc);
    else
        product(m, n, k, alpha, (struct operand){ a, lda, true }, (struct operand){ b, ldb, false },
                beta, c, ldc);
}
