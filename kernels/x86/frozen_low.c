/* SPDX-License-Identifier: MIT */
/*
 * LoRA beside frozen products with AVX512-BF16: values u = s x A^T and v = s dy B from packed
 * operands, and the gradients of A and B. Factors are rounded to bf16 where they are met, which
 * costs little beside the rows they meet; all products run in the tiles of frozen_tile.h.
 */
#include "frozen.h"
#include "frozen_round.h"
#include "frozen_tile.h"

#define QUAD_RANKS 8u   /* of a vector: each has two lanes */
#define UP_RANKS   128u /* whose sums over BLOCK_M rows fit scratch */

_Static_assert(UP_RANKS / QUAD_RANKS / 2 * BLOCK_M * 32 <= PANEL_N * BLOCK_M, "sums of v");

void hm_low_rows(const float *x, size_t ldx, size_t n_rows, size_t n, size_t ld, uint16_t *out)
{
    for (size_t r = 0; r < n_rows; r++, x += ldx, out += ld) {
        for (size_t i = 0; i + PAIRS <= n; i += PAIRS)
            _mm512_store_si512(out + i, row_round(x + i, PAIRS));
        if (n % PAIRS > 0)
            _mm512_store_si512(out + n / PAIRS * PAIRS,
                               row_round(x + n / PAIRS * PAIRS, n % PAIRS));
    }
}

void hm_low_strips(const float *x, size_t ldx, size_t n, size_t n_cols, uint16_t *out)
{
    const __mmask32 odd = 0xaaaaaaaa;
    const size_t pairs = units(n, 2);

    for (size_t p = 0; p < pairs; p++, x += 2 * ldx)
        for (size_t j = 0; j < n_cols; j += PAIRS) {
            uint16_t *to = out + (j / PAIRS * pairs + p) * 2 * PAIRS;
            __m512i a = row_round(x + j, PAIRS);
            __m512i b = 2 * p + 1 < n ? row_round(x + ldx + j, PAIRS) : _mm512_setzero_si512();
            _mm512_store_si512(to, _mm512_mask_blend_epi16(odd, a, _mm512_slli_epi32(b, 16)));
            _mm512_store_si512(to + PAIRS,
                               _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(a, 16), b));
        }
}

/* --- few rows, packed in pieces of 32 columns --- */

static float value_at(const uint16_t *low, size_t ld, uint32_t rank, size_t row)
{
    return hm_bf16_to_f32(low[rank / 2 * ld + 2 * row + rank % 2]);
}

static void project_few(const float *a, uint32_t rank, float scale, const uint16_t *x, size_t m,
                        uint32_t k, uint16_t *low, size_t ld_low)
{
    for (uint32_t p = 0; p < rank; p += 2)
        memset(low + p / 2 * ld_low, 0, hm_low_ld(m) * sizeof(*low));
    for (uint32_t r = 0; r < rank; r++, a += k) {
        __m512 sum[FEW];
        for (size_t i = 0; i < m; i++)
            sum[i] = _mm512_setzero_ps();
        for (uint32_t j = 0; j < k; j += PAIRS) {
            __m512bh right = (__m512bh)row_round(a + j, PAIRS);
            for (size_t i = 0; i < m; i++)
                sum[i] = _mm512_dpbf16_ps(
                    sum[i], (__m512bh)_mm512_loadu_si512(x + j * m + i * PAIRS), right);
        }
        for (size_t i = 0; i < m; i++)
            low[r / 2 * ld_low + 2 * i + r % 2] =
                hm_f32_to_bf16(scale * _mm512_reduce_add_ps(sum[i]));
    }
}

void hm_low_add_few(const struct hm_low_rank *low, uint32_t row0, uint32_t n_rows, size_t m,
                    float *y, size_t ldy)
{
    const float *factor = low->factor + (size_t)row0 * low->rank;
    float value[FEW][LANES];

    for (uint32_t r = 0; r < low->rank; r += LANES) {
        const uint32_t n = (uint32_t)least(LANES, low->rank - r);
        for (size_t i = 0; i < m; i++)
            for (uint32_t j = 0; j < LANES; j++)
                value[i][j] = j < n ? value_at(low->value, hm_low_ld(m), r + j, i) : 0.0f;
        for (uint32_t row = 0; row < n_rows; row++) {
            const float *from = factor + (size_t)row * low->rank + r;
            __m512 right =
                _mm512_cvtpbh_ps(_mm512_cvtneps_pbh(vf_load_part(from, n, _mm512_setzero_ps())));
            for (size_t i = 0; i < m; i++)
                y[i * ldy + row] +=
                    _mm512_reduce_add_ps(_mm512_mul_ps(right, _mm512_loadu_ps(value[i])));
        }
    }
}

/* --- u = s x A^T: the forward product with A for W --- */

/* Sums [rank][m] of a block become values. */
static void sums_values(const float *sum, uint32_t rank, float scale, size_t m, uint16_t *low,
                        size_t ld_low)
{
    const __m512 factor = _mm512_set1_ps(scale);

    for (uint32_t r = 0; r < rank; r += 2)
        for (size_t i = 0; i < m; i += LANES) {
            const float *from = sum + i / 32 * 32 * PANEL_N + r * 32 + i % 32;
            __m512 even = _mm512_mul_ps(factor, _mm512_load_ps(from)), odd = _mm512_setzero_ps();
            if (r + 1 < rank)
                odd = _mm512_mul_ps(factor, _mm512_load_ps(from + 32));
            _mm512_storeu_si512(low + r / 2 * ld_low + 2 * i,
                                halves_pair((__m512i)_mm512_cvtne2ps_pbh(odd, even)));
        }
}

/* n <= BLOCK_M rows from row0, rank <= PANEL_N. */
static void forward_values(const float *a, uint32_t rank, float scale, const uint16_t *x, size_t m,
                           uint32_t k, size_t row0, size_t n, uint16_t *low, size_t ld_low,
                           struct frozen_scratch *scratch)
{
    for (uint32_t at = 0; at < k; at += CHUNK) {
        const size_t width = chunk_width(k, at), tiles = units(rank, 12);
        const uint16_t *lanes = x + chunk_begin(m, at) + row0 * width;
        struct frozen_ahead ahead = { .at = (uintptr_t)a + (at + CHUNK) * sizeof(*a),
                                      .stride = k * sizeof(*a),
                                      .bytes = CHUNK * sizeof(*a),
                                      .n = at + CHUNK < k ? rank : 0,
                                      .each = 8 };
        hm_low_rows(a + at, k, rank, least(CHUNK, k - at), CHUNK, scratch->panel);
        for (size_t i = 0; i < n; i += 2 * LANES) {
            ahead.left = (uintptr_t)lanes + (i + 2 * LANES) * width * sizeof(*lanes);
            ahead.left_each = round_up(2 * LANES * width * sizeof(*lanes) / tiles, 64);
            hm_frozen_strip_run(STRIP_FORWARD, n - i > LANES ? 2 : 1, round_up(rank, 4),
                                (struct frozen_tile){ .main = { .row = scratch->panel,
                                                                .row_step = 2,
                                                                .lane = lanes + i * width,
                                                                .pair_step = PAIRS,
                                                                .vector_step = width * LANES,
                                                                .pairs = width / 2 },
                                                      .row_ld = CHUNK,
                                                      .sum = scratch->sum + i * PANEL_N,
                                                      .sum_ld = 32,
                                                      .first = at == 0 },
                                &ahead);
        }
    }
    sums_values(scratch->sum, rank, scale, n, low, ld_low);
}

/* --- v = s dy B: rows of dy meet four rows of B at a time --- */

/* B[n][rank], rank <= UP_RANKS, as [8 ranks][quads][8][4], zeros beyond. */
static void quads_make(const float *b, size_t ldb, size_t n, uint32_t rank, size_t quads,
                       uint16_t *out)
{
    const __m512i order =
        _mm512_set_epi16(31, 23, 15, 7, 30, 22, 14, 6, 29, 21, 13, 5, 28, 20, 12, 4, 27, 19, 11, 3,
                         26, 18, 10, 2, 25, 17, 9, 1, 24, 16, 8, 0);

    for (size_t q = 0; q < quads; q++, out += PAIRS)
        for (uint32_t r = 0; r < rank; r += QUAD_RANKS) {
            const __mmask8 mask = (__mmask8)mask16(least(QUAD_RANKS, rank - r));
            __m256 row[4];
            UNROLL for (size_t i = 0; i < 4; i++) row[i] = _mm256_maskz_loadu_ps(
                4 * q + i < n ? mask : 0, b + (4 * q + i < n ? 4 * q + i : 0) * ldb + r);
            __m512 low = _mm512_insertf32x8(_mm512_castps256_ps512(row[0]), row[1], 1);
            __m512 high = _mm512_insertf32x8(_mm512_castps256_ps512(row[2]), row[3], 1);
            _mm512_store_si512(
                out + r / QUAD_RANKS * quads * PAIRS,
                _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low)));
        }
}

/* Sums [pairs of vectors][BLOCK_M][2][16] become values: two lanes each, two rows at a time. */
static void quads_values(const float *sum, uint32_t rank, float scale, size_t m, uint16_t *low,
                         size_t ld_low)
{
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));

    for (uint32_t r = 0; r < rank; r += QUAD_RANKS)
        for (size_t i = 0; i < round_up(m, HM_PACK_ROWS); i += 2) {
            const float *from = sum + (r / (2 * QUAD_RANKS) * BLOCK_M + i) * 32 + r % 16 * 2;
            uint16_t value[16];
            __m512 a = i < m ? _mm512_load_ps(from) : _mm512_setzero_ps();
            __m512 b = i + 1 < m ? _mm512_load_ps(from + 32) : _mm512_setzero_ps();
            __m512 v = _mm512_add_ps(_mm512_permutex2var_ps(a, even, b),
                                     _mm512_permutex2var_ps(a, odd, b));
            _mm256_storeu_si256((__m256i *)value, (__m256i)_mm512_cvtneps_pbh(
                                                      _mm512_mul_ps(v, _mm512_set1_ps(scale))));
            for (uint32_t p = 0; p < 4 && r + 2 * p < rank; p++) {
                uint16_t *to = low + (r / 2 + p) * ld_low + 2 * i;
                memcpy(to, value + 2 * p, 2 * sizeof(*to));
                memcpy(to + 2, value + 8 + 2 * p, 2 * sizeof(*to));
            }
        }
}

/* The rows of the next tile while one is met; the other vectors find them in L2. */
static struct frozen_ahead rows_ahead(const uint16_t *rows, size_t width, uint32_t vectors)
{
    const size_t height = vectors > 1 ? 12 : 24;

    return (struct frozen_ahead){ .left = (uintptr_t)rows + height * width * sizeof(*rows),
                                  .left_each = height * width * sizeof(*rows) };
}

static void backward_values(const float *b, size_t ldb, uint32_t rank, float scale,
                            const uint16_t *dy, size_t m, uint32_t k, size_t row0, size_t n,
                            uint16_t *low, size_t ld_low, struct frozen_scratch *scratch)
{
    const uint32_t vectors = (uint32_t)units(rank, QUAD_RANKS);

    for (uint32_t at = 0; at < k; at += CHUNK) {
        const size_t width = chunk_width(k, at), quads = width / 4;
        quads_make(b + (size_t)at * ldb, ldb, least(CHUNK, k - at), rank, quads, scratch->panel);
        for (uint32_t v = 0; v < vectors; v += 2) {
            struct frozen_ahead ahead = { 0 };
            if (v == 0)
                ahead = rows_ahead(dy + chunk_begin(m, at) + row0 * width, width, vectors);
            hm_frozen_strip_run(
                STRIP_QUADS, vectors - v > 1 ? 2 : 1, round_up(n, 4),
                (struct frozen_tile){ .main = { .row = dy + chunk_begin(m, at) + row0 * width,
                                                .row_step = 4,
                                                .lane = scratch->panel + v * quads * PAIRS,
                                                .pair_step = PAIRS,
                                                .vector_step = quads * PAIRS,
                                                .pairs = quads },
                                      .row_ld = width,
                                      .sum = scratch->sum + (size_t)v / 2 * BLOCK_M * 32,
                                      .sum_ld = 32,
                                      .first = at == 0 },
                &ahead);
        }
    }
    quads_values(scratch->sum, rank, scale, n, low, ld_low);
}

void hm_low_project_avx512bf16(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                               const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                               uint16_t *low, size_t ld_low, void *scratch)
{
    const uint32_t most = side == HM_PACK_FORWARD ? PANEL_N : UP_RANKS;

    if (side == HM_PACK_FORWARD && m <= FEW) {
        project_few(factor, rank, scale, x, m, k, low, ld_low);
        return;
    }
    for (size_t i = 0; i < n; i += BLOCK_M)
        for (uint32_t r = 0; r < rank; r += most) {
            uint32_t ranks = (uint32_t)least(most, rank - r);
            size_t rows = least(BLOCK_M, n - i);
            uint16_t *to = low + r / 2 * ld_low + 2 * i;
            if (side == HM_PACK_FORWARD)
                forward_values(factor + (size_t)r * k, ranks, scale, x, m, k, row0 + i, rows, to,
                               ld_low, scratch);
            else
                backward_values(factor + r, rank, ranks, scale, x, m, k, row0 + i, rows, to, ld_low,
                                scratch);
        }
}
