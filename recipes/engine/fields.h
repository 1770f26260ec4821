/* SPDX-License-Identifier: MIT */
/*
 * Field tables at work: a config struct is filled from defaults and recipe values, dumped as JSON,
 * released. Private to recipes/.
 */
#ifndef HANMIX_RECIPES_ENGINE_FIELDS_H
#define HANMIX_RECIPES_ENGINE_FIELDS_H

#include "hanmix/recipes/recipe.h"
#include "recipe_node.h"

struct hm_common_config { /* what every stage takes besides its own fields */
    uint64_t threads, memory, seed;
};
#define HM_COMMON_FIELDS 3
extern const struct hm_field hm_common_fields[HM_COMMON_FIELDS];

/* Every key of `map` (may be NULL) names a field; else HM_ERR_USAGE with the nearest one. */
int hm_stage_check_keys(const struct hm_stage *stage, const struct hm_node *map, const char *prefix,
                        struct hm_error *err);
/*
 * Fill config (zeroed by the caller) with the defaults and then with `map` (may be NULL), whose
 * other keys are ignored. prefix ("lora.set") and the node's place go into errors; base_dir is what
 * relative paths written in the file refer to. On failure call hm_fields_release all the same.
 */
int hm_fields_parse(const struct hm_field *fields, size_t n, const struct hm_node *map,
                    const char *prefix, const char *base_dir, void *config, struct hm_error *err);
void hm_fields_release(const struct hm_field *fields, size_t n, void *config);
/* Members of `object`, in table order; identity_only leaves out the neutral fields. */
int hm_fields_json(const struct hm_field *fields, size_t n, const void *config, bool identity_only,
                   json_t *object, struct hm_error *err);
/* The file that a `path` field names; NULL when its value is absent, a word or a number. */
const char *hm_field_path(const struct hm_field *field, const void *config);

const char *hm_field_type_name(enum hm_field_type type); /* "count" */
const char *hm_input_type_name(enum hm_input_type type); /* "tokenizer" */

#endif
