/* SPDX-License-Identifier: MIT */
/*
 * state.safetensors: per parameter its values and AdamW's moments, f32 or 8-bit codes with the
 * scales of their blocks. Tensors are views of what the optimizer and the adapter own; loading
 * copies into those. Layout in docs/FORMATS.md.
 */
#include "state_tensors.h"

#include <string.h>

#include "hanmix/base/parallel.h"

#define TENSORS_MAX 5 /* of one parameter */

struct tensor_list {
    struct hm_tensor *tensor; /* [n_params * TENSORS_MAX], data are views */
    size_t count;
};

static void tensor_list_release(struct tensor_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        hm_free((void *)(uintptr_t)list->tensor[i].name);
    hm_free(list->tensor);
}

/* One of a parameter's arrays: of its shape, or a scale for each block of 8-bit values. */
static int tensor_add(struct tensor_list *list, const struct hm_param *param, const char *suffix,
                      enum hm_dtype dtype, bool scales, const void *data, struct hm_error *err)
{
    struct hm_tensor *tensor = &list->tensor[list->count];
    char *name = NULL;

    HM_TRY(hm_format(&name, err, "%s%s", param->name, suffix));
    *tensor = (struct hm_tensor){ .name = name, .dtype = dtype, .n_dims = scales ? 1 : 2 };
    tensor->shape[0] = scales ? hm_units(hm_param_values(param), HM_BLOCK8) : param->rows;
    tensor->shape[1] = scales ? 0 : param->cols;
    tensor->count = scales ? tensor->shape[0] : hm_param_values(param);
    tensor->size_bytes = tensor->count * (dtype == HM_DTYPE_U8 ? 1 : sizeof(float));
    tensor->data = data;
    list->count++;
    return HM_OK;
}

static int param_tensors_add(struct tensor_list *list, const struct hm_param *param,
                             const struct hm_moments *moments, struct hm_error *err)
{
    const struct hm_moments8 *coded = &moments->coded;

    HM_TRY(tensor_add(list, param, "", HM_DTYPE_F32, false, param->value, err));
    if (moments->first) {
        HM_TRY(tensor_add(list, param, ".exp_avg", HM_DTYPE_F32, false, moments->first, err));
        return tensor_add(list, param, ".exp_avg_sq", HM_DTYPE_F32, false, moments->second, err);
    }
    HM_TRY(tensor_add(list, param, ".exp_avg", HM_DTYPE_U8, false, coded->m, err));
    HM_TRY(tensor_add(list, param, ".exp_avg.absmax", HM_DTYPE_F32, true, coded->m_absmax, err));
    HM_TRY(tensor_add(list, param, ".exp_avg_sq", HM_DTYPE_U8, false, coded->v, err));
    return tensor_add(list, param, ".exp_avg_sq.absmax", HM_DTYPE_F32, true, coded->v_absmax, err);
}

static int tensor_list_new(const struct hm_optimizer *optimizer, struct tensor_list *list,
                           struct hm_error *err)
{
    const struct hm_adapter *adapter = optimizer->adapter;

    list->tensor = hm_calloc(HM_MEM_TENSOR, adapter->n_params, TENSORS_MAX * sizeof(*list->tensor));
    if (!list->tensor)
        return hm_fail_nomem(err, "for the list of %zu parameters", adapter->n_params);
    for (size_t i = 0; i < adapter->n_params; i++)
        HM_TRY(param_tensors_add(list, &adapter->param[i], &optimizer->moments[i], err));
    return HM_OK;
}

static void written(void *context, const void *data, size_t bytes)
{
    hm_scratch_drop(context, data, bytes);
}

struct hm_tensor_written hm_state_then_drop(const struct hm_adapter *adapter)
{
    return (struct hm_tensor_written){ written, adapter->config.store };
}

/* What is written for the last time: moments are not read again, values are. */
static void written_last(void *context, const void *data, size_t bytes)
{
    const struct hm_adapter *adapter = context;

    for (size_t i = 0; i < adapter->n_params; i++)
        if (adapter->param[i].value == data) {
            hm_scratch_drop(adapter->config.store, data, bytes);
            return;
        }
    hm_scratch_discard(adapter->config.store, data, bytes);
}

static void gradients_discard(const struct hm_adapter *adapter)
{
    for (size_t i = 0; i < adapter->n_params; i++)
        hm_scratch_discard(adapter->config.store, adapter->param[i].grad,
                           hm_param_values(&adapter->param[i]) * sizeof(float));
}

int hm_state_tensors_save(const struct hm_optimizer *optimizer, const char *path, bool last,
                          struct hm_error *err)
{
    struct hm_tensor_written then = hm_state_then_drop(optimizer->adapter);
    struct tensor_list list = { 0 };
    int status = tensor_list_new(optimizer, &list, err);

    if (last && optimizer->adapter->config.store) {
        gradients_discard(optimizer->adapter);
        then = (struct hm_tensor_written){ written_last, optimizer->adapter };
    }

    if (status == HM_OK)
        status = hm_safetensors_write_each(path, list.tensor, list.count, NULL, &then, err);
    tensor_list_release(&list);
    return status;
}

/* All names and shapes are checked before the first value is taken over. */
int hm_state_tensors_load(struct hm_optimizer *optimizer, const char *path, struct hm_error *err)
{
    struct hm_safetensors file = { 0 };
    struct tensor_list list = { 0 };
    const struct hm_tensor *found;

    HM_TRY(hm_safetensors_open(path, &file, err));
    int status = tensor_list_new(optimizer, &list, err);
    if (status == HM_OK && file.count != list.count)
        status = hm_fail(err, HM_ERR_FORMAT, "'%s' holds %zu tensors, expected %zu", path,
                         file.count, list.count);
    for (size_t i = 0; i < list.count && status == HM_OK; i++)
        status = hm_safetensors_need(&file, list.tensor[i].name, list.tensor[i].dtype,
                                     list.tensor[i].n_dims, list.tensor[i].shape, &found, err);
    for (size_t i = 0; i < list.count && status == HM_OK; i++) {
        found = hm_safetensors_find(&file, list.tensor[i].name);
        memcpy((void *)(uintptr_t)list.tensor[i].data, found->data, found->size_bytes);
        hm_scratch_drop(optimizer->adapter->config.store, list.tensor[i].data, found->size_bytes);
        hm_map_drop(&file.map, (uint64_t)(found->data - file.map.data), found->size_bytes);
    }
    tensor_list_release(&list);
    hm_safetensors_close(&file);
    return status;
}
