/* SPDX-License-Identifier: MIT */
/*
 * Where a text may be cut without changing its encoding: between two characters that stand side by
 * side in no piece. No piece can span such a place, so BPE on both sides is independent. Exact for
 * any BPE vocabulary under an identity normaliser. Private to vocab/. Thread class: immutable.
 */
#ifndef HANMIX_VOCAB_SPAN_CUT_H
#define HANMIX_VOCAB_SPAN_CUT_H

#include "hanmix/vocab/spm_model.h"

struct hm_span_cuts {
    uint64_t *slot; /* pairs of characters inside pieces, open addressing; 0 is empty */
    size_t mask;
};

int hm_span_cuts_make(const struct hm_spm_model *model, struct hm_span_cuts *ret_cuts,
                      struct hm_error *err);
void hm_span_cuts_release(struct hm_span_cuts *cuts);

/* The first place at or after `from` (> 0) where text may be cut; text.len when there is none. */
size_t hm_span_cut_find(const struct hm_span_cuts *cuts, struct hm_str text, size_t from);

/* Whether some piece holds the characters a, b in a row (' ' counts as U+2581). */
bool hm_span_joins(const struct hm_span_cuts *cuts, uint32_t a, uint32_t b);

#endif
