/* SPDX-License-Identifier: MIT */
/*
 * What can be inspected. Each function opens the path through its module, which checks it, and
 * returns a new JSON object, NULL when memory is out.
 */
#ifndef HANMIX_CLI_INSPECT_KINDS_H
#define HANMIX_CLI_INSPECT_KINDS_H

#include <stdbool.h>

#include "hanmix/base/json.h"

int hm_inspect_safetensors(const char *path, bool tensors, json_t **ret_facts,
                           struct hm_error *err);
int hm_inspect_model(const char *dir, bool tensors, json_t **ret_facts, struct hm_error *err);
int hm_inspect_adapter(const char *dir, bool tensors, json_t **ret_facts, struct hm_error *err);
int hm_inspect_tokenizer(const char *path, json_t **ret_facts, struct hm_error *err);
int hm_inspect_packed(const char *path, json_t **ret_facts, struct hm_error *err);
int hm_inspect_run(const char *dir, json_t **ret_facts, struct hm_error *err);

#endif
