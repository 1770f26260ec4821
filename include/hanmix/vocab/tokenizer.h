/* SPDX-License-Identifier: MIT */
/*
 * Text to ids and back with a SentencePiece model, or a tokenizer.json of that kind: ids equal
 * sentencepiece's encode(text) without bos and eos, malformed UTF-8 included (each bad byte is read
 * as U+FFFD). Thread class: encode and decode are thread safe after open.
 */
#ifndef HANMIX_VOCAB_TOKENIZER_H
#define HANMIX_VOCAB_TOKENIZER_H

#include "hanmix/base/text.h"
#include "hanmix/vocab/spm_model.h"

struct hm_tokenizer {
    struct hm_spm_model model;
    void *engine; /* owned, private to vocab/tokenizer.c */
};

/* As hm_spm_model_load; and a tokenizer.json of SentencePiece's kind, by its ending or in a folder
 * without tokenizer.model. */
int hm_tokenizer_model_load(const char *path, struct hm_spm_model *ret_model, struct hm_error *err);
/* path: as there. */
int hm_tokenizer_open(const char *path, struct hm_tokenizer **ret_tokenizer, struct hm_error *err);
int hm_tokenizer_open_bytes(struct hm_str model_bytes, const char *what,
                            struct hm_tokenizer **ret_tokenizer, struct hm_error *err);
void hm_tokenizer_free(struct hm_tokenizer *tokenizer);
/* appends */
int hm_tokenizer_encode(const struct hm_tokenizer *tokenizer, struct hm_str text,
                        struct hm_ids *ids, struct hm_error *err);
/* Encode without the dummy prefix: the real subtokens of a piece's surface. */
int hm_tokenizer_encode_bare(const struct hm_tokenizer *tokenizer, struct hm_str text,
                             struct hm_ids *ids, struct hm_error *err);
/* Appends. Meta symbols stand for nothing; an id outside the vocabulary is HM_ERR_FORMAT. */
int hm_tokenizer_decode(const struct hm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                        struct hm_buf *text, struct hm_error *err);
/* NULL: encoded by our own BPE encoder; else why libsentencepiece does it, the end of a sentence.
 */
const char *hm_tokenizer_obstacle(const struct hm_spm_model *model);
/* Encodes text by libsentencepiece, of a text longer than 4 MB what comes before the next place
 * where it may be cut; HM_ERR_CHECK, naming the place, when that gives other ids than these. Of a
 * tokenizer.json HM_ERR_USAGE: the library does not read it. */
int hm_tokenizer_verify(const struct hm_tokenizer *tokenizer, struct hm_str text,
                        const int32_t *ids, size_t n, struct hm_error *err);
struct hm_text_encoder
hm_tokenizer_encoder(const struct hm_tokenizer *tokenizer); /* borrows tokenizer */

#endif
