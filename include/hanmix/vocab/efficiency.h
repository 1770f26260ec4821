/* SPDX-License-Identifier: MIT */
/*
 * Encoding efficiency: tokens per character and friends over named sets, with bootstrap intervals
 * over documents.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_EFFICIENCY_H
#define HANMIX_VOCAB_EFFICIENCY_H

#include "hanmix/base/ctl.h"
#include "hanmix/vocab/tokenizer.h"

struct hm_set_efficiency {
    char *name;
    uint64_t documents, bytes, chars, han_chars, tokens, byte_fallback_tokens, unk_tokens;
    /* against the first tokenizer: 1 - tokens/tokens_first */
    double reduction, reduction_low, reduction_high;
};
struct hm_efficiency {
    struct hm_set_efficiency *cell; /* [n_tokenizers][n_sets] */
    size_t n_tokenizers, n_sets;
};
/* One pass over source for all tokenizers. confidence 0.95; bootstrap 1000 resamples of documents,
 * counter-based by seed. */
int hm_efficiency_measure(struct hm_text_source *source,
                          const struct hm_tokenizer *const *tokenizers, size_t n, double confidence,
                          uint64_t seed, const struct hm_ctl *ctl, struct hm_efficiency *ret_result,
                          struct hm_error *err);
void hm_efficiency_release(struct hm_efficiency *result);

#endif
