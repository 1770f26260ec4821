/* SPDX-License-Identifier: MIT */
/*
 * The merges of a BPE vocabulary as pairs of pieces: every way to split a piece into two pieces,
 * best score first. SentencePiece accepts any split, so all are listed. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_MERGE_PAIRS_H
#define HANMIX_VOCAB_MERGE_PAIRS_H

#include "hanmix/vocab/spm_model.h"

struct hm_merge_pair {
    int32_t left, right, result; /* ids */
    uint32_t left_chars, right_chars;
};

struct hm_merge_pairs {
    struct hm_merge_pair *pair;
    size_t count;
};

/* Pairs whose result has an id of first_result or more; only normal pieces merge. */
int hm_merge_pairs_make(const struct hm_spm_model *model, int32_t first_result,
                        struct hm_merge_pairs *ret_pairs, struct hm_error *err);
void hm_merge_pairs_release(struct hm_merge_pairs *pairs);

#endif
