/* SPDX-License-Identifier: MIT */
/*
 * Sums of losses per named set while documents are scored, and what is reported of them. Private to
 * eval/.
 */
#ifndef HANMIX_EVAL_LOSS_SETS_H
#define HANMIX_EVAL_LOSS_SETS_H

#include "bootstrap.h"
#include "hanmix/eval/eval.h"

struct hm_set_sums { /* of one set */
    char *name;
    uint64_t targets, chars;
    struct hm_scored *scored; /* [n_scored], one per document or window */
    size_t n_scored, cap;
};

struct hm_sums {
    struct hm_set_sums *set; /* in order of first appearance */
    size_t count;
};

void hm_sums_release(struct hm_sums *sums);
/* Index of the set of this name, made when it is new. */
int hm_sums_set(struct hm_sums *sums, const char *name, size_t *ret_set, struct hm_error *err);
/* A new document of a set; its losses are added to set[].scored[*ret_at] later. */
int hm_sums_document(struct hm_sums *sums, size_t set, uint64_t bytes, uint64_t chars,
                     size_t *ret_at, struct hm_error *err);
/* One result per set, freed by hm_loss_sets_free. A set without a target is HM_ERR_FORMAT naming
 * it. */
int hm_sums_report(const struct hm_sums *sums, struct hm_loss_set **ret_sets, size_t *ret_n,
                   struct hm_error *err);

#endif
