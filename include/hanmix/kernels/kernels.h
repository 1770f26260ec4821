/* SPDX-License-Identifier: MIT */
/*
 * The kernel table: every hot loop as a function pointer, filled with the C reference and then with
 * what the CPU allows.
 *
 * Numbers in, numbers out: no I/O, no allocation, no threads, no errors. Matrices are row-major f32
 * unless said; ld* are row strides in elements. Output rows never alias inputs unless said. Any
 * alignment is accepted; tails are handled. Accumulation is f32 in the order stated in
 * docs/NUMERICS.md; results of one path do not depend on the thread count, because callers cut work
 * by fixed grains. Different paths (ref, avx2, avx512) may differ in the last bits where a comment
 * says so. The reference in kernels/ref/ defines each kernel and is always built and tested
 * against. Thread class: the table is immutable after hm_kernels_init; kernels are thread safe.
 */
#ifndef HANMIX_KERNELS_KERNELS_H
#define HANMIX_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"
#include "hanmix/kernels/convert.h"
#include "hanmix/kernels/map8.h"

/* Rounding of a decoded frozen weight: none (f32 product) or once to bf16 (specs: one policy for
 * both passes). */
enum hm_round { HM_ROUND_NONE, HM_ROUND_BF16 };

/* NF4 (QLoRA paper, appendix E; bitsandbytes' f32 values). Index 0..15 ascending. */
extern const float hm_nf4_code[16];
extern const float
    hm_nf4_threshold[15]; /* f32 midpoints; a value on a midpoint takes the lower code */

/*
 * A frozen matrix W [rows][cols] as it lies in a file: what products in bf16 read. Pointers of any
 * alignment, borrowed. cols is a multiple of 64; NF4 blocks (blocksize a multiple of 64 that
 * divides cols) never cross a row.
 */
enum hm_frozen_layout { HM_FROZEN_NF4, HM_FROZEN_BF16 };
struct hm_frozen {
    enum hm_frozen_layout layout;
    uint32_t rows, cols;
    const uint8_t *data; /* NF4: codes, two a byte, even index in the high nibble; else bf16 */
    uint32_t blocksize;
    const uint8_t *absmax;        /* one a block: f32, or u8 when nested_absmax is there */
    const uint8_t *nested_absmax; /* f32, one for 256 blocks; or NULL */
    const uint8_t *nested_map;    /* f32 [256] */
    float nested_offset;
};

/* The side of a left operand: x of y = x W^T, or dy of dx = dy W; dy may also be given by columns.
 */
enum hm_pack { HM_PACK_FORWARD, HM_PACK_BACKWARD, HM_PACK_BACKWARD_TURNED };
#define HM_PACK_ROWS            16u /* packed operands are padded with zeros to these multiples */
#define HM_PACK_COLS            32u
#define HM_FROZEN_SCRATCH_BYTES ((size_t)1 << 20)

/* bf16 values of a packed operand [m][k], whatever its side and path. */
static inline size_t hm_pack_values(size_t m, size_t k)
{
    return (m + HM_PACK_ROWS - 1) / HM_PACK_ROWS * HM_PACK_ROWS *
           ((k + HM_PACK_COLS - 1) / HM_PACK_COLS * HM_PACK_COLS);
}

/* What a low-rank product adds to that with W: y += value factor^T, dx += value factor. The values
 * [m][rank] are bf16: [pairs of ranks][m padded to HM_PACK_ROWS][2], zeros in the padding and
 * behind an odd rank. */
struct hm_low_rank {
    uint32_t rank;
    const float *factor; /* forward B [rows][rank], backward A [rank][cols] of W's shape */
    const uint16_t *value;
};

/* Sums of m rows: [m / 32][ranks, padded to 4][32]; those of rows from r on, a multiple of 32,
 * begin at hm_low_sums(r, rank). */
#define HM_LOW_SUM_RANKS 64u
static inline size_t hm_low_sums(size_t m, uint32_t rank)
{
    return (m + 31) / 32 * 32 * ((rank + (size_t)3) / 4 * 4);
}

#define HM_LOW_PARTS 3u
struct hm_low_part {       /* the gradient of one A, of those that read the same x */
    const uint16_t *value; /* v */
    uint32_t rank;
    float *grad;
};

/* Values from one pair of ranks to the next, and of all. */
static inline size_t hm_low_ld(size_t m)
{
    return 2 * ((m + HM_PACK_ROWS - 1) / HM_PACK_ROWS * HM_PACK_ROWS);
}

static inline size_t hm_low_values(size_t m, uint32_t rank)
{
    return (rank + (size_t)1) / 2 * hm_low_ld(m);
}

struct hm_adamw_step { /* torch.optim.AdamW, decoupled decay; f64 as torch's scalars: 1 - 0.999f
                          would be off by 1e-5 */
    double lr, beta1, beta2, eps, weight_decay;
    double bias1, bias2; /* 1 - beta^t */
    float grad_scale;    /* clip factor applied to every gradient first */
};

/* Both moments of AdamW in 8 bits: value i is map.value[code[i]] * absmax[i / HM_BLOCK8]. */
struct hm_moments8 {
    const struct hm_map8 *m_map, *v_map; /* with sign, without */
    uint8_t *m, *v;                      /* [n] */
    float *m_absmax, *v_absmax;          /* [ceil(n / HM_BLOCK8)] */
};

struct hm_kernels {
    const char *name; /* "ref", "portable" (ref with OpenBLAS), "avx2", "avx512",
                         "avx512bf16", "amx": recorded in stage.json and in training state */

    /* --- nf4.c --- */
    /* n values from flat index `first` of a matrix. codes: whole matrix, two per byte, even index
       in the HIGH nibble. scale[b]: f32 absmax of block b (whole matrix indexing: block of value i
       is i / blocksize). v = f32(code * scale), then round. */
    void (*nf4_decode)(const uint8_t *codes, const float *scale, uint64_t first, size_t n,
                       uint32_t blocksize, enum hm_round round, float *out);
    /* The first of the n values begins a block; a partial block (n % blocksize values) ends the
       sequence, an odd count is padded with code 7. codes: ceil(n/2) bytes, absmax:
       ceil(n/blocksize). Full block: x = clamp(w * (1/max(a, 1e-38)), -1, 1), a = largest |w|,
       stored as it is; partial: x = clamp(w / max(a, 1e-38), -1, 1), and max(a, 1e-38) is stored.
       NaN gets code 0 and is not seen by the maximum. */
    void (*nf4_encode)(const float *values, size_t n, uint32_t blocksize, uint8_t *codes,
                       float *absmax);

    /* --- convert.c: unaligned arrays --- */
    void (*bf16_to_f32)(const void *in, size_t n, float *out);
    void (*f16_to_f32)(const void *in, size_t n, float *out);
    void (*f32_to_bf16)(const float *in, size_t n, uint16_t *out);
    void (*f32_round_bf16)(float *values, size_t n); /* in place */

    /* --- norm.c --- RMSNorm, rows of width d: rho = 1/sqrt(mean(x^2) + eps); y = (x * rho) * w.
     * rho[n] kept for backward. */
    void (*rmsnorm)(const float *x, const float *w, size_t n, size_t d, float eps, float *y,
                    float *rho);
    /* dx += rho*g' - (rho^3/d) x <x, g'>, g' = dy*w; dw (may be NULL) += sum over rows in order of
     * dy*x*rho. */
    void (*rmsnorm_backward)(const float *x, const float *w, const float *rho, const float *dy,
                             size_t n, size_t d, float *dx, float *dw);

    /* --- rope.c --- half-split rotation in place: x[n][heads*head_dim], table rows
     * cos/sin[head_dim/2] of position pos[t]; sign +1 forward, -1 backward. */
    void (*rope)(float *x, size_t n, size_t ldx, size_t heads, size_t head_dim,
                 const float *cos_table, const float *sin_table, const int32_t *pos, float sign);

    /* --- attn.c --- one query tile against one key tile of one head, S raw products. Row i sees
       the keys first_key[i] <= j < end_key[i] of the tile (both cut to 0..n_k; other S are not
       read); the running form (Dao et al. 2022) is driven by model/attention.c. */
    /* row_max, row_sum: running state, -INFINITY and 0 before the first tile. new = max(row_max,
       scale*S); S := P = exp(scale*S - new), 0 for unseen keys; scale > 0; row_alpha = exp(row_max
       - new) for the caller to scale its rows of O by, exactly 1 when the row sees no key; row_sum
       = row_sum * row_alpha + sum P. lse = row_max + log(row_sum). */
    void (*softmax_tile)(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                         const int32_t *end_key, float scale, float *row_max, float *row_sum,
                         float *row_alpha);
    /* S := P = exp(scale*S - lse[i]), 0 for unseen keys. */
    void (*prob_tile)(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                      const int32_t *end_key, float scale, const float *lse);
    /* dS = scale * P * (dP - delta[i]); dp in place. */
    void (*dscore_tile)(const float *p, float *dp, size_t n_q, size_t n_k, size_t ld, float scale,
                        const float *delta);

    /* --- swiglu.c --- m = silu(a1) * a3 elementwise. */
    void (*swiglu)(const float *a1, const float *a3, size_t n, float *m);
    /* da1 = dm*a3*sig(a1)*(1 + a1*(1 - sig(a1))), da3 = dm*silu(a1); outputs may alias a1, a3. */
    void (*swiglu_backward)(const float *a1, const float *a3, const float *dm, size_t n, float *da1,
                            float *da3);

    /* --- topk.c --- rows of E router logits: p = softmax over all (f32); ids[k] of the largest
       (lowest index on a tie), weight = renormalised p over the k. The ids of a row are distinct
       and in range even for NaN. k <= E. */
    void (*route)(const float *logits, size_t n, size_t experts, size_t k, float *prob,
                  int32_t *ids, float *weight);

    /* --- xent.c --- rows of V logits: returns nothing; loss[i] = logsumexp - logit[target], 0 when
       target < 0; with want_gradient logits become (softmax - onehot) * row_scale (0 rows when
       target < 0), else they are left alone. target < V. */
    void (*xent)(float *logits, size_t n, size_t vocab, size_t ld, const int32_t *target,
                 const float *row_scale, bool want_gradient, double *loss);

    /* --- adamw.c --- */
    void (*adamw)(float *param, const float *grad, float *m, float *v, size_t n,
                  const struct hm_adamw_step *step);
    /* The same with moments in 8 bits; value 0 begins a block. The update uses the moments before
       they are coded; a block's absmax is its largest magnitude a, codes are the nearest entries to
       clamp(x * (1 / max(a, 1e-38)), map.low, 1) from low_code on, the lower one on a tie, that of
       map.low for NaN. */
    void (*adamw8)(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                   const struct hm_adamw_step *step);
    double (*sum_squares)(const float *x, size_t n); /* f64 accumulation */

    /* --- vector.c --- */
    void (*axpy)(float a, const float *x, size_t n, float *y); /* y += a x */
    void (*scale)(float a, float *x, size_t n);
    void (*add)(const float *x, size_t n, float *y); /* y += x */
    /* 64 f32 lanes, joined in f64 by halving; same bits on every path */
    double (*dot)(const float *x, const float *y, size_t n);

    /* --- gemm.c --- one thread. C[m,n] = alpha * op(A) op(B) + beta * C; beta 0 does not read C;
       k = 0 gives beta * C. ref: plain loops, portable: cblas_sgemm, else our own products. */
    void (*gemm_nt)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c,
                    size_t ldc); /* A[m,k] B[n,k]^T */
    void (*gemm_nn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c,
                    size_t ldc); /* A[m,k] B[k,n] */
    void (*gemm_tn)(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c,
                    size_t ldc); /* A[k,m]^T B[k,n] */

    /* --- frozen.c --- products with a frozen matrix in bf16, one thread: both operands are rounded
       to bf16 (W as HM_ROUND_BF16 says), products are exact, sums f32. NULL: this path has none,
       and decoded panels meet gemm_* instead. Infinity beyond bf16's range as IEEE rounds; paths
       may take subnormal operands for zero. */
    /* A block x[n_rows][n_cols] of the left operand [m][k], beginning at its row0 (a multiple of
       HM_PACK_ROWS) and col0 (of HM_PACK_COLS); a block that ends inside the operand ends at such a
       multiple. The order of packed values is the path's own and depends on side, m and k; blocks
       write disjoint parts, padding belongs to the block that reaches the edge. BACKWARD_TURNED
       reads x as [n_cols][n_rows], rows ldx apart, and packs what BACKWARD would. */
    void (*frozen_pack)(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                        size_t col0, size_t n_cols, const float *x, size_t ldx, uint16_t *packed);
    /* y[m][n_rows] = x W[row0 .. row0+n_rows)^T, and the same rows of a low-rank product unless
       `low` is NULL, added to y when `add`. x: packed FORWARD [m][cols]. scratch:
       HM_FROZEN_SCRATCH_BYTES of this thread, 64-byte aligned. */
    void (*frozen_forward)(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                           const uint16_t *x, size_t m, const struct hm_low_rank *low, bool add,
                           float *y, size_t ldy, void *scratch);
    /* dx[m][n_cols] = dy W[:][col0 .. col0+n_cols), and likewise `low`, added to dx when `add`;
       col0 and n_cols are multiples of 64. dy: packed BACKWARD [m][w->rows]. */
    void (*frozen_backward)(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                            const uint16_t *dy, size_t m, const struct hm_low_rank *low, bool add,
                            float *dx, size_t lddx, void *scratch);

    /* --- low.c --- LoRA beside frozen products, in bf16 as they are: factors are rounded to bf16,
       sums are f32. NULL: this path has none (its frozen products take no `low`), and gemm_* serve
       in f32. k and n_cols are multiples of 32. */
    /* Values of rows [row0, row0+n) of a packed operand [m][k]: scale * x A^T with A [rank][k] of
       the side FORWARD, scale * dy B with B [k][rank] of BACKWARD, rounded. `low` points at those
       of row0, pairs of ranks are ld_low apart. row0 is a multiple of HM_PACK_ROWS, row0 + n ends
       at one or is m. */
    void (*low_project)(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                        const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                        uint16_t *low, size_t ld_low, void *scratch);
    /* The same of HM_PACK_ROWS rows or more by parts: sums over columns [col0, col0 + n_cols) of
       the operand, hm_low_sums of them, at most HM_LOW_SUM_RANKS; then joined in order, parts
       `stride` apart, into the values of rows [row0, row0+n). col0 is a multiple of 64, a part that
       ends inside the operand ends at one. */
    void (*low_sums)(enum hm_pack side, const float *factor, uint32_t rank, const uint16_t *x,
                     size_t m, uint32_t k, uint32_t col0, uint32_t n_cols, float *sums,
                     void *scratch);
    void (*low_join)(const float *sums, size_t stride, size_t n_parts, uint32_t rank, float scale,
                     size_t row0, size_t n, uint16_t *low, size_t ld_low);
    /* For each of 1 to HM_LOW_PARTS parts: grad[rank][n_cols], rows ld apart, += value^T bf16(x)
       over m rows of x that are ldx apart. */
    void (*low_a_gradient)(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                           const struct hm_low_part *part, unsigned n_parts, size_t ld,
                           void *scratch);
    /* grad[n_cols][rank] += dy^T value, of columns [col0, col0+n_cols) of dy, packed BACKWARD
       [m][k]. */
    void (*low_b_gradient)(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0, uint32_t n_cols,
                           const uint16_t *value, uint32_t rank, float *grad, void *scratch);
};

/* Fill the table for these base/cpu flags: 0 gives "portable", reference arithmetic with cblas for
 * gemm. Sets OpenBLAS to one thread. HM_CPU is looked at by hm_kernels_choose alone. */
void hm_kernels_init(struct hm_kernels *ret_kernels, unsigned cpu_flags);
/* The pure C table, gemm included: what every other path is tested against. */
void hm_kernels_reference(struct hm_kernels *ret_kernels);
/* By HM_CPU, which takes the highest path up to the one it names, or by trial: of the paths whose
 * instructions work the highest, unless a lower one is a quarter faster at products with frozen
 * matrices (a few ms, once a process). Or by a recorded name ("avx512"), never measured anew;
 * unknown or unavailable names are HM_ERR_USAGE. Catches SIGILL during a path's first trial. */
int hm_kernels_choose(struct hm_kernels *ret_kernels, const char *name_or_null,
                      struct hm_error *err);

enum hm_path_state { HM_PATH_GOOD, HM_PATH_LACKS_FLAGS, HM_PATH_FAULTS, HM_PATH_WRONG };
struct hm_path {
    const char *name; /* static */
    enum hm_path_state state;
    bool products; /* with frozen matrices in bf16 of its own */
    double gflops; /* of those products (else decoded panels in f32), one thread; 0: not usable */
};
#define HM_PATHS_MAX 8
/* All paths of this build in rising order, tried and measured. Returns how many. */
size_t hm_kernels_paths(struct hm_path *list, size_t max);
/* Why it may or may not be used; static. */
const char *hm_path_state_text(const struct hm_path *path);
/* All tables this machine can run, for tests: index 0 is the reference. Returns how many. */
size_t hm_kernels_all(struct hm_kernels *tables, size_t max);

#endif
