/* SPDX-License-Identifier: MIT */
/*
 * What measuring gathers (efficiency.c) and what becomes its result (efficiency_result.c).
 * Private to vocab/. Thread class: owner thread, but for parallel loops over documents.
 */
#ifndef HANMIX_VOCAB_EFFICIENCY_INTERNAL_H
#define HANMIX_VOCAB_EFFICIENCY_INTERNAL_H

#include "hanmix/vocab/efficiency.h"
#include "resample.h"

struct set_sums {
    char *name;
    bool paired; /* drawn by place within the set, as its pair is */
    uint64_t documents, bytes, chars, han_chars, plain_lines;
    struct hm_token_sums *sums; /* [n_tokenizers] */
    uint64_t *resample;         /* [n_tokenizers][HM_RESAMPLES] tokens */
    uint64_t **seen;            /* [n_tokenizers] bits: ids that occur */
};

struct measured_text { /* all sets together */
    const struct hm_any_tokenizer *const *tokenizers;
    const struct hm_efficiency_options *options;
    bool *extends; /* [n_tokenizers] the first one's ids are its first */
    size_t n_tokenizers;
    struct set_sums *set;
    size_t n_sets;
    uint64_t **count; /* [n_tokenizers] of each id, over all text */
};

/* Words of 64 bits for one bit an id. */
static inline size_t seen_words(const struct hm_any_tokenizer *tokenizer)
{
    return (tokenizer->count + 63) / 64;
}

void hm_token_sums_add(struct hm_token_sums *to, const struct hm_token_sums *from);
int hm_efficiency_result(const struct measured_text *text, struct hm_efficiency *result,
                         struct hm_error *err);

#endif
