/* SPDX-License-Identifier: MIT */
/*
 * One merge: every place of the best pair becomes the new symbol. Neighbours are gathered first and
 * settled once each: the pair (x, left) loses what (x, new) gains, the pair (right, y) what (new,
 * y) gains. Places are visited in rising order, so every list made is in rising order too, and
 * equal neighbours merge from the left: of a run of n equal symbols n - 1 adjacencies are counted
 * and every second one is merged, as in sentencepiece 0.2.3.
 */
#include <string.h>

#include "bpe_internal.h"

enum { LEFT, RIGHT, ITSELF };

struct merge {
    uint32_t left, right, made; /* symbols */
    uint32_t left_len, made_len;
    uint64_t itself_weight; /* of pairs (made, made) */
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

/* The symbol of left + right; *ret_symbol 0 when its text exists already. */
static int symbol_make(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t count,
                       uint32_t *ret_symbol, struct hm_error *err)
{
    uint32_t left_len = trainer->symbol_len[left];
    uint32_t len = left_len + trainer->symbol_len[right];

    if (codes_reserve(trainer, len, err) < 0)
        return err->code;
    if (2 * (size_t)(trainer->n_symbols - trainer->n_chars + 1) > trainer->string_size &&
        strings_grow(trainer, err) < 0)
        return err->code;
    uint32_t *code = trainer->code + trainer->n_codes;
    memcpy(code, trainer->code + trainer->symbol_first[left], left_len * sizeof(*code));
    memcpy(code + left_len, trainer->code + trainer->symbol_first[right],
           (len - left_len) * sizeof(*code));
    size_t at = text_hash(code, len) & (trainer->string_size - 1);
    for (; trainer->string_table[at]; at = (at + 1) & (trainer->string_size - 1)) {
        uint32_t other = trainer->string_table[at];
        if (trainer->symbol_len[other] == len &&
            memcmp(trainer->code + trainer->symbol_first[other], code, len * sizeof(*code)) == 0) {
            *ret_symbol = 0;
            return HM_OK;
        }
    }
    uint32_t symbol = ++trainer->n_symbols;
    trainer->string_table[at] = symbol;
    trainer->symbol_first[symbol] = (uint32_t)trainer->n_codes;
    trainer->symbol_len[symbol] = (uint8_t)len;
    trainer->symbol_count[symbol] = count;
    trainer->n_codes += len;
    *ret_symbol = symbol;
    return HM_OK;
}

static int events_reserve(struct bpe_trainer *trainer, size_t n, struct hm_error *err)
{
    for (int side = LEFT; side <= ITSELF; side++) {
        trainer->n_events[side] = 0;
        if (n <= trainer->cap_events[side])
            continue;
        hm_bpe_drop(trainer, trainer->event[side],
                    trainer->cap_events[side] * sizeof(struct bpe_event));
        trainer->cap_events[side] = 0;
        trainer->event[side] = hm_bpe_resize(trainer, NULL, 0, n * sizeof(struct bpe_event), err);
        if (!trainer->event[side])
            return err->code;
        trainer->cap_events[side] = n;
    }
    return HM_OK;
}

static void event_put(struct bpe_trainer *trainer, int side, uint32_t symbol, uint32_t position,
                      uint64_t weight)
{
    struct bpe_side *neighbour = &trainer->side[side][symbol];

    if (neighbour->weight == 0)
        trainer->touched[side][trainer->n_touched[side]++] = symbol;
    neighbour->weight += weight;
    neighbour->n++;
    trainer->event[side][trainer->n_events[side]++] = (struct bpe_event){ symbol, position };
}

/* Index of the weight class of a slot. */
static size_t class_find(const struct bpe_trainer *trainer, uint32_t position)
{
    size_t low = 0;
    size_t high = trainer->n_weight_classes;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trainer->weight_class[middle].end <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Write the new symbol over every place and gather its neighbours. */
static void places_replace(struct bpe_trainer *trainer, struct merge *merge,
                           const uint32_t *position, uint32_t n)
{
    uint32_t *slot = trainer->slot;
    size_t class = n ? class_find(trainer, position[0]) : 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t p = position[i];
        if (i + 16 < n)
            __builtin_prefetch(&slot[position[i + 16]]);
        if (slot[p] != merge->left || slot[p + merge->left_len] != merge->right)
            continue;
        while (trainer->weight_class[class].end <= p)
            class ++;
        uint64_t weight = trainer->weight_class[class].weight;
        uint32_t before = slot[p - 1];
        uint32_t after = slot[p + merge->made_len];
        if (before == merge->made) {
            /* The merge just before made (made, left): it is gone again, (made, made) is there. */
            struct bpe_side *neighbour = &trainer->side[RIGHT][merge->left];
            neighbour->cancelled += weight;
            neighbour->n--;
            trainer->n_events[RIGHT]--;
            merge->itself_weight += weight;
            trainer->event[ITSELF][trainer->n_events[ITSELF]++] =
                (struct bpe_event){ merge->made, p - merge->made_len };
        } else if (before) {
            event_put(trainer, LEFT, before, p - trainer->symbol_len[before], weight);
        }
        if (after)
            event_put(trainer, RIGHT, after, p, weight);
        slot[p + merge->left_len] = 0;
        slot[p] = merge->made;
        slot[p + merge->made_len - 1] = merge->made;
    }
}

static void pair_lose(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t weight)
{
    uint32_t pair = hm_bpe_pair_find(trainer, left, right);

    if (pair && !trainer->pair[pair].dead)
        trainer->pair[pair].count -= weight;
}

/* A new pair with `n` places from `*fill` on in the merge's block, if it may ever be merged. */
static int pair_gain(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t weight,
                     uint32_t n, uint32_t *fill, uint32_t *ret_first, struct hm_error *err)
{
    uint32_t pair;

    *ret_first = UINT32_MAX;
    if (weight < trainer->floor ||
        (uint32_t)trainer->symbol_len[left] + trainer->symbol_len[right] > trainer->max_chars)
        return HM_OK;
    HM_TRY(hm_bpe_pair_new(trainer, left, right, weight, &pair, err));
    trainer->pair[pair].n_positions = n;
    *ret_first = *fill;
    *fill += n;
    return HM_OK;
}

/* Settle the neighbours of both sides: counts of old pairs, new pairs with room for their places.
 */
static int neighbours_settle(struct bpe_trainer *trainer, const struct merge *merge,
                             uint32_t *ret_places, uint32_t *ret_itself, struct hm_error *err)
{
    uint32_t fill = 0;

    for (int side = LEFT; side <= RIGHT; side++) {
        for (size_t i = 0; i < trainer->n_touched[side]; i++) {
            uint32_t symbol = trainer->touched[side][i];
            struct bpe_side *neighbour = &trainer->side[side][symbol];
            uint64_t made = neighbour->weight - neighbour->cancelled;
            if (side == LEFT)
                pair_lose(trainer, symbol, merge->left, neighbour->weight);
            else
                pair_lose(trainer, merge->right, symbol, neighbour->weight);
            HM_TRY(pair_gain(trainer, side == LEFT ? symbol : merge->made,
                             side == LEFT ? merge->made : symbol, made, neighbour->n, &fill,
                             &neighbour->fill, err));
        }
    }
    HM_TRY(pair_gain(trainer, merge->made, merge->made, merge->itself_weight,
                     (uint32_t)trainer->n_events[ITSELF], &fill, ret_itself, err));
    *ret_places = fill;
    return HM_OK;
}

/* Give the new pairs, numbered from `first_pair`, their places. */
static int places_hand_out(struct bpe_trainer *trainer, const struct merge *merge,
                           size_t first_pair, uint32_t places, uint32_t itself,
                           struct hm_error *err)
{
    uint32_t number = merge->made - trainer->n_chars;
    struct bpe_block *block = &trainer->block[number];
    uint32_t at = 0;

    block->position = hm_bpe_resize(trainer, NULL, 0, places * sizeof(uint32_t), err);
    if (!block->position)
        return err->code;
    block->bytes = places * sizeof(uint32_t);
    block->live = (uint32_t)(trainer->n_pairs - first_pair);
    for (int side = LEFT; side <= RIGHT; side++) {
        for (size_t i = 0; i < trainer->n_events[side]; i++) {
            const struct bpe_event *event = &trainer->event[side][i];
            struct bpe_side *neighbour = &trainer->side[side][event->symbol];
            if (neighbour->fill != UINT32_MAX)
                block->position[neighbour->fill++] = event->position;
        }
    }
    for (size_t i = 0; itself != UINT32_MAX && i < trainer->n_events[ITSELF]; i++)
        block->position[itself + i] = trainer->event[ITSELF][i].position;
    for (size_t i = first_pair; i < trainer->n_pairs; i++) {
        trainer->pair[i].block = number;
        trainer->pair[i].position = block->position + at;
        at += trainer->pair[i].n_positions;
        HM_TRY(hm_bpe_pair_queue(trainer, (uint32_t)i, err));
    }
    return HM_OK;
}

int hm_bpe_merge_apply(struct bpe_trainer *trainer, uint32_t best, bool *ret_made,
                       struct hm_error *err)
{
    struct bpe_pair pair = trainer->pair[best];
    struct merge merge = { .left = pair.left,
                           .right = pair.right,
                           .left_len = trainer->symbol_len[pair.left] };
    size_t first_pair = trainer->n_pairs;
    uint32_t places = 0;
    uint32_t itself = UINT32_MAX;

    if (symbol_make(trainer, pair.left, pair.right, pair.count, &merge.made, err) < 0)
        return err->code;
    *ret_made = merge.made != 0;
    if (!merge.made) {
        hm_bpe_pair_kill(trainer, best);
        return HM_OK;
    }
    merge.made_len = trainer->symbol_len[merge.made];
    if (events_reserve(trainer, pair.n_positions, err) < 0)
        return err->code;
    trainer->pair[best].dead = true; /* not counted while its places go; the list is still needed */
    places_replace(trainer, &merge, pair.position, pair.n_positions);
    hm_bpe_pair_kill(trainer, best);
    int status = neighbours_settle(trainer, &merge, &places, &itself, err);
    if (status == HM_OK && trainer->n_pairs > first_pair)
        status = places_hand_out(trainer, &merge, first_pair, places, itself, err);
    for (int side = LEFT; side <= RIGHT; side++) {
        for (size_t i = 0; i < trainer->n_touched[side]; i++)
            trainer->side[side][trainer->touched[side][i]] = (struct bpe_side){ 0 };
        trainer->n_touched[side] = 0;
    }
    return status;
}
