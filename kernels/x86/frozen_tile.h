/* SPDX-License-Identifier: MIT */
/*
 * The register tile of products with frozen matrices, both directions: rows of one operand are
 * broadcast pair by pair, vectors of the other hold a pair of each lane. Up to 24 sums stay in
 * registers over a chunk of k and pass through memory between chunks; a low-rank product joins them
 * before they are stored, which costs nothing but its terms.
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_TILE_H
#define HANMIX_KERNELS_X86_FROZEN_TILE_H

#include "frozen.h"

struct frozen_part {
    const uint16_t *row;  /* broadcast */
    size_t row_step;      /* from pair to pair */
    const uint16_t *lane; /* pair p of vector v at lane[p * pair_step + v * vector_step] */
    size_t pair_step, vector_step;
    size_t pairs;
};

struct frozen_tile {
    struct frozen_part main; /* its rows are row_ld values apart */
    size_t row_ld;
    struct frozen_part low; /* added after it: a piece of a low-rank product, or no pairs */
    float *sum;             /* [rows][vectors][16], row r at r * sum_ld */
    size_t sum_ld;
    bool first; /* sums begin at zero */
};

/* Which rows are broadcast: they lie a constant apart, since twelve strides would take registers
 * from the loop. */
enum frozen_strip {
    STRIP_FORWARD,  /* of a panel, CHUNK apart; low: LOW_RANK apart */
    STRIP_BACKWARD, /* of a packed operand, row_ld apart, best CHUNK; low: 2 apart */
    STRIP_QUADS,    /* the same, met by four values at a time: lanes 2 i and 2 i + 1 hold one sum */
    STRIP_LOW       /* of a low-rank value, LOW_M apart */
};

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

/* The next tile's height of n rows, a multiple of 4, that may lie in tiles of `most` = 12 or 24
 * rows; avoids tiles of 4, whose sums are too few to hide the latency. */
size_t hm_frozen_tile_height(size_t n, size_t most);
/* n values of the left operand, `skip` values after `now`, are wanted over the next n_tiles. */
INLINE void hm_frozen_left_ahead(struct frozen_ahead *ahead, const uint16_t *now, size_t skip,
                                 size_t n, size_t n_tiles)
{
    ahead->left = (uintptr_t)now + skip * sizeof(*now);
    ahead->left_each = round_up(n * sizeof(*now) / n_tiles, 64);
}

/* All n_rows, a multiple of 4, of one or two vectors; backward and low: two. */
void hm_frozen_strip_run(enum frozen_strip strip, size_t vectors, size_t n_rows,
                         struct frozen_tile tile, struct frozen_ahead *ahead);

/* Forward strips of m rows of x, of which the last `tail` are packed as rows: the tile's operands
 * begin at the first of them, sums [m / 32][sum_rows][32] likewise. Fetches ahead in x if cold. */
void hm_frozen_forward_strips(size_t n_rows, size_t m, size_t tail, struct frozen_tile tile,
                              size_t sum_rows, bool cold, struct frozen_ahead *ahead);

#endif
