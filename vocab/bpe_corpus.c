/* SPDX-License-Identifier: MIT */
/*
 * From counted runs to the trainer's text: characters by frequency, pairs of characters, and slots.
 *
 * A pair of characters rarer than the last merge wanted can never lie inside a piece (a piece is at
 * most as frequent as any pair of characters in it), so runs are cut there; what remains is counted
 * again, which shrinks Chinese text by half or more, and the merges stay exact. The count of the
 * last merge is guessed from the pair counts; the trainer checks the guess and asks for a lower
 * one.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"

#define CODES         0x110000u
#define BIGRAMS_FIRST 65536u
/* The last of M merges is rarely below a third of the M-th most frequent pair of characters. */
#define FLOOR_DIVISOR 3u

struct bigram {
    uint64_t key; /* left << 32 | right; 0 = free */
    uint64_t count;
};

struct bigrams {
    struct bigram *entry;
    size_t size, used; /* size: power of two */
};

/* What reading the runs again and again needs: characters as symbols. */
struct reader {
    uint32_t *symbol_of; /* [CODES] */
    uint32_t *symbol;    /* of the run last read */
    size_t cap;
};

static void reader_release(struct bpe_trainer *trainer, struct reader *reader)
{
    hm_bpe_drop(trainer, reader->symbol_of, reader->symbol_of ? CODES * sizeof(uint32_t) : 0);
    hm_bpe_drop(trainer, reader->symbol, reader->cap * sizeof(uint32_t));
}

static int reader_init(struct bpe_trainer *trainer, struct reader *reader, struct hm_error *err)
{
    reader->symbol_of = hm_bpe_resize(trainer, NULL, 0, CODES * sizeof(uint32_t), err);
    if (!reader->symbol_of)
        return err->code;
    memset(reader->symbol_of, 0, CODES * sizeof(uint32_t));
    for (uint32_t i = 1; i <= trainer->n_chars; i++)
        reader->symbol_of[trainer->code[i]] = i;
    return HM_OK;
}

/* The symbols of a run into reader->symbol; *ret_count of them. */
static int reader_read(struct bpe_trainer *trainer, struct reader *reader, const struct hm_run *run,
                       uint32_t *ret_count, struct hm_error *err)
{
    uint32_t count = 0;

    if (run->n_units > reader->cap) {
        size_t cap = 2 * (size_t)run->n_units;
        uint32_t *grown = hm_bpe_resize(trainer, reader->symbol, reader->cap * sizeof(uint32_t),
                                        cap * sizeof(uint32_t), err);
        if (!grown)
            return err->code;
        reader->symbol = grown;
        reader->cap = cap;
    }
    for (uint32_t i = 0; i < run->n_units;)
        reader->symbol[count++] = reader->symbol_of[hm_run_code(run->unit, &i)];
    *ret_count = count;
    return HM_OK;
}

struct character {
    uint32_t code;
    uint64_t count;
};

static int character_order(const void *a, const void *b)
{
    const struct character *x = a;
    const struct character *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->code < y->code ? -1 : x->code > y->code;
}

int hm_bpe_characters_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                            struct hm_error *err)
{
    size_t bytes = CODES * sizeof(uint64_t);
    uint64_t *count = hm_bpe_resize(trainer, NULL, 0, bytes, err);
    struct character *character = NULL;
    size_t n_chars = hm_han_counts_totals(counts).distinct_characters;
    uint64_t cursor = 0;
    struct hm_run run;
    size_t n = 0;
    int status = HM_OK;

    if (!count)
        return err->code;
    memset(count, 0, bytes);
    while (hm_han_counts_next(counts, &cursor, &run))
        for (uint32_t i = 0; i < run.n_units;)
            count[hm_run_code(run.unit, &i)] += run.count;
    character = hm_bpe_resize(trainer, NULL, 0, n_chars * sizeof(*character), err);
    if (!character) {
        status = err->code;
        goto out;
    }
    for (uint32_t code = 0; code < CODES; code++)
        if (count[code])
            character[n++] = (struct character){ code, count[code] };
    HM_BUG(n != n_chars);
    qsort(character, n, sizeof(*character), character_order);
    for (size_t i = 0; i < n; i++) {
        trainer->code[i + 1] = character[i].code;
        trainer->symbol_first[i + 1] = (uint32_t)(i + 1);
        trainer->symbol_len[i + 1] = 1;
        trainer->symbol_count[i + 1] = character[i].count;
    }
out:
    hm_bpe_drop(trainer, character, n_chars * sizeof(*character));
    hm_bpe_drop(trainer, count, bytes);
    return status;
}

static size_t bigram_at(const struct bigrams *bigrams, uint64_t key)
{
    size_t mask = bigrams->size - 1;
    uint64_t hash = key * 0x9fb21c651e98df25u;
    size_t at = (hash ^ hash >> 32) & mask;

    while (bigrams->entry[at].key && bigrams->entry[at].key != key)
        at = (at + 1) & mask;
    return at;
}

static int bigrams_grow(struct bpe_trainer *trainer, struct bigrams *bigrams, struct hm_error *err)
{
    struct bigrams grown = { .size = bigrams->size ? 2 * bigrams->size : BIGRAMS_FIRST,
                             .used = bigrams->used };

    grown.entry = hm_bpe_resize(trainer, NULL, 0, grown.size * sizeof(*grown.entry), err);
    if (!grown.entry)
        return err->code;
    memset(grown.entry, 0, grown.size * sizeof(*grown.entry));
    for (size_t i = 0; i < bigrams->size; i++)
        if (bigrams->entry[i].key)
            grown.entry[bigram_at(&grown, bigrams->entry[i].key)] = bigrams->entry[i];
    hm_bpe_drop(trainer, bigrams->entry, bigrams->size * sizeof(*bigrams->entry));
    *bigrams = grown;
    return HM_OK;
}

static int bigrams_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                         struct reader *reader, struct bigrams *bigrams, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;
    uint32_t n = 0;

    if (bigrams_grow(trainer, bigrams, err) < 0)
        return err->code;
    while (hm_han_counts_next(counts, &cursor, &run)) {
        if (reader_read(trainer, reader, &run, &n, err) < 0)
            return err->code;
        for (uint32_t i = 0; i + 1 < n; i++) {
            uint64_t key = (uint64_t)reader->symbol[i] << 32 | reader->symbol[i + 1];
            struct bigram *entry = &bigrams->entry[bigram_at(bigrams, key)];
            entry->count += run.count;
            if (entry->key)
                continue;
            entry->key = key;
            if (++bigrams->used * 5 > bigrams->size * 3 && bigrams_grow(trainer, bigrams, err) < 0)
                return err->code;
        }
    }
    return HM_OK;
}

static int count_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x > y ? -1 : x < y;
}

/* A guess, not above `lower` when that is given. */
static int floor_choose(struct bpe_trainer *trainer, const struct bigrams *bigrams, uint64_t lower,
                        struct hm_error *err)
{
    if (lower) {
        trainer->floor = lower;
        return HM_OK;
    }
    trainer->floor = 1;
    if (bigrams->used <= trainer->wanted)
        return HM_OK;
    uint64_t *count = hm_bpe_resize(trainer, NULL, 0, bigrams->used * sizeof(*count), err);
    if (!count)
        return err->code;
    size_t n = 0;
    for (size_t i = 0; i < bigrams->size; i++)
        if (bigrams->entry[i].key)
            count[n++] = bigrams->entry[i].count;
    qsort(count, n, sizeof(*count), count_order);
    if (count[trainer->wanted] / FLOOR_DIVISOR > 1)
        trainer->floor = count[trainer->wanted] / FLOOR_DIVISOR;
    hm_bpe_drop(trainer, count, bigrams->used * sizeof(*count));
    return HM_OK;
}

/* The pairs of characters that reach the floor, in the order of their keys. */
static int first_pairs(struct bpe_trainer *trainer, const struct bigrams *bigrams,
                       struct hm_error *err)
{
    for (size_t i = 0; i < bigrams->size; i++) {
        const struct bigram *entry = &bigrams->entry[i];
        uint32_t pair;
        if (entry->key && entry->count >= trainer->floor &&
            hm_bpe_pair_new(trainer, (uint32_t)(entry->key >> 32), (uint32_t)entry->key,
                            entry->count, &pair, err) < 0)
            return err->code;
    }
    return HM_OK;
}

/* Cut one run where a pair was not kept; stretches of two characters and more are counted in `ret`.
 */
static int run_cut(const struct bpe_trainer *trainer, const struct reader *reader,
                   const struct hm_run *run, struct hm_han_counts *ret, struct hm_error *err)
{
    uint32_t start = 0; /* unit where the stretch begins */
    uint32_t length = 0;
    uint32_t previous = 0;

    for (uint32_t i = 0; i < run->n_units;) {
        uint32_t at = i;
        uint32_t symbol = reader->symbol_of[hm_run_code(run->unit, &i)];
        if (previous && !hm_bpe_pair_find(trainer, previous, symbol)) {
            if (length > 1)
                HM_TRY(
                    hm_han_counts_add_units(ret, run->unit + start, at - start, run->count, err));
            start = at;
            length = 0;
        }
        length++;
        previous = symbol;
    }
    if (length > 1)
        HM_TRY(
            hm_han_counts_add_units(ret, run->unit + start, run->n_units - start, run->count, err));
    return HM_OK;
}

static int runs_cut(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                    const struct reader *reader, struct hm_han_counts **ret_cut,
                    struct hm_error *err)
{
    struct hm_han_counts *cut = NULL;
    uint64_t cursor = 0;
    struct hm_run run;
    uint64_t n = 0;

    HM_TRY(hm_han_counts_new(&cut, err));
    if (trainer->limit_bytes)
        hm_han_counts_limit(cut, trainer->limit_bytes > trainer->used_bytes
                                     ? trainer->limit_bytes - trainer->used_bytes
                                     : 1);
    int status = HM_OK;
    while (status == HM_OK && hm_han_counts_next(counts, &cursor, &run)) {
        status = run_cut(trainer, reader, &run, cut, err);
        if (status == HM_OK && n++ % 65536 == 0 && hm_ctl_stopped(trainer->ctl))
            status = hm_fail(err, HM_ERR_STOPPED, "training the vocabulary was stopped");
    }
    if (status == HM_OK)
        status = hm_han_counts_flush(cut, err);
    if (status < 0) {
        hm_han_counts_free(cut);
        return status;
    }
    *ret_cut = cut;
    trainer->used_bytes += hm_han_counts_bytes(cut);
    return HM_OK;
}

int hm_bpe_corpus_load(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    struct reader reader = { 0 };
    struct bigrams bigrams = { 0 };
    struct hm_han_counts *cut = NULL;
    uint64_t cut_bytes = 0;
    int status = reader_init(trainer, &reader, err);

    if (status == HM_OK)
        status = bigrams_count(trainer, counts, &reader, &bigrams, err);
    if (status == HM_OK)
        status = floor_choose(trainer, &bigrams, lower, err);
    if (status == HM_OK)
        status = first_pairs(trainer, &bigrams, err);
    hm_bpe_drop(trainer, bigrams.entry, bigrams.size * sizeof(*bigrams.entry));
    if (status == HM_OK && trainer->floor > 1) {
        status = runs_cut(trainer, counts, &reader, &cut, err);
        cut_bytes = status == HM_OK ? hm_han_counts_bytes(cut) : 0;
    }
    if (status == HM_OK)
        status = hm_bpe_slots_fill(trainer, cut ? cut : counts, reader.symbol_of, err);
    hm_han_counts_free(cut);
    trainer->used_bytes -= cut_bytes;
    reader_release(trainer, &reader);
    return status;
}
