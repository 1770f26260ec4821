/* SPDX-License-Identifier: MIT */
/*
 * One merge: every place of the best pair becomes the new symbol. Neighbours are gathered first and
 * settled once each: the pair (x, left) loses what (x, new) gains, the pair (right, y) what (new,
 * y) gains. Then the places are visited again to list the new pairs' places, if memory allows:
 * counts are exact without lists. Places are visited in rising order, so every list made is in
 * rising order too, and equal neighbours merge from the left: of a run of n equal symbols n - 1
 * adjacencies are counted and every second one is merged, as in sentencepiece 0.2.3.
 */
#include <string.h>

#include "bpe_internal.h"
#include "hanmix/base/parallel.h"

#define AHEAD      16u /* places between fetching a slot and using it */
#define NOT_KEPT   UINT32_MAX
#define DEAD_SHARE 4u /* pairs are compacted when one in so many is dead */

enum { LEFT, RIGHT };

struct merge {
    uint32_t left, right, made; /* ids in slots */
    uint32_t left_width, made_width;
    uint32_t inside;        /* what stands between the first and the last slot of a symbol */
    struct bpe_side itself; /* pairs (made, made) */
    uint32_t *position;     /* of the merged pair: the places where it is merged */
    uint32_t n_positions;
    size_t first_pair;       /* the new pairs are those from here on */
    uint32_t listed, places; /* how many of them are to be listed, with how many places */
};

static uint64_t text_hash(const uint32_t *code, uint32_t len)
{
    return hm_hash64(code, len * sizeof(*code), 0);
}

static int strings_grow(struct bpe_trainer *trainer, struct hm_error *err)
{
    size_t size = trainer->string_size ? 2 * trainer->string_size : 4096;
    uint32_t *table = hm_bpe_resize(trainer, NULL, 0, size * sizeof(*table), err);

    if (!table)
        return err->code;
    memset(table, 0, size * sizeof(*table));
    for (size_t i = 0; i < trainer->string_size; i++) {
        uint32_t symbol = trainer->string_table[i];
        if (!symbol)
            continue;
        size_t at =
            text_hash(trainer->code + trainer->symbol_first[symbol], trainer->symbol_len[symbol]) &
            (size - 1);
        while (table[at])
            at = (at + 1) & (size - 1);
        table[at] = symbol;
    }
    hm_bpe_drop(trainer, trainer->string_table, trainer->string_size * sizeof(*table));
    trainer->string_table = table;
    trainer->string_size = size;
    return HM_OK;
}

static int codes_reserve(struct bpe_trainer *trainer, uint32_t len, struct hm_error *err)
{
    if (trainer->n_codes + len <= trainer->cap_codes)
        return HM_OK;
    size_t cap = 2 * trainer->cap_codes + len;
    uint32_t *code = hm_bpe_resize(trainer, trainer->code, trainer->cap_codes * sizeof(*code),
                                   cap * sizeof(*code), err);
    if (!code)
        return err->code;
    trainer->code = code;
    trainer->cap_codes = cap;
    return HM_OK;
}

int hm_bpe_merge_reserve(struct bpe_trainer *trainer, uint32_t *pair, struct hm_error *err)
{
    /* at most, on either side; each with a new pair */
    size_t neighbours = hm_least(trainer->n_symbols, trainer->pair[*pair].count / trainer->floor);

    if (trainer->n_pairs + 2 * neighbours + 2 > trainer->cap_pairs &&
        trainer->n_dead > trainer->n_pairs / DEAD_SHARE)
        hm_bpe_pairs_compact(trainer, pair);
    HM_TRY(codes_reserve(trainer, trainer->max_chars, err));
    if (2 * (size_t)(trainer->n_symbols - trainer->n_chars + 1) > trainer->string_size)
        HM_TRY(strings_grow(trainer, err));
    return hm_bpe_pairs_reserve(trainer, 2 * neighbours + 1, err);
}

/* The symbol of left + right; 0 when its text exists already. */
static uint32_t symbol_make(struct bpe_trainer *trainer, const struct bpe_pair *pair)
{
    uint32_t left_len = trainer->symbol_len[pair->left];
    uint32_t len = left_len + trainer->symbol_len[pair->right];
    uint32_t *code = trainer->code + trainer->n_codes;

    memcpy(code, trainer->code + trainer->symbol_first[pair->left], left_len * sizeof(*code));
    memcpy(code + left_len, trainer->code + trainer->symbol_first[pair->right],
           (len - left_len) * sizeof(*code));
    size_t at = text_hash(code, len) & (trainer->string_size - 1);
    for (; trainer->string_table[at]; at = (at + 1) & (trainer->string_size - 1)) {
        uint32_t other = trainer->string_table[at];
        if (trainer->symbol_len[other] == len &&
            memcmp(trainer->code + trainer->symbol_first[other], code, len * sizeof(*code)) == 0)
            return 0;
    }
    uint32_t symbol = ++trainer->n_symbols;
    trainer->string_table[at] = symbol;
    trainer->symbol_first[symbol] = (uint32_t)trainer->n_codes;
    trainer->symbol_len[symbol] = (uint8_t)len;
    trainer->symbol_count[symbol] = pair->count;
    trainer->n_codes += len;
    return symbol;
}

static void neighbour_add(struct bpe_trainer *trainer, int side, uint32_t id, uint64_t weight)
{
    struct bpe_side *neighbour = &trainer->side[side][id];

    if (neighbour->weight == 0)
        trainer->touched[side][trainer->n_touched[side]++] = id;
    neighbour->weight += weight;
    neighbour->n++;
}

/* Write the new symbol over every place, keep those that were not stale, gather neighbours. */
BPE_INLINE void places_replace_in(struct bpe_trainer *trainer, struct merge *merge, bool wide)
{
    void *slot = trainer->slot;
    uint32_t *position = merge->position;
    uint32_t n = merge->n_positions;
    uint32_t kept = 0;
    size_t class = n ? hm_bpe_class_find(trainer, position[0]) : 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t p = position[i];
        if (i + AHEAD < n)
            __builtin_prefetch((char *)slot + bpe_slot_bytes(trainer, position[i + AHEAD]));
        if (bpe_slot_get(slot, p, wide) != merge->left ||
            bpe_slot_get(slot, p + (size_t)merge->left_width, wide) != merge->right)
            continue;
        while (trainer->weight_class[class].end <= p)
            class ++;
        uint64_t weight = trainer->weight_class[class].weight;
        uint32_t before = bpe_slot_get(slot, p - 1, wide);
        uint32_t after = bpe_slot_get(slot, p + (size_t)merge->made_width, wide);
        if (before == merge->made) {
            /* The merge just before made (made, left): it is gone again, (made, made) is there. */
            struct bpe_side *neighbour = &trainer->side[RIGHT][merge->left];
            neighbour->cancelled += weight;
            neighbour->n--;
            merge->itself.weight += weight;
            merge->itself.n++;
        } else if (before) {
            neighbour_add(trainer, LEFT, before, weight);
        }
        if (after)
            neighbour_add(trainer, RIGHT, after, weight);
        bpe_slot_set(slot, p + (size_t)merge->left_width, merge->inside, wide);
        bpe_slot_set(slot, p, merge->made, wide);
        bpe_slot_set(slot, p + (size_t)merge->made_width - 1, merge->made, wide);
        position[kept++] = p;
    }
    merge->n_positions = kept;
}

static void places_replace(struct bpe_trainer *trainer, struct merge *merge)
{
    if (trainer->wide)
        places_replace_in(trainer, merge, true);
    else
        places_replace_in(trainer, merge, false);
}

static void pair_lose(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t weight)
{
    uint32_t number = bpe_pair_find(trainer, left, right);
    struct bpe_pair *pair = &trainer->pair[number];

    if (pair->dead)
        return;
    pair->count -= weight;
    if (pair->count < trainer->floor)
        hm_bpe_pair_kill(trainer, number);
}

/* A new pair, if it may ever be merged; side->fill tells where its places go, if it is listed. */
static int pair_gain(struct bpe_trainer *trainer, struct merge *merge, uint32_t left,
                     uint32_t right, struct bpe_side *side, struct hm_error *err)
{
    uint64_t weight = side->weight - side->cancelled;
    uint32_t pair;

    side->fill = NOT_KEPT;
    if (weight < trainer->floor ||
        (uint32_t)trainer->symbol_len[left] + trainer->symbol_len[right] > trainer->max_chars)
        return HM_OK;
    HM_TRY(hm_bpe_pair_new(trainer, left, right, weight, &pair, err));
    if (weight >= trainer->list_floor && side->n < NOT_KEPT - merge->places) {
        trainer->pair[pair].n_positions = side->n;
        side->fill = merge->places;
        merge->places += side->n;
        merge->listed++;
    }
    hm_bpe_pair_queue(trainer, pair);
    return HM_OK;
}

/* Settle the neighbours of both sides: counts of old pairs, new pairs with room for their places.
 */
static int neighbours_settle(struct bpe_trainer *trainer, struct merge *merge, struct hm_error *err)
{
    uint32_t left = bpe_slot_symbol(trainer, merge->left);
    uint32_t right = bpe_slot_symbol(trainer, merge->right);
    uint32_t made = bpe_slot_symbol(trainer, merge->made);

    merge->first_pair = trainer->n_pairs;
    for (size_t i = 0; i < trainer->n_touched[LEFT]; i++) {
        struct bpe_side *neighbour = &trainer->side[LEFT][trainer->touched[LEFT][i]];
        uint32_t symbol = bpe_slot_symbol(trainer, trainer->touched[LEFT][i]);
        pair_lose(trainer, symbol, left, neighbour->weight);
        HM_TRY(pair_gain(trainer, merge, symbol, made, neighbour, err));
    }
    for (size_t i = 0; i < trainer->n_touched[RIGHT]; i++) {
        struct bpe_side *neighbour = &trainer->side[RIGHT][trainer->touched[RIGHT][i]];
        uint32_t symbol = bpe_slot_symbol(trainer, trainer->touched[RIGHT][i]);
        pair_lose(trainer, right, symbol, neighbour->weight);
        HM_TRY(pair_gain(trainer, merge, made, symbol, neighbour, err));
    }
    return pair_gain(trainer, merge, made, made, &merge->itself, err);
}

static void place_put(uint32_t *list, struct bpe_side *side, uint32_t position)
{
    if (side->fill != NOT_KEPT)
        list[side->fill++] = position;
}

BPE_INLINE void places_put_in(struct bpe_trainer *trainer, struct merge *merge, uint32_t *list,
                              bool wide)
{
    const void *slot = trainer->slot;

    for (uint32_t i = 0; i < merge->n_positions; i++) {
        uint32_t p = merge->position[i];
        if (i + AHEAD < merge->n_positions)
            __builtin_prefetch((const char *)slot +
                               bpe_slot_bytes(trainer, merge->position[i + AHEAD]));
        uint32_t before = bpe_slot_get(slot, p - 1, wide);
        uint32_t after = bpe_slot_get(slot, p + (size_t)merge->made_width, wide);
        if (before && before != merge->made)
            place_put(list, &trainer->side[LEFT][before], p - trainer->width[before]);
        if (after == merge->made)
            place_put(list, &merge->itself, p);
        else if (after)
            place_put(list, &trainer->side[RIGHT][after], p);
    }
}

/* Give the new pairs that are to be listed their places, unless memory is short. */
static int places_put(struct bpe_trainer *trainer, struct merge *merge, uint32_t best,
                      struct hm_error *err)
{
    uint32_t number = BPE_LIST_BLOCKS + merge->made - trainer->n_slot_chars;
    struct bpe_block *block = &trainer->block[number];
    uint32_t at = 0;

    if (merge->listed == 0)
        return HM_OK;
    uint64_t bytes = merge->places * (uint64_t)sizeof(uint32_t);
    if (!hm_bpe_places_fit(trainer, bytes, best))
        return HM_OK;
    block->position = hm_bpe_resize(trainer, NULL, 0, bytes, err);
    if (!block->position)
        return err->code;
    block->bytes = bytes;
    trainer->list_bytes += bytes;
    block->live = merge->listed;
    if (trainer->wide)
        places_put_in(trainer, merge, block->position, true);
    else
        places_put_in(trainer, merge, block->position, false);
    for (size_t i = merge->first_pair; i < trainer->n_pairs; i++) {
        struct bpe_pair *pair = &trainer->pair[i];
        if (pair->n_positions == 0)
            continue;
        pair->block = number;
        pair->position = block->position + at;
        at += pair->n_positions;
    }
    return HM_OK;
}

int hm_bpe_merge_apply(struct bpe_trainer *trainer, uint32_t best, struct hm_error *err)
{
    struct bpe_pair *pair = &trainer->pair[best];
    uint32_t symbol = symbol_make(trainer, pair);
    struct merge merge = { .left = bpe_slot_id(trainer, pair->left),
                           .right = bpe_slot_id(trainer, pair->right),
                           .made = bpe_slot_id(trainer, symbol),
                           .inside = trainer->wide ? UINT32_MAX : UINT16_MAX,
                           .position = pair->position,
                           .n_positions = pair->n_positions };

    if (!symbol) {
        pair->refused = true;
        hm_bpe_pair_kill(trainer, best);
        return HM_OK;
    }
    merge.left_width = trainer->width[merge.left];
    merge.made_width = merge.left_width + trainer->width[merge.right];
    trainer->width[merge.made] = (uint8_t)merge.made_width;
    pair->dead = true; /* not counted while its places go; the list is still needed */
    places_replace(trainer, &merge);
    int status = neighbours_settle(trainer, &merge, err);
    if (status == HM_OK)
        status = places_put(trainer, &merge, best, err);
    hm_bpe_pair_kill(trainer, best);
    for (int side = LEFT; side <= RIGHT; side++) {
        for (size_t i = 0; i < trainer->n_touched[side]; i++)
            trainer->side[side][trainer->touched[side][i]] = (struct bpe_side){ 0 };
        trainer->n_touched[side] = 0;
    }
    return status;
}
