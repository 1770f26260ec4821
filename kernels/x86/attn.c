/* SPDX-License-Identifier: MIT */
/*
 * Attention tiles for x86. exp is vf_exp, so P differs from the reference in the last bit or two;
 * sums run in the lanes of a vector. The gradient of scores is the reference's, bit for bit.
 */
#include <math.h>

#include "isa.h"
#include "simd.h"

#define ROWS 16 /* their maxima before their powers: rows overlap, where one row is a chain */

/* Cut the keys a row sees to the tile and zero the others. Returns the first, with how many. */
static float *keys_seen(float *row, int32_t first, int32_t end, size_t n_k, size_t *ret_n)
{
    size_t to = end > 0 ? (size_t)end : 0;
    size_t from = first > 0 ? (size_t)first : 0;

    to = to < n_k ? to : n_k;
    from = from < to ? from : to;
    memset(row, 0, from * sizeof(*row));
    memset(row + to, 0, (n_k - to) * sizeof(*row));
    *ret_n = to - from;
    return row + from;
}

static inline vf power(vf s, vf scale, vf shift)
{
    return vf_exp(vf_sub(vf_mul(scale, s), shift));
}

/* max(largest, scale s): rounding keeps the order, so one product after the maximum is the same. */
static inline float row_largest(const float *s, size_t n, float scale, float largest)
{
    const vf nothing = vf_set1(-INFINITY);
    vf most = nothing;

    for (size_t i = 0; i < n; i += VW)
        most = vf_max(vf_next(s + i, n - i, nothing), most);
    float scaled = scale * vf_largest(most);
    return scaled > largest ? scaled : largest;
}

/* s := exp(scale s - largest); the sum. */
static inline float row_powers(float *s, size_t n, float scale, float largest)
{
    const vf scales = vf_set1(scale), shift = vf_set1(largest), zero = vf_set1(0.0f);
    vf sum = zero;
    size_t i = 0;

    for (; i + VW <= n; i += VW) {
        vf p = power(vf_load(s + i), scales, shift);
        vf_store(s + i, p);
        sum = vf_add(sum, p);
    }
    if (i < n) {
        vf_store_part(s + i, power(vf_load_part(s + i, n - i, zero), scales, shift), n - i);
        sum = vf_add(sum, vf_load_part(s + i, n - i, zero));
    }
    return (float)vd_join(vd_add(vd_low(sum), vd_high(sum)));
}

/* alpha := exp(alpha); sum := sum alpha + tile. */
static void rows_join(float *row_alpha, float *row_sum, const float *tile, size_t n)
{
    const vf zero = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW) {
        size_t left = n - i;
        vf alpha = vf_exp(vf_next(row_alpha + i, left, zero));
        vf sum = vf_mul(vf_next(row_sum + i, left, zero), alpha);
        vf_put(row_alpha + i, alpha, left);
        vf_put(row_sum + i, vf_add(sum, vf_next(tile + i, left, zero)), left);
    }
}

void HM_ISA(hm_softmax_tile)(float *score, size_t n_q, size_t n_k, size_t ld,
                             const int32_t *first_key, const int32_t *end_key, float scale,
                             float *row_max, float *row_sum, float *row_alpha)
{
    float tile[ROWS], *seen[ROWS];
    size_t n[ROWS];

    for (size_t begin = 0; begin < n_q; begin += ROWS) {
        size_t rows = n_q - begin < ROWS ? n_q - begin : ROWS;
        for (size_t r = 0, i = begin; r < rows; r++, i++) {
            seen[r] = keys_seen(score + i * ld, first_key[i], end_key[i], n_k, &n[r]);
            float largest = row_largest(seen[r], n[r], scale, row_max[i]);
            row_alpha[i] = n[r] > 0 ? row_max[i] - largest : 0.0f;
            row_max[i] = largest;
        }
        for (size_t r = 0; r < rows; r++)
            tile[r] = row_powers(seen[r], n[r], scale, row_max[begin + r]);
        rows_join(row_alpha + begin, row_sum + begin, tile, rows);
    }
}

void HM_ISA(hm_prob_tile)(float *score, size_t n_q, size_t n_k, size_t ld, const int32_t *first_key,
                          const int32_t *end_key, float scale, const float *lse)
{
    const vf scales = vf_set1(scale);

    for (size_t i = 0; i < n_q; i++, score += ld) {
        size_t n;
        float *seen = keys_seen(score, first_key[i], end_key[i], n_k, &n);
        const vf shift = vf_set1(lse[i]);
        for (size_t j = 0; j < n; j += VW) {
            vf s = vf_next(seen + j, n - j, scales);
            vf_put(seen + j, power(s, scales, shift), n - j);
        }
    }
}

void HM_ISA(hm_dscore_tile)(const float *p, float *dp, size_t n_q, size_t n_k, size_t ld,
                            float scale, const float *delta)
{
    const vf zero = vf_set1(0.0f), scales = vf_set1(scale);

    for (size_t i = 0; i < n_q; i++, p += ld, dp += ld) {
        const vf deltas = vf_set1(delta[i]);
        for (size_t j = 0; j < n_k; j += VW) {
            size_t left = n_k - j;
            vf difference = vf_sub(vf_next(dp + j, left, zero), deltas);
            vf product = vf_mul(vf_next(p + j, left, zero), difference);
            vf_put(dp + j, vf_mul(product, scales), left);
        }
    }
}
