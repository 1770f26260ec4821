/* SPDX-License-Identifier: MIT */
/*
 * The reference kernels, private to kernels/: plain C that defines what every fast path must give.
 * Contracts stand above the pointers in hanmix/kernels/kernels.h; parameters have the same order.
 * Sums over a row run in HM_LANES independent f32 lanes (element i goes to lane i % HM_LANES; a
 * product is rounded before it is added), joined in f64 by halving, so that every vector width can
 * give the same bits.
 */
#ifndef HANMIX_KERNELS_REF_H
#define HANMIX_KERNELS_REF_H

#include "hanmix/kernels/kernels.h"

#define HM_LANES     64
#define HM_LANES_F64 32

/* bitsandbytes' floor under a block's absmax (a denormal f32). */
#define HM_NF4_ABSMAX_FLOOR    1e-38f
#define HM_BLOCK8_ABSMAX_FLOOR 1e-38f

/* ((lane[0..31] + lane[32..63]) halved again until one is left), in f64. */
double hm_lanes_join_ref(const float lane[HM_LANES]);

void hm_nf4_decode_ref(const uint8_t *codes, const float *scale, uint64_t first, size_t n,
                       uint32_t blocksize, enum hm_round round, float *out);
void hm_nf4_encode_ref(const float *values, size_t n, uint32_t blocksize, uint8_t *codes,
                       float *absmax);

void hm_bf16_to_f32_ref(const void *in, size_t n, float *out);
void hm_f16_to_f32_ref(const void *in, size_t n, float *out);
void hm_f32_to_bf16_ref(const float *in, size_t n, uint16_t *out);
void hm_f32_round_bf16_ref(float *values, size_t n);

void hm_rmsnorm_ref(const float *x, const float *w, size_t n, size_t d, float eps, float *y,
                    float *rho);
void hm_rmsnorm_backward_ref(const float *x, const float *w, const float *rho, const float *dy,
                             size_t n, size_t d, float *dx, float *dw);

void hm_rope_ref(float *x, size_t n, size_t ldx, size_t heads, size_t head_dim,
                 const float *cos_table, const float *sin_table, const int32_t *pos, float sign);

void hm_softmax_tile_ref(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                         const int32_t *end_key, float scale, float *row_max, float *row_sum,
                         float *row_alpha);
void hm_prob_tile_ref(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                      const int32_t *end_key, float scale, const float *lse);
void hm_dscore_tile_ref(const float *p, float *dp, size_t n_q, size_t n_k, size_t ld, float scale,
                        const float *delta);

void hm_swiglu_ref(const float *a1, const float *a3, size_t n, float *m);
void hm_swiglu_backward_ref(const float *a1, const float *a3, const float *dm, size_t n, float *da1,
                            float *da3);

void hm_route_ref(const float *logits, size_t n, size_t experts, size_t k, float *prob,
                  int32_t *ids, float *weight);

void hm_xent_ref(float *logits, size_t n, size_t vocab, size_t ld, const int32_t *target,
                 const float *row_scale, bool want_gradient, double *loss);

void hm_adamw_ref(float *param, const float *grad, float *m, float *v, size_t n,
                  const struct hm_adamw_step *step);
void hm_adamw8_ref(float *param, const float *grad, const struct hm_moments8 *moments, size_t n,
                   const struct hm_adamw_step *step);
double hm_sum_squares_ref(const float *x, size_t n);

void hm_axpy_ref(float a, const float *x, size_t n, float *y);
void hm_scale_ref(float a, float *x, size_t n);
void hm_add_ref(const float *x, size_t n, float *y);
double hm_dot_ref(const float *x, const float *y, size_t n);

void hm_gemm_nt_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc);
void hm_gemm_nn_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc);
void hm_gemm_tn_ref(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                    const float *b, size_t ldb, float beta, float *c, size_t ldc);

static inline size_t round_up(size_t value, size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

void hm_frozen_pack_ref(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                        size_t col0, size_t n_cols, const float *x, size_t ldx, uint16_t *packed);
void hm_frozen_forward_ref(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                           const uint16_t *x, size_t m, const struct hm_low_rank *low, bool add,
                           float *y, size_t ldy, void *scratch);
void hm_frozen_backward_ref(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                            const uint16_t *dy, size_t m, const struct hm_low_rank *low, bool add,
                            float *dx, size_t lddx, void *scratch);

void hm_low_project_ref(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                        const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                        uint16_t *low, size_t ld_low, void *scratch);
void hm_low_sums_ref(enum hm_pack side, const float *factor, uint32_t rank, const uint16_t *x,
                     size_t m, uint32_t k, uint32_t col0, uint32_t n_cols, float *sums,
                     void *scratch);
void hm_low_join_ref(const float *sums, size_t stride, size_t n_parts, uint32_t rank, float scale,
                     size_t row0, size_t n, uint16_t *low, size_t ld_low);
/* What frozen_forward and frozen_backward add for `low`, NULL for nothing: outputs from `first` on;
 * cols: of W. */
void hm_low_add_ref(const struct hm_low_rank *low, enum hm_pack side, uint32_t first, uint32_t cols,
                    size_t m, size_t n, float *out, size_t ld);
void hm_low_a_gradient_ref(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                           const struct hm_low_part *part, unsigned n_parts, size_t ld,
                           void *scratch);
void hm_low_b_gradient_ref(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0, uint32_t n_cols,
                           const uint16_t *value, uint32_t rank, float *grad, void *scratch);

#endif
