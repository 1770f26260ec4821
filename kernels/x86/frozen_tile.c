/* SPDX-License-Identifier: MIT */
/*
 * The loops of frozen_tile.h for constant heights, widths and strides of a tile.
 */
#include "frozen_tile.h"

INLINE __m512i pair_broadcast(const uint16_t *p)
{
    int pair;

    memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

INLINE __m512i quad_broadcast(const uint16_t *p)
{
    long long quad;

    memcpy(&quad, p, sizeof(quad));
    return _mm512_set1_epi64(quad);
}

INLINE void part_run(size_t rows, size_t vectors, size_t ld, bool quads, size_t row_step,
                     const struct frozen_part *part, __m512 *sum)
{
    const uint16_t *row = part->row, *lane = part->lane;

    for (size_t p = 0; p < part->pairs; p++, row += row_step, lane += part->pair_step) {
        __m512bh column[2];
        UNROLL for (size_t v = 0; v < vectors; v++) column[v] =
            (__m512bh)_mm512_loadu_si512(lane + v * part->vector_step);
        UNROLL for (size_t r = 0; r < rows; r++)
        {
            __m512bh factor =
                (__m512bh)(quads ? quad_broadcast(row + r * ld) : pair_broadcast(row + r * ld));
            UNROLL for (size_t v = 0; v < vectors; v++) sum[r * vectors + v] =
                _mm512_dpbf16_ps(sum[r * vectors + v], factor, column[v]);
        }
    }
}

/* low_ld 0: no low-rank part. */
INLINE void tile_run(size_t rows, size_t vectors, size_t ld, bool quads, size_t low_ld,
                     const struct frozen_tile *tile)
{
    __m512 sum[24];

    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t v = 0; v < vectors; v++)
        sum[r * vectors + v] = tile->first ? _mm512_setzero_ps()
                                           : _mm512_loadu_ps(tile->sum + r * tile->sum_ld + v * 16);
    part_run(rows, vectors, ld, quads, quads ? 4 : 2, &tile->main, sum);
    if (low_ld > 0)
        part_run(rows, vectors, low_ld, false, tile->low.row_step, &tile->low, sum);
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t v = 0; v < vectors; v++)
        _mm512_storeu_ps(tile->sum + r * tile->sum_ld + v * 16, sum[r * vectors + v]);
}

#define CASE(rows, vectors, ld, quads, low_ld)            \
    case rows:                                            \
        tile_run(rows, vectors, ld, quads, low_ld, tile); \
        break;
#define TILE_1(name, ld, quads, low_ld)                                                     \
    static __attribute__((noinline)) void name(size_t rows, const struct frozen_tile *tile) \
    {                                                                                       \
        switch (rows) {                                                                     \
            CASE(4, 1, ld, quads, low_ld)                                                   \
            CASE(8, 1, ld, quads, low_ld)                                                   \
            CASE(12, 1, ld, quads, low_ld)                                                  \
            CASE(16, 1, ld, quads, low_ld)                                                  \
            CASE(20, 1, ld, quads, low_ld)                                                  \
        default:                                                                            \
            tile_run(24, 1, ld, quads, low_ld, tile);                                       \
        }                                                                                   \
    }
#define TILE_2(name, ld, quads, low_ld)                                                     \
    static __attribute__((noinline)) void name(size_t rows, const struct frozen_tile *tile) \
    {                                                                                       \
        switch (rows) {                                                                     \
            CASE(4, 2, ld, quads, low_ld)                                                   \
            CASE(8, 2, ld, quads, low_ld)                                                   \
        default:                                                                            \
            tile_run(12, 2, ld, quads, low_ld, tile);                                       \
        }                                                                                   \
    }

TILE_1(forward_1, CHUNK, false, LOW_RANK)
TILE_2(forward_2, CHUNK, false, LOW_RANK)
TILE_2(backward_2, CHUNK, false, 2)
TILE_2(backward_2_narrow, tile->row_ld, false, 2)
TILE_1(quads_1, CHUNK, true, 0)
TILE_2(quads_2, CHUNK, true, 0)
TILE_1(quads_1_narrow, tile->row_ld, true, 0)
TILE_2(quads_2_narrow, tile->row_ld, true, 0)
TILE_2(low_2, LOW_M, false, 0)

size_t hm_frozen_tile_height(size_t n, size_t most)
{
    if (n >= most)
        return n - most == 4 ? most - 4 : most;
    return n;
}

void hm_frozen_strip_run(enum frozen_strip strip, size_t vectors, size_t n_rows,
                         struct frozen_tile tile, struct frozen_ahead *ahead)
{
    typedef void run_fn(size_t rows, const struct frozen_tile *tile);
    static run_fn *const runs[][2][2] = {
        /* [strip][vectors - 1][narrow] */
        [STRIP_FORWARD] = { { forward_1 }, { forward_2 } },
        [STRIP_BACKWARD] = { { NULL, NULL }, { backward_2, backward_2_narrow } },
        [STRIP_QUADS] = { { quads_1, quads_1_narrow }, { quads_2, quads_2_narrow } },
        [STRIP_LOW] = { { NULL, NULL }, { low_2, NULL } },
    };
    const bool own_ld = strip == STRIP_BACKWARD || strip == STRIP_QUADS;
    run_fn *const run = runs[strip][vectors - 1][own_ld && tile.row_ld != CHUNK];
    const size_t low_ld = strip == STRIP_FORWARD ? LOW_RANK : 2;
    size_t rows;

    for (size_t r = 0; r < n_rows; r += rows) {
        rows = hm_frozen_tile_height(n_rows - r, vectors == 1 ? 24 : 12);
        ahead_fetch(ahead);
        run(rows, &tile);
        tile.main.row += rows * tile.row_ld;
        tile.low.row += rows * low_ld;
        tile.sum += rows * tile.sum_ld;
    }
}
