/* SPDX-License-Identifier: MIT */
/*
 * y = x W^T and dx = dy W in bf16 with AVX512-BF16: panels of W are decoded once per BLOCK_M rows
 * of the left operand, chunk by chunk of k; sums stay in scratch between chunks and are laid out
 * for the caller at the end. Forward the lanes are rows of x and a decoded row of W is broadcast;
 * backward the lanes are columns of W and rows of dy are broadcast.
 */
#include "frozen.h"
#include "frozen_tile.h"
#include "simd_avx512.h"

#define NARROW_M 64u /* up to these rows of x panels of W are NARROW_N high */
#define NARROW_N 24u
#define DECODE_M 192u /* up to these rows of dy codes are fetched while others are decoded, */
#define AHEAD    64u  /* so many rows before, else between the tiles */

/* Bytes that n values of W take. */
static uint64_t data_bytes(const struct hm_frozen *w, uint64_t n)
{
    return w->layout == HM_FROZEN_BF16 ? n * 2 : n / 2;
}

/* W[row0..+n_rows][col0..+n_cols], cut to what exists, fetched over about n_tiles tiles. */
static struct frozen_ahead ahead_block(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                                       uint32_t col0, uint32_t n_cols, size_t n_tiles)
{
    if (row0 >= w->rows || col0 >= w->cols)
        return (struct frozen_ahead){ 0 };
    size_t n = least(n_rows, w->rows - row0);
    return (struct frozen_ahead){ .at = (uintptr_t)w->data +
                                        data_bytes(w, (uint64_t)row0 * w->cols + col0),
                                  .stride = data_bytes(w, w->cols),
                                  .bytes = data_bytes(w, least(n_cols, w->cols - col0)),
                                  .n = n,
                                  .each = n / n_tiles + 1 };
}

/* The part of the next rows, in order of memory, that falls to the chunk at k of these. */
static struct frozen_ahead ahead_rows(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                                      uint32_t k, size_t n_tiles)
{
    uint64_t first = (uint64_t)row0 * w->cols + (uint64_t)n_rows * k,
             end = (uint64_t)w->rows * w->cols;
    uint64_t n = (uint64_t)n_rows * CHUNK;

    if (first >= end)
        return (struct frozen_ahead){ 0 };
    size_t lines = data_bytes(w, n < end - first ? n : end - first) / 64;
    return (struct frozen_ahead){ .at = (uintptr_t)w->data + data_bytes(w, first),
                                  .stride = 64,
                                  .bytes = 64,
                                  .n = lines,
                                  .each = lines / n_tiles + 1 };
}

/* --- low-rank products beside these --- */

/* Chunks of k that take LOW_RANK ranks each until all have joined. */
static uint32_t chunks_end(uint32_t k, const struct hm_low_rank *low)
{
    uint32_t ranks = low ? (uint32_t)units(low->rank, LOW_RANK) * CHUNK : 0;

    return ranks > k ? ranks : k;
}

/* The ranks that join the chunk at k. */
static uint32_t low_ranks(const struct hm_low_rank *low, uint32_t k)
{
    const uint32_t first = k / CHUNK * LOW_RANK;

    return low && low->rank > first ? (uint32_t)least(LOW_RANK, low->rank - first) : 0;
}

static struct frozen_part low_forward(const struct hm_low_rank *low, uint32_t row0, uint32_t n_rows,
                                      uint32_t k, size_t m_all, size_t m0,
                                      struct frozen_scratch *scratch)
{
    const uint32_t n = low_ranks(low, k), first = k / CHUNK * LOW_RANK;

    if (n == 0)
        return (struct frozen_part){ 0 };
    hm_low_rows(low->factor + (size_t)row0 * low->rank + first, low->rank, n_rows, n, LOW_RANK,
                scratch->low);
    return (struct frozen_part){ .row = scratch->low,
                                 .row_step = 2,
                                 .lane = low->value + first / 2 * hm_low_ld(m_all) + m0 * 2,
                                 .pair_step = hm_low_ld(m_all),
                                 .vector_step = PAIRS,
                                 .pairs = units(n, 2) };
}

static struct frozen_part low_backward(const struct hm_low_rank *low, uint32_t cols, uint32_t col0,
                                       uint32_t n_cols, uint32_t k, size_t m_all, size_t m0,
                                       struct frozen_scratch *scratch)
{
    const uint32_t n = low_ranks(low, k), first = k / CHUNK * LOW_RANK;

    if (n == 0)
        return (struct frozen_part){ 0 };
    hm_low_strips(low->factor + (size_t)first * cols + col0, cols, n, n_cols, scratch->low);
    return (struct frozen_part){ .row = low->value + first / 2 * hm_low_ld(m_all) + m0 * 2,
                                 .row_step = hm_low_ld(m_all),
                                 .lane = scratch->low,
                                 .pair_step = 2 * PAIRS,
                                 .vector_step = PAIRS,
                                 .pairs = units(n, 2) };
}

static struct frozen_part low_lane(struct frozen_part part, size_t skip)
{
    part.lane += part.pairs > 0 ? skip : 0;
    return part;
}

/* --- forward --- */

/* Sums [n][m] of a panel become y[m][n]. */
static void sums_turn(const float *sum, size_t n, size_t m, bool add, float *y, size_t ldy)
{
    for (size_t j = 0; j < n; j += LANES)
        for (size_t i = 0; i < m; i += LANES) {
            __m512 block[LANES];
            __mmask16 mask = mask16(least(LANES, n - j));
            UNROLL for (size_t r = 0; r < LANES; r++) block[r] =
                _mm512_load_ps(sum + i / 32 * 32 * PANEL_N + (j + r) * 32 + i % 32);
            vf_transpose(block);
            UNROLL for (size_t r = 0; r < LANES; r++)
            {
                float *to = y + (i + r) * ldy + j;
                if (i + r >= m)
                    continue;
                if (add)
                    block[r] = _mm512_add_ps(block[r], _mm512_maskz_loadu_ps(mask, to));
                _mm512_mask_storeu_ps(to, mask, block[r]);
            }
        }
}

static void forward_block(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                          const uint16_t *x, size_t m_all, size_t m0, size_t m,
                          const struct hm_low_rank *low, struct frozen_scratch *scratch)
{
    const uint32_t range = SCALES / n_rows * 64 / CHUNK * CHUNK; /* columns with scales at hand */
    const uint32_t end = chunks_end(w->cols, low);

    for (uint32_t k = 0; k < end; k += CHUNK) {
        const uint32_t width = k < w->cols ? (uint32_t)chunk_width(w->cols, k) : 0;
        const uint16_t *lanes = x + chunk_begin(m_all, k) + m0 * width;
        const struct frozen_part part = low_forward(low, row0, n_rows, k, m_all, m0, scratch);
        const size_t n_tiles = units(n_rows, 12) * units(m, 32);
        struct frozen_ahead ahead = n_rows <= NARROW_N
                                        ? ahead_rows(w, row0 + n_rows, n_rows, k, n_tiles)
                                        : ahead_block(w, row0, n_rows, k + CHUNK, CHUNK, n_tiles);
        if (width > 0 && k % range == 0)
            hm_frozen_panel_scales(w, row0, n_rows, k, (uint32_t)least(range, w->cols - k),
                                   scratch->scale);
        if (width > 0)
            hm_frozen_panel_rows(w, row0, n_rows, k, width, scratch->scale + k % range / 64,
                                 least(range, w->cols - k / range * range) / 64, scratch->panel);
        hm_frozen_forward_strips(
            round_up(n_rows, 4), m, m0 + m == m_all ? tail_rows(m_all) : 0,
            (struct frozen_tile){ .main = { .row = scratch->panel,
                                            .row_step = 2,
                                            .lane = lanes,
                                            .pair_step = PAIRS,
                                            .vector_step = (size_t)width * LANES,
                                            .pairs = width / 2 },
                                  .row_ld = CHUNK,
                                  .low = part,
                                  .sum = scratch->sum,
                                  .sum_ld = 32,
                                  .first = k == 0 },
            PANEL_N, true, &ahead);
    }
}

void hm_frozen_forward_avx512bf16(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                                  const uint16_t *x, size_t m, const struct hm_low_rank *low,
                                  bool add, float *y, size_t ldy, void *scratch)
{
    struct frozen_scratch *s = scratch;

    if (m <= FEW) {
        hm_frozen_forward_few(w, row0, n_rows, x, m, add, y, ldy, s);
        if (low)
            hm_low_add_few(low, row0, n_rows, m, y, ldy);
        return;
    }
    const uint32_t height = m <= NARROW_M ? NARROW_N : PANEL_N;
    for (size_t i = 0; i < m; i += BLOCK_M)
        for (uint32_t j = 0; j < n_rows; j += height) {
            uint32_t n = (uint32_t)least(height, n_rows - j);
            size_t rows = least(BLOCK_M, m - i);
            forward_block(w, row0 + j, n, x, m, i, rows, low, s);
            sums_turn(s->sum, n, rows, add, y + i * ldy + j, ldy);
        }
}

/* --- backward --- */

/* Sums [m][n] of strips, even columns before odd ones, become dx[m][n]. */
static void sums_join(const float *sum, size_t n, size_t m, bool add, float *dx, size_t lddx)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));

    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j += 32) {
            const float *from = sum + (j / 32 * BLOCK_M + i) * 32;
            float *to = dx + i * lddx + j;
            __m512 even = _mm512_load_ps(from), odd = _mm512_load_ps(from + 16);
            __m512 a = _mm512_permutex2var_ps(even, low, odd);
            __m512 b = _mm512_permutex2var_ps(even, high, odd);
            if (add) {
                a = _mm512_add_ps(a, _mm512_loadu_ps(to));
                b = _mm512_add_ps(b, _mm512_loadu_ps(to + 16));
            }
            _mm512_storeu_ps(to, a);
            _mm512_storeu_ps(to + 16, b);
        }
}

static void backward_block(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                           const uint16_t *dy, size_t m_all, size_t m0, size_t m,
                           const struct hm_low_rank *low, struct frozen_scratch *scratch)
{
    const uint32_t end = chunks_end(w->rows, low);

    for (uint32_t k = 0; k < end; k += CHUNK) {
        const size_t width = k < w->rows ? chunk_width(w->rows, k) : 0;
        const uint32_t depth = k < w->rows ? (uint32_t)least(CHUNK, w->rows - k) : 0;
        const size_t pairs = (depth + 1) / 2;
        const uint16_t *rows = dy + chunk_begin(m_all, k) + m0 * width;
        const struct frozen_part part =
            low_backward(low, w->cols, col0, n_cols, k, m_all, m0, scratch);
        struct frozen_ahead ahead = { 0 };
        if (m > DECODE_M)
            ahead =
                ahead_block(w, k + CHUNK, CHUNK, col0, n_cols, units(n_cols, 32) * units(m, 12));
        hm_frozen_left_ahead(&ahead, rows, m_all * width, m * width,
                             units(n_cols, 32) * units(m, 12));
        if (depth > 0) {
            hm_frozen_panel_scales(w, k, depth, col0, n_cols, scratch->scale);
            memset(scratch->scale + (size_t)depth * (n_cols / 64), 0, n_cols / 64 * sizeof(float));
            hm_frozen_panel_strips(w, k, depth, col0, n_cols, scratch->scale,
                                   m <= DECODE_M ? AHEAD : 0, scratch->panel);
        }
        for (uint32_t j = 0; j < n_cols; j += 32)
            hm_frozen_strip_run(
                STRIP_BACKWARD, 2, round_up(m, 4),
                (struct frozen_tile){ .main = { .row = rows,
                                                .row_step = 2,
                                                .lane = scratch->panel + j * pairs * 2,
                                                .pair_step = 2 * PAIRS,
                                                .vector_step = PAIRS,
                                                .pairs = pairs },
                                      .row_ld = width,
                                      .low = low_lane(part, j * part.pairs * 2),
                                      .sum = scratch->sum + j * BLOCK_M,
                                      .sum_ld = 32,
                                      .first = k == 0 },
                &ahead);
    }
}

void hm_frozen_backward_avx512bf16(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                                   const uint16_t *dy, size_t m, const struct hm_low_rank *low,
                                   bool add, float *dx, size_t lddx, void *scratch)
{
    struct frozen_scratch *s = scratch;

    for (size_t i = 0; i < m; i += BLOCK_M)
        for (uint32_t j = 0; j < n_cols; j += PANEL_N) {
            uint32_t n = (uint32_t)least(PANEL_N, n_cols - j);
            size_t rows = least(BLOCK_M, m - i);
            backward_block(w, col0 + j, n, dy, m, i, rows, low, s);
            sums_join(s->sum, n, rows, add, dx + i * lddx + j, lddx);
        }
}

void hm_low_add_avx512bf16(enum hm_pack side, const struct hm_frozen *w, uint32_t first, uint32_t n,
                           size_t m, const struct hm_low_rank *low, float *out, size_t ld,
                           void *scratch)
{
    struct hm_frozen none = *w; /* without its own terms */

    if (side == HM_PACK_BACKWARD) {
        none.rows = 0;
        hm_frozen_backward_avx512bf16(&none, first, n, low->value, m, low, true, out, ld, scratch);
    } else if (m <= FEW) {
        hm_low_add_few(low, first, n, m, out, ld);
    } else {
        none.cols = 0;
        hm_frozen_forward_avx512bf16(&none, first, n, low->value, m, low, true, out, ld, scratch);
    }
}
