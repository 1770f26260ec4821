/* SPDX-License-Identifier: MIT */
/*
 * model/peft_config.c: a configuration that is accepted lays out an adapter, and the configuration
 * written for that adapter lays out the same one.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "model/adapter_layout.h"
#include "model/peft_config.h"

static const struct hm_arch arch = {
    .family = HM_FAMILY_MIXTRAL,
    .hidden = 8,
    .ffn = 12,
    .layers = 2,
    .heads = 2,
    .kv_heads = 1,
    .head_dim = 4,
    .experts = 2,
    .top_k = 2,
    .vocab_size = 20,
    .dtype = HM_DTYPE_BF16,
};

static struct hm_adapter *lay_out(const json_t *json, const char *what, int *status)
{
    struct hm_adapter_config config;
    struct hm_adapter *adapter = NULL;

    *status = hm_peft_config_parse(json, what, &arch, &config, NULL);
    if (*status < 0)
        return NULL;
    *status = hm_adapter_lay_out(&arch, &config, arch.vocab_size, false, &adapter, NULL);
    hm_adapter_config_release(&config);
    return adapter;
}

static void compare(const struct hm_adapter *a, const struct hm_adapter *b)
{
    HM_BUG(a->n_params != b->n_params || a->n_lora != b->n_lora);
    for (size_t i = 0; i < a->n_params; i++)
        HM_BUG(strcmp(a->param[i].name, b->param[i].name) != 0 ||
               a->param[i].rows != b->param[i].rows);
    for (size_t i = 0; i < a->n_lora; i++)
        HM_BUG(a->lora[i].rank != b->lora[i].rank || a->lora[i].scale != b->lora[i].scale);
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    json_t *json = NULL, *written = NULL;
    struct hm_adapter *adapter = NULL, *again = NULL;
    int status;

    if (hm_json_parse((struct hm_str){ (const char *)data, size }, "input", &json, NULL) < 0)
        return 0;
    adapter = lay_out(json, "input", &status);
    if (adapter && hm_peft_config_json(adapter, &arch, "base", &written, NULL) == HM_OK) {
        again = lay_out(written, "written", &status);
        HM_BUG(status < 0 && status != HM_ERR_NOMEM);
        if (again)
            compare(adapter, again);
    }
    hm_adapter_free(adapter);
    hm_adapter_free(again);
    json_decref(written);
    json_decref(json);
    return 0;
}
