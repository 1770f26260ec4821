/* SPDX-License-Identifier: MIT */
/*
 * Gradients of LoRA factors with AVX512-BF16: dA += v^T x and dB += dy^T u. Values are turned so
 * that pairs of rows lie together, and meet pairs of rows (row i beside row i + 1) of 32 columns:
 * of x in strips that are rounded for all factors that read it, of dy as it is packed. Sums over
 * all rows stay in scratch.
 */
#include "frozen.h"
#include "frozen_round.h"
#include "frozen_tile.h"

#define RANKS  256u                         /* at once */
#define COLS   256u                         /* at once */
#define X_ROWS 64u                          /* of x at once: strips stay in L1 */
#define AHEAD  16u                          /* rows fetched before they are met */
#define STRIP  (PAIRS * X_ROWS + 2 * PAIRS) /* of 32 columns, off the sets of its neighbours */
#define SUMS   (RANKS * 32u)                /* of 32 columns */

_Static_assert(COLS <= TILED_COLS && LOW_M * TILED_COLS <= PANEL_N * CHUNK, "rows of dy");
_Static_assert(X_ROWS <= LOW_M, "turned values");
_Static_assert(COLS / 32 * STRIP <= PANEL_N * CHUNK, "strips");
_Static_assert(COLS / 32 * SUMS <= PANEL_N * BLOCK_M, "sums");

/* Values of `rank` ranks, n rows of each, as [rank][LOW_M]. */
static void values_turn(const uint16_t *value, size_t ld, uint32_t rank, size_t n, uint16_t *out)
{
    const __m512i order =
        _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24,
                         22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);

    for (uint32_t r = 0; r < rank; r += 2, value += ld, out += 2 * LOW_M)
        for (size_t i = 0; i < n; i += LANES) {
            __m512i both = _mm512_permutexvar_epi16(order, _mm512_loadu_si512(value + 2 * i));
            _mm256_store_si256((__m256i *)(out + i), _mm512_castsi512_si256(both));
            _mm256_store_si256((__m256i *)(out + LOW_M + i), _mm512_extracti64x4_epi64(both, 1));
        }
}

/* n rows of x, the last one paired with zeros if n is odd. */
static void pairs_round(const float *x, size_t ldx, size_t n, size_t n_cols, uint16_t *strips)
{
    for (size_t i = 0; i < n; i += 2, x += 2 * ldx, strips += 2 * PAIRS)
        for (size_t j = 0; j < n_cols; j += LANES) {
            __m512 next = i + 1 < n ? _mm512_loadu_ps(x + ldx + j) : _mm512_setzero_ps();
            fetch((uintptr_t)x + (AHEAD * ldx + j) * sizeof(*x));
            fetch((uintptr_t)x + ((AHEAD + 1) * ldx + j) * sizeof(*x));
            _mm512_store_si512(
                strips + j / 32 * STRIP + j % 32 * 2,
                halves_pair((__m512i)_mm512_cvtne2ps_pbh(next, _mm512_loadu_ps(x + j))));
        }
}

/* The strips in scratch against n rows of `rank` ranks, whose sums begin at row `at` of a strip's.
 */
static void strips_run(const uint16_t *value, size_t ld, uint32_t rank, uint32_t at, size_t n,
                       size_t n_strips, bool first, struct frozen_scratch *scratch)
{
    struct frozen_ahead none = { 0 };

    values_turn(value, ld, rank, n, scratch->low);
    for (size_t s = 0; s < n_strips; s++)
        hm_frozen_strip_run(STRIP_LOW, 2, round_up(rank, 4),
                            (struct frozen_tile){ .main = { .row = scratch->low,
                                                            .row_step = 2,
                                                            .lane = scratch->panel + s * STRIP,
                                                            .pair_step = 2 * PAIRS,
                                                            .vector_step = PAIRS,
                                                            .pairs = units(n, 2) },
                                                  .row_ld = LOW_M,
                                                  .sum = scratch->sum + s * SUMS + at * 32,
                                                  .sum_ld = 32,
                                                  .first = first },
                            &none);
}

static void sums_add(const float *sum, uint32_t rank, size_t n_cols, float *grad, size_t ld)
{
    for (uint32_t r = 0; r < rank; r++, grad += ld)
        for (size_t c = 0; c < n_cols; c += LANES) {
            const float *from = sum + c / 32 * SUMS + r * 32 + c % 32;
            _mm512_storeu_ps(grad + c,
                             _mm512_add_ps(_mm512_loadu_ps(grad + c), _mm512_load_ps(from)));
        }
}

/* Ranks [first, first + n) of each part, as far as they exist. */
static void a_ranks(const float *x, size_t ldx, size_t m, size_t n_cols,
                    const struct hm_low_part *part, unsigned n_parts, uint32_t first, uint32_t n,
                    size_t ld, struct frozen_scratch *s)
{
    for (size_t i = 0; i < m; i += X_ROWS) {
        size_t rows = least(X_ROWS, m - i);
        pairs_round(x + i * ldx, ldx, rows, n_cols, s->panel);
        for (unsigned p = 0; p < n_parts; p++)
            if (first < part[p].rank)
                strips_run(part[p].value + first / 2 * hm_low_ld(m) + 2 * i, hm_low_ld(m),
                           (uint32_t)least(n, part[p].rank - first), p * n, rows, n_cols / 32,
                           i == 0, s);
    }
    for (unsigned p = 0; p < n_parts; p++)
        if (first < part[p].rank)
            sums_add(s->sum + (size_t)p * n * 32, (uint32_t)least(n, part[p].rank - first), n_cols,
                     part[p].grad + first * ld, ld);
}

void hm_low_a_gradient_avx512bf16(const float *x, size_t ldx, size_t m, uint32_t n_cols,
                                  const struct hm_low_part *part, unsigned n_parts, size_t ld,
                                  void *scratch)
{
    const uint32_t piece = RANKS / n_parts / 4 * 4;
    uint32_t most = 0;

    for (unsigned p = 0; p < n_parts; p++)
        most = part[p].rank > most ? part[p].rank : most;
    for (uint32_t col = 0; col < n_cols; col += COLS)
        for (uint32_t r = 0; r < most; r += piece) {
            struct hm_low_part at[HM_LOW_PARTS];
            for (unsigned p = 0; p < n_parts; p++)
                at[p] = (struct hm_low_part){ part[p].value, part[p].rank, part[p].grad + col };
            a_ranks(x + col, ldx, m, least(COLS, n_cols - col), at, n_parts, r, piece, ld, scratch);
        }
}

/* --- dB --- */

struct rows_tile { /* pairs of packed rows, `width` apart, against turned values */
    const uint16_t *row, *value;
    size_t width, pairs;
    float *sum; /* [ranks][2][16] */
    bool first;
};

INLINE void rows_run(size_t ranks, const struct rows_tile *tile)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    const uint16_t *row = tile->row, *value = tile->value;
    __m512 sum[24];

    UNROLL for (size_t i = 0; i < 2 * ranks; i++) sum[i] =
        tile->first ? _mm512_setzero_ps() : _mm512_load_ps(tile->sum + i * 16);
    for (size_t p = 0; p < tile->pairs; p++, row += 2 * tile->width, value += 2) {
        __m512i a = _mm512_loadu_si512(row), b = _mm512_loadu_si512(row + tile->width);
        __m512bh left = (__m512bh)_mm512_permutex2var_epi16(a, low, b);
        __m512bh right = (__m512bh)_mm512_permutex2var_epi16(a, high, b);
        UNROLL for (size_t r = 0; r < ranks; r++)
        {
            int pair;
            memcpy(&pair, value + r * LOW_M, sizeof(pair));
            __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
            sum[2 * r] = _mm512_dpbf16_ps(sum[2 * r], factor, left);
            sum[2 * r + 1] = _mm512_dpbf16_ps(sum[2 * r + 1], factor, right);
        }
    }
    UNROLL for (size_t i = 0; i < 2 * ranks; i++) _mm512_store_ps(tile->sum + i * 16, sum[i]);
}

static __attribute__((noinline)) void ranks_run(size_t ranks, const struct rows_tile *tile)
{
    switch (ranks) {
    case 4:
        rows_run(4, tile);
        break;
    case 8:
        rows_run(8, tile);
        break;
    default:
        rows_run(12, tile);
    }
}

/* n rows of 32 columns against `rank` ranks; the next columns are fetched on the way. */
static void columns_run(const uint16_t *rows, size_t width, size_t n, uint32_t rank, float *sum,
                        bool first, const uint16_t *values)
{
    for (size_t i = 0; i < n; i++)
        fetch((uintptr_t)(rows + i * width) + 2 * PAIRS);
    for (size_t r = 0, height; r < round_up(rank, 4); r += height) {
        const struct rows_tile tile = { rows,        values + r * LOW_M, width,
                                        units(n, 2), sum + r * 32,       first };
        height = hm_frozen_tile_height(round_up(rank, 4) - r, 12);
        ranks_run(height, &tile);
    }
}

/* grad[16 or 32][..] += sums [rank][16 or 32], turned; n columns exist. */
INLINE void turned_add(bool narrow, const float *sum, size_t rank, size_t n, float *grad, size_t ld)
{
    const size_t height = narrow ? 8 : LANES;
    const __mmask16 mask = mask16(least(height, rank));
    __m512 block[LANES];

    UNROLL for (size_t i = 0; i < LANES; i++) block[i] =
        i % height < rank ? _mm512_load_ps(sum + i % height * 32 + i / height * LANES)
                          : _mm512_setzero_ps();
    vf_transpose(block);
    UNROLL for (size_t i = 0; i < LANES; i++)
    {
        float *to = grad + i * ld;
        if (i < n)
            _mm512_mask_storeu_ps(to, mask,
                                  _mm512_add_ps(block[i], _mm512_maskz_loadu_ps(mask, to)));
        if (narrow && LANES + i < n) {
            to += LANES * ld;
            _mm512_mask_storeu_ps(to, mask,
                                  _mm512_add_ps(_mm512_shuffle_f32x4(block[i], block[i], 0xee),
                                                _mm512_maskz_loadu_ps(mask, to)));
        }
    }
}

static void sums_add_turned(const float *sum, uint32_t rank, size_t n_cols, float *grad, size_t ld)
{
    if (rank <= 8) {
        for (size_t c = 0; c < n_cols; c += 2 * LANES)
            turned_add(true, sum + c / 32 * SUMS, rank, n_cols - c, grad + c * ld, ld);
        return;
    }
    for (uint32_t r = 0; r < rank; r += LANES)
        for (size_t c = 0; c < n_cols; c += LANES)
            turned_add(false, sum + c / 32 * SUMS + r * 32 + c % 32, rank - r, n_cols - c,
                       grad + c * ld + r, ld);
}

void hm_frozen_low_b_gradient(struct frozen_order order, const uint16_t *dy, size_t m, uint32_t k,
                              uint32_t col0, uint32_t n_cols, const uint16_t *value, uint32_t rank,
                              float *grad, struct frozen_scratch *s)
{
    uint32_t cols;

    for (uint32_t col = 0; col < n_cols; col += cols) {
        const size_t at = col0 + col;
        cols = (uint32_t)least(least(COLS, order.chunk - at % order.chunk), n_cols - col);
        for (uint32_t r = 0; r < rank; r += RANKS) {
            const uint32_t ranks = (uint32_t)least(RANKS, rank - r);
            for (size_t i = 0, ld; i < m; i += LOW_M) {
                size_t n = least(LOW_M, m - i);
                const uint16_t *rows =
                    hm_frozen_rows(order, dy, m, k, i, n, at, round_up(cols, PAIRS), s->panel, &ld);
                values_turn(value + r / 2 * hm_low_ld(m) + 2 * i, hm_low_ld(m), ranks, n, s->low);
                for (uint32_t j = 0; j < cols; j += PAIRS)
                    columns_run(rows + j, ld, n, ranks, s->sum + j / 32 * SUMS, i == 0, s->low);
            }
            sums_add_turned(s->sum, ranks, cols, grad + (size_t)col * rank + r, rank);
        }
    }
}

void hm_low_b_gradient_avx512bf16(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0,
                                  uint32_t n_cols, const uint16_t *value, uint32_t rank,
                                  float *grad, void *scratch)
{
    hm_frozen_low_b_gradient((struct frozen_order){ CHUNK, false }, dy, m, k, col0, n_cols, value,
                             rank, grad, scratch);
}
