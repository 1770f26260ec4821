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
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_cut.h"
#include "hanmix/base/parallel.h"

#define COUNTS_TOLD 65536u /* pair counts told apart when the floor is chosen */
#define KEPT_FIRST  4096u
#define WALKS       16u /* shares of the text */
/* The last of M merges is rarely below a third of the M-th most frequent pair of characters. */
#define FLOOR_DIVISOR 3u

/* --- characters ------------------------------------------------------------------------------- */

struct characters {
    const struct hm_han_counts *counts;
    uint32_t *index; /* [BPE_CODES] of a character met */
    uint64_t *count; /* [WALKS][n] */
    size_t n;
};

static void characters_unit(void *context, size_t number, int worker)
{
    struct characters *characters = context;
    uint64_t *count = characters->count + number * characters->n;
    struct hm_run run;

    (void)worker;
    for (size_t b = number; b < characters->counts->n_blocks; b += WALKS) {
        struct run_block block = hm_han_block(characters->counts, b);
        for (size_t at = 0; hm_run_block_next(&block, &at, &run);)
            for (uint32_t i = 0; i < run.n_units;)
                count[characters->index[hm_run_code(run.unit, &i)]] += run.count;
    }
}

static int character_order(const void *a, const void *b)
{
    const struct han_character *x = a;
    const struct han_character *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->code < y->code ? -1 : x->code > y->code;
}

/* The characters met, in the order of their codes. */
static void characters_find(const struct hm_han_counts *counts, struct characters *characters,
                            struct han_character *list)
{
    uint32_t n = 0;

    for (uint32_t code = 0; code < BPE_CODES; code++)
        if (counts->met[code]) {
            characters->index[code] = n;
            list[n++].code = code;
        }
}

static void characters_rank(struct bpe_trainer *trainer, struct han_character *list, size_t n)
{
    qsort(list, n, sizeof(*list), character_order);
    for (size_t i = 0; i < n; i++) {
        uint32_t symbol = (uint32_t)(i + 1);
        trainer->code[symbol] = list[i].code;
        trainer->symbol_first[symbol] = symbol;
        trainer->symbol_len[symbol] = 1;
        trainer->symbol_count[symbol] = list[i].count;
        trainer->symbol_of[list[i].code] = symbol;
    }
}

/* Of runs in memory, all of them walked. */
static int held_characters(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                           struct han_character *list, struct hm_error *err)
{
    struct characters characters = { .counts = counts,
                                     .index = trainer->symbol_of,
                                     .n = trainer->n_chars };
    size_t bytes = WALKS * characters.n * sizeof(uint64_t);

    characters.count = hm_bpe_zeroed(trainer, bytes, err);
    if (!characters.count)
        return err->code;
    characters_find(counts, &characters, list);
    hm_parallel_for(WALKS, characters_unit, &characters);
    for (size_t i = 0; i < characters.n; i++)
        for (size_t p = 0; p < WALKS; p++)
            list[i].count += characters.count[p * characters.n + i];
    hm_bpe_drop(trainer, characters.count, bytes);
    return HM_OK;
}

int hm_bpe_characters_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                            struct hm_error *err)
{
    const struct han_spill *spill = counts->spill;
    size_t bytes = trainer->n_chars * sizeof(struct han_character);
    struct han_character *list = hm_bpe_zeroed(trainer, bytes, err);
    int status = list ? HM_OK : err->code;

    if (status == HM_OK && spill && spill->whole)
        memcpy(list, spill->character, bytes);
    else if (status == HM_OK)
        status = held_characters(trainer, counts, list, err);
    if (status == HM_OK)
        characters_rank(trainer, list, trainer->n_chars);
    hm_bpe_drop(trainer, list, bytes);
    return status;
}

/* --- pairs of characters ---------------------------------------------------------------------- */

/* Where the counts of pairs are: in a table, or in the file of a spill. */
struct pairs_source {
    const struct pair_table *table; /* NULL: the file */
    const struct han_spill *spill;
};

typedef int pair_visit(void *context, const struct han_pair *pair, struct hm_error *err);

static int pairs_walk(const struct pairs_source *source, pair_visit *each, void *context,
                      struct hm_error *err)
{
    uint64_t cursor = 0;
    struct han_pair pair;

    if (!source->table)
        return hm_spill_pairs_walk(source->spill, each, context, err);
    while (hm_pair_table_next(source->table, &cursor, &pair))
        if (pair.right != 0)
            HM_TRY(each(context, &pair, err));
    return HM_OK;
}

static int count_tell(void *context, const struct han_pair *pair, struct hm_error *err)
{
    uint64_t *pairs_with = context;

    (void)err;
    pairs_with[pair->count < COUNTS_TOLD ? pair->count : COUNTS_TOLD - 1]++;
    return HM_OK;
}

/* A guess, not above `lower` when that is given: from the wanted-th largest count. */
static int floor_choose(struct bpe_trainer *trainer, const struct pairs_source *source,
                        uint64_t lower, struct hm_error *err)
{
    size_t bytes = COUNTS_TOLD * sizeof(uint64_t);
    uint64_t *pairs_with = hm_bpe_zeroed(trainer, bytes, err);
    uint64_t count = COUNTS_TOLD - 1;
    uint64_t above;

    if (!pairs_with)
        return err->code;
    int status = pairs_walk(source, count_tell, pairs_with, err);
    for (above = pairs_with[count]; above <= trainer->wanted && count > 0;
         above += pairs_with[count])
        count--;
    trainer->floor = lower ? lower : count / FLOOR_DIVISOR;
    if (trainer->floor < 1)
        trainer->floor = 1;
    hm_bpe_drop(trainer, pairs_with, bytes);
    return status;
}

struct kept_pair {
    uint64_t key, count; /* left symbol << 32 | right symbol */
};

struct keeping { /* pairs that reach the floor */
    struct bpe_trainer *trainer;
    struct kept_pair *pair;
    size_t n, cap;
};

static int pair_keep(void *context, const struct han_pair *pair, struct hm_error *err)
{
    struct keeping *keeping = context;
    uint64_t left = keeping->trainer->symbol_of[hm_han_code(pair->left)];
    uint64_t right = keeping->trainer->symbol_of[hm_han_code(pair->right)];

    if (pair->count < keeping->trainer->floor)
        return HM_OK;
    if (left == 0 || right == 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "a pair holds a Han character that was not counted: the scratch files are "
                       "damaged");
    if (keeping->n == keeping->cap) {
        size_t cap = keeping->cap ? 2 * keeping->cap : KEPT_FIRST;
        struct kept_pair *grown =
            hm_bpe_resize(keeping->trainer, keeping->pair, keeping->cap * sizeof(*grown),
                          cap * sizeof(*grown), err);
        if (!grown)
            return err->code;
        keeping->pair = grown;
        keeping->cap = cap;
    }
    keeping->pair[keeping->n++] = (struct kept_pair){ left << 32 | right, pair->count };
    return HM_OK;
}

static int kept_order(const void *a, const void *b)
{
    const struct kept_pair *x = a;
    const struct kept_pair *y = b;

    return x->key < y->key ? -1 : x->key > y->key;
}

/* The pairs of characters that reach the floor, in the same order wherever they were counted. */
static int first_pairs(struct bpe_trainer *trainer, const struct pairs_source *source,
                       struct hm_error *err)
{
    struct keeping keeping = { .trainer = trainer };
    int status = pairs_walk(source, pair_keep, &keeping, err);
    uint32_t pair;

    if (status == HM_OK && keeping.n > 0)
        qsort(keeping.pair, keeping.n, sizeof(*keeping.pair), kept_order);
    if (status == HM_OK)
        status = hm_bpe_pairs_reserve(trainer, keeping.n + 1, err);
    for (size_t i = 0; status == HM_OK && i < keeping.n; i++)
        status = hm_bpe_pair_new(trainer, (uint32_t)(keeping.pair[i].key >> 32),
                                 (uint32_t)keeping.pair[i].key, keeping.pair[i].count, &pair, err);
    hm_bpe_drop(trainer, keeping.pair, keeping.cap * sizeof(*keeping.pair));
    return status;
}

/* Runs in memory are walked for their pairs, within what the trainer may still take. */
static int held_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                      struct pair_table *table, struct hm_han_budget *budget, struct hm_error *err)
{
    struct spill_unit unit[HM_SPILL_UNITS];
    uint64_t used = atomic_load(&trainer->used_bytes);

    if (trainer->limit_bytes)
        budget->limit_bytes = trainer->limit_bytes > used ? trainer->limit_bytes - used : 1;
    hm_pair_table_init(table, budget);
    hm_spill_units_init(unit, budget);
    int status = hm_han_held_walk(counts, unit, table, err);
    hm_spill_units_release(unit);
    atomic_fetch_add(&trainer->used_bytes, atomic_load(&budget->used_bytes));
    return status;
}

static int pairs_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    struct pairs_source source = { .spill = counts->spill };
    struct hm_han_budget budget = { 0 };
    struct pair_table table = { 0 };
    int status = HM_OK;

    if (!source.spill || !source.spill->whole) {
        source.table = &table;
        status = held_count(trainer, counts, &table, &budget, err);
    }
    if (status == HM_OK)
        status = floor_choose(trainer, &source, lower, err);
    if (status == HM_OK)
        status = first_pairs(trainer, &source, err);
    if (source.table) {
        atomic_fetch_sub(&trainer->used_bytes, atomic_load(&budget.used_bytes));
        hm_pair_table_release(&table);
    }
    return status;
}

int hm_bpe_corpus_load(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    bool on_disk = counts->spill && counts->spill->whole;
    uint64_t before = on_disk ? hm_spill_cut_floor(counts->spill) : 0;
    struct bpe_cut cut = { 0 };

    /* text that was cut by a lower floor serves as well */
    if (before > 0 && (lower == 0 || before < lower))
        lower = before;
    int status = pairs_count(trainer, counts, lower, err);

    malloc_trim(0);
    if (status == HM_OK)
        status = hm_bpe_runs_cut(trainer, counts, &cut, err);
    uint64_t cut_bytes = cut.sums ? hm_han_sums_bytes(cut.sums) : 0;
    atomic_fetch_add(&trainer->used_bytes, cut_bytes);
    if (status == HM_OK) {
        struct bpe_segments segments = hm_bpe_cut_segments(&cut);
        status = hm_bpe_slots_lay(trainer, &segments, err);
    }
    hm_bpe_cut_release(&cut);
    malloc_trim(0); /* what the limit counts as given back is so */
    atomic_fetch_sub(&trainer->used_bytes, cut_bytes);
    if (status == HM_OK)
        status = hm_bpe_places_list(trainer, err);
    return status;
}
