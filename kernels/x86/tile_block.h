/* SPDX-License-Identifier: MIT */
/*
 * The inner loop of products on tiles: 2 x 2 tiles of C over the steps of a chunk, with units of
 * the next piece decoded between the products. Private to frozen_amx.c.
 */
#ifndef HANMIX_KERNELS_X86_TILE_BLOCK_H
#define HANMIX_KERNELS_X86_TILE_BLOCK_H

#include "tile_decode.h"

/* Up to 2 x 2 tiles of C over the steps of a chunk; strides in values. */
struct block {
    const uint16_t *a, *b;
    size_t a_next, a_step, b_next, b_step;
    unsigned n_a, n_b;
    uint32_t n_steps;
    float *c;
    enum { C_ZERO, C_LOAD, C_KEPT } before;
    bool store;
};

INLINE void steps_run(const struct block *block, struct piece *next, uint32_t per_step,
                      enum hm_pack side, enum source source)
{
    const uint16_t *a = block->a, *b = block->b;
    const size_t a_next = block->a_next, b_next = block->b_next;
    const bool two_a = block->n_a > 1, two_b = block->n_b > 1;
    struct piece piece = *next;

    for (uint32_t step = 0; step < block->n_steps; step++) {
        tile_load(4, a);
        tile_load(6, b);
        tile_dot(0, 4, 6);
        if (two_b) {
            tile_load(7, b + b_next);
            tile_dot(1, 4, 7);
        }
        if (two_a) {
            tile_load(5, a + a_next);
            tile_dot(2, 5, 6);
            if (two_b)
                tile_dot(3, 5, 7);
        }
        a += block->a_step;
        b += block->b_step;
        for (uint32_t i = 0; i < per_step && piece.left > 0; i++)
            unit_decode(&piece, side, source);
    }
    *next = piece;
}

static void c_begin(const struct block *block)
{
    const float *c = block->c;

    if (block->before == C_ZERO) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
    } else if (block->before == C_LOAD) {
        tile_load(0, c);
        tile_load(1, c + TILE_F32);
        tile_load(2, c + 2 * TILE_F32);
        tile_load(3, c + 3 * TILE_F32);
    }
}

static void c_end(const struct block *block)
{
    float *c = block->c;

    if (!block->store)
        return;
    tile_store(0, c);
    tile_store(1, c + TILE_F32);
    tile_store(2, c + 2 * TILE_F32);
    tile_store(3, c + 3 * TILE_F32);
}

/* One body for each side and source, so that the decoding is inlined into the steps. */
#define STEPS(name, side, source)                                                             \
    static __attribute__((noinline)) void name(const struct block *block, struct piece *next, \
                                               uint32_t per_step)                             \
    {                                                                                         \
        steps_run(block, next, per_step, side, source);                                       \
    }                                                                                         \
    static void name##_rest(struct piece *next)                                               \
    {                                                                                         \
        while (next->left > 0)                                                                \
            unit_decode(next, side, source);                                                  \
    }

STEPS(forward_nf4, HM_PACK_FORWARD, SOURCE_NF4)
STEPS(forward_nested, HM_PACK_FORWARD, SOURCE_NF4_NESTED)
STEPS(forward_bf16, HM_PACK_FORWARD, SOURCE_BF16)
STEPS(backward_nf4, HM_PACK_BACKWARD, SOURCE_NF4)
STEPS(backward_nested, HM_PACK_BACKWARD, SOURCE_NF4_NESTED)
STEPS(backward_bf16, HM_PACK_BACKWARD, SOURCE_BF16)

static const struct {
    void (*steps)(const struct block *block, struct piece *next, uint32_t per_step);
    void (*rest)(struct piece *next);
} bodies[2][3] = {
    { { forward_nf4, forward_nf4_rest },
      { forward_nested, forward_nested_rest },
      { forward_bf16, forward_bf16_rest } },
    { { backward_nf4, backward_nf4_rest },
      { backward_nested, backward_nested_rest },
      { backward_bf16, backward_bf16_rest } },
};

#endif
