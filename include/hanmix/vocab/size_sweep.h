/* SPDX-License-Identifier: MIT */
/*
 * How good vocabularies of many sizes would be, from one pass over held-out text. A BPE vocabulary
 * cut off at a rank does what the whole one does until a merge of a higher rank is its best: so the
 * merges of one run, each with the highest rank met so far, give every cut-off at once. Single
 * characters nest by frequency; only segments that hold one of the disputed ones are run again.
 *
 * Score: ALP (Zheng et al. 2021, "Allocating large vocabulary capacity") = -(tokens / lines) *
 * entropy, natural logarithms, of the unigram distribution of the tokens. Counts are integers, so
 * results do not depend on the number of threads. Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_SIZE_SWEEP_H
#define HANMIX_VOCAB_SIZE_SWEEP_H

#include "hanmix/base/ctl.h"
#include "hanmix/vocab/piece_select.h"

#define HM_SWEEP_RARE 10u /* occurrences below which a piece is called rare */
#define HM_SWEEP_MOST 1024u

struct hm_sweep_point { /* one vocabulary */
    /* asked for: as hm_select_options; LIST is not taken (it nests in nothing) */
    uint64_t pieces, n_singles;
    enum hm_singles rule;
    /* found */
    uint64_t singles, merges;
    uint64_t vocab_size; /* of the tokenizer that vocab.train, or vocab.merge with a base, makes */
    uint64_t tokens, byte_tokens;
    uint64_t rare;                        /* new pieces that occur fewer than HM_SWEEP_RARE times */
    double tokens_per_line, entropy, alp; /* entropy: nats a token */
    double renyi; /* Renyi entropy of order 2.5 over ln(vocab_size) (Zouhar et al. 2023) */
};

struct hm_sweep_text {
    uint64_t documents, lines, chars; /* lines that are not empty; chars in them */
};

/*
 * Fills in the points. trained: at least as many merges as any point needs, else HM_ERR_FORMAT
 * naming both numbers. base, or NULL: the tokenizer the new pieces will join; without it the pieces
 * stand alone, beside the 256 bytes. Lines are encoded one by one, as the tokenizer's library would
 * encode each.
 */
int hm_size_sweep(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                  struct hm_sweep_point *points, size_t n_points, struct hm_text_source *held_out,
                  const struct hm_ctl *ctl, struct hm_sweep_text *ret_text, struct hm_error *err);
/* Heap for so many points and pieces in the largest tokenizer, at most. */
uint64_t hm_size_sweep_bytes(size_t n_points, uint64_t pieces);

#endif
