/* SPDX-License-Identifier: MIT */
/*
 * Which experts get the tokens: counts of the last evaluation (of the last step when nothing is
 * evaluated), so that a run that was stopped and continued tells the same; written as CSV and SVG.
 */
#ifndef HANMIX_RECIPES_EXPERT_LOAD_H
#define HANMIX_RECIPES_EXPERT_LOAD_H

#include "hanmix/model/model.h"

struct expert_load {
    struct hm_model *model; /* borrowed; NULL for a dense model: nothing is counted */
    uint64_t *counts;       /* [2][L][E], owned: what is told, and what was last taken */
    bool evaluated;         /* counts are those of an evaluation */
};

int hm_expert_load_open(struct hm_model *model, struct expert_load *ret_load, struct hm_error *err);
void hm_expert_load_release(struct expert_load *load);
/* Take the counts since the last call, after a step or after an evaluation. */
void hm_expert_load_take(struct expert_load *load, bool evaluation);
/* plots_dir/expert_load.csv and .svg: the share of a layer's tokens that each expert got. */
int hm_expert_load_write(const struct expert_load *load, const char *plots_dir,
                         struct hm_error *err);

#endif
