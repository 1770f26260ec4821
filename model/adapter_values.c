/* SPDX-License-Identifier: MIT */
/*
 * Where the values and gradients of an adapter lie: on the heap, or in a scratch file. In the file
 * each kind has its own range in the order of the parameters, which is that of the forward pass, so
 * every pass reads in one direction; a group (a layer) that was passed gives its memory back.
 */
#include <string.h>

#include "adapter_layout.h"

#define LARGE_PAGE_VALUES (((uint64_t)2 << 20) / sizeof(float))

static float *values_new(const struct hm_adapter *adapter, enum hm_mem_tag tag,
                         const struct hm_param *param)
{
    size_t count = hm_param_values(param);
    struct hm_scratch *store = adapter->config.store;

    return store ? hm_scratch_take(store, count * sizeof(float))
                 : hm_calloc(tag, count, sizeof(float));
}

int hm_adapter_allocate(struct hm_adapter *adapter, bool with_gradients, struct hm_error *err)
{
    for (int kind = 0; kind <= with_gradients; kind++)
        for (size_t i = 0; i < adapter->n_params; i++) {
            struct hm_param *param = &adapter->param[i];
            float *values = values_new(adapter, kind ? HM_MEM_GRADIENT : HM_MEM_ADAPTER, param);
            if (!values)
                return hm_fail_nomem(err, "for the %u x %u values of '%s'", param->rows,
                                     param->cols, param->name);
            *(kind ? &param->grad : &param->value) = values;
        }
    return HM_OK;
}

void hm_adapter_values_free(const struct hm_adapter *adapter, struct hm_param *param)
{
    if (adapter->config.store)
        return;
    hm_free(param->value);
    hm_free(param->grad);
}

static void param_hint(const struct hm_adapter *adapter, const struct hm_param *param,
                       void (*hint)(const struct hm_scratch *, const void *, size_t))
{
    size_t bytes = hm_param_values(param) * sizeof(float);

    if (!adapter->config.store)
        return;
    hint(adapter->config.store, param->value, bytes);
    if (param->grad)
        hint(adapter->config.store, param->grad, bytes);
}

static void group_hint(const struct hm_adapter *adapter, uint32_t group,
                       void (*hint)(const struct hm_scratch *, const void *, size_t))
{
    if (!adapter || !adapter->config.store)
        return;
    for (size_t i = 0; i < adapter->n_params; i++)
        if (adapter->param[i].group == group)
            param_hint(adapter, &adapter->param[i], hint);
}

void hm_adapter_group_fetch(const struct hm_adapter *adapter, uint32_t group)
{
    group_hint(adapter, group, hm_scratch_fetch);
}

void hm_adapter_group_done(const struct hm_adapter *adapter, uint32_t group)
{
    group_hint(adapter, group, hm_scratch_drop);
}

void hm_adapter_param_done(const struct hm_adapter *adapter, const struct hm_param *param)
{
    param_hint(adapter, param, hm_scratch_drop);
}

void hm_adapter_zero_grad(struct hm_adapter *adapter)
{
    for (size_t i = 0; i < adapter->n_params; i++) {
        struct hm_param *param = &adapter->param[i];
        if (param->grad)
            hm_scratch_zero(adapter->config.store, param->grad,
                            hm_param_values(param) * sizeof(float));
    }
}

uint64_t hm_adapter_window_values(const struct hm_adapter *adapter, const struct hm_arch *arch,
                                  uint64_t tokens)
{
    uint64_t most = 0, group = 0;

    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *param = &adapter->param[i];
        uint64_t count = hm_param_values(param);
        bool begins = i == 0 || param->group != adapter->param[i - 1].group;
        if (param->group == 0 && !arch->tied && count > tokens * LARGE_PAGE_VALUES)
            count = tokens * LARGE_PAGE_VALUES; /* a row maps the page of the cache it lies in */
        group = begins ? count : group + count;
        most = group > most ? group : most;
    }
    return most;
}
