/* SPDX-License-Identifier: MIT */
/*
 * Learning merges from text, as vocab.train and vocab.sweep share it: counting, training until
 * there are enough merges, and the memory that takes. Glue only; owner thread.
 */
#ifndef HANMIX_RECIPES_STAGE_VOCAB_H
#define HANMIX_RECIPES_STAGE_VOCAB_H

#include "hanmix/vocab/bpe_train.h"
#include "stage_util.h"

#define STAGE_PIECE_CHARS_FIELD(config)                                                    \
    {                                                                                      \
        .name = "max_piece_chars", .type = HM_FIELD_COUNT,                                 \
        .offset = offsetof(config, max_piece_chars), .fallback = "8", .min = 2, .max = 16, \
        .help = "longest piece, in characters"                                             \
    }

/* Runs that are learned from; HM_SCRIPT_HAN_MARKS asks for hm_han_counts_take_marks. */
enum hm_stage_script { HM_SCRIPT_HAN, HM_SCRIPT_HAN_MARKS };
extern const char *const hm_stage_scripts[];
#define STAGE_SCRIPT_FIELD(config)                                                       \
    {                                                                                    \
        .name = "script", .type = HM_FIELD_CHOICE, .offset = offsetof(config, script),   \
        .fallback = "han", .choices = hm_stage_scripts,                                  \
        .help = "text used: han takes runs of Han-class characters; han-marks takes "    \
                "Chinese punctuation among them too, so that pieces such as 的， are " \
                "learned; vocab.merge wants the same script then"                        \
    }

/* A word that is to be read as a count, such as 4000 or 1e4; not yet whether it is one. */
bool hm_stage_is_count(const char *text);

/* Han runs of the input "text"; report.text. */
int hm_stage_runs_count(const struct hm_stage_run *run, const struct stage_text *text,
                        struct hm_han_counts *counts, struct hm_error *err);
/*
 * Merges over characters that are not chosen, and those a base has, are passed over: trains
 * `merges` and then more until `choose` no longer ends with HM_ERR_FORMAT, or the text yields no
 * more.
 */
int hm_stage_train(const struct hm_stage_run *run, const struct stage_text *text,
                   struct hm_han_counts *counts, uint64_t merges, uint32_t max_piece_chars,
                   int (*choose)(void *context, const struct hm_bpe_result *trained,
                                 struct hm_error *err),
                   void *context, struct hm_bpe_result *trained, struct hm_error *err);
/* What went to the disk, into stage.json. */
int hm_stage_spill_report(const struct hm_stage_run *run, const struct hm_han_counts *counts,
                          struct hm_error *err);
/* At the end of a stage: scratch files go, unless a pass that is whole serves the same command. */
void hm_stage_spill_leave(const struct hm_stage_run *run, int status);
#define STAGE_LONG_TEXT_TIMES 4u /* the line, two batches of it, and growing */
/* Into the plan, with what is read; disk_bytes grows by scratch files, when there will be.
 * n_singles: the fewest characters that are chosen by number, 0 where the text decides. */
int hm_stage_train_plan(const struct hm_stage_run *run, const struct stage_text *text,
                        uint64_t pieces, uint64_t n_singles, struct hm_stage_plan *ret_plan,
                        struct hm_error *err);
/* After hm_stage_train_plan: what the stage takes when training has given its memory back. */
int hm_stage_after_train_plan(const struct hm_stage_run *run, const struct stage_text *text,
                              const char *purpose, uint64_t bytes, struct hm_stage_plan *plan,
                              struct hm_error *err);

#endif
