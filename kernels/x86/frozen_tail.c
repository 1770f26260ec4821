/* SPDX-License-Identifier: MIT */
/*
 * Forward strips over all rows of x. The last rows, where they fill less than a group, have values
 * of k for lanes, as in frozen_few.c, against the panel that is decoded for the others: they cost
 * what they count, where lanes of rows would cost a group.
 */
#include "frozen_lanes.h"
#include "frozen_tile.h"

/* `rows` rows of the panel against t rows of x in `pieces` of 32 columns: lanes 0..t of sums. */
INLINE void rows_run(size_t rows, size_t t, const uint16_t *panel, const uint16_t *x, size_t pieces,
                     float *sum, bool first)
{
    const __mmask16 mask = (__mmask16)((1u << t) - 1u);
    float joined[48];
    __m512 lanes[24];

    UNROLL for (size_t i = 0; i < rows * t; i++) lanes[i] = _mm512_setzero_ps();
    for (size_t p = 0; p < pieces; p++, panel += PAIRS, x += LANES * PAIRS) {
        __m512bh value[8];
        UNROLL for (size_t r = 0; r < rows; r++) value[r] =
            (__m512bh)_mm512_load_si512(panel + r * CHUNK);
        UNROLL for (size_t i = 0; i < t; i++)
        {
            __m512bh left = (__m512bh)_mm512_loadu_si512(x + i * PAIRS);
            UNROLL for (size_t r = 0; r < rows; r++) lanes[r * t + i] =
                _mm512_dpbf16_ps(lanes[r * t + i], left, value[r]);
        }
    }
    UNROLL for (size_t at = 0; at < rows * t; at += 16)
    {
        __m512 part[16];
        UNROLL for (size_t i = 0; i < 16; i++) part[i] =
            at + i < rows * t ? lanes[at + i] : _mm512_setzero_ps();
        _mm512_storeu_ps(joined + at, sums_of_lanes(part));
    }
    UNROLL for (size_t r = 0; r < rows; r++)
    {
        __m512 row = _mm512_maskz_loadu_ps(mask, joined + r * t);
        if (!first)
            row = _mm512_add_ps(row, _mm512_loadu_ps(sum + r * 32));
        _mm512_storeu_ps(sum + r * 32, row);
    }
}

#define CASE(t, rows)                                                             \
    case t:                                                                       \
        for (; r + rows <= n_rows; r += rows)                                     \
            rows_run(rows, t, panel + r * CHUNK, x, pieces, sum + r * 32, first); \
        break;

static __attribute__((noinline)) size_t tall_run(size_t t, size_t n_rows, const uint16_t *panel,
                                                 const uint16_t *x, size_t pieces, float *sum,
                                                 bool first)
{
    size_t r = 0;

    switch (t) {
        CASE(1, 8)
        CASE(2, 8)
        CASE(3, 8)
    }
    return r;
}

/* Lanes 0..15 of sums [n_rows][32] of a panel and t rows of x in `pieces` of 32 columns. */
static void tail_run(size_t t, size_t n_rows, const uint16_t *panel, const uint16_t *x,
                     size_t pieces, float *sum, bool first)
{
    size_t r = tall_run(t, n_rows, panel, x, pieces, sum, first);

    switch (t) {
        CASE(1, 4)
        CASE(2, 4)
        CASE(3, 4)
        CASE(4, 4)
        CASE(5, 4)
        CASE(6, 4)
        CASE(7, 2)
        CASE(8, 2)
        CASE(9, 2)
        CASE(10, 2)
        CASE(11, 2)
        CASE(12, 2)
    }
}

void hm_frozen_forward_strips(size_t n_rows, size_t m, size_t tail, struct frozen_tile tile,
                              size_t sum_rows, bool cold, struct frozen_ahead *ahead)
{
    const size_t group = tile.main.vector_step, end = m - tail;
    const uint16_t *lanes = tile.main.lane, *low = tile.low.lane;
    float *sum = tile.sum;

    for (size_t i = 0, vectors; i < end; i += vectors * LANES) {
        vectors = end - i > LANES ? 2 : 1;
        if (cold)
            hm_frozen_left_ahead(ahead, lanes, (i / LANES + vectors) * group, vectors * group,
                                 units(n_rows, 12));
        tile.main.lane = lanes + i / LANES * group;
        tile.low.lane = tile.low.pairs > 0 ? low + 2 * i : NULL;
        tile.sum = sum + i * sum_rows;
        hm_frozen_strip_run(STRIP_FORWARD, vectors, n_rows, tile, ahead);
    }
    if (tail == 0)
        return;
    tile.sum = sum + end / 32 * 32 * sum_rows + end % 32;
    if (tile.main.pairs > 0)
        tail_run(tail, n_rows, tile.main.row, lanes + end / LANES * group, tile.main.pairs / LANES,
                 tile.sum, tile.first);
    if (tile.low.pairs > 0) {
        tile.first = tile.first && tile.main.pairs == 0;
        tile.main.pairs = 0;
        tile.low.lane = low + 2 * end;
        hm_frozen_strip_run(STRIP_FORWARD, 1, n_rows, tile, ahead);
    }
}

_Static_assert(FEW == 12, "a case for each number of rows");
