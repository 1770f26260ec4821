/* SPDX-License-Identifier: MIT */
/*
 * What the rules of the lint share: the models, the list that findings are added to, and the
 * numbers several rules look up. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_LINT_INTERNAL_H
#define HANMIX_VOCAB_LINT_INTERNAL_H

#include "hanmix/vocab/vocab_check.h"

struct lint_run {
    const struct hm_tokenizer *old_tokenizer, *new_tokenizer;
    const struct hm_spm_model *old_model, *new_model;
    const struct hm_spm_model *source; /* NULL when not given */
    bool *dead; /* per id: never formed, told by the rule of pieces that encode to themselves */
    struct hm_lints lints;
};

/* id -1: about the whole. */
int hm_lint_add(struct hm_lints *lints, enum hm_lint_rule rule, struct hm_str piece, int32_t id,
                struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* A normal piece of the new model; -1 otherwise. */
int32_t hm_lint_normal_id(const struct hm_spm_model *model, struct hm_str text);
/* The score of the lowest merge among the old pieces, those of spaces aside; +infinity without
 * any. */
float hm_lint_lowest_old(const struct lint_run *run);

int hm_lint_pieces(struct lint_run *run, struct hm_error *err);   /* duplicate to mixed */
int hm_lint_encoding(struct lint_run *run, struct hm_error *err); /* character to round_trip */
int hm_lint_scores(struct lint_run *run, struct hm_error *err);   /* shadow to inversion */

#endif
