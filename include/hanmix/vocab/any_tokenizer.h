/* SPDX-License-Identifier: MIT */
/*
 * A tokenizer of any readable kind, as far as counting goes: text to ids and back, and what each id
 * holds. Packing, checking and merging take SentencePiece's kinds alone (tokenizer.h).
 * Thread class: encode is thread safe after open.
 */
#ifndef HANMIX_VOCAB_ANY_TOKENIZER_H
#define HANMIX_VOCAB_ANY_TOKENIZER_H

#include "hanmix/vocab/tokenizer.h"

enum hm_token_trait {
    HM_TOKEN_BYTE = 1,    /* one byte of a character, or bytes that hold no whole one */
    HM_TOKEN_UNKNOWN = 2, /* stands for text that is lost */
    HM_TOKEN_PIECE = 4,   /* a piece of text, not a byte or a control symbol */
    HM_TOKEN_PREFIX = 8,  /* begins with U+2581, which may be the dummy prefix */
};
struct hm_token_facts {
    uint16_t chars, han; /* whole characters in it, and Han characters among them */
    uint8_t traits;
};
struct hm_any_tokenizer {
    struct hm_tokenizer *spm;     /* one of the two */
    struct hm_hf_tokenizer *hf;   /* private to vocab/ */
    struct hm_token_facts *facts; /* [count] */
    size_t count;                 /* of ids */
    bool dummy_prefix;            /* a space before every text counts as a character of no text */
    uint64_t json_bytes;          /* of a tokenizer.json, 0 for others */
    const char *kind;             /* "SentencePiece BPE" */
};

/* path: a .model file, a tokenizer.json, or a folder with one of them; tokenizer.model is taken
 * where both are. */
int hm_any_tokenizer_open(const char *path, struct hm_any_tokenizer **ret_tokenizer,
                          struct hm_error *err);
void hm_any_tokenizer_free(struct hm_any_tokenizer *tokenizer);
/* appends */
int hm_any_tokenizer_encode(const struct hm_any_tokenizer *tokenizer, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err);
/* The bytes of an id below count as the vocabulary has them; borrowed from the tokenizer. */
struct hm_str hm_any_tokenizer_text(const struct hm_any_tokenizer *tokenizer, size_t id);
/* Appends; ids: below count. Bytes of a tokenizer.json come as they are, whole characters or not.
 */
int hm_any_tokenizer_decode(const struct hm_any_tokenizer *tokenizer, const int32_t *ids, size_t n,
                            struct hm_buf *text, struct hm_error *err);
/* Whether the first ids of `longer` are all those of `base`, of the same text and kind. */
bool hm_any_tokenizer_extends(const struct hm_any_tokenizer *longer,
                              const struct hm_any_tokenizer *base);

#endif
