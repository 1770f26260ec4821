/* SPDX-License-Identifier: MIT */
/*
 * From counted runs to the trainer's first facts: characters by frequency, pairs of characters by
 * count, and the floor.
 *
 * A pair of characters rarer than the last merge wanted can never lie inside a piece (a piece is at
 * most as frequent as any pair of characters in it), so runs are cut there (bpe_cut.c); what
 * remains is counted again, which shrinks Chinese text by half or more, and the merges stay exact.
 * The count of the last merge is guessed from the pair counts; the trainer checks the guess and
 * asks for a lower one. Counting is shared among threads by pairs, not by runs, so memory does not
 * grow.
 */
#include <stdlib.h>

#include "bpe_internal.h"
#include "han_store.h"
#include "hanmix/base/parallel.h"

#define BIGRAMS_FIRST 4096u
#define SHARDS        4u
#define BLOCK_KEYS    256u
#define COUNTS_TOLD   65536u /* pair counts told apart when the floor is chosen */
/* The last of M merges is rarely below a third of the M-th most frequent pair of characters. */
#define FLOOR_DIVISOR 3u

/* --- characters ------------------------------------------------------------------------------- */

struct character {
    uint32_t code;
    uint64_t count;
};

struct characters {
    const struct hm_han_counts *counts;
    uint32_t *index; /* [BPE_CODES] of a character met */
    uint64_t *count; /* [HM_HAN_PARTS][n] */
    size_t n;
};

static void characters_unit(void *context, size_t number, int worker)
{
    struct characters *characters = context;
    uint64_t *count = characters->count + number * characters->n;
    uint64_t cursor = 0;
    struct hm_run run;

    (void)worker;
    while (hm_han_part_next(&characters->counts->part[number], &cursor, &run))
        for (uint32_t i = 0; i < run.n_units;)
            count[characters->index[hm_run_code(run.unit, &i)]] += run.count;
}

static int character_order(const void *a, const void *b)
{
    const struct character *x = a;
    const struct character *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->code < y->code ? -1 : x->code > y->code;
}

/* The characters met, in the order of their codes. */
static void characters_find(const struct hm_han_counts *counts, struct characters *characters,
                            struct character *list)
{
    uint32_t n = 0;

    for (uint32_t word = 0; word < BPE_CODES / 64; word++) {
        uint64_t seen = 0;
        for (size_t p = 0; p < HM_HAN_PARTS; p++)
            seen |= counts->part[p].seen[word];
        for (; seen; seen &= seen - 1) {
            uint32_t code = 64 * word + (uint32_t)__builtin_ctzll(seen);
            characters->index[code] = n;
            list[n++].code = code;
        }
    }
}

static void characters_rank(struct bpe_trainer *trainer, const struct characters *characters,
                            struct character *list)
{
    for (size_t i = 0; i < characters->n; i++)
        for (size_t p = 0; p < HM_HAN_PARTS; p++)
            list[i].count += characters->count[p * characters->n + i];
    qsort(list, characters->n, sizeof(*list), character_order);
    for (size_t i = 0; i < characters->n; i++) {
        uint32_t symbol = (uint32_t)(i + 1);
        trainer->code[symbol] = list[i].code;
        trainer->symbol_first[symbol] = symbol;
        trainer->symbol_len[symbol] = 1;
        trainer->symbol_count[symbol] = list[i].count;
        trainer->symbol_of[list[i].code] = symbol;
    }
}

int hm_bpe_characters_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                            struct hm_error *err)
{
    struct characters characters = { .counts = counts,
                                     .index = trainer->symbol_of,
                                     .n = trainer->n_chars };
    size_t count_bytes = HM_HAN_PARTS * characters.n * sizeof(uint64_t);
    size_t list_bytes = characters.n * sizeof(struct character);
    struct character *list = hm_bpe_zeroed(trainer, list_bytes, err);

    characters.count = list ? hm_bpe_zeroed(trainer, count_bytes, err) : NULL;
    int status = characters.count ? HM_OK : err->code;
    if (status == HM_OK) {
        characters_find(counts, &characters, list);
        hm_parallel_for(HM_HAN_PARTS, characters_unit, &characters);
        characters_rank(trainer, &characters, list);
    }
    hm_bpe_drop(trainer, characters.count, count_bytes);
    hm_bpe_drop(trainer, list, list_bytes);
    return status;
}

/* --- pairs of characters ---------------------------------------------------------------------- */

struct bigram {
    uint64_t key; /* left << 32 | right; 0 = free */
    uint64_t count;
};

struct shard { /* the pairs whose left symbol is the shard's modulo SHARDS */
    struct bigram *entry;
    size_t size, used; /* size: power of two */
    struct hm_error err;
};

struct bigrams {
    struct bpe_trainer *trainer;
    const struct hm_han_counts *counts;
    struct shard shard[SHARDS];
};

struct key_block { /* pairs whose places in the table are fetched together */
    uint64_t key[BLOCK_KEYS], count[BLOCK_KEYS];
    size_t n;
};

static size_t bigram_at(const struct shard *shard, uint64_t key)
{
    size_t mask = shard->size - 1;
    size_t at = bpe_pair_hash(key) & mask;

    while (shard->entry[at].key && shard->entry[at].key != key)
        at = (at + 1) & mask;
    return at;
}

static int shard_grow(struct bpe_trainer *trainer, struct shard *shard)
{
    struct shard grown = { .size = shard->size ? 2 * shard->size : BIGRAMS_FIRST,
                           .used = shard->used };

    grown.entry = hm_bpe_zeroed(trainer, grown.size * sizeof(*grown.entry), &shard->err);
    if (!grown.entry)
        return shard->err.code;
    for (size_t i = 0; i < shard->size; i++)
        if (shard->entry[i].key)
            grown.entry[bigram_at(&grown, shard->entry[i].key)] = shard->entry[i];
    hm_bpe_drop(trainer, shard->entry, shard->size * sizeof(*shard->entry));
    *shard = grown;
    return HM_OK;
}

static int block_count(struct bpe_trainer *trainer, struct shard *shard, struct key_block *block)
{
    if ((shard->used + block->n) * 5 > shard->size * 3 && shard_grow(trainer, shard) < 0)
        return shard->err.code;
    for (size_t i = 0; i < block->n; i++)
        __builtin_prefetch(&shard->entry[bpe_pair_hash(block->key[i]) & (shard->size - 1)]);
    for (size_t i = 0; i < block->n; i++) {
        struct bigram *entry = &shard->entry[bigram_at(shard, block->key[i])];
        shard->used += entry->key == 0;
        entry->key = block->key[i];
        entry->count += block->count[i];
    }
    block->n = 0;
    return HM_OK;
}

static int run_count(struct bpe_trainer *trainer, struct shard *shard, uint32_t number,
                     const struct hm_run *run, struct key_block *block)
{
    uint32_t i = 0;
    uint64_t left = trainer->symbol_of[hm_run_code(run->unit, &i)];

    while (i < run->n_units) {
        uint64_t right = trainer->symbol_of[hm_run_code(run->unit, &i)];
        if (left % SHARDS == number) {
            block->key[block->n] = left << 32 | right;
            block->count[block->n++] = run->count;
            if (block->n == BLOCK_KEYS)
                HM_TRY(block_count(trainer, shard, block));
        }
        left = right;
    }
    return HM_OK;
}

static void shard_unit(void *context, size_t number, int worker)
{
    struct bigrams *bigrams = context;
    struct bpe_trainer *trainer = bigrams->trainer;
    struct shard *shard = &bigrams->shard[number];
    struct key_block block = { .n = 0 };
    uint64_t cursor = 0;
    struct hm_run run;
    int status = shard_grow(trainer, shard);

    (void)worker;
    while (status == HM_OK && hm_han_counts_next(bigrams->counts, &cursor, &run))
        status = run_count(trainer, shard, (uint32_t)number, &run, &block);
    if (status == HM_OK)
        block_count(trainer, shard, &block);
}

/* A guess, not above `lower` when that is given: from the wanted-th largest count. */
static int floor_choose(struct bpe_trainer *trainer, const struct bigrams *bigrams, uint64_t lower,
                        struct hm_error *err)
{
    size_t bytes = COUNTS_TOLD * sizeof(uint64_t);
    uint64_t *pairs_with = hm_bpe_zeroed(trainer, bytes, err);
    uint64_t count = COUNTS_TOLD - 1;
    uint64_t above;

    if (!pairs_with)
        return err->code;
    for (size_t s = 0; s < SHARDS; s++)
        for (size_t i = 0; i < bigrams->shard[s].size; i++) {
            const struct bigram *entry = &bigrams->shard[s].entry[i];
            if (entry->key)
                pairs_with[entry->count < COUNTS_TOLD ? entry->count : COUNTS_TOLD - 1]++;
        }
    for (above = pairs_with[count]; above <= trainer->wanted && count > 0;
         above += pairs_with[count])
        count--;
    trainer->floor = lower ? lower : count / FLOOR_DIVISOR;
    if (trainer->floor < 1)
        trainer->floor = 1;
    hm_bpe_drop(trainer, pairs_with, bytes);
    return HM_OK;
}

/* The pairs of characters that reach the floor. */
static int first_pairs(struct bpe_trainer *trainer, const struct bigrams *bigrams,
                       struct hm_error *err)
{
    for (size_t s = 0; s < SHARDS; s++)
        for (size_t i = 0; i < bigrams->shard[s].size; i++) {
            const struct bigram *entry = &bigrams->shard[s].entry[i];
            uint32_t pair;
            if (entry->key && entry->count >= trainer->floor &&
                hm_bpe_pair_new(trainer, (uint32_t)(entry->key >> 32), (uint32_t)entry->key,
                                entry->count, &pair, err) < 0)
                return err->code;
        }
    return HM_OK;
}

static int pairs_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    struct bigrams bigrams = { .trainer = trainer, .counts = counts };
    int status = HM_OK;

    hm_parallel_for(SHARDS, shard_unit, &bigrams);
    for (size_t s = 0; status == HM_OK && s < SHARDS; s++)
        if (bigrams.shard[s].err.code < 0)
            status = hm_error_pass(err, &bigrams.shard[s].err);
    if (status == HM_OK)
        status = floor_choose(trainer, &bigrams, lower, err);
    if (status == HM_OK)
        status = first_pairs(trainer, &bigrams, err);
    for (size_t s = 0; s < SHARDS; s++)
        hm_bpe_drop(trainer, bigrams.shard[s].entry, bigrams.shard[s].size * sizeof(struct bigram));
    return status;
}

int hm_bpe_corpus_load(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    struct hm_han_counts *cut = NULL;
    int status = pairs_count(trainer, counts, lower, err);

    if (status == HM_OK && trainer->floor > 1)
        status = hm_bpe_runs_cut(trainer, counts, &cut, err);
    uint64_t cut_bytes = cut ? hm_han_counts_bytes(cut) : 0;
    atomic_fetch_add(&trainer->used_bytes, cut_bytes);
    struct bpe_segments segments = hm_bpe_segments_of(cut ? cut : counts);
    if (status == HM_OK)
        status = hm_bpe_slots_lay(trainer, &segments, err);
    hm_han_counts_free(cut);
    atomic_fetch_sub(&trainer->used_bytes, cut_bytes);
    if (status == HM_OK)
        status = hm_bpe_places_list(trainer, err);
    return status;
}
