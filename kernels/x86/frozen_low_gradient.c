/* SPDX-License-Identifier: MIT */
/*
 * Gradients of LoRA factors with AVX512-BF16: dA += v^T x and dB += dy^T u. LOW_M rows of x or dy
 * are paired (row i beside row i + 1) in strips of 32 columns, values are turned so that pairs of
 * rows lie together, and all ranks meet the strips; sums over all rows stay in scratch.
 */
#include "frozen.h"
#include "frozen_round.h"
#include "frozen_tile.h"

#define RANKS 256u /* at once */
#define COLS  256u /* at once */
#define AHEAD 16u  /* rows fetched before they are met */
#define STRIP \
    (PAIRS * LOW_M + 2 * PAIRS) /* of 32 columns of LOW_M rows, off the sets of its neighbours */
#define SUMS (RANKS * 32u)      /* of a strip */

_Static_assert(COLS / 32 * STRIP <= PANEL_N * CHUNK, "strips");
_Static_assert(COLS / 32 * SUMS <= PANEL_N * BLOCK_M, "sums");
_Static_assert(RANKS *LOW_M <= PANEL_N * LOW_M, "turned values");

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

/* The same of packed rows, `width` apart; n_strips within a chunk. */
static void pairs_copy(const uint16_t *rows, size_t width, size_t n, size_t n_strips,
                       uint16_t *strips)
{
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40,
                                         8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));

    for (size_t i = 0; i < n; i += 2, rows += 2 * width, strips += 2 * PAIRS)
        for (size_t j = 0; j < n_strips; j++) {
            const uint16_t *from = rows + j * PAIRS;
            __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + width);
            fetch((uintptr_t)from + AHEAD * width * sizeof(*rows));
            fetch((uintptr_t)from + (AHEAD + 1) * width * sizeof(*rows));
            _mm512_store_si512(strips + j * STRIP, _mm512_permutex2var_epi16(a, low, b));
            _mm512_store_si512(strips + j * STRIP + PAIRS, _mm512_permutex2var_epi16(a, high, b));
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
    for (size_t i = 0; i < m; i += LOW_M) {
        size_t rows = least(LOW_M, m - i);
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

/* grad[n_cols][..] += sums [rank][n_cols], turned: up to 16 ranks of 16 columns, or 8 of 32. */
static void sums_add_turned(const float *sum, uint32_t rank, size_t n_cols, float *grad, size_t ld)
{
    const size_t height = rank <= 8 ? 8 : LANES, width = rank <= 8 ? 2 * LANES : LANES;

    for (uint32_t r = 0; r < rank; r += LANES)
        for (size_t c = 0; c < n_cols; c += width) {
            const __mmask16 mask = mask16(least(height, rank - r));
            const float *from = sum + c / 32 * SUMS + r * 32 + c % 32;
            __m512 block[LANES];
            UNROLL for (size_t i = 0; i < LANES; i++) block[i] =
                r + i % height < rank ? _mm512_load_ps(from + i % height * 32 + i / height * LANES)
                                      : _mm512_setzero_ps();
            vf_transpose(block);
            for (size_t i = 0; i < width && c + i < n_cols; i++) {
                float *to = grad + (c + i) * ld + r;
                __m512 v = block[i % LANES];
                if (i >= LANES)
                    v = _mm512_shuffle_f32x4(v, v, 0xee);
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, to)));
            }
        }
}

void hm_low_b_gradient_avx512bf16(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0,
                                  uint32_t n_cols, const uint16_t *value, uint32_t rank,
                                  float *grad, void *scratch)
{
    struct frozen_scratch *s = scratch;
    uint32_t cols;

    for (uint32_t col = 0; col < n_cols; col += cols) {
        const size_t at = col0 + col, width = chunk_width(k, at);
        cols = (uint32_t)least(least(COLS, CHUNK - at % CHUNK), n_cols - col);
        for (uint32_t r = 0; r < rank; r += RANKS) {
            const uint32_t ranks = (uint32_t)least(RANKS, rank - r);
            for (size_t i = 0; i < m; i += LOW_M) {
                size_t n = least(LOW_M, m - i);
                pairs_copy(dy + chunk_begin(m, at) + i * width + at % CHUNK, width, n,
                           units(cols, 32), s->panel);
                strips_run(value + r / 2 * hm_low_ld(m) + 2 * i, hm_low_ld(m), ranks, 0, n,
                           units(cols, 32), i == 0, s);
            }
            sums_add_turned(s->sum, ranks, cols, grad + (size_t)col * rank + r, rank);
        }
    }
}
