/* SPDX-License-Identifier: MIT */
/*
 * LoRA beside frozen products with AVX512-BF16: values u = s x A^T and v = s dy B from packed
 * operands, and the gradients of A and B. Factors are rounded to bf16 where they are met, which
 * costs little beside the rows they meet; all products run in the tiles of frozen_tile.h.
 */
#include "frozen.h"
#include "frozen_lanes.h"
#include "frozen_round.h"
#include "frozen_tile.h"

#define QUAD_RANKS 8u                                       /* of a vector: each has two lanes */
#define RANKS      64u                                      /* at once */
#define QUADS      (RANKS / QUAD_RANKS * CHUNK / 4 * PAIRS) /* values; a copy of rows behind them */

/* Sums over columns of x or dy: [m / 32][ranks, a multiple of 4][32]. */
#define QUAD_SUMS \
    (RANKS / QUAD_RANKS * BLOCK_M * LANES) /* in scratch; sums of a block behind them */
_Static_assert(QUADS + BLOCK_M * TILED_COLS <= PANEL_N * CHUNK, "rows of dy");
_Static_assert(QUAD_SUMS + RANKS * BLOCK_M <= PANEL_N * BLOCK_M, "sums of v");

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
        for (uint32_t row = 0; row < n_rows; row += LANES) {
            const __mmask16 there = (__mmask16)(0xffffu >> (LANES - least(LANES, n_rows - row)));
            __m512 right[LANES], product[LANES];
            UNROLL for (size_t e = 0; e < LANES; e++)
            {
                const float *from = factor + least(row + e, n_rows - 1) * low->rank + r;
                right[e] = _mm512_cvtpbh_ps(
                    _mm512_cvtneps_pbh(vf_load_part(from, n, _mm512_setzero_ps())));
            }
            for (size_t i = 0; i < m; i++) {
                float *to = y + i * ldy + row;
                UNROLL for (size_t e = 0; e < LANES; e++) product[e] =
                    _mm512_mul_ps(right[e], _mm512_loadu_ps(value[i]));
                _mm512_mask_storeu_ps(
                    to, there,
                    _mm512_add_ps(_mm512_maskz_loadu_ps(there, to), sums_of_lanes(product)));
            }
        }
    }
}

/* --- sums of x A^T: the forward product with A for W --- */

struct columns { /* [first, end) of a packed operand [m][k]; rows [row0, row0 + n) */
    const uint16_t *x;
    size_t m, k, row0, n, first, end;
    bool cold; /* not in the cache: what comes next is fetched */
    struct frozen_order order;
};

/* What is left of the chunk at column `at`, up to the next multiple of `most`. */
static size_t piece_width(const struct columns *c, size_t at, size_t most)
{
    const size_t in_chunk = at % c->order.chunk;

    return least(least(c->end - at, c->order.chunk - in_chunk), most - in_chunk % most);
}

/* a: [rank][..], k apart, from the first column on. */
static void forward_sums(const float *a, uint32_t rank, const struct columns *c, float *sum,
                         struct frozen_scratch *scratch)
{
    const size_t height = round_up(rank, 4);
    size_t piece;

    for (size_t at = c->first; at < c->end; at += piece, a += piece) {
        const size_t width = order_width(c->order, c->k, at);
        const uint16_t *lanes =
            c->x + order_begin(c->order, c->m, c->k, c->row0, at) + at % c->order.chunk * LANES;
        piece = piece_width(c, at, CHUNK);
        struct frozen_ahead ahead = { .at = (uintptr_t)a + piece * sizeof(*a),
                                      .stride = c->k * sizeof(*a),
                                      .bytes = CHUNK * sizeof(*a),
                                      .n = c->cold && at + piece < c->end ? rank : 0,
                                      .each = 8 };
        hm_low_rows(a, c->k, rank, piece, CHUNK, scratch->panel);
        hm_frozen_forward_strips(height, c->n,
                                 !c->order.tiled && c->row0 + c->n == c->m ? tail_rows(c->m) : 0,
                                 (struct frozen_tile){ .main = { .row = scratch->panel,
                                                                 .row_step = 2,
                                                                 .lane = lanes,
                                                                 .pair_step = PAIRS,
                                                                 .vector_step = width * LANES,
                                                                 .pairs = piece / 2 },
                                                       .row_ld = CHUNK,
                                                       .sum = sum,
                                                       .sum_ld = 32,
                                                       .first = at == c->first },
                                 height, c->cold, &ahead);
    }
}

/* --- sums of dy B: rows of dy meet four rows of B at a time --- */

/* B[n][rank], rank <= RANKS, as [8 ranks][quads][8][4], zeros beyond. */
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

/* Sums [pairs of vectors][BLOCK_M][2][16], two lanes each, become sums by rank. */
static void quads_join(const float *quad, uint32_t rank, size_t n, float *sum)
{
    const size_t height = round_up(rank, 4);

    for (uint32_t r = 0; r < rank; r += QUAD_RANKS)
        for (size_t i = 0; i < n; i += LANES) {
            const float *from = quad + (r / (2 * QUAD_RANKS) * BLOCK_M + i) * 32 + r % 16 * 2;
            float *to = sum + i / 32 * 32 * height + r * 32 + i % 32;
            __m512 row[LANES];
            UNROLL for (size_t l = 0; l < LANES; l++) row[l] =
                i + l < n ? _mm512_load_ps(from + l * 32) : _mm512_setzero_ps();
            vf_transpose(row);
            UNROLL for (size_t l = 0; l < QUAD_RANKS; l++) if (r + l < height)
                _mm512_storeu_ps(to + l * 32, _mm512_add_ps(row[2 * l], row[2 * l + 1]));
        }
}

/* The rows of the next tile while one is met; the other vectors find them in L2. */
static struct frozen_ahead rows_ahead(const uint16_t *rows, size_t width, uint32_t vectors)
{
    const size_t height = vectors > 1 ? 12 : 24;

    return (struct frozen_ahead){ .left = (uintptr_t)rows + height * width * sizeof(*rows),
                                  .left_each = height * width * sizeof(*rows) };
}

const uint16_t *hm_frozen_rows(struct frozen_order order, const uint16_t *x, size_t m, size_t k,
                               size_t row0, size_t n, size_t col, size_t n_cols, uint16_t *room,
                               size_t *ret_ld)
{
    const size_t width = order_width(order, k, col), group = LANES * width;
    const uint16_t *from = x + order_begin(order, m, k, row0, col);

    *ret_ld = order.tiled ? TILED_COLS : width;
    if (!order.tiled)
        return from + col % order.chunk;
    from += col % order.chunk * LANES;
    for (size_t i = 0; i < round_up(n, LANES); i++)
        for (size_t j = 0; j < n_cols; j += PAIRS)
            _mm512_store_si512(
                room + i * TILED_COLS + j,
                _mm512_loadu_si512(from + i / LANES * group + j * LANES + i % LANES * PAIRS));
    return room;
}

/* b: [..][rank], ldb apart, from the first column on; n <= BLOCK_M. */
static void backward_sums(const float *b, size_t ldb, uint32_t rank, const struct columns *c,
                          float *sum, struct frozen_scratch *scratch)
{
    const uint32_t vectors = (uint32_t)units(rank, QUAD_RANKS);
    size_t piece, width;

    for (size_t at = c->first; at < c->end; at += piece, b += piece * ldb) {
        piece = piece_width(c, at, c->order.tiled ? TILED_COLS : CHUNK);
        const uint16_t *rows = hm_frozen_rows(c->order, c->x, c->m, c->k, c->row0, c->n, at, piece,
                                              scratch->panel + QUADS, &width);
        const size_t quads = units(piece, 4);
        quads_make(b, ldb, piece, rank, quads, scratch->panel);
        for (uint32_t v = 0; v < vectors; v += 2) {
            struct frozen_ahead ahead = { 0 };
            if (c->cold && v == 0)
                ahead = rows_ahead(rows, width, vectors);
            hm_frozen_strip_run(
                STRIP_QUADS, vectors - v > 1 ? 2 : 1, round_up(c->n, 4),
                (struct frozen_tile){ .main = { .row = rows,
                                                .row_step = 4,
                                                .lane = scratch->panel + v * quads * PAIRS,
                                                .pair_step = PAIRS,
                                                .vector_step = quads * PAIRS,
                                                .pairs = quads },
                                      .row_ld = width,
                                      .sum = scratch->sum + (size_t)v / 2 * BLOCK_M * 32,
                                      .sum_ld = 32,
                                      .first = at == c->first },
                &ahead);
        }
    }
    quads_join(scratch->sum, rank, c->n, sum);
}

/* --- values --- */

/* Of n rows from row0 on, the sums of n_parts, `stride` apart, joined in order. */
static void sums_values(const float *part, size_t stride, size_t n_parts, uint32_t rank,
                        float scale, size_t row0, size_t n, uint16_t *low, size_t ld_low)
{
    const size_t height = round_up(rank, 4);
    const __m512 factor = _mm512_set1_ps(scale);

    for (uint32_t r = 0; r < rank; r += 2)
        for (size_t i = 0; i < n; i += LANES) {
            const float *from = part + (row0 + i) / 32 * 32 * height + r * 32 + (row0 + i) % 32;
            __m512 even = _mm512_loadu_ps(from), odd = _mm512_loadu_ps(from + 32);
            for (size_t p = 1; p < n_parts; p++) {
                even = _mm512_add_ps(even, _mm512_loadu_ps(from + p * stride));
                odd = _mm512_add_ps(odd, _mm512_loadu_ps(from + p * stride + 32));
            }
            odd = r + 1 < rank ? _mm512_mul_ps(factor, odd) : _mm512_setzero_ps();
            even = _mm512_mul_ps(factor, even);
            _mm512_storeu_si512(low + r / 2 * ld_low + 2 * i,
                                halves_pair((__m512i)_mm512_cvtne2ps_pbh(odd, even)));
        }
}

void hm_frozen_low_project(struct frozen_order order, enum hm_pack side, const float *factor,
                           uint32_t rank, float scale, const uint16_t *x, size_t m, uint32_t k,
                           size_t row0, size_t n, uint16_t *low, size_t ld_low,
                           struct frozen_scratch *scratch)
{
    float *sum = scratch->sum + QUAD_SUMS;

    for (size_t i = 0; i < n; i += BLOCK_M)
        for (uint32_t r = 0; r < rank; r += RANKS) {
            const uint32_t ranks = (uint32_t)least(RANKS, rank - r);
            const struct columns c = {
                x, m, k, row0 + i, least(BLOCK_M, n - i), 0, k, true, order
            };
            if (side == HM_PACK_FORWARD)
                forward_sums(factor + (size_t)r * k, ranks, &c, sum, scratch);
            else
                backward_sums(factor + r, rank, ranks, &c, sum, scratch);
            sums_values(sum, 0, 1, ranks, scale, 0, c.n, low + r / 2 * ld_low + 2 * i, ld_low);
        }
}

void hm_frozen_low_sums(struct frozen_order order, enum hm_pack side, const float *factor,
                        uint32_t rank, const uint16_t *x, size_t m, uint32_t k, uint32_t col0,
                        uint32_t n_cols, float *sums, struct frozen_scratch *scratch)
{
    for (size_t i = 0; i < m; i += BLOCK_M) {
        const struct columns c = { x,     m,    k, i, least(BLOCK_M, m - i), col0, col0 + n_cols,
                                   false, order };
        float *to = sums + hm_low_sums(i, rank);
        if (side == HM_PACK_FORWARD)
            forward_sums(factor + col0, rank, &c, to, scratch);
        else
            backward_sums(factor + (size_t)col0 * rank, rank, rank, &c, to, scratch);
    }
}

static const struct frozen_order plain = { CHUNK, false };

void hm_low_project_avx512bf16(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                               const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                               uint16_t *low, size_t ld_low, void *scratch)
{
    if (side == HM_PACK_FORWARD && m <= FEW)
        project_few(factor, rank, scale, x, m, k, low, ld_low);
    else
        hm_frozen_low_project(plain, side, factor, rank, scale, x, m, k, row0, n, low, ld_low,
                              scratch);
}

void hm_low_sums_avx512bf16(enum hm_pack side, const float *factor, uint32_t rank,
                            const uint16_t *x, size_t m, uint32_t k, uint32_t col0, uint32_t n_cols,
                            float *sums, void *scratch)
{
    hm_frozen_low_sums(plain, side, factor, rank, x, m, k, col0, n_cols, sums, scratch);
}

void hm_low_join_avx512bf16(const float *sums, size_t stride, size_t n_parts, uint32_t rank,
                            float scale, size_t row0, size_t n, uint16_t *low, size_t ld_low)
{
    sums_values(sums, stride, n_parts, rank, scale, row0, n, low, ld_low);
}
