/* SPDX-License-Identifier: MIT */
/*
 * Products with frozen matrices on AMX tiles. W is decoded piece by piece (tile_decode.h) into
 * scratch and each piece meets all rows of x or dy before the next; the units of the next piece are
 * decoded between the tile products of this one. Forward, decoded rows are the left tiles and x,
 * transposed by pairs, the right ones, so C comes out transposed; backward, dy is left, W right.
 *
 * Packed operands: [chunk][m/16][k/32] tiles; forward [k/2 of 16][16 m][2], backward [16 m][32 k].
 * Order: passes of rows, groups of pieces, chunks of the inner dimension, pieces of the group. The
 * chunk of x stays in L2 over a group; C waits in scratch, or in the tiles where one block is all.
 */
#include "frozen.h"
#include "tile_block.h"
#include "transpose.h"
#include "x86.h"

#if defined(HM_TILE_EMULATION)
#define HM_AMX(name) name##_emulated
#else
#define HM_AMX(name) name##_amx
#endif

#define PASS_ROWS    256u /* rows of x that one decoding serves */
#define GROUP_PIECES 8u
#define VECTOR_ROWS  2u  /* up to: vectors of AVX512-BF16, which need no decoded tiles */
#define SHORT_ROWS   64u /* below: short chunks, which stay in L1 */
#define LONG_ROWS    128u
#define X_L2_BYTES   ((size_t)1 << 20) /* a packed operand that stays in L2 beside the rest */
#define BLOCK_F32    (4 * TILE_F32)    /* C of 32 x 32 */
#define PIECE_BYTES  ((size_t)128 << 10)
#define C_BYTES      ((size_t)GROUP_PIECES * (PASS_ROWS / 32) * 2 * BLOCK_F32 * sizeof(float))
_Static_assert(2 * PIECE_BYTES + C_BYTES <= HM_FROZEN_SCRATCH_BYTES, "scratch");

struct product {
    const struct hm_frozen *w;
    enum hm_pack side;
    uint32_t first, count; /* outputs: rows of W forward, its columns backward */
    uint32_t depth;        /* inner dimension, a multiple of 32 */
    const uint16_t *x;
    size_t m;
    bool add;
    float *out;
    size_t ld;
    uint32_t width, n_pieces, group; /* outputs a piece, pieces, pieces a group */
    uint32_t chunk, n_chunks;
    uint32_t pass; /* rows, a multiple of 32 */
    bool keep;     /* C stays in the tiles between chunks */
    uint16_t *piece[2];
    float *c;
};

struct item { /* one piece in one chunk, for one pass */
    size_t row;
    uint32_t group, chunk, piece; /* group: its first piece */
};

static enum source source_of(const struct hm_frozen *w)
{
    if (w->layout == HM_FROZEN_BF16)
        return SOURCE_BF16;
    return w->nested_absmax ? SOURCE_NF4_NESTED : SOURCE_NF4;
}

static uint32_t least32(size_t a, size_t b)
{
    return (uint32_t)least(a, b);
}

static uint32_t units32(size_t value, size_t grain)
{
    return (uint32_t)units(value, grain);
}

/* Equal parts of at most `most`, multiples of `grain`. */
static uint32_t part(size_t value, size_t most, size_t grain)
{
    return (uint32_t)(units32(units32(value, units32(value, most)), grain) * grain);
}

/* Of the inner dimension: decoded pieces of 128 KiB at most. */
static uint32_t chunk_of(enum hm_pack side, size_t m, uint32_t depth)
{
    uint32_t longest = side == HM_PACK_FORWARD ? 2048 : 1024;

    if (m < LONG_ROWS)
        longest = m < SHORT_ROWS ? 256 : 512;
    return part(depth, longest, 64);
}

/* Where the tiles of a group of 16 rows in a chunk begin. Chunks are stored one after the other: at
 * strides of whole rows the groups of a chunk would meet in the same sets of L2. */
static size_t packed_at(size_t m, uint32_t depth, uint32_t chunk, size_t row, size_t col)
{
    size_t first = col / chunk * chunk;

    return first * round_up(m, 16) + row / 16 * 16 * least(depth - first, chunk);
}

static void product_plan(struct product *p, void *scratch)
{
    bool forward = p->side == HM_PACK_FORWARD;

    p->depth = forward ? p->w->cols : units32(p->w->rows, 32) * 32;
    p->width = forward ? PIECE_ROWS : PIECE_COLS;
    p->n_pieces = units32(p->count, p->width);
    p->chunk = chunk_of(p->side, p->m, p->depth);
    p->n_chunks = units32(p->depth, p->chunk);
    p->pass = part(p->m, PASS_ROWS, 32);
    p->group = GROUP_PIECES;
    if (forward && (size_t)p->pass * p->depth * sizeof(*p->x) <= X_L2_BYTES)
        p->group = 1;
    p->keep = forward && p->group == 1 && p->pass == 32;
    p->piece[0] = scratch;
    p->piece[1] = p->piece[0] + PIECE_BYTES / sizeof(uint16_t);
    p->c = (float *)(void *)(p->piece[1] + PIECE_BYTES / sizeof(uint16_t));
}

/* False behind the last one. */
static bool item_next(const struct product *p, struct item *item)
{
    uint32_t end = least32(item->group + p->group, p->n_pieces);

    if (++item->piece < end)
        return true;
    item->piece = item->group;
    if (++item->chunk < p->n_chunks)
        return true;
    item->chunk = 0;
    item->group = item->piece = end;
    if (end < p->n_pieces)
        return true;
    item->group = item->piece = 0;
    item->row += p->pass;
    return item->row < p->m;
}

static uint32_t chunk_length(const struct product *p, const struct item *item)
{
    return least32(p->depth - item->chunk * p->chunk, p->chunk);
}

static size_t data_offset(const struct hm_frozen *w, size_t row, size_t col)
{
    size_t at = row * w->cols + col;

    return w->layout == HM_FROZEN_BF16 ? 2 * at : at / 2;
}

/* What is decoded after this group forward, after this chunk of the group backward. */
static struct walk walk_after(const struct product *p, const struct item *item)
{
    const struct hm_frozen *w = p->w;
    bool forward = p->side == HM_PACK_FORWARD;
    bool same = !forward && item->chunk + 1 < p->n_chunks;
    uint32_t output = (same ? item->group : item->group + p->group) * p->width;
    uint32_t inner = same ? (item->chunk + 1) * p->chunk : 0;
    size_t row_bytes = data_offset(w, 1, 0);
    struct walk walk = { w->data, 0, 0, 1 };

    if (output >= p->count)
        return walk;
    walk.at +=
        forward ? data_offset(w, p->first + output, 0) : data_offset(w, inner, p->first + output);
    walk.stride = forward ? 64 : row_bytes;
    if (!forward)
        walk.n_lines = units32(data_offset(w, 0, (size_t)p->group * p->width), 64);
    return walk;
}

static void piece_begin(const struct product *p, const struct item *item, uint16_t *out,
                        struct piece *piece)
{
    uint32_t output = item->piece * p->width, inner = item->chunk * p->chunk;
    bool first = item->piece == item->group && (p->side == HM_PACK_BACKWARD || item->chunk == 0);

    if (first)
        piece->ahead = walk_after(p, item);
    piece->w = p->w;
    piece->out = out;
    piece->pair = piece->block = 0;
    if (p->side == HM_PACK_FORWARD) {
        piece->row = p->first + output;
        piece->n_rows = least32(p->count - output, PIECE_ROWS);
        piece->col = inner;
        piece->n_cols = chunk_length(p, item);
        piece->left = units32(piece->n_rows, 2) * (piece->n_cols / 64);
    } else {
        piece->row = inner;
        piece->n_rows = least32(p->w->rows - inner, p->chunk);
        piece->col = p->first + output;
        piece->n_cols = PIECE_COLS;
        piece->left = chunk_length(p, item) / 2;
    }
}

static __mmask16 low_lanes(size_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

static void tile_write(const struct product *p, const float *c, size_t row, uint32_t col)
{
    size_t n_rows = p->m - row < 16 ? p->m - row : 16;
    __mmask16 mask = low_lanes(least32(p->count - col, 16));
    float *out = p->out + row * p->ld + col;
    __m512i tile[16];

    UNROLL for (size_t i = 0; i < 16; i++) tile[i] = _mm512_loadu_si512(c + 16 * i);
    if (p->side == HM_PACK_FORWARD)
        transpose16(tile);
    for (size_t i = 0; i < n_rows; i++, out += p->ld) {
        __m512 sum = _mm512_castsi512_ps(tile[i]);
        if (p->add)
            sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sum);
        _mm512_mask_storeu_ps(out, mask, sum);
    }
}

/* Tile of C number 2 i + j: of left tile i and right tile j. */
static void block_write(const struct product *p, const struct block *block, size_t row,
                        uint32_t output)
{
    for (uint32_t i = 0; i < block->n_a; i++)
        for (uint32_t j = 0; j < block->n_b; j++) {
            const float *c = block->c + (2 * i + j) * TILE_F32;
            if (p->side == HM_PACK_FORWARD)
                tile_write(p, c, row + 16 * j, output + 16 * i);
            else
                tile_write(p, c, row + 16 * i, output + 16 * j);
        }
}

/* The operands of 32 rows from `row` and the piece, or a half of it backward. */
static struct block block_of(const struct product *p, const struct item *item,
                             const uint16_t *decoded, size_t row, uint32_t half)
{
    size_t group_values = (size_t)16 * chunk_length(p, item);
    const uint16_t *x =
        p->x + packed_at(p->m, p->depth, p->chunk, row, (size_t)item->chunk * p->chunk);
    unsigned n_groups = row + 16 < p->m ? 2 : 1;
    bool last = item->chunk + 1 == p->n_chunks;
    struct block block = { .n_steps = chunk_length(p, item) / 32, .before = C_LOAD };

    if (p->side == HM_PACK_FORWARD) {
        block.a = decoded;
        block.a_next = TILE_BF16, block.a_step = 2 * TILE_BF16;
        block.n_a = p->count - item->piece * PIECE_ROWS > 16 ? 2 : 1;
        block.b = x;
        block.b_next = group_values, block.b_step = TILE_BF16;
        block.n_b = n_groups;
    } else {
        block.a = x;
        block.a_next = group_values, block.a_step = TILE_BF16;
        block.n_a = n_groups;
        block.b = decoded + (size_t)half * 2 * TILE_BF16;
        block.b_next = TILE_BF16, block.b_step = 4 * TILE_BF16;
        block.n_b = 2;
    }
    if (item->chunk == 0)
        block.before = C_ZERO;
    else if (p->keep)
        block.before = C_KEPT;
    block.store = last || !p->keep;
    return block;
}

/* The products of a decoded piece, with the units of the next one between them. */
static void item_run(const struct product *p, const struct item *item, const uint16_t *decoded,
                     struct piece *next)
{
    enum source source = source_of(p->w);
    uint32_t n_blocks = units32(least32(p->m - item->row, p->pass), 32);
    uint32_t n_halves = p->side == HM_PACK_FORWARD ? 1 : 2, n = n_blocks * n_halves;
    uint32_t per_step = units32(next->left, (size_t)n * (chunk_length(p, item) / 32));
    size_t first = p->n_chunks > 1 ? (size_t)(item->piece - item->group) * n : 0;

    for (uint32_t i = 0; i < n; i++) {
        size_t row = item->row + (size_t)(i / n_halves) * 32;
        uint32_t half = i % n_halves;
        struct block block = block_of(p, item, decoded, row, half);
        block.c = p->c + (first + (p->n_chunks > 1 ? i : 0)) * BLOCK_F32;
        c_begin(&block);
        bodies[p->side][source].steps(&block, next, per_step);
        c_end(&block);
        if (item->chunk + 1 == p->n_chunks)
            block_write(p, &block, row, item->piece * p->width + half * 32);
    }
    bodies[p->side][source].rest(next);
}

static void product_run(struct product *p, void *scratch)
{
    static const struct tile_config config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
    };
    struct item item = { 0 }, next = { 0 };
    struct piece piece;
    unsigned buffer = 0;

    if (p->m == 0 || p->count == 0)
        return;
    product_plan(p, scratch);
    tile_configure(&config);
    piece_begin(p, &item, p->piece[0], &piece);
    bodies[p->side][source_of(p->w)].rest(&piece);
    for (bool more = true; more; buffer = 1 - buffer, item = next) {
        more = item_next(p, &next);
        if (more)
            piece_begin(p, &next, p->piece[1 - buffer], &piece);
        item_run(p, &item, p->piece[buffer], &piece);
    }
    tile_release();
}

static void product_any(enum hm_pack side, const struct hm_frozen *w, uint32_t first,
                        uint32_t count, const uint16_t *x, size_t m, const struct hm_low_rank *low,
                        bool add, float *out, size_t ld, void *scratch)
{
    struct product product = { .w = w,
                               .side = side,
                               .first = first,
                               .count = count,
                               .x = x,
                               .m = m,
                               .add = add,
                               .out = out,
                               .ld = ld };

    if (m > VECTOR_ROWS) {
        product_run(&product, scratch);
        if (low)
            hm_low_add_avx512bf16(side, w, first, count, m, low, out, ld, scratch);
    } else if (side == HM_PACK_FORWARD)
        hm_frozen_forward_avx512bf16(w, first, count, x, m, low, add, out, ld, scratch);
    else
        hm_frozen_backward_avx512bf16(w, first, count, x, m, low, add, out, ld, scratch);
}

static void HM_AMX(frozen_forward)(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                                   const uint16_t *x, size_t m, const struct hm_low_rank *low,
                                   bool add, float *y, size_t ldy, void *scratch)
{
    product_any(HM_PACK_FORWARD, w, row0, n_rows, x, m, low, add, y, ldy, scratch);
}

static void HM_AMX(frozen_backward)(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                                    const uint16_t *dy, size_t m, const struct hm_low_rank *low,
                                    bool add, float *dx, size_t lddx, void *scratch)
{
    product_any(HM_PACK_BACKWARD, w, col0, n_cols, dy, m, low, add, dx, lddx, scratch);
}

static __m512i pack_row(const float *x, size_t n)
{
    __m512 low = _mm512_maskz_loadu_ps(low_lanes(n < 16 ? n : 16), x);
    __m512 high = n > 16 ? _mm512_maskz_loadu_ps(low_lanes(n - 16), x + 16) : _mm512_setzero_ps();

    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

static void HM_AMX(frozen_pack)(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                                size_t col0, size_t n_cols, const float *x, size_t ldx,
                                uint16_t *packed)
{
    uint32_t depth = units32(k, 32) * 32, chunk = chunk_of(side, m, depth);

    if (m <= VECTOR_ROWS) {
        hm_frozen_pack_avx512bf16(side, m, k, row0, n_rows, col0, n_cols, x, ldx, packed);
        return;
    }
    for (size_t row = 0; row < n_rows; row += 16)
        for (size_t col = 0; col < n_cols; col += 32) {
            uint16_t *out = packed + packed_at(m, depth, chunk, row0 + row, col0 + col) +
                            (col0 + col) % chunk / 32 * TILE_BF16;
            __m512i tile[16];
            if (side == HM_PACK_BACKWARD_TURNED)
                turn_round(x + col * ldx + row, ldx, least(n_rows - row, 16), n_cols - col, tile);
            else
                for (size_t i = 0; i < 16; i++)
                    tile[i] = row + i < n_rows
                                  ? pack_row(x + (row + i) * ldx + col, least32(n_cols - col, 32))
                                  : _mm512_setzero_si512();
            if (side == HM_PACK_FORWARD)
                transpose16(tile);
            for (size_t i = 0; i < 16; i++)
                _mm512_storeu_si512(out + 32 * i, tile[i]);
        }
}

/* --- LoRA beside these, in vectors --- */

static struct frozen_order order_of(enum hm_pack side, size_t m, uint32_t k)
{
    return (struct frozen_order){ chunk_of(side, m, units32(k, 32) * 32), true };
}

static void HM_AMX(low_project)(enum hm_pack side, const float *factor, uint32_t rank, float scale,
                                const uint16_t *x, size_t m, uint32_t k, size_t row0, size_t n,
                                uint16_t *low, size_t ld_low, void *scratch)
{
    if (m <= VECTOR_ROWS)
        hm_low_project_avx512bf16(side, factor, rank, scale, x, m, k, row0, n, low, ld_low,
                                  scratch);
    else
        hm_frozen_low_project(order_of(side, m, k), side, factor, rank, scale, x, m, k, row0, n,
                              low, ld_low, scratch);
}

static void HM_AMX(low_sums)(enum hm_pack side, const float *factor, uint32_t rank,
                             const uint16_t *x, size_t m, uint32_t k, uint32_t col0,
                             uint32_t n_cols, float *sums, void *scratch)
{
    hm_frozen_low_sums(order_of(side, m, k), side, factor, rank, x, m, k, col0, n_cols, sums,
                       scratch);
}

static void HM_AMX(low_b_gradient)(const uint16_t *dy, size_t m, uint32_t k, uint32_t col0,
                                   uint32_t n_cols, const uint16_t *value, uint32_t rank,
                                   float *grad, void *scratch)
{
    if (m <= VECTOR_ROWS)
        hm_low_b_gradient_avx512bf16(dy, m, k, col0, n_cols, value, rank, grad, scratch);
    else
        hm_frozen_low_b_gradient(order_of(HM_PACK_BACKWARD, m, k), dy, m, k, col0, n_cols, value,
                                 rank, grad, scratch);
}

void HM_AMX(hm_kernels_fill)(struct hm_kernels *kernels)
{
    kernels->frozen_pack = HM_AMX(frozen_pack);
    kernels->frozen_forward = HM_AMX(frozen_forward);
    kernels->frozen_backward = HM_AMX(frozen_backward);
    kernels->low_project = HM_AMX(low_project);
    kernels->low_sums = HM_AMX(low_sums);
    kernels->low_b_gradient = HM_AMX(low_b_gradient);
}
