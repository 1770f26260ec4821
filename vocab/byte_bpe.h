/* SPDX-License-Identifier: MIT */
/*
 * Byte-level BPE as tokenizer.json holds it: tokens are strings of bytes, merges are pairs of
 * tokens by rank. A word is merged from its bytes, or found as a whole. Private to vocab/. Thread
 * class: immutable after make.
 */
#ifndef HANMIX_VOCAB_BYTE_BPE_H
#define HANMIX_VOCAB_BYTE_BPE_H

#include "hanmix/base/json.h"
#include "hanmix/base/text.h"
#include "piece_table.h"

struct hm_byte_token {
    size_t first, len; /* in bytes; len 0: no such id, or a token no text reaches */
};
struct hm_byte_whole {
    uint64_t hash; /* of the bytes; 0 is empty */
    int32_t id;
};
struct hm_byte_bpe {
    struct hm_buf bytes;
    struct hm_byte_token *token; /* [count] by id */
    size_t count;                /* largest id + 1 */
    int32_t byte_id[256];        /* -1: none, such bytes are lost */
    struct hm_pair_slot *pair;
    size_t pair_mask;
    unsigned pair_shift;
    struct hm_byte_whole *whole; /* words that are one token */
    size_t whole_mask;
    bool ignore_merges; /* every token is a word, however it merges */
};

/* model: the "model" object of `what`, a BPE model. */
int hm_byte_bpe_make(const json_t *model, const char *what, struct hm_byte_bpe *ret_bpe,
                     struct hm_error *err);
void hm_byte_bpe_release(struct hm_byte_bpe *bpe);
/* Appends. */
int hm_byte_bpe_word(const struct hm_byte_bpe *bpe, struct hm_str word, struct hm_ids *ids,
                     struct hm_error *err);
struct hm_str hm_byte_bpe_token(const struct hm_byte_bpe *bpe, size_t id);

#endif
