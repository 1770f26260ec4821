/* SPDX-License-Identifier: MIT */
/*
 * Products of attention tiles: in f32 where the operands lie, or in bf16 by the kernels of frozen
 * matrices, for which keys and values are rounded once a pass and queries once a tile of them. Sums
 * that go into f32 buffers of queries or keys are added tile by tile, in the caller's order.
 */
#include "internal.h"

#define LEAST_QUERIES 64u /* in a sequence; fewer meet keys in f32 */

struct round_loop {
    const struct hm_step *step;
    const float *keys, *values;
    struct hm_tile_sides *sides;
};

/* One key tile of one kv head, keys and values. */
static void round_unit(void *context, size_t index, int worker)
{
    const struct round_loop *loop = context;
    const struct hm_step *step = loop->step;
    const size_t kv_heads = step->arch->kv_heads, c = step->arch->head_dim;
    const size_t t = index / kv_heads, kv_head = index % kv_heads;
    const int32_t *tile = hm_i32(step->ws, HM_BUF_TILE) + 2 * t;
    const int32_t *tile_of = hm_i32(step->ws, HM_BUF_TILE_OF);
    size_t b = 0;
    double mark = hm_clock_seconds();

    while ((size_t)tile_of[b + 1] <= t)
        b++;
    for (int32_t key = tile[0]; key < tile[1]; key++) {
        size_t row = b * step->context + (size_t)key;
        size_t from = (row * kv_heads + kv_head) * c;
        size_t to = (kv_head * step->B * step->context + row) * c;
        step->kernels->f32_to_bf16(loop->keys + from, c, loop->sides->key.bf16 + to);
        step->kernels->f32_to_bf16(loop->values + from, c, loop->sides->value.bf16 + to);
    }
    hm_step_lap(step, worker, HM_PHASE_ATTENTION, &mark);
}

struct hm_tile_sides hm_tile_sides(const struct hm_step *step, const float *keys,
                                   const float *values)
{
    const size_t kv_heads = step->arch->kv_heads;
    struct hm_tile_sides sides = { .key = { .f32 = keys }, .value = { .f32 = values } };
    struct round_loop loop = { step, keys, values, &sides };

    if (!hm_shape_tiles_packed(&step->ws->shape) || step->T < LEAST_QUERIES)
        return sides;
    sides.key.bf16 = hm_bf16(step->ws, HM_BUF_KEYS);
    sides.value.bf16 =
        sides.key.bf16 + (size_t)step->B * step->context * kv_heads * step->arch->head_dim;
    hm_parallel_for((size_t)hm_i32(step->ws, HM_BUF_TILE_OF)[step->B] * kv_heads, round_unit,
                    &loop);
    return sides;
}

static struct hm_frozen frozen_tile(const struct hm_step *step, const struct hm_tile_side *side,
                                    const struct hm_key_tile *tile)
{
    const size_t c = step->arch->head_dim;
    size_t row = tile->kv_head * step->B * step->context + tile->key0;

    return (struct hm_frozen){ .layout = HM_FROZEN_BF16,
                               .rows = (uint32_t)tile->n,
                               .cols = (uint32_t)c,
                               .data = (const uint8_t *)(side->bf16 + row * c) };
}

static const float *tile_f32(const struct hm_step *step, const struct hm_tile_side *side,
                             const struct hm_key_tile *tile)
{
    return side->f32 + (tile->key0 * step->arch->kv_heads + tile->kv_head) * step->arch->head_dim;
}

/* A worker's bf16 room: scores as a left operand, then for each slot a packed operand and rows. */
static size_t score_room(uint32_t head_dim)
{
    return (size_t)HM_Q_TILE * (head_dim > HM_K_TILE ? head_dim : HM_K_TILE);
}

size_t hm_tile_room(uint32_t head_dim)
{
    return score_room(head_dim) + (size_t)2 * HM_SLOTS * HM_Q_TILE * head_dim;
}

struct hm_query_side hm_tile_queries(const struct hm_step *step, const struct hm_tile_sides *sides,
                                     enum hm_query_slot slot, bool gathered, const float *x,
                                     size_t n, size_t ldq, int worker)
{
    const struct hm_kernels *kernels = step->kernels;
    const uint32_t c = step->arch->head_dim;
    const size_t room = (size_t)HM_Q_TILE * c;
    struct hm_query_side side = { .f32 = x, .n = n, .ldq = ldq };

    if (!sides->key.bf16)
        return side;
    side.packed = hm_worker_tile(step->ws, worker) + score_room(c) + 2 * slot * room;
    kernels->frozen_pack(HM_PACK_FORWARD, n, c, 0, n, 0, c, x, ldq, side.packed);
    if (!gathered)
        return side;
    side.bf16 = side.packed + room;
    for (size_t i = 0; i < n; i++)
        kernels->f32_to_bf16(x + i * ldq, c, side.bf16 + i * c);
    return side;
}

void hm_tile_score(const struct hm_step *step, const struct hm_tile_side *side,
                   const struct hm_key_tile *tile, const struct hm_query_side *x, float *out,
                   int worker)
{
    const size_t c = step->arch->head_dim;

    if (!x->packed) {
        step->kernels->gemm_nt(x->n, tile->n, c, 1.0f, x->f32, x->ldq, tile_f32(step, side, tile),
                               step->arch->kv_heads * c, 0.0f, out, HM_K_TILE);
        return;
    }
    struct hm_frozen w = frozen_tile(step, side, tile);
    step->kernels->frozen_forward(&w, 0, w.rows, x->packed, x->n, NULL, false, out, HM_K_TILE,
                                  hm_worker_panel(step->ws, worker));
}

void hm_tile_gather(const struct hm_step *step, const struct hm_key_tile *tile, const float *score,
                    const struct hm_query_side *x, float *out, int worker)
{
    const struct hm_kernels *kernels = step->kernels;
    const size_t c = step->arch->head_dim, ldk = step->arch->kv_heads * c;

    if (!x->bf16) {
        kernels->gemm_tn(tile->n, c, x->n, 1.0f, score, HM_K_TILE, x->f32, x->ldq, 1.0f, out, ldk);
        return;
    }
    uint16_t *packed = hm_worker_tile(step->ws, worker);
    struct hm_frozen w = { .layout = HM_FROZEN_BF16,
                           .rows = (uint32_t)x->n,
                           .cols = (uint32_t)c,
                           .data = (const uint8_t *)x->bf16 };
    kernels->frozen_pack(HM_PACK_BACKWARD_TURNED, tile->n, x->n, 0, tile->n, 0, x->n, score,
                         HM_K_TILE, packed);
    kernels->frozen_backward(&w, 0, w.cols, packed, tile->n, NULL, true, out, ldk,
                             hm_worker_panel(step->ws, worker));
}

void hm_tile_apply(const struct hm_step *step, const struct hm_tile_side *side,
                   const struct hm_key_tile *tile, const float *score, size_t n_q, float *out,
                   size_t ldq, int worker)
{
    const struct hm_kernels *kernels = step->kernels;
    const size_t c = step->arch->head_dim;

    if (!side->bf16) {
        kernels->gemm_nn(n_q, c, tile->n, 1.0f, score, HM_K_TILE, tile_f32(step, side, tile),
                         step->arch->kv_heads * c, 1.0f, out, ldq);
        return;
    }
    uint16_t *packed = hm_worker_tile(step->ws, worker);
    struct hm_frozen w = frozen_tile(step, side, tile);
    kernels->frozen_pack(HM_PACK_BACKWARD, n_q, tile->n, 0, n_q, 0, tile->n, score, HM_K_TILE,
                         packed);
    kernels->frozen_backward(&w, 0, w.cols, packed, n_q, NULL, true, out, ldq,
                             hm_worker_panel(step->ws, worker));
}
