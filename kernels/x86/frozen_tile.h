/* SPDX-License-Identifier: MIT */
/*
 * The register tile of products with frozen matrices, both directions: rows of one operand are
 * broadcast pair by pair, vectors of the other hold a pair of each lane. Up to 24 sums stay in
 * registers over a chunk of k and pass through memory between chunks.
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_TILE_H
#define HANMIX_KERNELS_X86_FROZEN_TILE_H

#include "frozen.h"

struct frozen_tile {
    const uint16_t *row; /* [rows], row_ld values apart: broadcast */
    size_t row_ld;
    const uint16_t *lane; /* pair p of vector v at lane[p * pair_step + v * vector_step] */
    size_t pair_step, vector_step;
    size_t pairs;
    float *sum; /* [rows][vectors][16], row r at r * sum_ld */
    size_t sum_ld;
    bool first; /* sums begin at zero */
};

INLINE __m512i pair_broadcast(const uint16_t *p)
{
    int pair;

    memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

/* ld: tile->row_ld, better a constant: twelve strides would take registers from the loop. */
INLINE void tile_run(size_t rows, size_t vectors, size_t ld, const struct frozen_tile *tile)
{
    __m512 sum[24];
    const uint16_t *row = tile->row, *lane = tile->lane;

    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t v = 0; v < vectors; v++)
        sum[r * vectors + v] = tile->first ? _mm512_setzero_ps()
                                           : _mm512_loadu_ps(tile->sum + r * tile->sum_ld + v * 16);
    for (size_t p = 0; p < tile->pairs; p++, row += 2, lane += tile->pair_step) {
        __m512bh column[4];
        UNROLL for (size_t v = 0; v < vectors; v++) column[v] =
            (__m512bh)_mm512_loadu_si512(lane + v * tile->vector_step);
        UNROLL for (size_t r = 0; r < rows; r++)
        {
            __m512bh factor = (__m512bh)pair_broadcast(row + r * ld);
            UNROLL for (size_t v = 0; v < vectors; v++) sum[r * vectors + v] =
                _mm512_dpbf16_ps(sum[r * vectors + v], factor, column[v]);
        }
    }
    UNROLL for (size_t r = 0; r < rows; r++) UNROLL for (size_t v = 0; v < vectors; v++)
        _mm512_storeu_ps(tile->sum + r * tile->sum_ld + v * 16, sum[r * vectors + v]);
}

/* n rows, a multiple of 4, that may lie in tiles of `most` = 12 or 24 rows; avoids tiles of 4,
 * whose sums are too few to hide the latency. */
INLINE size_t tile_height(size_t n, size_t most)
{
    if (n >= most)
        return n - most == 4 ? most - 4 : most;
    return n;
}

/* Data that will be wanted soon: n pieces `stride` apart, fetched into L2 a few at a time. */
struct frozen_ahead {
    uintptr_t at;
    size_t stride, bytes, n;
    size_t each;      /* pieces at a time */
    uintptr_t left;   /* what the left operand will need, in order of memory */
    size_t left_each; /* bytes */
};

INLINE void ahead_fetch(struct frozen_ahead *ahead)
{
    size_t n = least(ahead->each, ahead->n);

    ahead->n -= n;
    for (; n > 0; n--, ahead->at += ahead->stride)
        for (size_t i = 0; i < ahead->bytes; i += 64)
            fetch(ahead->at + i);
    for (size_t i = 0; i < ahead->left_each; i += 64)
        fetch(ahead->left + i);
    ahead->left += ahead->left_each;
}

#endif
