/* SPDX-License-Identifier: MIT */
/*
 * The pre_tokenizer of a byte-level tokenizer.json: steps, each of which cuts what the one before
 * left, down to words. Split, Digits and Punctuation in any number, ByteLevel last. Private to
 * vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_PRE_TOKENIZER_H
#define HANMIX_VOCAB_PRE_TOKENIZER_H

#include "hanmix/base/json.h"
#include "split_pattern.h"

#define HM_PRE_MAX_STEPS 16u

enum hm_pre_kind { HM_PRE_PATTERN, HM_PRE_LITERAL, HM_PRE_DIGITS, HM_PRE_PUNCTUATION };
enum hm_pre_behavior { /* what becomes of a match */
                       HM_PRE_ISOLATED,
                       HM_PRE_REMOVED,
                       HM_PRE_CONTIGUOUS,
                       HM_PRE_WITH_PREVIOUS,
                       HM_PRE_WITH_NEXT
};
struct hm_pre_step {
    enum hm_pre_kind kind;
    enum hm_pre_behavior behavior;
    bool invert;
    struct hm_split_pattern *pattern;
    char *literal; /* owned */
};
struct hm_pre_tokenizer {
    struct hm_pre_step step[HM_PRE_MAX_STEPS];
    size_t n_steps;
    bool add_prefix_space;          /* of ByteLevel */
    struct hm_split_pattern *words; /* of ByteLevel with use_regex */
};

/* value: the "pre_tokenizer" of `what`. */
int hm_pre_tokenizer_make(const json_t *value, const char *what,
                          struct hm_pre_tokenizer *ret_pre_tokenizer, struct hm_error *err);
void hm_pre_tokenizer_release(struct hm_pre_tokenizer *pre_tokenizer);
/* Calls word for each word of a text of valid UTF-8. */
int hm_pre_tokenizer_run(const struct hm_pre_tokenizer *pre_tokenizer, struct hm_str text,
                         int (*word)(void *context, struct hm_str word, struct hm_error *err),
                         void *context, struct hm_error *err);

#endif
