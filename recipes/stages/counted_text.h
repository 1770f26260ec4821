/* SPDX-License-Identifier: MIT */
/*
 * Counted text for stages that learn merges: files .tsv and .tsv.zst of an input, each line a text,
 * a tab and how often the text occurs. Its Han runs enter the counts that many times. Glue only;
 * owner thread.
 */
#ifndef HANMIX_RECIPES_COUNTED_TEXT_H
#define HANMIX_RECIPES_COUNTED_TEXT_H

#include "hanmix/vocab/bpe_train.h"
#include "stage_util.h"

/* All counted files of the input; report.counted_text when there are any. Bad lines are held
 * against text->max_bad_lines; sampling and dedup are refused, for counts are not documents. */
int hm_stage_counted_add(const struct hm_stage_run *run, const char *name,
                         const struct stage_text *text, struct hm_han_counts *counts,
                         struct hm_error *err);

#endif
