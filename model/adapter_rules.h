/* SPDX-License-Identifier: MIT */
/*
 * Which modules an adapter configuration adapts, and with what rank and scale: PEFT's rules.
 * Private to model/. Thread class: owner thread.
 */
#ifndef HANMIX_MODEL_ADAPTER_RULES_H
#define HANMIX_MODEL_ADAPTER_RULES_H

#include "hanmix/model/adapter.h"

struct hm_adapter_rules;

/* Borrows config. Ranks, dropout and patterns are checked here (HM_ERR_USAGE naming the setting).
 */
int hm_adapter_rules_open(const struct hm_adapter_config *config,
                          struct hm_adapter_rules **ret_rules, struct hm_error *err);
void hm_adapter_rules_free(struct hm_adapter_rules *rules);

/* 1 and the module's rank and scale when it is a target, else 0. */
int hm_adapter_rules_match(struct hm_adapter_rules *rules, enum hm_weight_kind kind,
                           const char *module, uint32_t *ret_rank, float *ret_scale,
                           struct hm_error *err);
/* The first target that has matched nothing so far, or NULL. */
const char *hm_adapter_rules_unmatched(const struct hm_adapter_rules *rules);
/* The first key of rank_pattern or alpha_pattern that has decided over no module so far, or NULL.
 */
const char *hm_adapter_rules_unmatched_key(const struct hm_adapter_rules *rules);

/* "q_proj, k_proj, ...": leaf names of the linears, for messages. */
int hm_adapter_target_names(const struct hm_arch *arch, struct hm_buf *ret_names,
                            struct hm_error *err);

/* PEFT's test of a name in a list: the module itself or a suffix of it after a dot. */
bool hm_module_is_named(const char *module, const char *name);

#endif
