/* SPDX-License-Identifier: MIT */
/*
 * What a tokenizer.json of SentencePiece's kind does to text before it is merged: added tokens are
 * cut out, and U+2581 is put before what is left, as the file says. Spaces themselves are left to
 * the encoder. Private to vocab/. Thread class: immutable after hm_text_before_ready.
 */
#ifndef HANMIX_VOCAB_TEXT_BEFORE_H
#define HANMIX_VOCAB_TEXT_BEFORE_H

#include "added_tokens.h"

enum hm_metaspace { HM_METASPACE_NONE, HM_METASPACE_FIRST, HM_METASPACE_ALWAYS };
struct hm_text_before {
    struct hm_added_tokens added;
    bool prepend, replace;       /* by the normalizer: U+2581 before text, and for spaces */
    enum hm_metaspace metaspace; /* U+2581 before the first or every text that has none yet */
};

/* Added tokens that are normalized are looked for as the normalizer leaves them. */
int hm_text_before_ready(struct hm_text_before *rule, const char *what, struct hm_error *err);
void hm_text_before_free(struct hm_text_before *rule);

struct hm_before_sink {
    /* text without added tokens; prefix: U+2581 stands before it */
    int (*part)(void *context, bool prefix, struct hm_str text, struct hm_error *err);
    int (*token)(void *context, int32_t id, struct hm_error *err);
    void *context;
};
int hm_text_before_cut(const struct hm_text_before *rule, struct hm_str text,
                       const struct hm_before_sink *sink, struct hm_error *err);

#endif
