/* SPDX-License-Identifier: MIT */
/*
 * What is left of the runs for the trainer, in memory or in files. Private to vocab/bpe_*.c.
 */
#ifndef HANMIX_VOCAB_BPE_CUT_H
#define HANMIX_VOCAB_BPE_CUT_H

#include "cut_parts.h"

struct bpe_cut {                  /* {0} is fine to release */
    struct hm_han_counts *counts; /* owns the budget of the parts too */
    struct cut_parts *parts;      /* NULL: all is in the counts */
};

/* Stretches of runs that hold every place of an existing pair, and few others. err is not NULL. */
int hm_bpe_runs_cut(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                    struct bpe_cut *ret_cut, struct hm_error *err);
struct bpe_segments hm_bpe_cut_segments(struct bpe_cut *cut);
void hm_bpe_cut_release(struct bpe_cut *cut);

#endif
