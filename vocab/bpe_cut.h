/* SPDX-License-Identifier: MIT */
/*
 * What is left of the runs for the trainer, in memory or in files. Private to vocab/bpe_*.c.
 */
#ifndef HANMIX_VOCAB_BPE_CUT_H
#define HANMIX_VOCAB_BPE_CUT_H

#include "cut_parts.h"

struct bpe_cut {              /* {0} is fine to release */
    struct hm_han_sums *sums; /* owns the budget of the parts too */
    struct cut_parts *parts;  /* NULL: all is in the sums */
};

/* Stretches of runs that hold every place of an existing pair, and few others. err is not NULL. */
int hm_bpe_runs_cut(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                    struct bpe_cut *ret_cut, struct hm_error *err);
struct bpe_segments hm_bpe_cut_segments(struct bpe_cut *cut);
void hm_bpe_cut_release(struct bpe_cut *cut);

/* spill_resume.c: parts that are whole, for a later process; forgotten before they are made anew.
 */
int hm_spill_cut_save(const struct han_spill *spill, const struct cut_parts *parts, uint64_t floor,
                      struct hm_error *err);
void hm_spill_cut_forget(const struct han_spill *spill);
/* The floor of those there; 0 = none. */
uint64_t hm_spill_cut_floor(const struct han_spill *spill);
/* Those of that floor; *ret_parts NULL: there are none. */
int hm_spill_cut_load(const struct han_spill *spill, struct hm_han_budget *budget, uint64_t floor,
                      struct cut_parts **ret_parts, struct hm_error *err);

#endif
