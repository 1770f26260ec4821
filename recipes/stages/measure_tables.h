/* SPDX-License-Identifier: MIT */
/*
 * What vocab.measure shows: report.json, a table as CSV, Markdown and text, and a picture.
 * Thread class: owner thread.
 */
#ifndef HANMIX_RECIPES_MEASURE_TABLES_H
#define HANMIX_RECIPES_MEASURE_TABLES_H

#include "hanmix/vocab/efficiency.h"
#include "stage_util.h"

struct measured { /* everything the writers need; released by its owner */
    struct hm_any_tokenizer **tokenizer;
    const char **path;
    const char **label; /* the set's name, else the end of the path */
    size_t n_tokenizers;
    const struct hm_parity_pair *parity; /* [result.n_parity] */
    uint64_t *context;                   /* [n_context] lengths in tokens */
    size_t n_context;
    struct hm_efficiency result;
};

int hm_measured_report(const struct hm_stage_run *run, const struct measured *m,
                       struct hm_error *err);
/* efficiency.csv, .md, .txt and .svg */
int hm_measured_write(const struct hm_stage_run *run, const struct measured *m,
                      struct hm_error *err);

#endif
