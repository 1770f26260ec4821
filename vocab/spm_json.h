/* SPDX-License-Identifier: MIT */
/*
 * tokenizer.json of SentencePiece's kind (LLaMA, Mistral, Mixtral): BPE over characters, U+2581 for
 * spaces, bytes for what is no piece. It becomes a model whose merges keep the order of the file,
 * so that ids equal those of the tokenizers library, added tokens in text among them (they are text
 * for SentencePiece). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_SPM_JSON_H
#define HANMIX_VOCAB_SPM_JSON_H

#include "hanmix/base/json.h"
#include "hanmix/vocab/spm_model.h"

/* Whether the file is meant to be of this kind: no pre_tokenizer that cuts text into words. */
bool hm_spm_json_is(const json_t *root);
/* `what` names it in errors; text: the bytes of the file, of which the model keeps the digest. */
int hm_spm_json_read(const json_t *root, const char *what, struct hm_str text,
                     struct hm_spm_model *ret_model, struct hm_error *err);

#endif
