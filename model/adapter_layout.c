/* SPDX-License-Identifier: MIT */
/*
 * The list of parameters of an adapter: which weights get factors, which are trained in full, under
 * which PEFT names, in canonical order (slot order, A before B). Values come from adapter.c (new)
 * and peft_read.c (load); `plan` counts this same list.
 */
#include "adapter_layout.h"

#include <string.h>

#include "adapter_rules.h"

struct layout {
    const struct hm_arch *arch;
    struct hm_adapter *adapter; /* under construction */
    struct hm_adapter_rules *rules;
    uint64_t old_vocab;
    size_t param_cap, lora_cap;
    struct hm_error *err;
};

/* Room for n more entries of an array that doubles. */
static int grow(void **array, size_t *cap, size_t count, size_t n, size_t size,
                struct hm_error *err)
{
    size_t want = *cap ? *cap : 64;
    void *block;

    if (count + n <= *cap)
        return HM_OK;
    while (want < count + n)
        want *= 2;
    block = hm_realloc(HM_MEM_ADAPTER, *array, want * size);
    if (!block)
        return hm_fail_nomem(err, "for the list of %zu parameters", count + n);
    *array = block;
    *cap = want;
    return HM_OK;
}

static uint32_t group_of(const struct layout *l, size_t slot)
{
    struct hm_weight_slot weight;
    char module[HM_SLOT_NAME_BYTES];

    hm_arch_slot(l->arch, slot, &weight, module);
    if (weight.kind == HM_WEIGHT_EMBED)
        return 0;
    return weight.kind == HM_WEIGHT_NORM || weight.kind == HM_WEIGHT_HEAD ? l->arch->layers + 1
                                                                          : weight.layer + 1;
}

/* name is a printf format with one %s for the module. */
static int add_param(struct layout *l, const char *format, const char *module,
                     struct hm_param param)
{
    struct hm_adapter *adapter = l->adapter;
    void *array = adapter->param;

    HM_TRY(grow(&array, &l->param_cap, adapter->n_params, 1, sizeof *adapter->param, l->err));
    adapter->param = array;
    param.group = group_of(l, param.slot);
    size_t prefix = (size_t)(strchr(format, '%') - format);
    HM_TRY(hm_format(&param.name, l->err, "%.*s%s%s", (int)prefix, format, module,
                     format + prefix + 2));
    adapter->param[adapter->n_params++] = param;
    return HM_OK;
}

static int add_lora(struct layout *l, size_t slot, const struct hm_weight_slot *weight,
                    const char *module, uint32_t rank, float scale)
{
    struct hm_adapter *adapter = l->adapter;
    void *array = adapter->lora;
    size_t first = adapter->n_params;
    struct hm_param a = {
        .kind = HM_PARAM_LORA_A, .slot = slot, .rows = rank, .cols = weight->cols
    };
    struct hm_param b = {
        .kind = HM_PARAM_LORA_B, .slot = slot, .rows = weight->rows, .cols = rank
    };

    HM_TRY(grow(&array, &l->lora_cap, adapter->n_lora, 1, sizeof *adapter->lora, l->err));
    adapter->lora = array;
    HM_TRY(add_param(l, "base_model.model.%s.lora_A.weight", module, a));
    HM_TRY(add_param(l, "base_model.model.%s.lora_B.weight", module, b));
    adapter->lora_of_slot[slot] = (int32_t)adapter->n_lora;
    adapter->lora[adapter->n_lora++] = (struct hm_lora){ rank, scale, first, first + 1 };
    adapter->matched[weight->kind]++;
    return HM_OK;
}

static int add_full(struct layout *l, size_t slot, const struct hm_weight_slot *weight,
                    const char *module, enum hm_param_kind kind, enum hm_rows rows)
{
    struct hm_param param = {
        .kind = kind, .slot = slot, .rows = weight->rows, .cols = weight->cols
    };

    if (rows == HM_ROWS_NEW) {
        if (l->old_vocab >= weight->rows)
            return hm_fail(
                l->err, HM_ERR_USAGE,
                "only new rows of '%s' are to be trained, but its %u rows hold none beyond "
                "the old vocabulary of %llu: train all rows, or resize the vocabulary first",
                module, weight->rows, (unsigned long long)l->old_vocab);
        param.first_row = (uint32_t)l->old_vocab;
        param.rows = weight->rows - param.first_row;
    }
    l->adapter->full_of_slot[slot] = (int32_t)l->adapter->n_params;
    return add_param(l, kind == HM_PARAM_FULL ? "%s.weight" : "base_model.model.%s.weight", module,
                     param);
}

static int lay_out_slot(struct layout *l, size_t slot)
{
    const struct hm_adapter_config *config = &l->adapter->config;
    struct hm_weight_slot weight;
    char module[HM_SLOT_NAME_BYTES];
    uint32_t rank;
    float scale;
    int matches;

    hm_arch_slot(l->arch, slot, &weight, module);
    if (config->all)
        return add_full(l, slot, &weight, module, HM_PARAM_FULL, HM_ROWS_ALL);
    if (weight.kind == HM_WEIGHT_EMBED && config->embed != HM_ROWS_NONE)
        return add_full(l, slot, &weight, module, HM_PARAM_EMBED, config->embed);
    if (weight.kind == HM_WEIGHT_HEAD && config->head != HM_ROWS_NONE)
        return add_full(l, slot, &weight, module, HM_PARAM_HEAD, config->head);
    if (weight.kind == HM_WEIGHT_GATE && config->gate)
        return add_full(l, slot, &weight, module, HM_PARAM_GATE, HM_ROWS_ALL);
    matches = hm_adapter_rules_match(l->rules, weight.kind, module, &rank, &scale, l->err);
    if (matches <= 0)
        return matches;
    return add_lora(l, slot, &weight, module, rank, scale);
}

static int check_against_arch(const struct layout *l, bool every_target)
{
    const struct hm_adapter_config *config = &l->adapter->config;
    const char *unmatched = hm_adapter_rules_unmatched(l->rules);

    if (config->all)
        return HM_OK;
    if (every_target && unmatched) {
        struct hm_buf names = { 0 };
        int status = hm_adapter_target_names(l->arch, &names, l->err);
        if (status == HM_OK)
            status = hm_fail(
                l->err, HM_ERR_USAGE,
                "target '%.200s' matches no linear of the model that is not already trained "
                "in full: there are %s",
                unmatched, names.ptr);
        hm_buf_release(&names);
        return status;
    }
    const char *key = hm_adapter_rules_unmatched_key(l->rules);
    if (every_target && key)
        return hm_fail(l->err, HM_ERR_USAGE,
                       "the key '%.200s' of rank_pattern or alpha_pattern decides over no adapted "
                       "module: it matches none, or an earlier key does",
                       key);
    if (l->adapter->n_params == 0)
        return hm_fail(l->err, HM_ERR_USAGE,
                       "the adapter trains nothing: no target matches and neither "
                       "embeddings, head nor gate are trained");
    return HM_OK;
}

static int check_full_rows(const struct hm_arch *arch, const struct hm_adapter_config *config,
                           struct hm_error *err)
{
    if (config->all)
        return HM_OK;
    if (arch->tied && config->head != HM_ROWS_NONE)
        return hm_fail(err, HM_ERR_USAGE,
                       "the model's lm_head is its embed_tokens (tie_word_embeddings): "
                       "train the embeddings alone, the head follows");
    if (config->gate && arch->family == HM_FAMILY_LLAMA)
        return hm_fail(err, HM_ERR_USAGE, "train_gate: a dense model has no router");
    return HM_OK;
}

int hm_adapter_lay_out(const struct hm_arch *arch, const struct hm_adapter_config *config,
                       uint64_t old_vocab, bool every_target, struct hm_adapter **ret_adapter,
                       struct hm_error *err)
{
    size_t slots = hm_arch_slot_count(arch);
    struct layout l = { .arch = arch, .old_vocab = old_vocab, .err = err };
    int status;

    HM_TRY(check_full_rows(arch, config, err));
    l.adapter = hm_calloc(HM_MEM_ADAPTER, 1, sizeof *l.adapter);
    if (!l.adapter)
        return hm_fail_nomem(err, "for an adapter");
    if ((status = hm_adapter_config_copy(config, &l.adapter->config, err)) < 0 ||
        (status = hm_adapter_rules_open(&l.adapter->config, &l.rules, err)) < 0)
        goto out;
    l.adapter->lora_of_slot = hm_alloc_array(HM_MEM_ADAPTER, slots, sizeof(int32_t));
    l.adapter->full_of_slot = hm_alloc_array(HM_MEM_ADAPTER, slots, sizeof(int32_t));
    if (!l.adapter->lora_of_slot || !l.adapter->full_of_slot) {
        status = hm_fail_nomem(err, "for %zu weights of an adapter", slots);
        goto out;
    }
    for (size_t slot = 0; slot < slots && status == HM_OK; slot++) {
        l.adapter->lora_of_slot[slot] = l.adapter->full_of_slot[slot] = -1;
        status = lay_out_slot(&l, slot);
    }
    if (status == HM_OK)
        status = check_against_arch(&l, every_target);
out:
    hm_adapter_rules_free(l.rules);
    if (status < 0)
        hm_adapter_free(l.adapter);
    else
        *ret_adapter = l.adapter;
    return status;
}
