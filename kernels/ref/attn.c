/* SPDX-License-Identifier: MIT */
/*
 * The elementwise part of attention on one tile of scores [n_q][n_k] of one head: the running
 * softmax (Milakov and Gimelshein 2018; Dao et al. 2022), probabilities again from the kept
 * log-sum-exp, and the gradient of the scores. The products around them are gemm calls of the
 * model.
 */
#include <math.h>

#include "ref.h"

/* Cut the keys a row sees to the tile. */
static void keys_clip(int32_t first, int32_t end, size_t n_k, size_t *ret_first, size_t *ret_end)
{
    size_t from = first > 0 ? (size_t)first : 0;
    size_t to = end > 0 ? (size_t)end : 0;

    *ret_end = to < n_k ? to : n_k;
    *ret_first = from < *ret_end ? from : *ret_end;
}

void hm_softmax_tile_ref(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                         const int32_t *end_key, float scale, float *row_max, float *row_sum,
                         float *row_alpha)
{
    for (size_t i = 0; i < n_q; i++, score += ld) {
        size_t first, end;
        float largest = row_max[i], sum = 0.0f;

        keys_clip(first_key[i], end_key[i], n_k, &first, &end);
        for (size_t j = first; j < end; j++)
            largest = scale * score[j] > largest ? scale * score[j] : largest;
        for (size_t j = 0; j < n_k; j++) {
            score[j] = j >= first && j < end ? expf(scale * score[j] - largest) : 0.0f;
            sum += score[j];
        }
        row_alpha[i] = first < end ? expf(row_max[i] - largest) : 1.0f;
        row_sum[i] = row_sum[i] * row_alpha[i] + sum;
        row_max[i] = largest;
    }
}

void hm_prob_tile_ref(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                      const int32_t *end_key, float scale, const float *lse)
{
    for (size_t i = 0; i < n_q; i++, score += ld) {
        size_t first, end;

        keys_clip(first_key[i], end_key[i], n_k, &first, &end);
        for (size_t j = 0; j < n_k; j++)
            score[j] = j >= first && j < end ? expf(scale * score[j] - lse[i]) : 0.0f;
    }
}

void hm_dscore_tile_ref(const float *p, float *dp, size_t n_q, size_t n_k, size_t ld, float scale,
                        const float *delta)
{
    for (size_t i = 0; i < n_q; i++, p += ld, dp += ld)
        for (size_t j = 0; j < n_k; j++)
            dp[j] = p[j] * (dp[j] - delta[i]) * scale;
}
