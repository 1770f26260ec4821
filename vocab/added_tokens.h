/* SPDX-License-Identifier: MIT */
/*
 * Added tokens of a tokenizer.json: found in text before anything else, leftmost and longest, as
 * the tokenizers library does. Private to vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_ADDED_TOKENS_H
#define HANMIX_VOCAB_ADDED_TOKENS_H

#include "hanmix/base/json.h"

struct hm_added_token {
    char *content; /* owned */
    size_t len;
    int32_t id;
    bool lstrip, rstrip, normalized, special;
};
struct hm_added_tokens {
    struct hm_added_token *token; /* by first byte, then length, longest first */
    size_t count;
    uint32_t first[2][257]; /* [normalized] tokens that begin with a byte: from, and to the next */
};

/* value: "added_tokens" of `what`; absent is none. */
int hm_added_tokens_make(const json_t *value, const char *what, struct hm_added_tokens *ret_tokens,
                         struct hm_error *err);
/* Orders them anew, after contents changed. */
int hm_added_tokens_index(struct hm_added_tokens *tokens, const char *what, struct hm_error *err);
void hm_added_tokens_release(struct hm_added_tokens *tokens);
/* Cut text at the tokens that are (not) looked for in normalised text; gap is called for what lies
 * between, token for each. */
struct hm_added_sink {
    int (*gap)(void *context, struct hm_str text, struct hm_error *err);
    int (*token)(void *context, int32_t id, struct hm_error *err);
    void *context;
};
int hm_added_tokens_cut(const struct hm_added_tokens *tokens, bool normalized, struct hm_str text,
                        const struct hm_added_sink *sink, struct hm_error *err);

#endif
