/* SPDX-License-Identifier: MIT */
/*
 * Attention over tiles of HM_Q_TILE queries and HM_K_TILE keys (Dao et al. 2022): grouped query
 * heads, sliding window, padded keys, documents. Forward keeps the log-sum-exp of each row;
 * backward computes the tiles again. A unit is one query tile of one head (out, dq) or one key tile
 * of one kv head (dk, dv): no sum crosses units. Where a sequence has one query, as when tokens are
 * generated, the heads that share keys are one tile. A query that sees no key has output 0 and no
 * gradient.
 *
 * Visible keys of query t: first_key[t] <= key <= t, where first_key joins window and document
 * start; padded keys belong to no tile.
 */
#include <math.h>
#include <string.h>

#include "internal.h"

#define SCORE_VALUES (HM_Q_TILE * HM_K_TILE)

struct tile { /* what a unit needs of one (query tile, key tile) pair */
    size_t n_q, n_k;
    int32_t first[HM_Q_TILE]; /* visible keys of each query, relative to the key tile */
    int32_t end[HM_Q_TILE];
    bool any; /* some query sees some key */
};

struct attention_loop {
    const struct hm_step *step;
    const struct hm_attention *a;
    struct hm_tile_sides sides;
    size_t q_tiles; /* of a sequence */
    float scale;
};

/* --- geometry --------------------------------------------------------------------------------- */

/* Runs of unmasked keys of sequence b, cut at HM_K_TILE; returns the number of tiles so far. */
static int32_t key_tiles(const struct hm_step *step, uint32_t b, uint32_t keys, int32_t count)
{
    const uint8_t *mask = step->batch->mask ? step->batch->mask + (size_t)b * step->T : NULL;
    int32_t *tile = hm_i32(step->ws, HM_BUF_TILE);

    for (uint32_t start = 0; start < keys;) {
        uint32_t end = start;
        while (end < keys && end - start < HM_K_TILE && (!mask || mask[end]))
            end++;
        if (end > start) {
            tile[2 * count] = (int32_t)start;
            tile[2 * count + 1] = (int32_t)end;
            count++;
        }
        start = end + (end == start);
    }
    return count;
}

void hm_attention_prepare(const struct hm_step *step, uint32_t first_pos, uint32_t keys)
{
    const struct hm_batch *batch = step->batch;
    int32_t *pos = hm_i32(step->ws, HM_BUF_POS);
    int32_t *first_key = hm_i32(step->ws, HM_BUF_FIRST_KEY);
    int32_t *tile_of = hm_i32(step->ws, HM_BUF_TILE_OF);
    int32_t window = (int32_t)step->arch->sliding_window;
    int32_t count = 0;

    for (uint32_t b = 0; b < step->B; b++) {
        int32_t document = 0;
        for (uint32_t t = 0; t < step->T; t++) {
            size_t n = (size_t)b * step->T + t;
            int32_t p = (int32_t)(first_pos + t);
            if (batch->doc_start && batch->doc_start[n])
                document = p;
            pos[n] = p;
            first_key[n] = window > 0 && p - window + 1 > document ? p - window + 1 : document;
        }
        tile_of[b] = count;
        count = key_tiles(step, b, keys, count);
    }
    tile_of[step->B] = count;
}

/* Queries row_step rows apart from row q0 of the batch on against keys [key0, key_end). */
static void tile_set(const struct hm_step *step, size_t q0, size_t n_q, size_t row_step,
                     int32_t key0, int32_t key_end, struct tile *ret_tile)
{
    const int32_t *pos = hm_i32(step->ws, HM_BUF_POS) + q0;
    const int32_t *first_key = hm_i32(step->ws, HM_BUF_FIRST_KEY) + q0;

    ret_tile->n_q = n_q;
    ret_tile->n_k = (size_t)(key_end - key0);
    ret_tile->any = false;
    for (size_t i = 0; i < n_q; i++) {
        size_t row = i * row_step;
        ret_tile->first[i] = first_key[row] - key0;
        ret_tile->end[i] = pos[row] + 1 - key0;
        ret_tile->any |= pos[row] >= key0 && first_key[row] < key_end;
    }
}

struct rope_loop {
    const struct hm_step *step;
    float *x;
    uint32_t heads;
    float sign;
};

static void rope_unit(void *context, size_t index, int worker)
{
    const struct rope_loop *loop = context;
    const struct hm_step *step = loop->step;
    size_t row = index * HM_ROW_BLOCK;
    size_t n = step->N - row < HM_ROW_BLOCK ? step->N - row : HM_ROW_BLOCK;
    size_t width = (size_t)loop->heads * step->arch->head_dim;
    const float *cos_table = hm_f32(step->ws, HM_BUF_ROPE);
    double mark = hm_clock_seconds();

    step->kernels->rope(
        loop->x + row * width, n, width, loop->heads, step->arch->head_dim, cos_table,
        cos_table + step->ws->buffer[HM_BUF_ROPE].rows / 2 * (step->arch->head_dim / 2),
        hm_i32(step->ws, HM_BUF_POS) + row, loop->sign);
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_rope_rows(const struct hm_step *step, float *x, uint32_t heads, float sign)
{
    struct rope_loop loop = { step, x, heads, sign };

    hm_parallel_for(hm_units(step->N, HM_ROW_BLOCK), rope_unit, &loop);
}

/* --- forward: one query tile of one head ------------------------------------------------------ */

struct unit {           /* where a query tile lies */
    size_t b, head, q0; /* q0: row in the batch */
    size_t n_q;
    size_t row_step; /* from one query to the next, rows of the batch: 1, or 0 for heads of one */
};

static struct unit query_unit(const struct attention_loop *loop, size_t index)
{
    const struct hm_step *step = loop->step;
    struct unit unit = { .head = index / loop->q_tiles % step->arch->heads,
                         .b = index / loop->q_tiles / step->arch->heads,
                         .row_step = 1 };
    size_t first = (loop->q_tiles - 1 - index % loop->q_tiles) * HM_Q_TILE; /* long tiles first */

    unit.n_q = step->T - first < HM_Q_TILE ? step->T - first : HM_Q_TILE;
    unit.q0 = unit.b * step->T + first;
    return unit;
}

/* Of one query a sequence: the heads that share keys are the queries of a tile. */
static struct unit group_unit(const struct attention_loop *loop, size_t index)
{
    const struct hm_arch *arch = loop->step->arch;
    size_t group = arch->heads / arch->kv_heads, b = index / arch->kv_heads;

    return (struct unit){ b, index % arch->kv_heads * group, b, group, 0 };
}

static void forward_tile(const struct attention_loop *loop, const struct unit u, int worker)
{
    const struct hm_step *step = loop->step;
    const struct hm_kernels *kernels = step->kernels;
    const struct hm_arch *arch = step->arch;
    const size_t c = arch->head_dim, ldq = u.row_step ? arch->heads * c : c;
    const size_t kv_head = u.head / (arch->heads / arch->kv_heads);
    const size_t ld_lse = u.row_step ? 1 : step->N;
    const float *q = loop->a->q + (u.q0 * arch->heads + u.head) * c;
    float *out = loop->a->out + (u.q0 * arch->heads + u.head) * c;
    float *lse = loop->a->lse + u.head * step->N + u.q0;
    float *score = hm_worker_scratch(step->ws, worker);
    float *row_max = score + 2 * SCORE_VALUES, *row_sum = row_max + HM_Q_TILE,
          *alpha = row_sum + HM_Q_TILE;
    const int32_t *tiles = hm_i32(step->ws, HM_BUF_TILE),
                  *tile_of = hm_i32(step->ws, HM_BUF_TILE_OF);
    double mark = hm_clock_seconds();
    const struct hm_query_side queries =
        hm_tile_queries(step, &loop->sides, HM_SLOT_QUERIES, false, q, u.n_q, ldq, worker);

    for (size_t i = 0; i < u.n_q; i++) {
        row_max[i] = -INFINITY;
        row_sum[i] = 0;
        memset(out + i * ldq, 0, c * sizeof(float));
    }
    for (int32_t t = tile_of[u.b]; t < tile_of[u.b + 1]; t++) {
        struct tile tile;
        tile_set(step, u.q0, u.n_q, u.row_step, tiles[2 * t], tiles[2 * t + 1], &tile);
        if (!tile.any)
            continue;
        const struct hm_key_tile keys = { kv_head, u.b * step->context + (size_t)tiles[2 * t],
                                          tile.n_k };
        hm_tile_score(step, &loop->sides.key, &keys, &queries, score, worker);
        kernels->softmax_tile(score, u.n_q, tile.n_k, HM_K_TILE, tile.first, tile.end, loop->scale,
                              row_max, row_sum, alpha);
        for (size_t i = 0; i < u.n_q; i++)
            kernels->scale(alpha[i], out + i * ldq, c);
        hm_tile_apply(step, &loop->sides.value, &keys, score, u.n_q, out, ldq, worker);
    }
    for (size_t i = 0; i < u.n_q; i++) {
        bool blind = row_sum[i] == 0;
        lse[i * ld_lse] = blind ? -INFINITY : row_max[i] + logf(row_sum[i]);
        kernels->scale(blind ? 0.0f : 1.0f / row_sum[i], out + i * ldq, c);
    }
    hm_step_lap(step, worker, HM_PHASE_ATTENTION, &mark);
}

static void forward_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;

    forward_tile(loop, query_unit(loop, index), worker);
}

static void forward_group_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;

    forward_tile(loop, group_unit(loop, index), worker);
}

static struct attention_loop attention_loop(const struct hm_step *step,
                                            const struct hm_attention *attention)
{
    return (struct attention_loop){ .step = step,
                                    .a = attention,
                                    .sides = hm_tile_sides(step, attention->k, attention->v),
                                    .q_tiles = hm_units(step->T, HM_Q_TILE),
                                    .scale = (float)(1.0 / sqrt(step->arch->head_dim)) };
}

void hm_attention_forward(const struct hm_step *step, const struct hm_attention *attention)
{
    struct attention_loop loop = attention_loop(step, attention);
    const struct hm_arch *arch = step->arch;

    if (step->T == 1 && arch->heads / arch->kv_heads <= HM_Q_TILE)
        hm_parallel_for((size_t)step->B * arch->kv_heads, forward_group_unit, &loop);
    else
        hm_parallel_for((size_t)step->B * arch->heads * loop.q_tiles, forward_unit, &loop);
}

/* --- backward --------------------------------------------------------------------------------- */

enum { INTO_QUERIES = 1, INTO_KEYS = 2 };

struct query_tile { /* of one head, with what all its key tiles share */
    size_t q0, head;
    struct hm_query_side queries, dout;
};

static struct query_tile query_tile(const struct attention_loop *loop, size_t b, size_t head,
                                    size_t i, bool gathered, int worker)
{
    const struct hm_step *step = loop->step;
    const size_t c = step->arch->head_dim, q0 = b * step->T + i * HM_Q_TILE;
    const size_t at = (q0 * step->arch->heads + head) * c;
    const size_t n = hm_least(HM_Q_TILE, step->T - i * HM_Q_TILE), ldq = step->arch->heads * c;

    return (struct query_tile){ q0, head,
                                hm_tile_queries(step, &loop->sides, HM_SLOT_QUERIES, gathered,
                                                loop->a->q + at, n, ldq, worker),
                                hm_tile_queries(step, &loop->sides, HM_SLOT_GRADIENTS, gathered,
                                                loop->a->dout + at, n, ldq, worker) };
}

/* A query tile against key tile t: dq, or dk and dv, or all, from P and dS. */
static void pair_gradient(const struct attention_loop *loop, size_t b, const struct query_tile *q,
                          size_t t, unsigned into, int worker)
{
    const struct hm_step *step = loop->step;
    const struct hm_kernels *kernels = step->kernels;
    const struct hm_arch *arch = step->arch;
    const size_t c = arch->head_dim, n_q = q->queries.n;
    const int32_t *tiles = hm_i32(step->ws, HM_BUF_TILE) + 2 * t;
    const struct hm_key_tile keys = { q->head / (arch->heads / arch->kv_heads),
                                      b * step->context + (size_t)tiles[0],
                                      (size_t)(tiles[1] - tiles[0]) };
    const size_t at_k = (keys.key0 * arch->kv_heads + keys.kv_head) * c;
    float *score = hm_worker_scratch(step->ws, worker), *dscore = score + SCORE_VALUES;
    struct tile tile;

    tile_set(step, q->q0, n_q, 1, tiles[0], tiles[1], &tile);
    if (!tile.any)
        return;
    hm_tile_score(step, &loop->sides.key, &keys, &q->queries, score, worker);
    kernels->prob_tile(score, n_q, keys.n, HM_K_TILE, tile.first, tile.end, loop->scale,
                       loop->a->lse + q->head * step->N + q->q0);
    hm_tile_score(step, &loop->sides.value, &keys, &q->dout, dscore, worker);
    kernels->dscore_tile(score, dscore, n_q, keys.n, HM_K_TILE, loop->scale,
                         loop->a->delta + q->head * step->N + q->q0);
    if (into & INTO_QUERIES)
        hm_tile_apply(step, &loop->sides.key, &keys, dscore, n_q,
                      loop->a->dq + (q->q0 * arch->heads + q->head) * c, q->queries.ldq, worker);
    if (!(into & INTO_KEYS))
        return;
    hm_tile_gather(step, &keys, score, &q->dout, loop->a->dv + at_k, worker);
    hm_tile_gather(step, &keys, dscore, &q->queries, loop->a->dk + at_k, worker);
}

/* delta of one query tile of one head; its dq begins at 0. */
static void query_begin_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;
    const struct hm_step *step = loop->step;
    const struct unit u = query_unit(loop, index);
    const size_t c = step->arch->head_dim, ldq = step->arch->heads * c;
    float *delta = loop->a->delta + u.head * step->N + u.q0;
    double mark = hm_clock_seconds();

    for (size_t i = 0; i < u.n_q; i++) {
        size_t at = (u.q0 + i) * ldq + u.head * c;
        delta[i] = (float)step->kernels->dot(loop->a->dout + at, loop->a->out + at, c);
        memset(loop->a->dq + at, 0, c * sizeof(float));
    }
    hm_step_lap(step, worker, HM_PHASE_ATTENTION, &mark);
}

static void query_gradient_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;
    const struct unit u = query_unit(loop, index);
    const int32_t *tile_of = hm_i32(loop->step->ws, HM_BUF_TILE_OF);
    double mark = hm_clock_seconds();
    const struct query_tile q =
        query_tile(loop, u.b, u.head, (u.q0 - u.b * loop->step->T) / HM_Q_TILE, false, worker);

    for (int32_t t = tile_of[u.b]; t < tile_of[u.b + 1]; t++)
        pair_gradient(loop, u.b, &q, (size_t)t, INTO_QUERIES, worker);
    hm_step_lap(loop->step, worker, HM_PHASE_ATTENTION, &mark);
}

/* dk and dv of one key tile of one kv head: over its query heads, then over query tiles, in order.
 */
static void key_gradient_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;
    const struct hm_arch *arch = loop->step->arch;
    const int32_t *tile_of = hm_i32(loop->step->ws, HM_BUF_TILE_OF);
    const size_t group = arch->heads / arch->kv_heads;
    size_t kv_head = index % arch->kv_heads, t = index / arch->kv_heads, b = 0;
    double mark = hm_clock_seconds();

    while ((size_t)tile_of[b + 1] <= t)
        b++;
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (size_t i = 0; i < loop->q_tiles; i++) {
            const struct query_tile q = query_tile(loop, b, head, i, true, worker);
            pair_gradient(loop, b, &q, t, INTO_KEYS, worker);
        }
    hm_step_lap(loop->step, worker, HM_PHASE_ATTENTION, &mark);
}

/* All of one kv head of one sequence: P and dS of a pair are computed once, sums have the order of
 * the units above. */
static void group_gradient_unit(void *context, size_t index, int worker)
{
    const struct attention_loop *loop = context;
    const struct hm_arch *arch = loop->step->arch;
    const int32_t *tile_of = hm_i32(loop->step->ws, HM_BUF_TILE_OF);
    const size_t group = arch->heads / arch->kv_heads;
    size_t kv_head = index % arch->kv_heads, b = index / arch->kv_heads;
    double mark = hm_clock_seconds();

    for (size_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (size_t i = 0; i < loop->q_tiles; i++) {
            const struct query_tile q = query_tile(loop, b, head, i, true, worker);
            for (int32_t t = tile_of[b]; t < tile_of[b + 1]; t++)
                pair_gradient(loop, b, &q, (size_t)t, INTO_QUERIES | INTO_KEYS, worker);
        }
    hm_step_lap(loop->step, worker, HM_PHASE_ATTENTION, &mark);
}

void hm_attention_backward(const struct hm_step *step, const struct hm_attention *attention)
{
    struct attention_loop loop = attention_loop(step, attention);
    size_t kv_values = (size_t)step->N * step->arch->kv_heads * step->arch->head_dim;
    size_t tiles = (size_t)hm_i32(step->ws, HM_BUF_TILE_OF)[step->B];
    size_t queries = (size_t)step->B * step->arch->heads * loop.q_tiles;
    size_t groups = (size_t)step->B * step->arch->kv_heads;

    memset(attention->dk, 0, kv_values * sizeof(float));
    memset(attention->dv, 0, kv_values * sizeof(float));
    hm_parallel_for(queries, query_begin_unit, &loop);
    if (groups % (size_t)hm_threads() == 0 || groups >= 4 * (size_t)hm_threads()) {
        hm_parallel_for(groups, group_gradient_unit, &loop); /* same bits, fewer products */
        return;
    }
    hm_parallel_for(queries, query_gradient_unit, &loop);
    hm_parallel_for(tiles * step->arch->kv_heads, key_gradient_unit, &loop);
}
