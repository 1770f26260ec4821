/* SPDX-License-Identifier: MIT */
/*
 * Which pairs have lists of their places, and the memory of these. Under a memory limit only the
 * pairs to be merged first are listed, and rarer ones give up their lists for those of new pairs.
 * Memory holds LEAST_SHARE of the places at least, so bpe_places.c reads the text some LEAST_SHARE
 * times while it shrinks to a third.
 */
#include "bpe_internal.h"
#include "hanmix/base/parallel.h"

#define OCTAVE_BITS 5u
#define RANKS       2048u /* counts by their upper OCTAVE_BITS + 1 bits */
#define LEAST_SHARE 8u    /* of all places, one in so many must fit */

struct listing {
    struct bpe_trainer *trainer;
    uint32_t *order; /* [n_order] pairs to be listed, by falling count */
    size_t n_order;
};

uint64_t hm_bpe_room(const struct bpe_trainer *trainer)
{
    uint64_t used = atomic_load(&trainer->used_bytes);
    uint64_t room = UINT64_MAX;

    if (trainer->limit_bytes)
        room = trainer->limit_bytes > used ? trainer->limit_bytes - used : 0;
    if (trainer->list_limit)
        room = hm_least(room, trainer->list_limit > trainer->list_bytes
                                  ? trainer->list_limit - trainer->list_bytes
                                  : 0);
    return room;
}

/* Arrays of pairs grow by a half, their table to the double; not while few of them live. */
static uint64_t pairs_growth(const struct bpe_trainer *trainer)
{
    if (trainer->n_pairs - trainer->n_dead < trainer->cap_pairs / 4 * 3)
        return 0;
    return trainer->cap_pairs * sizeof(struct bpe_pair) / 2 +
           trainer->pair_table_size * 2 * sizeof(struct bpe_pair_key) +
           trainer->cap_queue * sizeof(struct bpe_queue_entry) / 2;
}

/* Bytes of lists that may still be made. */
static uint64_t lists_room(const struct bpe_trainer *trainer)
{
    uint64_t room = hm_bpe_room(trainer);

    return room > trainer->list_reserve ? room - trainer->list_reserve : 0;
}

/* What pairs may need is left to them, but not of the share that lists need: when pairs do grow,
 * lists are given up for that and made again. */
static int lists_reserve(struct bpe_trainer *trainer, uint64_t share_bytes, struct hm_error *err)
{
    uint64_t room;

    trainer->list_reserve = 0;
    room = lists_room(trainer);
    if (room < share_bytes)
        return hm_bpe_fail_limit(trainer, 2 * share_bytes, err);
    trainer->list_reserve = hm_least(pairs_growth(trainer), room - share_bytes);
    return HM_OK;
}

/* --- which lists are given up ----------------------------------------------------------------- */

void hm_bpe_block_drop(struct bpe_trainer *trainer, size_t number)
{
    struct bpe_block *block = &trainer->block[number];

    trainer->list_bytes -= block->bytes;
    hm_bpe_drop(trainer, block->position, block->bytes);
    *block = (struct bpe_block){ 0 };
}

/* The block of the rarest pairs among those found in the text; false: only that of `best` is left.
 */
static bool block_give_up(struct bpe_trainer *trainer, uint32_t best)
{
    uint32_t number = BPE_LIST_BLOCKS;

    while (number > 0 &&
           (!trainer->block[number - 1].position || trainer->pair[best].block == number - 1))
        number--;
    if (number-- == 0)
        return false;
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        struct bpe_pair *pair = &trainer->pair[i];
        if (!pair->position || pair->block != number)
            continue;
        pair->position = NULL;
        if (trainer->list_floor < pair->count)
            trainer->list_floor = pair->count;
    }
    hm_bpe_block_drop(trainer, number);
    return true;
}

bool hm_bpe_places_fit(struct bpe_trainer *trainer, uint64_t bytes, uint32_t best)
{
    while (bytes > lists_room(trainer))
        if (!block_give_up(trainer, best))
            return false;
    return true;
}

/* --- which pairs are listed ------------------------------------------------------------------- */

static size_t rank_of(uint64_t count)
{
    unsigned bits = 64u - (unsigned)__builtin_clzll(count | 1);

    if (bits <= OCTAVE_BITS + 1)
        return count;
    return ((size_t)(bits - OCTAVE_BITS) << OCTAVE_BITS) +
           (count >> (bits - OCTAVE_BITS - 1) & ((1u << OCTAVE_BITS) - 1));
}

/* Pairs alive that have places, by falling count as far as ranks tell, `best` first. */
static void pairs_order(struct listing *listing, uint32_t best)
{
    struct bpe_trainer *trainer = listing->trainer;
    size_t start[RANKS + 1] = { 0 };
    size_t n = 1;

    for (size_t i = 1; i < trainer->n_pairs; i++)
        if (i != best && trainer->pair[i].n_positions > 0)
            start[RANKS - 1 - rank_of(trainer->pair[i].count)]++;
    for (size_t rank = 0; rank < RANKS; rank++) {
        size_t here = start[rank];
        start[rank] = n;
        n += here;
    }
    listing->order[0] = best;
    for (size_t i = 1; i < trainer->n_pairs; i++)
        if (i != best && trainer->pair[i].n_positions > 0)
            listing->order[start[RANKS - 1 - rank_of(trainer->pair[i].count)]++] = (uint32_t)i;
    listing->n_order = n;
}

/* Memory for the lists of order[from] up to order[to]. */
static int block_open(struct listing *listing, uint32_t number, size_t from, size_t to,
                      uint64_t places, struct hm_error *err)
{
    struct bpe_trainer *trainer = listing->trainer;
    struct bpe_block *block = &trainer->block[number];
    uint32_t *position = hm_bpe_resize(trainer, NULL, 0, places * sizeof(*position), err);

    if (!position)
        return err->code;
    *block = (struct bpe_block){ position, places * sizeof(*position), (uint32_t)(to - from) };
    trainer->list_bytes += block->bytes;
    for (size_t i = from; i < to; i++) {
        struct bpe_pair *pair = &trainer->pair[listing->order[i]];
        pair->block = number;
        pair->position = position;
        position += pair->n_positions;
    }
    return HM_OK;
}

static void order_sink(struct listing *listing, uint32_t *order, size_t n, size_t at)
{
    uint32_t number = order[at];

    for (size_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && hm_bpe_pair_before(listing->trainer, order[child], order[child + 1]))
            child++;
        if (!hm_bpe_pair_before(listing->trainer, number, order[child]))
            break;
        order[at] = order[child];
        at = child;
    }
    order[at] = number;
}

/* Where the room ends, pairs of one rank are told apart: those merged first go first. */
static void order_refine(struct listing *listing, uint64_t room)
{
    const struct bpe_pair *pair = listing->trainer->pair;
    uint64_t places = 0;
    size_t end = 0;

    while (end < listing->n_order && places <= room)
        places += pair[listing->order[end++]].n_positions;
    if (places <= room)
        return;
    size_t first = end - 1;
    size_t rank = rank_of(pair[listing->order[first]].count);
    while (first > 1 && rank_of(pair[listing->order[first - 1]].count) == rank)
        first--;
    while (end < listing->n_order && rank_of(pair[listing->order[end]].count) == rank)
        end++;
    if (first == 0)
        return;
    uint32_t *order = listing->order + first;
    size_t n = end - first;
    for (size_t at = n / 2; at-- > 0;)
        order_sink(listing, order, n, at);
    while (n-- > 1) {
        uint32_t last = order[0];
        order[0] = order[n];
        order[n] = last;
        order_sink(listing, order, n, 0);
    }
}

/* List pairs in order while there is room, in blocks that can be given back one by one. */
static int lists_open(struct listing *listing, uint64_t total, struct hm_error *err)
{
    struct bpe_trainer *trainer = listing->trainer;
    uint64_t room = lists_room(trainer) / sizeof(uint32_t);
    size_t next = 0;

    order_refine(listing, room);
    uint64_t least = (room < total ? room : total) / (BPE_LIST_BLOCKS - 1);
    for (uint32_t number = 0; number < BPE_LIST_BLOCKS && next < listing->n_order; number++) {
        size_t from = next;
        uint64_t places = 0;
        for (; next < listing->n_order && places <= least; next++) {
            uint64_t more = trainer->pair[listing->order[next]].n_positions;
            if (next > 0 && places + more > room)
                break;
            places += more;
        }
        if (next == from)
            break;
        HM_TRY(block_open(listing, number, from, next, places, err));
        room -= places < room ? places : room;
    }
    trainer->list_floor =
        next < listing->n_order ? trainer->pair[listing->order[next]].count : trainer->floor;
    return HM_OK;
}

int hm_bpe_lists_open(struct bpe_trainer *trainer, uint32_t best, uint32_t *order, uint64_t total,
                      struct hm_error *err)
{
    struct listing listing = { .trainer = trainer, .order = order };

    HM_TRY(lists_reserve(trainer, total / LEAST_SHARE * sizeof(uint32_t), err));
    pairs_order(&listing, best);
    return lists_open(&listing, total, err);
}

void hm_bpe_places_drop(struct bpe_trainer *trainer)
{
    for (size_t i = 0; trainer->block && i <= BPE_LIST_BLOCKS + trainer->wanted; i++)
        hm_bpe_block_drop(trainer, i);
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        trainer->pair[i].position = NULL;
        trainer->pair[i].n_positions = 0;
    }
}
