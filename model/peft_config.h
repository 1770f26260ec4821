/* SPDX-License-Identifier: MIT */
/*
 * adapter_config.json: PEFT's LoRA configuration as plain settings and back. Private to model/.
 * Thread class: pure.
 */
#ifndef HANMIX_MODEL_PEFT_CONFIG_H
#define HANMIX_MODEL_PEFT_CONFIG_H

#include "hanmix/model/adapter.h"

/*
 * `what` names the file in errors. Targets come out as names (an expression, "all-linear", excluded
 * modules and chosen layers are worked out against arch). Kinds of LoRA that this program does not
 * compute are HM_ERR_FORMAT naming the field. Release with hm_adapter_config_release.
 */
int hm_peft_config_parse(const json_t *json, const char *what, const struct hm_arch *arch,
                         struct hm_adapter_config *ret_config, struct hm_error *err);

/* The portable subset of fields, keys sorted. New reference. */
int hm_peft_config_json(const struct hm_adapter *adapter, const struct hm_arch *arch,
                        const char *base_path, json_t **ret_json, struct hm_error *err);

#endif
