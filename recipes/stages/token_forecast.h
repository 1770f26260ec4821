/* SPDX-License-Identifier: MIT */
/*
 * How many tokens a text will be, for plans: from a sample of it, with the tokenizer where it
 * exists, else by the size of its vocabulary.
 */
#ifndef HANMIX_RECIPES_TOKEN_FORECAST_H
#define HANMIX_RECIPES_TOKEN_FORECAST_H

#include "stage_util.h"

/* Of in.text, with per_document tokens beside each document's own; in.tokenizer has `pieces` pieces
 * or will have. 0 when nothing can be told: text that is not there, or cannot be read. */
uint64_t hm_tokens_forecast(const struct hm_stage_run *run, const struct stage_text *text,
                            uint64_t pieces, unsigned per_document);

#endif
