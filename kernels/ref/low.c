/* SPDX-License-Identifier: MIT */
/*
 * LoRA beside frozen products as plain loops: what the paths are tested against. Operands are
 * row-major as hm_frozen_pack_ref packs them; factors and values are bf16, sums f32 in order of the
 * inner index.
 */
#include "ref.h"

static float value_at(const uint16_t *low, size_t ld, uint32_t rank, size_t row)
{
    return hm_bf16_to_f32(low[rank / 2 * ld + 2 * row + rank % 2]);
}

/* One sum over columns [col0, end). */
static float column_sum(enum hm_pack side, const float *factor, uint32_t rank, uint32_t r,
                        const uint16_t *row, uint32_t k, uint32_t col0, uint32_t end)
{
    float sum = 0.0f;

    for (uint32_t j = col0; j < end; j++) {
        size_t at = side == HM_PACK_FORWARD ? (size_t)r * k + j : (size_t)j * rank + r;
        sum += hm_bf16_to_f32(row[j]) * hm_round_bf16(factor[at]);
    }
    return sum;
}

void hm_low_project_ref(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                        const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                        uint16_t *low, size_t ld_low, void *scratch)
{
    const size_t ld = round_up(k, HM_PACK_COLS);

    (void)m;
    (void)scratch;
    for (uint32_t r = 0; r < (rank + 1) / 2 * 2; r++)
        for (size_t i = 0; i < round_up(n, HM_PACK_ROWS); i++) {
            float sum = 0.0f;
            if (r < rank && i < n)
                sum = column_sum(side, factor, rank, r, x + (row0 + i) * ld, k, 0, k);
            low[r / 2 * ld_low + 2 * i + r % 2] = hm_f32_to_bf16(scale * sum);
        }
}

static size_t sum_index(size_t row, uint32_t r, uint32_t rank)
{
    return row / 32 * 32 * round_up(rank, 4) + r * 32 + row % 32;
}

void hm_low_sums_ref(enum hm_pack side, const float *factor, uint32_t rank, const uint16_t *x,
                     size_t m, uint32_t k, uint32_t col0, uint32_t n_cols, float *sums,
                     void *scratch)
{
    const size_t ld = round_up(k, HM_PACK_COLS);

    (void)scratch;
    for (size_t i = 0; i < m; i++)
        for (uint32_t r = 0; r < rank; r++)
            sums[sum_index(i, r, rank)] =
                column_sum(side, factor, rank, r, x + i * ld, k, col0, col0 + n_cols);
}

void hm_low_join_ref(const float *sums, size_t stride, size_t n_parts, uint32_t rank, float scale,
                     size_t row0, size_t n, uint16_t *low, size_t ld_low)
{
    for (uint32_t r = 0; r < (rank + 1) / 2 * 2; r++)
        for (size_t i = 0; i < round_up(n, HM_PACK_ROWS); i++) {
            float sum = 0.0f;
            for (size_t p = 0; r < rank && i < n && p < n_parts; p++)
                sum += sums[p * stride + sum_index(row0 + i, r, rank)];
            low[r / 2 * ld_low + 2 * i + r % 2] = hm_f32_to_bf16(scale * sum);
        }
}

void hm_low_add_ref(const struct hm_low_rank *low, enum hm_pack side, uint32_t first, uint32_t cols,
                    size_t m, size_t n, float *out, size_t ld)
{
    for (size_t i = 0; low && i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = 0.0f;
            for (uint32_t r = 0; r < low->rank; r++) {
                size_t at =
                    side == HM_PACK_FORWARD ? (first + j) * low->rank + r : r * cols + first + j;
                sum += value_at(low->value, hm_low_ld(m), r, i) * hm_round_bf16(low->factor[at]);
            }
            out[i * ld + j] += sum;
        }
}

static void part_gradient(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                          const struct hm_low_part *part, size_t ld)
{
    for (uint32_t r = 0; r < part->rank; r++)
        for (uint32_t j = 0; j < n_cols; j++) {
            float sum = 0.0f;
            for (size_t i = 0; i < m; i++)
                sum += value_at(part->value, hm_low_ld(m), r, i) * hm_round_bf16(x[i * ldx + j]);
            part->grad[r * ld + j] += sum;
        }
}

void hm_low_a_gradient_ref(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                           const struct hm_low_part *part, unsigned n_parts, size_t ld,
                           void *scratch)
{
    (void)scratch;
    for (unsigned p = 0; p < n_parts; p++)
        part_gradient(x, ldx, m, n_cols, part + p, ld);
}

void hm_low_b_gradient_ref(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0, uint32_t n_cols,
                           const uint16_t *value, uint32_t rank, float *grad, void *scratch)
{
    const size_t ld = round_up(k, HM_PACK_COLS);

    (void)scratch;
    for (uint32_t j = 0; j < n_cols; j++)
        for (uint32_t r = 0; r < rank; r++) {
            float sum = 0.0f;
            for (size_t i = 0; i < m; i++)
                sum += value_at(value, hm_low_ld(m), r, i) * hm_bf16_to_f32(dy[i * ld + col0 + j]);
            grad[(size_t)j * rank + r] += sum;
        }
}
