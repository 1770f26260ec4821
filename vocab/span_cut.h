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
    unsigned shift; /* 64 - log2 of the number of slots */
};

/* BPE whose normaliser only writes U+2581 for a space: for it a cut changes nothing. */
bool hm_span_cuts_exact(const struct hm_spm_model *model);
int hm_span_cuts_make(const struct hm_spm_model *model, struct hm_span_cuts *ret_cuts,
                      struct hm_error *err);
void hm_span_cuts_release(struct hm_span_cuts *cuts);

/* The first place at or after `from` (> 0) where text may be cut; text.len when there is none. */
size_t hm_span_cut_find(const struct hm_span_cuts *cuts, struct hm_str text, size_t from);

/* Two code points in a row, ' ' taken for U+2581; never 0. */
static inline uint64_t hm_span_pair(uint32_t a, uint32_t b)
{
    a = a == ' ' ? HM_SPM_SPACE_CODE : a;
    b = b == ' ' ? HM_SPM_SPACE_CODE : b;
    return (uint64_t)a << 32 | b | 1ull << 63;
}

/* Where pair stands, or the empty slot where it would. */
static inline size_t hm_span_slot(const struct hm_span_cuts *cuts, uint64_t pair)
{
    size_t slot = (size_t)(pair * 0x9e3779b97f4a7c15u >> cuts->shift);

    while (cuts->slot[slot] != 0 && cuts->slot[slot] != pair)
        slot = (slot + 1) & cuts->mask;
    return slot;
}

/* Whether some piece holds the characters a, b in a row. */
static inline bool hm_span_joins(const struct hm_span_cuts *cuts, uint32_t a, uint32_t b)
{
    return cuts->slot[hm_span_slot(cuts, hm_span_pair(a, b))] != 0;
}

#endif
