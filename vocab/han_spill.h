/* SPDX-License-Identifier: MIT */
/*
 * Counting that leaves memory: when the runs of hm_han_counts outgrow what they may hold, all of
 * them go to a file, one after another, and only pairs of characters are counted (han_spill.c).
 * What is whole on the disk can be taken up again by another process (spill_state.c). Private to
 * vocab/.
 */
#ifndef HANMIX_VOCAB_HAN_SPILL_H
#define HANMIX_VOCAB_HAN_SPILL_H

#include "han_counts.h"
#include "han_pairs.h"

#define HM_SPILL_UNITS 8u

/* Names of all scratch files begin so. */
#define HM_SPILL_NAME  "counting."
#define HM_SPILL_RUNS  HM_SPILL_NAME "runs"
#define HM_SPILL_PAIRS HM_SPILL_NAME "pairs"

struct han_character {
    uint32_t code;
    uint64_t count;
};

struct spill_unit { /* pairs of one block */
    struct pair_list pairs;
    struct hm_error err;
};

struct han_spill {
    struct hm_han_spill_options options; /* dir and key are owned */
    bool begun;                          /* runs go to the file */
    bool whole;                          /* all are there, and nothing but this is in memory */
    struct run_file runs;                /* while it is written */
    struct pair_table pairs;
    struct spill_unit unit[HM_SPILL_UNITS];
    /* when whole */
    uint64_t runs_bytes, pairs_bytes, n_pairs;
    struct han_character *character; /* in the order of hm_han_index */
    size_t n_characters;
    struct hm_han_spilled report;
};

/* The pairs of all blocks in memory into the table. err is not NULL, here and below. */
int hm_han_held_walk(const struct hm_han_counts *counts, struct spill_unit *unit,
                     struct pair_table *table, struct hm_error *err);
void hm_spill_units_init(struct spill_unit unit[HM_SPILL_UNITS], struct hm_han_budget *budget);
void hm_spill_units_release(struct spill_unit unit[HM_SPILL_UNITS]);
/* The blocks in memory go to the file of counts whose runs go there. */
int hm_han_spill_blocks(struct hm_han_counts *counts, struct hm_error *err);
/* From now on runs go to the file, those held first. */
int hm_han_spill_begin(struct hm_han_counts *counts, struct hm_error *err);
void hm_han_spill_free(struct hm_han_counts *counts);

/* spill_state.c: every pair of two characters; from the file of a spill that is whole. */
int hm_spill_pairs_walk(const struct han_spill *spill,
                        int (*each)(void *context, const struct han_pair *pair,
                                    struct hm_error *err),
                        void *context, struct hm_error *err);
int hm_spill_characters_read(struct han_spill *spill, struct hm_error *err);
int hm_spill_pairs_save(struct han_spill *spill, struct hm_error *err);

/* spill_resume.c: the first pass is whole. */
int hm_spill_counting_save(const struct hm_han_counts *counts, json_t *note, struct hm_error *err);

#endif
