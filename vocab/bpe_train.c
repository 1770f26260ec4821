/* SPDX-License-Identifier: MIT */
/*
 * Exact BPE training: takes the best pair, merges it, again and again. Owns the options, the memory
 * limit, the trainer's life and the result; text, pairs and merging are in bpe_corpus.c,
 * bpe_slots.c, bpe_pairs.c, bpe_places.c and bpe_merge.c. When the guessed floor (see bpe_corpus.c)
 * turns out to lie above the last merge's count, training starts again with a lower one; at floor 1
 * nothing is left out.
 */
#include <inttypes.h>
#include <string.h>

#include "bpe_internal.h"

#define FLOOR_FALL         8u
#define MAX_PIECE_CHARS    255u
#define LOOK_EVERY         16u /* merges between looks at the stop flag, and reports */
#define FIRST_MERGES_BYTES ((uint64_t)8 << 20) /* of pairs that the first merges make */

/* Beside what is used and asked for: pairs may grow to the double once more, slots and lists of
 * places of all text at most, and all that by a half again, for what only the merges will tell. */
int hm_bpe_fail_limit(const struct bpe_trainer *trainer, uint64_t more, struct hm_error *err)
{
    uint64_t used = atomic_load(&trainer->used_bytes) + more;
    uint64_t pairs = trainer->cap_pairs * sizeof(struct bpe_pair) +
                     2 * trainer->pair_table_size * sizeof(struct bpe_pair_key) +
                     trainer->cap_queue * sizeof(struct bpe_queue_entry);
    uint64_t slots = trainer->slot ? 0 : trainer->most_slots * sizeof(uint16_t);
    uint64_t enough = (used + pairs + slots + FIRST_MERGES_BYTES) / 2 * 3;

    return hm_fail(err, HM_ERR_NOFIT,
                   "training %zu merges does not fit in %" PRIu64 " bytes, %" PRIu64
                   " will do: raise the memory limit, ask for fewer pieces or sample the text",
                   trainer->wanted, trainer->limit_bytes, enough);
}

void *hm_bpe_resize(struct bpe_trainer *trainer, void *block, size_t old_bytes, size_t bytes,
                    struct hm_error *err)
{
    uint64_t need = atomic_fetch_add(&trainer->used_bytes, bytes - old_bytes) + bytes - old_bytes;

    if (trainer->limit_bytes && need > trainer->limit_bytes) {
        atomic_fetch_sub(&trainer->used_bytes, bytes - old_bytes);
        hm_bpe_fail_limit(trainer, bytes - old_bytes, err);
        return NULL;
    }
    void *grown = hm_realloc(HM_MEM_VOCAB, block, bytes);
    if (!grown) {
        hm_fail_nomem(err, "for %zu bytes of vocabulary training", bytes);
        atomic_fetch_sub(&trainer->used_bytes, bytes - old_bytes);
        return NULL;
    }
    return grown;
}

void hm_bpe_drop(struct bpe_trainer *trainer, void *block, size_t bytes)
{
    if (block)
        atomic_fetch_sub(&trainer->used_bytes, bytes);
    hm_free(block);
}

static void symbols_unload(struct bpe_trainer *trainer)
{
    size_t n = trainer->cap_symbols;

    hm_bpe_drop(trainer, trainer->symbol_of, BPE_CODES * sizeof(uint32_t));
    hm_bpe_drop(trainer, trainer->symbol_first, n * sizeof(uint32_t));
    hm_bpe_drop(trainer, trainer->symbol_len, n);
    hm_bpe_drop(trainer, trainer->width, n);
    hm_bpe_drop(trainer, trainer->symbol_count, n * sizeof(uint64_t));
    hm_bpe_drop(trainer, trainer->code, trainer->cap_codes * sizeof(uint32_t));
    hm_bpe_drop(trainer, trainer->string_table, trainer->string_size * sizeof(uint32_t));
    for (int side = 0; side < 2; side++) {
        hm_bpe_drop(trainer, trainer->side[side], n * sizeof(struct bpe_side));
        hm_bpe_drop(trainer, trainer->touched[side], n * sizeof(uint32_t));
    }
}

void *hm_bpe_zeroed(struct bpe_trainer *trainer, size_t bytes, struct hm_error *err)
{
    void *block = hm_bpe_resize(trainer, NULL, 0, bytes, err);

    if (block)
        memset(block, 0, bytes);
    return block;
}

/* Room for all characters and merges, and the scratch that is indexed by symbol. */
static int symbols_load(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                        struct hm_error *err)
{
    size_t n_chars = hm_han_counts_totals(counts).distinct_characters;
    size_t n = n_chars + trainer->wanted + 1;
    bool whole = true;

    if (n > UINT32_MAX)
        return hm_fail(err, HM_ERR_USAGE, "%zu merges are more than can be numbered",
                       trainer->wanted);
    trainer->n_chars = (uint32_t)n_chars;
    trainer->cap_symbols = n;
    trainer->cap_codes = n_chars + 1;
    whole =
        whole && (trainer->symbol_of = hm_bpe_zeroed(trainer, BPE_CODES * sizeof(uint32_t), err));
    whole = whole && (trainer->symbol_first = hm_bpe_zeroed(trainer, n * sizeof(uint32_t), err));
    whole = whole && (trainer->symbol_len = hm_bpe_zeroed(trainer, n, err));
    whole = whole && (trainer->width = hm_bpe_zeroed(trainer, n, err));
    whole = whole && (trainer->symbol_count = hm_bpe_zeroed(trainer, n * sizeof(uint64_t), err));
    whole =
        whole && (trainer->code = hm_bpe_zeroed(trainer, (n_chars + 1) * sizeof(uint32_t), err));
    for (int side = 0; side < 2; side++) {
        whole = whole &&
                (trainer->side[side] = hm_bpe_zeroed(trainer, n * sizeof(struct bpe_side), err));
        whole =
            whole && (trainer->touched[side] = hm_bpe_zeroed(trainer, n * sizeof(uint32_t), err));
    }
    return whole ? hm_bpe_characters_count(trainer, counts, err) : err->code;
}

static int stop_look(struct bpe_trainer *trainer, struct hm_error *err)
{
    if (hm_ctl_stopped(trainer->ctl))
        return hm_fail(err, HM_ERR_STOPPED, "vocabulary training was stopped");
    return HM_OK;
}

static void progress_tell(const struct bpe_trainer *trainer, const char *detail)
{
    struct hm_progress progress = { .what = "train",
                                    .unit = "merges",
                                    .done = trainer->n_symbols - trainer->n_chars,
                                    .total = trainer->wanted,
                                    .detail = detail };

    hm_ctl_progress(trainer->ctl, &progress);
}

/* Apply the merge of the best pair; find its places first when it is not listed. */
static int merge_make(struct bpe_trainer *trainer, uint32_t pair, struct hm_error *err)
{
    if (hm_bpe_merge_reserve(trainer, &pair, err) < 0) {
        if (err->code != HM_ERR_NOFIT)
            return err->code;
        hm_bpe_places_drop(trainer);
        HM_TRY(hm_bpe_merge_reserve(trainer, &pair, err));
    }
    if (!trainer->pair[pair].position) {
        progress_tell(trainer, "looking through the text");
        HM_TRY(hm_bpe_places_find(trainer, &pair, err));
    }
    return hm_bpe_merge_apply(trainer, pair, err);
}

/* Merge until all are made or no pair reaches the floor. */
static int merges_make(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                       uint64_t lower, struct hm_error *err)
{
    uint32_t pair;

    trainer->n_symbols = trainer->n_chars;
    trainer->n_codes = trainer->n_chars + 1;
    if (trainer->string_table)
        memset(trainer->string_table, 0, trainer->string_size * sizeof(uint32_t));
    if (hm_bpe_corpus_load(trainer, counts, lower, err) < 0)
        return err->code;
    for (size_t step = 0; trainer->n_symbols - trainer->n_chars < trainer->wanted &&
                          (pair = hm_bpe_pair_best(trainer)) != 0;
         step++) {
        if (step % LOOK_EVERY == 0) {
            HM_TRY(stop_look(trainer, err));
            progress_tell(trainer, NULL);
        }
        if (merge_make(trainer, pair, err) < 0)
            return err->code;
    }
    if (trainer->n_symbols - trainer->n_chars == trainer->wanted)
        progress_tell(trainer, NULL);
    return HM_OK;
}

static int pieces_copy(const struct bpe_trainer *trainer, struct hm_bpe_result *result,
                       struct hm_error *err)
{
    size_t n_symbols = trainer->n_symbols;
    char *text = hm_alloc(HM_MEM_VOCAB, 4 * trainer->n_codes);

    result->n_merges = n_symbols - trainer->n_chars;
    result->whole = result->n_merges < trainer->wanted;
    result->n_singles = trainer->n_chars;
    result->storage = text;
    result->merge = hm_calloc(HM_MEM_VOCAB, result->n_merges, sizeof(struct hm_bpe_piece));
    result->single = hm_calloc(HM_MEM_VOCAB, result->n_singles, sizeof(struct hm_bpe_piece));
    if (!text || !result->merge || !result->single)
        return hm_fail_nomem(err, "for %zu pieces", n_symbols);
    for (size_t symbol = 1; symbol <= n_symbols; symbol++) {
        bool single = symbol <= trainer->n_chars;
        struct hm_bpe_piece *piece =
            single ? &result->single[symbol - 1] : &result->merge[symbol - trainer->n_chars - 1];
        piece->text.ptr = text;
        piece->count = trainer->symbol_count[symbol];
        piece->single = single;
        for (uint32_t i = 0; i < trainer->symbol_len[symbol]; i++)
            text += hm_utf8_encode(trainer->code[trainer->symbol_first[symbol] + i], text);
        piece->text.len = (size_t)(text - piece->text.ptr);
    }
    return HM_OK;
}

static int train(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                 struct hm_error *err)
{
    uint64_t lower = 0;

    if (symbols_load(trainer, counts, err) < 0)
        return err->code;
    for (;;) {
        int status = merges_make(trainer, counts, lower, err);
        hm_bpe_pairs_unload(trainer);
        hm_bpe_slots_unload(trainer);
        size_t made = trainer->n_symbols - trainer->n_chars;
        if (status < 0)
            return status;
        if (made == trainer->wanted || (trainer->floor == 1 && trainer->allow_fewer))
            return HM_OK;
        if (trainer->floor == 1)
            return hm_fail(
                err, HM_ERR_FORMAT,
                "the text has only %zu distinct pairs to merge and %zu merges were asked "
                "for: ask for fewer pieces or add text",
                made, trainer->wanted);
        lower = trainer->floor > FLOOR_FALL ? trainer->floor / FLOOR_FALL : 1;
    }
}

int hm_bpe_train(const struct hm_han_counts *counts, const struct hm_bpe_options *options,
                 const struct hm_ctl *ctl, struct hm_bpe_result *ret_result, struct hm_error *err)
{
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    struct bpe_trainer trainer = { .ctl = ctl,
                                   .limit_bytes = options->memory_bytes,
                                   .used_bytes = hm_han_counts_bytes(counts),
                                   .max_chars = options->max_piece_chars,
                                   .wanted = options->merges,
                                   .most_slots = 2 * totals.han_characters,
                                   .list_limit = options->list_bytes,
                                   .allow_fewer = options->allow_fewer };
    struct hm_bpe_result result = { 0 };
    struct hm_error local = { 0 };

    if (!err)
        err = &local;
    if (options->max_piece_chars < 2 || options->max_piece_chars > MAX_PIECE_CHARS)
        return hm_fail(err, HM_ERR_USAGE,
                       "max_piece_chars is %" PRIu32 ": it must be from 2 to %" PRIu32,
                       options->max_piece_chars, MAX_PIECE_CHARS);
    if (totals.distinct_characters == 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "no Han characters in %" PRIu64 " documents of %" PRIu64
                       " bytes: is this Chinese text, and is the field right?",
                       totals.documents, totals.bytes);
    int status = train(&trainer, counts, err);
    if (status == HM_OK)
        status = pieces_copy(&trainer, &result, err);
    symbols_unload(&trainer);
    if (status == HM_OK)
        *ret_result = result;
    else
        hm_bpe_result_release(&result);
    return status;
}

void hm_bpe_result_release(struct hm_bpe_result *result)
{
    if (!result)
        return;
    hm_free(result->merge);
    hm_free(result->single);
    hm_free(result->storage);
    *result = (struct hm_bpe_result){ 0 };
}
