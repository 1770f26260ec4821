/* SPDX-License-Identifier: MIT */
/*
 * tokenizer.json of byte-level BPE (GPT-2, Llama-3, Qwen, DeepSeek): ids equal those of the
 * tokenizers library's encode without special tokens around. A component that cannot be read
 * exactly is refused by name. Private to vocab/. Thread class: encode is thread safe after open.
 */
#ifndef HANMIX_VOCAB_HF_TOKENIZER_H
#define HANMIX_VOCAB_HF_TOKENIZER_H

#include "added_tokens.h"
#include "byte_bpe.h"
#include "pre_tokenizer.h"

struct hm_hf_tokenizer {
    struct hm_added_tokens added;
    struct hm_pre_tokenizer pre_tokenizer;
    struct hm_byte_bpe bpe;
    bool nfc;     /* text is normalised */
    size_t count; /* largest id, of added tokens too, + 1 */
};

/* `what` names the file in errors. */
int hm_hf_tokenizer_read(const json_t *root, const char *what,
                         struct hm_hf_tokenizer **ret_tokenizer, struct hm_error *err);
int hm_hf_tokenizer_parse(struct hm_str text, const char *what,
                          struct hm_hf_tokenizer **ret_tokenizer, struct hm_error *err);
void hm_hf_tokenizer_free(struct hm_hf_tokenizer *tokenizer);
/* Appends. A malformed byte is read as U+FFFD. */
int hm_hf_tokenizer_encode(const struct hm_hf_tokenizer *tokenizer, struct hm_str text,
                           struct hm_ids *ids, struct hm_error *err);
/* The bytes of an id, those of an added token too; empty when there is none. */
struct hm_str hm_hf_tokenizer_text(const struct hm_hf_tokenizer *tokenizer, size_t id,
                                   bool *ret_special);

#endif
