/* SPDX-License-Identifier: MIT */
/*
 * What the writers of a tokenizer's JSON files share. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_TOKENIZER_FILES_H
#define HANMIX_VOCAB_TOKENIZER_FILES_H

#include "hanmix/base/json.h"
#include "hanmix/vocab/spm_model.h"

/* The text as a JSON string with its quotes, appended. */
int hm_json_quote(struct hm_buf *buf, struct hm_str text, struct hm_error *err);

/* An added token of a base file must be a piece of the model: new pieces would get its id. */
int hm_added_token_check(const struct hm_spm_model *model, const char *what, json_int_t id,
                         struct hm_str content, struct hm_error *err);

/* tokenizer_config.json and special_tokens_map.json, taken over from base_dir_or_null when there.
 */
int hm_tokenizer_config_write(const struct hm_spm_model *model, const char *base_dir_or_null,
                              const char *out_dir, struct hm_error *err);

#endif
