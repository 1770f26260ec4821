/* SPDX-License-Identifier: MIT */
/*
 * A llama2.c checkpoint (version 0, "legacy") as a Hugging Face folder: config.json, F32 weights
 * under the names of LlamaForCausalLM, tokenizer.model. Thread class: pure, apart from the folder
 * it writes.
 */
#ifndef HANMIX_CHECKPOINT_LLAMA2C_H
#define HANMIX_CHECKPOINT_LLAMA2C_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/status.h"

/*
 * tokenizer_path_or_null: a SentencePiece model, a tokenizer.json, or a folder that holds tokenizer
 * files. A shared classifier becomes a lm_head of its own (equal to the embedding), so that it can
 * be trained apart. NaN or infinite weights are refused.
 */
int hm_llama2c_import(const char *bin_path, const char *tokenizer_path_or_null, const char *out_dir,
                      const struct hm_ctl *ctl, struct hm_error *err);

#endif
