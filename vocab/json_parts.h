/* SPDX-License-Identifier: MIT */
/*
 * What the readers of a tokenizer.json share: members that count as set, the refusal of what cannot
 * be read exactly, settings of a BPE model, and the halves of a merge. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_JSON_PARTS_H
#define HANMIX_VOCAB_JSON_PARTS_H

#include "hanmix/base/json.h"

#define HM_TOKENIZER_JSON_MAX_BYTES (256u << 20)

/* Not absent, null, false, "" or 0. */
bool hm_json_is_set(const json_t *value);
/* HM_ERR_FORMAT: `component` of `what` cannot be read exactly. */
int hm_json_refuse(const char *what, const char *component, struct hm_error *err);
/* The "model" of `what`: BPE, without what changes how text is cut at random or by affixes. */
int hm_json_bpe_check(const json_t *model, const char *what, struct hm_error *err);
/* "left right" or ["left", "right"], neither empty, borrowed from merge; false: neither form. */
bool hm_json_merge_halves(const json_t *merge, struct hm_str half[2]);

#endif
