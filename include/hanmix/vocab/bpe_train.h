/* SPDX-License-Identifier: MIT */
/*
 * Exact BPE training on Han runs: the merges of sentencepiece 0.2.3 in the same order (specs: pair
 * count, then fewer characters, then UTF-8 byte order; same-character runs by 0.2.3's rule; length
 * cap; a string that exists is skipped). han_runs.c cuts documents into runs by the library's
 * script table and aggregates equal runs with 64-bit counts.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_BPE_TRAIN_H
#define HANMIX_VOCAB_BPE_TRAIN_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/json.h"
#include "hanmix/base/str.h"
#include "hanmix/base/text.h"

bool hm_is_han_class(uint32_t code); /* Han, Hiragana, Katakana, U+30FC by the library's table */
bool hm_is_ideograph(uint32_t code); /* CJK ideographs, the code points that make a piece "Han" */
/* Punctuation that Chinese text alone uses: 、。，．：；？！ and brackets, full width; no “”‘’—…·.
 */
bool hm_is_han_mark(uint32_t code);

struct hm_han_counts; /* aggregated runs, character counts, totals */
int hm_han_counts_new(struct hm_han_counts **ret_counts, struct hm_error *err);
/* Before anything is added: runs hold Chinese punctuation too, as if it were of the Han class. */
void hm_han_counts_take_marks(struct hm_han_counts *counts);
/* Whether a character is one of runs. */
bool hm_han_counts_takes(const struct hm_han_counts *counts, uint32_t code);
void hm_han_counts_free(struct hm_han_counts *counts);
int hm_han_counts_add(struct hm_han_counts *counts, struct hm_str document, struct hm_error *err);
int hm_han_counts_add_run(struct hm_han_counts *counts, struct hm_str run, uint64_t count,
                          struct hm_error *err);
/* All documents of a source, in parallel; the counts are those of hm_han_counts_add one by one. */
int hm_han_counts_read(struct hm_han_counts *counts, struct hm_text_source *source,
                       const struct hm_ctl *ctl, struct hm_error *err);
/* beyond it adding is HM_ERR_NOFIT; 0 = none */
void hm_han_counts_limit(struct hm_han_counts *counts, uint64_t bytes);
uint64_t hm_han_counts_bytes(const struct hm_han_counts *counts); /* memory held now */
/*
 * Runs that outgrow memory go to scratch files in a folder of their own run; the trainer reads them
 * from there, with the same merges and counts.
 */
struct hm_han_spill_options {
    const char *dir;     /* exists; all names there that begin with "counting." are taken */
    const char *key;     /* what the counts are of: others are not taken up again */
    uint64_t hold_bytes; /* runs held in memory before they go to the disk */
};
/* Before anything is added. */
int hm_han_counts_spill(struct hm_han_counts *counts, const struct hm_han_spill_options *options,
                        struct hm_error *err);
/* All is added: what went to the disk is whole there, and recorded with note (may be NULL). */
int hm_han_counts_end(struct hm_han_counts *counts, json_t *note, struct hm_error *err);
/* After hm_han_counts_spill: what an earlier process counted of the same key is taken up, with its
 * note (NULL: not wanted); else what it left is removed. */
int hm_han_counts_resume(struct hm_han_counts *counts, bool *ret_resumed, json_t **ret_note,
                         struct hm_error *err);
/* Whether a folder holds a first pass that is whole; remove all scratch files of a folder. */
bool hm_han_spill_whole(const char *dir);
int hm_han_spill_remove(const char *dir, struct hm_error *err);
/* Runs held in memory go to the disk now; false: there is nowhere to go, or they are there. */
int hm_han_counts_unload(struct hm_han_counts *counts, json_t *note, bool *ret_unloaded,
                         struct hm_error *err);
struct hm_han_spilled { /* so far; all 0 when memory sufficed */
    uint64_t spilled_bytes, partitions, splits, passes;
};
struct hm_han_spilled hm_han_counts_spilled(const struct hm_han_counts *counts);
struct hm_han_totals {
    uint64_t documents, bytes, characters, han_characters, runs, distinct_characters;
};
struct hm_han_totals hm_han_counts_totals(const struct hm_han_counts *counts);

struct hm_bpe_piece {
    struct hm_str text; /* owned by the result */
    uint64_t count;     /* pair count when merged, or character count */
    bool single;
};
struct hm_bpe_result {
    struct hm_bpe_piece *merge; /* in merge order */
    size_t n_merges;
    bool whole;                  /* the text has no pair left to merge */
    struct hm_bpe_piece *single; /* most frequent first, ties by code point */
    size_t n_singles;
    void *storage;
};
struct hm_bpe_options {
    size_t merges;            /* wanted */
    uint32_t max_piece_chars; /* 8 */
    uint64_t memory_bytes;    /* 0 = no limit; more would be needed: HM_ERR_NOFIT */
    /* bound of the lists of places, which speed the work: the same merges with any; 0: what the
     * limit leaves */
    uint64_t list_bytes;
    bool allow_fewer; /* a text with fewer pairs gives what it has, instead of an error */
};
/* Fewer distinct pairs than merges: HM_ERR_FORMAT naming both numbers. */
int hm_bpe_train(const struct hm_han_counts *counts, const struct hm_bpe_options *options,
                 const struct hm_ctl *ctl, struct hm_bpe_result *ret_result, struct hm_error *err);
void hm_bpe_result_release(struct hm_bpe_result *result);

#endif
