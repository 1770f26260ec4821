/* SPDX-License-Identifier: MIT */
/*
 * Which weights become 4-bit. Private to qlora/. Thread class: pure.
 */
#ifndef HANMIX_QLORA_QUANTIZE_RULES_H
#define HANMIX_QLORA_QUANTIZE_RULES_H

#include "hanmix/qlora/quantize.h"

/* transformers' test of a module against one entry of llm_int8_skip_modules. */
bool hm_skip_matches(const char *skip, const char *module);

/*
 * nf4[slot] = the weight is a linear that no entry of skip names, for all hm_arch_slot_count slots.
 * An entry that names no module is HM_ERR_USAGE, but for lm_head, embed_tokens and gate.
 */
int hm_quantize_select(const struct hm_arch *arch, char *const *skip, size_t n_skip, bool *nf4,
                       struct hm_error *err);

#endif
