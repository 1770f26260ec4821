/* SPDX-License-Identifier: MIT */
/*
 * Private to the frozen_*.c of AVX512-BF16 (kernels/x86/meson.build compiles them once): the order
 * of packed operands, the layout of scratch, and panels of decoded weights.
 *
 * Packed operands are cut along k into chunks of CHUNK values, [chunk][m][chunk's k]. "Rows" keeps
 * rows as they are; "lanes" turns groups of 16 rows so that a vector holds one pair (k, k + 1) of
 * each: [group][k / 2][16][2]; see tail_rows for the last group.
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_H
#define HANMIX_KERNELS_X86_FROZEN_H

#include <immintrin.h>
#include <string.h>

#include "hanmix/kernels/kernels.h"

#define CHUNK   512u /* of k, values */
#define FEW     12u  /* rows of x for which forward lanes are values of k */
#define LANES   16u  /* f32 in a vector: rows of a group */
#define PAIRS   32u  /* bf16 in a vector */
#define PANEL_N 256u /* outputs of a panel of W */
#define BLOCK_M 256u /* rows for which a panel is decoded once */

#define LOW_RANK   64u /* ranks of a low-rank product that join a chunk of k */
#define TILED_COLS 256u
#define LOW_M      128u /* rows of x or dy met at once by gradients of low-rank factors */

#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

#define SCALES 8192u /* of a panel, read at once */

struct frozen_scratch {
    uint16_t panel[PANEL_N * CHUNK];
    float sum[PANEL_N * BLOCK_M];
    float scale[SCALES];
    uint16_t low[PANEL_N * LOW_M]; /* a piece of a factor, or of a low-rank value turned */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct frozen_scratch) <= HM_FROZEN_SCRATCH_BYTES, "scratch is too small");

INLINE size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

INLINE size_t units(size_t count, size_t grain)
{
    return (count + grain - 1) / grain;
}

INLINE size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Into L2; the address need not exist. */
INLINE void fetch(uintptr_t address)
{
    _mm_prefetch((const char *)address, _MM_HINT_T1);
}

/* Where the chunk that holds column `col` begins, and its width. */
INLINE size_t chunk_begin(size_t m, size_t col)
{
    return col / CHUNK * CHUNK * round_up(m, HM_PACK_ROWS);
}

INLINE size_t chunk_width(size_t k, size_t col)
{
    return least(CHUNK, round_up(k, HM_PACK_COLS) - col / CHUNK * CHUNK);
}

/* The scales of n runs of 64 values from flat index 64 * first; room for n. */
void hm_frozen_scales(const struct hm_frozen *w, uint64_t first, size_t n, float *scale);
/* Those of W[row0..+n_rows][col0..+n_cols], as [n_rows][n_cols / 64]. */
void hm_frozen_panel_scales(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                            uint32_t col0, uint32_t n_cols, float *scale);
/* W[row0..+n_rows][col0..+n_cols], n_cols <= CHUNK, as rows of CHUNK bf16. */
void hm_frozen_panel_rows(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows, uint32_t col0,
                          uint32_t n_cols, const float *scale, size_t scale_ld, uint16_t *panel);
/* W[row0..+n_rows][col0..+n_cols], n_rows <= CHUNK, n_cols <= PANEL_N, as strips of 32 columns
 * [n_cols / 32][pairs of rows][2][16][2]: of each pair a vector of the even columns, then one of
 * the odd ones. An odd last row is paired with zeros: scale has zeros for it. Codes ahead_rows
 * below are fetched on the way, unless that is 0. */
void hm_frozen_panel_strips(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                            uint32_t col0, uint32_t n_cols, const float *scale, uint32_t ahead_rows,
                            uint16_t *panel);
/* Rows of x behind the last whole group that are packed as rows, not as lanes, where others are
 * lanes; 0: none. Of each 32 columns such a row's values lie together, [k / 32][16 rows][32]. */
INLINE size_t tail_rows(size_t m)
{
    return m > FEW && m % LANES <= FEW ? m % LANES : 0;
}

/* How a path orders packed operands [m][k], for LoRA beside its products: chunks of k, in each of
 * them groups of 16 rows; rows of BACKWARD lie together, or are `tiled`: 32 columns of a group do.
 */
struct frozen_order {
    uint32_t chunk;
    bool tiled;
};

INLINE size_t order_width(struct frozen_order order, size_t k, size_t col)
{
    return least(order.chunk, round_up(k, HM_PACK_COLS) - col / order.chunk * order.chunk);
}

/* Of a group's first row, or its lanes forward: column 32 i of the chunk. */
INLINE size_t order_begin(struct frozen_order order, size_t m, size_t k, size_t row, size_t col)
{
    return col / order.chunk * order.chunk * round_up(m, HM_PACK_ROWS) +
           row * order_width(order, k, col);
}

/* n_rows of n values, ldx apart, as rows of bf16 that are ld apart, a zero behind an odd n. */
void hm_low_rows(const float *x, size_t ldx, size_t n_rows, size_t n, size_t ld, uint16_t *out);
/* n rows of n_cols values, ldx apart, as strips like those of a panel. */
void hm_low_strips(const float *x, size_t ldx, size_t n, size_t n_cols, uint16_t *out);
/* y += value factor^T of W's rows from row0 on, m <= FEW. */
void hm_low_add_few(const struct hm_low_rank *low, uint32_t row0, uint32_t n_rows, size_t m,
                    float *y, size_t ldy);
/* m <= FEW, x packed in pieces of 32 columns, [k / 32][m][32]. */
void hm_frozen_forward_few(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                           const uint16_t *x, size_t m, bool add, float *y, size_t ldy,
                           struct frozen_scratch *scratch);

void hm_frozen_pack_avx512bf16(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                               size_t col0, size_t n_cols, const float *x, size_t ldx,
                               uint16_t *packed);
void hm_frozen_forward_avx512bf16(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                                  const uint16_t *x, size_t m, const struct hm_low_rank *low,
                                  bool add, float *y, size_t ldy, void *scratch);
void hm_frozen_backward_avx512bf16(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                                   const uint16_t *dy, size_t m, const struct hm_low_rank *low,
                                   bool add, float *dx, size_t lddx, void *scratch);
/* What the product with W from `first` on takes from `low`, added to out. */
void hm_low_add_avx512bf16(enum hm_pack side, const struct hm_frozen *w, uint32_t first, uint32_t n,
                           size_t m, const struct hm_low_rank *low, float *out, size_t ld,
                           void *scratch);
/* For operands of any order, m > FEW or packed in lanes. */
void hm_frozen_low_project(struct frozen_order order, enum hm_pack side, const float *factor,
                           uint32_t rank, float scale, const uint16_t *x, size_t m, uint32_t k,
                           size_t row0, size_t n, uint16_t *low, size_t ld_low,
                           struct frozen_scratch *scratch);
void hm_frozen_low_sums(struct frozen_order order, enum hm_pack side, const float *factor,
                        uint32_t rank, const uint16_t *x, size_t m, uint32_t k, uint32_t col0,
                        uint32_t n_cols, float *sums, struct frozen_scratch *scratch);
void hm_frozen_low_b_gradient(struct frozen_order order, const uint16_t *dy, size_t m, uint32_t k,
                              uint32_t col0, uint32_t n_cols, const uint16_t *value, uint32_t rank,
                              float *grad, struct frozen_scratch *scratch);
/* Rows [row0, row0 + n) of packed BACKWARD columns [col, col + n_cols), within a chunk and at most
 * TILED_COLS if tiled: where they lie, *ret_ld apart, or a copy at `room`. */
const uint16_t *hm_frozen_rows(struct frozen_order order, const uint16_t *x, size_t m, size_t k,
                               size_t row0, size_t n, size_t col, size_t n_cols, uint16_t *room,
                               size_t *ret_ld);
void hm_low_project_avx512bf16(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                               const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                               uint16_t *low, size_t ld_low, void *scratch);
void hm_low_sums_avx512bf16(enum hm_pack side, const float *factor, uint32_t rank,
                            const uint16_t *x, size_t m, uint32_t k, uint32_t col0, uint32_t n_cols,
                            float *sums, void *scratch);
void hm_low_join_avx512bf16(const float *sums, size_t stride, size_t n_parts, uint32_t rank,
                            float scale, size_t row0, size_t n, uint16_t *low, size_t ld_low);
void hm_low_a_gradient_avx512bf16(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                                  const struct hm_low_part *part, unsigned n_parts, size_t ld,
                                  void *scratch);
void hm_low_b_gradient_avx512bf16(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0,
                                  uint32_t n_cols, const uint16_t *low, uint32_t rank, float *grad,
                                  void *scratch);

#endif
