/* SPDX-License-Identifier: MIT */
/*
 * adapter_config.json of a PEFT folder, written: the fields that every PEFT since 0.7 knows, keys
 * sorted. lora_dropout is written as 0: inference ignores it, and PEFT over fused experts refuses
 * to load any other value; the training value is in hanmix.json.
 */
#include "peft_config.h"

#include <math.h>
#include <string.h>

#include "adapter_rules.h"
#include "module_pattern.h"

/* Whole numbers as PEFT writes ranks and alphas: without a point. */
static json_t *number(double value)
{
    return value == floor(value) && fabs(value) < 1e15 ? json_integer((json_int_t)value)
                                                       : json_real(value);
}

/* In their own order: the first key that matches decides. */
static json_t *pattern_object(const struct hm_pattern *pattern, size_t n)
{
    json_t *object = json_object();

    for (size_t i = 0; object && i < n; i++) {
        if (json_object_set_new(object, pattern[i].key, number(pattern[i].value)) < 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static bool is_plain(const char *target)
{
    return !hm_pattern_is_expression(target) && strcmp(target, "all-linear") != 0;
}

/*
 * Targets as given when all are names, else every adapted module's path. PEFT refuses an empty list
 * but knows a text that stands for "no factors, only modules_to_save".
 */
static json_t *target_list(const struct hm_adapter *adapter, const struct hm_arch *arch)
{
    const struct hm_adapter_config *config = &adapter->config;
    bool plain = true;

    if (adapter->n_lora == 0)
        return json_string("dummy-target-modules");
    json_t *list = json_array();
    int failed = list ? 0 : -1;
    for (size_t i = 0; i < config->n_targets; i++)
        plain = plain && is_plain(config->target[i]);
    for (size_t i = 0; plain && !failed && i < config->n_targets; i++)
        failed = json_array_append_new(list, json_string(config->target[i]));
    for (size_t s = 0; !plain && !failed && s < hm_arch_slot_count(arch); s++) {
        struct hm_weight_slot slot;
        char module[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, s, &slot, module);
        if (adapter->lora_of_slot[s] >= 0)
            failed = json_array_append_new(list, json_string(module));
    }
    if (failed) {
        json_decref(list);
        return NULL;
    }
    return list;
}

/* A tied head is saved as a second copy: PEFT trains and loads the two apart. */
static json_t *saved_list(const struct hm_adapter_config *config, bool tied)
{
    bool embed = config->embed != HM_ROWS_NONE;
    bool head = config->head != HM_ROWS_NONE || (embed && tied);
    json_t *list = embed || head || config->gate ? json_array() : json_null();
    int failed = list ? 0 : -1;

    if (embed && !failed)
        failed = json_array_append_new(list, json_string("embed_tokens"));
    if (config->gate && !failed)
        failed = json_array_append_new(list, json_string("gate"));
    if (head && !failed)
        failed = json_array_append_new(list, json_string("lm_head"));
    if (failed) {
        json_decref(list);
        return NULL;
    }
    return list;
}

int hm_peft_config_json(const struct hm_adapter *adapter, const struct hm_arch *arch,
                        const char *base_path, json_t **ret_json, struct hm_error *err)
{
    const struct hm_adapter_config *config = &adapter->config;
    const struct {
        const char *key;
        json_t *value;
    } fields[] = {
        { "alpha_pattern", pattern_object(config->alpha_pattern, config->n_alpha_pattern) },
        { "auto_mapping", json_null() },
        { "base_model_name_or_path", json_string(base_path) },
        { "bias", json_string("none") },
        { "fan_in_fan_out", json_false() },
        { "inference_mode", json_true() },
        { "init_lora_weights", json_true() },
        { "layers_pattern", json_null() },
        { "layers_to_transform", json_null() },
        { "lora_alpha", number(config->alpha) },
        { "lora_dropout", json_real(0.0) },
        { "modules_to_save", saved_list(config, arch->tied) },
        { "peft_type", json_string("LORA") },
        { "r", json_integer(config->rank) },
        { "rank_pattern", pattern_object(config->rank_pattern, config->n_rank_pattern) },
        { "revision", json_null() },
        { "target_modules", target_list(adapter, arch) },
        { "task_type", json_string("CAUSAL_LM") },
        { "use_rslora", json_boolean(config->rslora) },
    };
    json_t *json = json_object();
    int failed = 0;

    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        failed |= json_object_set_new(json, fields[i].key,
                                      fields[i].value); /* takes the value in every case */
    if (failed) {
        json_decref(json);
        return hm_fail_nomem(err, "for an adapter's configuration");
    }
    *ret_json = json;
    return HM_OK;
}
