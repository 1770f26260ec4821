/* SPDX-License-Identifier: MIT */
/*
 * What han_runs.c shares with the trainer (runs as UTF-16 units, walked in place), and
 * the state of one training shared by bpe_*.c: bpe_corpus.c finds the first pairs, bpe_slots.c lays
 * the text into slots, bpe_pairs.c keeps pairs and their queue, bpe_places.c finds where they are
 * and bpe_lists.c which of them are listed,
 * bpe_merge.c applies one merge. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_BPE_INTERNAL_H
#define HANMIX_VOCAB_BPE_INTERNAL_H

#include <stdatomic.h>

#include "hanmix/vocab/bpe_train.h"

struct hm_run {
    const uint16_t *unit; /* borrowed UTF-16 */
    uint32_t n_units;
    uint64_t count;
};

/* Walk all runs that are in memory, as they came: false at the end. *cursor starts at 0. */
bool hm_han_counts_next(const struct hm_han_counts *counts, uint64_t *cursor,
                        struct hm_run *ret_run);

/* Next code point of a run; *i < n_units. Runs hold whole surrogate pairs. */
static inline uint32_t hm_run_code(const uint16_t *unit, uint32_t *i)
{
    uint32_t code = unit[(*i)++];

    if (code >= 0xd800 && code < 0xdc00)
        code = 0x10000 + ((code - 0xd800) << 10) + (unit[(*i)++] - 0xdc00u);
    return code;
}

#define BPE_INLINE static inline __attribute__((always_inline)) /* for constants to specialise */
#define BPE_CODES  0x110000u

/*
 * Where the trainer takes its text from: every distinct segment of part `part`, the same each time.
 * Parts are walked by several threads at once, one part to a thread; each() < 0 ends the walk with
 * that status, which each() has told in an error of its own.
 */
struct bpe_segments {
    void *context;
    size_t n_parts;
    int (*walk)(void *context, size_t part, int (*each)(void *user, const struct hm_run *run),
                void *user, struct hm_error *err);
};

/* Those in memory; `sums` is borrowed. */
struct hm_han_sums;
struct bpe_segments hm_bpe_segments_of(const struct hm_han_sums *sums);

/*
 * The text of a training: every segment's symbols in slots of 16 bits, or 32 where ids need them,
 * a zero slot before the first and after each segment. A character fills one slot, a merged symbol
 * as many as its halves did: its id stands in the first and in the last, what is between matches no
 * pair and is not zero. Now and then all symbols shrink to one slot (bpe_places.c). Segments lie by
 * weight, so that a slot's weight is found from its class (weights are few).
 */
struct bpe_weight_class {
    uint64_t weight;
    uint32_t end; /* first slot after the class */
};

struct bpe_pair {
    uint32_t left, right; /* symbols */
    uint64_t count;       /* weighted occurrences now */
    uint32_t *position;   /* first slots, ascending; some may be stale. NULL: not listed */
    uint32_t n_positions;
    uint32_t block : 30; /* whose memory position is: see bpe_trainer */
    uint32_t dead : 1;   /* merged, refused, or too rare to matter */
    uint32_t
        refused : 1; /* its text was made by another split; its halves may still grow together */
};

struct bpe_pair_key { /* an entry of the table of pairs */
    uint64_t key;     /* left << 32 | right; 0 = free */
    uint32_t pair;
};

struct bpe_queue_entry { /* count may be stale: then it is too high */
    uint64_t count;
    uint64_t tie; /* fewer characters, then code points, as far as they fit */
    uint32_t pair;
};

struct bpe_side {       /* what one merge does to pairs with one neighbour */
    uint64_t weight;    /* of pairs destroyed */
    uint64_t cancelled; /* of pairs created and destroyed again by the same merge */
    uint32_t n;         /* new positions */
    uint32_t fill;      /* where the next one goes; UINT32_MAX: not kept */
};

struct bpe_block { /* positions of some pairs */
    uint32_t *position;
    size_t bytes;
    uint32_t live; /* pairs that still use it */
};

#define BPE_LIST_BLOCKS 64u

struct bpe_trainer {
    const struct hm_ctl *ctl;
    uint64_t limit_bytes; /* 0 = none */
    _Atomic uint64_t used_bytes;
    uint32_t max_chars;
    size_t wanted;       /* merges */
    uint64_t most_slots; /* of all text, were no run to repeat */
    bool allow_fewer;
    uint64_t floor; /* pairs rarer than this are not kept: none of them will be merged */
    /* symbols: 1..n_chars characters, most frequent first; then merges in order */
    uint32_t n_chars, n_symbols;
    size_t cap_symbols;
    uint32_t *symbol_of;    /* [BPE_CODES] of a character */
    uint32_t *symbol_first; /* into code */
    uint8_t *symbol_len;    /* characters */
    uint32_t *code;         /* code points of all symbols */
    size_t n_codes, cap_codes;
    uint64_t *symbol_count; /* characters: occurrences; merges: pair count when merged */
    uint32_t *string_table; /* merges by their text; power of two */
    size_t string_size;
    /* Ids in slots: characters that reach the floor keep their numbers, merges follow at once. */
    uint32_t n_slot_chars;
    bool wide;  /* slots of 32 bits */
    void *slot; /* [n_slots] */
    uint32_t n_slots;
    uint8_t *width; /* [cap_symbols] slots that a symbol fills, by its id in slots */
    struct bpe_weight_class *weight_class;
    size_t n_weight_classes, cap_weight_classes;
    struct bpe_pair *pair; /* 0 is none */
    size_t n_pairs, cap_pairs;
    size_t n_dead;                   /* pairs that may be forgotten */
    struct bpe_pair_key *pair_table; /* power of two */
    size_t pair_table_size;
    struct bpe_queue_entry *queue; /* binary heap, most frequent first */
    size_t n_queue, cap_queue;
    /* Lists of places: those made by looking through all slots, by falling count, then those of
     * the pairs that each merge made. A new pair rarer than list_floor is not listed. */
    struct bpe_block *block; /* [BPE_LIST_BLOCKS + wanted + 1] */
    uint64_t list_floor;
    uint64_t list_reserve;           /* bytes left to pairs, until these have grown */
    uint64_t list_limit, list_bytes; /* bound (0: none but the limit), and what they take now */
    struct bpe_side *side[2];        /* left and right neighbours, by id in slots */
    uint32_t *touched[2];            /* neighbours met */
    size_t n_touched[2];
};

static inline uint32_t bpe_slot_get(const void *slot, size_t at, bool wide)
{
    return wide ? ((const uint32_t *)slot)[at] : ((const uint16_t *)slot)[at];
}

static inline void bpe_slot_set(void *slot, size_t at, uint32_t id, bool wide)
{
    if (wide)
        ((uint32_t *)slot)[at] = id;
    else
        ((uint16_t *)slot)[at] = (uint16_t)id;
}

static inline uint64_t bpe_slot_bytes(const struct bpe_trainer *trainer, uint64_t n_slots)
{
    return n_slots * (trainer->wide ? sizeof(uint32_t) : sizeof(uint16_t));
}

static inline uint32_t bpe_slot_id(const struct bpe_trainer *trainer, uint32_t symbol)
{
    return symbol <= trainer->n_chars ? symbol : symbol - trainer->n_chars + trainer->n_slot_chars;
}

static inline uint32_t bpe_slot_symbol(const struct bpe_trainer *trainer, uint32_t id)
{
    return id <= trainer->n_slot_chars ? id : id - trainer->n_slot_chars + trainer->n_chars;
}

/* Index of the weight class of a slot. */
size_t hm_bpe_class_find(const struct bpe_trainer *trainer, uint32_t position);

/* Where a pair of symbols begins to be looked for. */
static inline uint64_t bpe_pair_hash(uint64_t key)
{
    uint64_t hash = key * 0x9fb21c651e98df25u;

    return hash ^ hash >> 32;
}

/* Heap of the trainer within its limit (thread safe; err is not NULL); old_bytes are given back.
 * NULL: err tells (HM_ERR_NOFIT or HM_ERR_NOMEM). */
void *hm_bpe_resize(struct bpe_trainer *trainer, void *block, size_t old_bytes, size_t bytes,
                    struct hm_error *err);
void hm_bpe_drop(struct bpe_trainer *trainer, void *block, size_t bytes);

/* HM_ERR_NOFIT when `more` bytes do not fit: names a limit that will do, by what is known now. */
int hm_bpe_fail_limit(const struct bpe_trainer *trainer, uint64_t more, struct hm_error *err);

/* As hm_bpe_resize of nothing, zeroed. */
void *hm_bpe_zeroed(struct bpe_trainer *trainer, size_t bytes, struct hm_error *err);

/* bpe_corpus.c: characters by frequency into the symbol arrays and symbol_of. */
int hm_bpe_characters_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                            struct hm_error *err);
/* Sets the floor, makes pairs, slots and queue. `lower` > 0: that floor (an earlier one was too
 * high). */
int hm_bpe_corpus_load(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err);

/* bpe_slots.c: slots from segments (two walks), when pairs and floor are known. */
int hm_bpe_slots_lay(struct bpe_trainer *trainer, const struct bpe_segments *segments,
                     struct hm_error *err);
void hm_bpe_slots_unload(struct bpe_trainer *trainer);

/* bpe_places.c: queue the first pairs; none is listed yet. */
int hm_bpe_places_list(struct bpe_trainer *trainer, struct hm_error *err);
/* Make slots smaller and list the places of as many pairs as memory allows, the most frequent first
 * and `best` before all. Pairs may get other numbers. */
int hm_bpe_places_find(struct bpe_trainer *trainer, uint32_t *best, struct hm_error *err);
/* bpe_lists.c: bytes that lists and what they need may take. */
uint64_t hm_bpe_room(const struct bpe_trainer *trainer);
/* Lists, still empty, for the pairs with n_positions > 0 that are merged first, as many as there is
 * room for, `best` before all; total: their places. order: scratch of n_pairs. */
int hm_bpe_lists_open(struct bpe_trainer *trainer, uint32_t best, uint32_t *order, uint64_t total,
                      struct hm_error *err);
/* Whether lists of so many bytes may be made; gives up lists of rarer pairs for them, but not those
 * of pair `best`. */
bool hm_bpe_places_fit(struct bpe_trainer *trainer, uint64_t bytes, uint32_t best);
void hm_bpe_block_drop(struct bpe_trainer *trainer, size_t number);
void hm_bpe_places_drop(struct bpe_trainer *trainer);

/* bpe_pairs.c */
/* 0 = none */
static inline uint32_t bpe_pair_find(const struct bpe_trainer *trainer, uint32_t left,
                                     uint32_t right)
{
    const struct bpe_pair_key *table = trainer->pair_table;
    uint64_t key = (uint64_t)left << 32 | right;
    size_t mask = trainer->pair_table_size - 1;
    size_t at = bpe_pair_hash(key) & mask;

    while (table[at].key && table[at].key != key)
        at = (at + 1) & mask;
    return table[at].pair;
}

static inline void bpe_pair_prefetch(const struct bpe_trainer *trainer, uint32_t left,
                                     uint32_t right)
{
    size_t mask = trainer->pair_table_size - 1;

    __builtin_prefetch(&trainer->pair_table[bpe_pair_hash((uint64_t)left << 32 | right) & mask]);
}

/* Room for so many pairs more; grows by a half. */
int hm_bpe_pairs_reserve(struct bpe_trainer *trainer, size_t more, struct hm_error *err);
int hm_bpe_pair_new(struct bpe_trainer *trainer, uint32_t left, uint32_t right, uint64_t count,
                    uint32_t *ret_pair, struct hm_error *err);
/* Forget the dead: other pairs get other numbers, *number among them. */
void hm_bpe_pairs_compact(struct bpe_trainer *trainer, uint32_t *number);
/* There is room, reserved. */
void hm_bpe_pair_queue(struct bpe_trainer *trainer, uint32_t pair);
/* Whether a is merged before b, by their counts now. */
bool hm_bpe_pair_before(const struct bpe_trainer *trainer, uint32_t a, uint32_t b);
/* The most frequent pair, taken from the queue; 0 when no pair reaches the floor. */
uint32_t hm_bpe_pair_best(struct bpe_trainer *trainer);
void hm_bpe_pair_kill(struct bpe_trainer *trainer, uint32_t pair);
void hm_bpe_pairs_unload(struct bpe_trainer *trainer);

/* bpe_merge.c */
/* Room for all that a merge of this pair makes except lists; pairs may get other numbers. */
int hm_bpe_merge_reserve(struct bpe_trainer *trainer, uint32_t *pair, struct hm_error *err);
/* Make the new symbol of a listed pair and apply it; when its text exists, the pair is dead. */
int hm_bpe_merge_apply(struct bpe_trainer *trainer, uint32_t pair, struct hm_error *err);

#endif
