/* SPDX-License-Identifier: MIT */
/*
 * Pairs of adjacent symbols: a table by (left, right) and a queue by count. Counts only fall, so a
 * queue entry is an upper bound and is corrected when it reaches the top. Pairs below the trainer's
 * floor are never made, or die there; the dead are forgotten when they are many, since a pair that
 * is not found counts as dead. Order among equals: fewer characters, then code points (which is
 * UTF-8 byte order).
 */
#include <string.h>

#include "bpe_internal.h"

#define FIRST 1024u

static size_t table_at(const struct bpe_trainer *trainer, uint64_t key)
{
    const struct bpe_pair_key *table = trainer->pair_table;
    size_t mask = trainer->pair_table_size - 1;
    size_t at = bpe_pair_hash(key) & mask;

    while (table[at].key && table[at].key != key)
        at = (at + 1) & mask;
    return at;
}

static int table_grow(struct bpe_trainer *trainer, struct hm_error *err)
{
    size_t old_size = trainer->pair_table_size;
    size_t size = old_size ? 2 * old_size : FIRST;
    struct bpe_pair_key *old = trainer->pair_table;
    struct bpe_pair_key *table = hm_bpe_resize(trainer, NULL, 0, size * sizeof(*table), err);

    if (!table)
        return err->code;
    memset(table, 0, size * sizeof(*table));
    trainer->pair_table = table;
    trainer->pair_table_size = size;
    for (size_t i = 0; i < old_size; i++)
        if (old[i].key)
            table[table_at(trainer, old[i].key)] = old[i];
    hm_bpe_drop(trainer, old, old_size * sizeof(*old));
    return HM_OK;
}

/* Code point i of the text of a pair. */
static uint32_t pair_code(const struct bpe_trainer *trainer, const struct bpe_pair *pair,
                          uint32_t i)
{
    uint32_t left_len = trainer->symbol_len[pair->left];

    return i < left_len ? trainer->code[trainer->symbol_first[pair->left] + i]
                        : trainer->code[trainer->symbol_first[pair->right] + i - left_len];
}

static uint32_t pair_len(const struct bpe_trainer *trainer, const struct bpe_pair *pair)
{
    return (uint32_t)trainer->symbol_len[pair->left] + trainer->symbol_len[pair->right];
}

/* 8 bits of length, two code points of 21 bits, the upper 14 bits of the third. */
static uint64_t pair_tie(const struct bpe_trainer *trainer, const struct bpe_pair *pair)
{
    uint32_t len = pair_len(trainer, pair);
    uint64_t third = len > 2 ? pair_code(trainer, pair, 2) : 0;

    return (uint64_t)len << 56 | (uint64_t)pair_code(trainer, pair, 0) << 35 |
           (uint64_t)pair_code(trainer, pair, 1) << 14 | third >> 7;
}

/* By a half at least, when it does not hold `need`. */
static void *array_grow(struct bpe_trainer *trainer, void *array, size_t *cap, size_t need,
                        size_t size, struct hm_error *err)
{
    size_t wanted = *cap + *cap / 2 > need ? *cap + *cap / 2 : need;

    if (need <= *cap)
        return array;
    trainer->list_reserve = 0;
    void *grown = hm_bpe_resize(trainer, array, *cap * size, wanted * size, err);
    if (grown)
        *cap = wanted;
    return grown;
}

int hm_bpe_pairs_reserve(struct bpe_trainer *trainer, size_t more, struct hm_error *err)
{
    size_t need = trainer->n_pairs + more + 1;

    if (need > UINT32_MAX)
        return hm_fail(err, HM_ERR_NOFIT, "more pairs than can be numbered: ask for fewer pieces");
    struct bpe_pair *pair =
        array_grow(trainer, trainer->pair, &trainer->cap_pairs, need, sizeof(*pair), err);
    if (!pair)
        return err->code;
    trainer->pair = pair;
    struct bpe_queue_entry *queue =
        array_grow(trainer, trainer->queue, &trainer->cap_queue, need, sizeof(*queue), err);
    if (!queue)
        return err->code;
    trainer->queue = queue;
    while (2 * need > trainer->pair_table_size)
        HM_TRY(table_grow(trainer, err));
    return HM_OK;
}

int hm_bpe_pair_new(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t count,
                    uint32_t *ret_pair, struct hm_error *err)
{
    size_t number = trainer->n_pairs ? trainer->n_pairs : 1;

    HM_TRY(hm_bpe_pairs_reserve(trainer, 1, err));
    trainer->pair[0] = (struct bpe_pair){ .dead = true };
    trainer->pair[number] = (struct bpe_pair){ .left = left, .right = right, .count = count };
    uint64_t key = (uint64_t)left << 32 | right;
    trainer->pair_table[table_at(trainer, key)] = (struct bpe_pair_key){ key, (uint32_t)number };
    trainer->n_pairs = number + 1;
    *ret_pair = (uint32_t)number;
    return HM_OK;
}

/* Whether a comes before b. */
static bool entry_before(const struct bpe_trainer *trainer, const struct bpe_queue_entry *a,
                         const struct bpe_queue_entry *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    if (a->tie != b->tie)
        return a->tie < b->tie;
    const struct bpe_pair *first = &trainer->pair[a->pair];
    const struct bpe_pair *second = &trainer->pair[b->pair];
    uint32_t len = pair_len(trainer, first);
    for (uint32_t i = 2; i < len; i++) {
        uint32_t x = pair_code(trainer, first, i);
        uint32_t y = pair_code(trainer, second, i);
        if (x != y)
            return x < y;
    }
    /* The same text by another split: whichever comes second is refused. */
    return trainer->symbol_len[first->left] < trainer->symbol_len[second->left];
}

bool hm_bpe_pair_before(const struct bpe_trainer *trainer, uint32_t a, uint32_t b)
{
    const struct bpe_pair *pair = trainer->pair;
    struct bpe_queue_entry first = { pair[a].count, pair_tie(trainer, &pair[a]), a };
    struct bpe_queue_entry second = { pair[b].count, pair_tie(trainer, &pair[b]), b };

    return entry_before(trainer, &first, &second);
}

void hm_bpe_pair_queue(struct bpe_trainer *trainer, uint32_t pair)
{
    struct bpe_queue_entry entry = { trainer->pair[pair].count,
                                     pair_tie(trainer, &trainer->pair[pair]), pair };
    size_t at = trainer->n_queue++;

    while (at > 0 && entry_before(trainer, &entry, &trainer->queue[(at - 1) / 2])) {
        trainer->queue[at] = trainer->queue[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    trainer->queue[at] = entry;
}

/* Put `entry` at `at` and let it sink. */
static void queue_sink(struct bpe_trainer *trainer, size_t at, struct bpe_queue_entry entry)
{
    struct bpe_queue_entry *queue = trainer->queue;

    for (size_t child = 2 * at + 1; child < trainer->n_queue; child = 2 * at + 1) {
        if (child + 1 < trainer->n_queue && entry_before(trainer, &queue[child + 1], &queue[child]))
            child++;
        if (!entry_before(trainer, &queue[child], &entry))
            break;
        queue[at] = queue[child];
        at = child;
    }
    queue[at] = entry;
}

static void queue_drop_top(struct bpe_trainer *trainer)
{
    struct bpe_queue_entry last = trainer->queue[--trainer->n_queue];

    if (trainer->n_queue > 0)
        queue_sink(trainer, 0, last);
}

uint32_t hm_bpe_pair_best(struct bpe_trainer *trainer)
{
    while (trainer->n_queue > 0) {
        struct bpe_queue_entry top = trainer->queue[0];
        struct bpe_pair *pair = &trainer->pair[top.pair];
        if (pair->dead) {
            queue_drop_top(trainer);
        } else if (pair->count < trainer->floor) {
            hm_bpe_pair_kill(trainer, top.pair);
            queue_drop_top(trainer);
        } else if (pair->count != top.count) {
            top.count = pair->count;
            queue_sink(trainer, 0, top);
        } else {
            queue_drop_top(trainer);
            return top.pair;
        }
    }
    return 0;
}

void hm_bpe_pair_kill(struct bpe_trainer *trainer, uint32_t number)
{
    struct bpe_pair *pair = &trainer->pair[number];
    struct bpe_block *block = &trainer->block[pair->block];

    pair->dead = true;
    trainer->n_dead += !pair->refused;
    if (pair->position && --block->live == 0)
        hm_bpe_block_drop(trainer, pair->block);
    pair->position = NULL;
    pair->n_positions = 0;
}

/* The table and the queue of the pairs that are there; `best` is no longer queued. */
static void pairs_enter(struct bpe_trainer *trainer, uint32_t best)
{
    memset(trainer->pair_table, 0, trainer->pair_table_size * sizeof(*trainer->pair_table));
    trainer->n_queue = 0;
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        const struct bpe_pair *pair = &trainer->pair[i];
        uint64_t key = (uint64_t)pair->left << 32 | pair->right;
        trainer->pair_table[table_at(trainer, key)] = (struct bpe_pair_key){ key, (uint32_t)i };
        if (!pair->dead && i != best)
            hm_bpe_pair_queue(trainer, (uint32_t)i);
    }
}

void hm_bpe_pairs_compact(struct bpe_trainer *trainer, uint32_t *number)
{
    uint32_t best = *number;
    size_t n = 1;

    for (size_t i = 1; i < trainer->n_pairs; i++) {
        if (trainer->pair[i].dead && !trainer->pair[i].refused)
            continue;
        if (i == best)
            *number = (uint32_t)n;
        trainer->pair[n++] = trainer->pair[i];
    }
    trainer->n_pairs = n;
    trainer->n_dead = 0;
    pairs_enter(trainer, *number);
}

void hm_bpe_pairs_unload(struct bpe_trainer *trainer)
{
    hm_bpe_places_drop(trainer);
    hm_bpe_drop(trainer, trainer->pair, trainer->cap_pairs * sizeof(*trainer->pair));
    hm_bpe_drop(trainer, trainer->pair_table,
                trainer->pair_table_size * sizeof(*trainer->pair_table));
    hm_bpe_drop(trainer, trainer->queue, trainer->cap_queue * sizeof(*trainer->queue));
    hm_bpe_drop(trainer, trainer->block,
                (BPE_LIST_BLOCKS + trainer->wanted + 1) * sizeof(*trainer->block));
    trainer->pair = NULL;
    trainer->pair_table = NULL;
    trainer->queue = NULL;
    trainer->block = NULL;
    trainer->n_pairs = trainer->cap_pairs = trainer->pair_table_size = 0;
    trainer->n_queue = trainer->cap_queue = trainer->n_dead = 0;
}
