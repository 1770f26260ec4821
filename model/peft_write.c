/* SPDX-License-Identifier: MIT */
/*
 * PEFT folders and full-parameter models, written. Tensors go out as F32, the values as they are,
 * so that save(load(x)) keeps them bit for bit; a matrix of which only new rows were trained is
 * filled up with the base's rows, because PEFT knows whole matrices only. The configuration is
 * written last: a folder with one is complete.
 */
#include "hanmix/model/adapter.h"

#include "adapter_rules.h"
#include "hanmix/checkpoint/weight.h"
#include "peft_config.h"
#include "peft_record.h"

enum { BLOCK_VALUES = 1 << 18 };

#define TIED_HEAD "base_model.model.lm_head.weight"

/* Rows of the whole matrix that a parameter is part of. */
static uint64_t whole_rows(const struct hm_param *param)
{
    return (uint64_t)param->first_row + param->rows;
}

/* Rows 0..first_row-1 of the base, by blocks. */
static int write_base_rows(struct hm_st_writer *writer, const struct hm_checkpoint *ckpt,
                           const struct hm_param *param, struct hm_error *err)
{
    struct hm_weight_slot slot;
    struct hm_weight *weight = NULL;
    struct hm_kernels kernels;
    char module[HM_SLOT_NAME_BYTES];
    uint32_t grain = BLOCK_VALUES / param->cols + 1;
    float *block = hm_alloc_array(HM_MEM_SCRATCH, (size_t)grain * param->cols, sizeof(float));
    int status = HM_OK;

    if (!block)
        return hm_fail_nomem(err, "writing '%s'", param->name);
    hm_kernels_reference(&kernels);
    hm_arch_slot(&ckpt->arch, param->slot, &slot, module);
    status = hm_weight_open(ckpt, &slot, &weight, err);
    for (uint32_t row = 0; status == HM_OK && row < param->first_row; row += grain) {
        uint32_t n = param->first_row - row < grain ? param->first_row - row : grain;
        hm_weight_decode(weight, &kernels, row, n, 0, param->cols, HM_ROUND_NONE, block,
                         param->cols);
        status = hm_st_writer_data(writer, block, (size_t)n * param->cols * sizeof(float), err);
    }
    hm_weight_free(weight);
    hm_free(block);
    return status;
}

static int write_param(struct hm_st_writer *writer, const struct hm_adapter *adapter,
                       const struct hm_checkpoint *ckpt, const struct hm_param *param,
                       struct hm_error *err)
{
    if (param->first_row > 0)
        HM_TRY(write_base_rows(writer, ckpt, param, err));
    HM_TRY(hm_st_writer_data(writer, param->value, hm_param_values(param) * sizeof(float), err));
    hm_adapter_param_done(adapter, param);
    return HM_OK;
}

/* spec[i] is parameter source[i]: all of them, and the embedding again as the head when it is tied.
 */
static int write_tensors(const struct hm_adapter *adapter, const struct hm_checkpoint *ckpt,
                         const char *path, struct hm_error *err)
{
    struct hm_tensor_spec *spec = hm_calloc(HM_MEM_SCRATCH, adapter->n_params + 1, sizeof *spec);
    size_t *order = hm_alloc_array(HM_MEM_SCRATCH, adapter->n_params + 1, sizeof *order);
    const struct hm_param **source =
        hm_calloc(HM_MEM_SCRATCH, adapter->n_params + 1, sizeof(struct hm_param *));
    struct hm_st_writer *writer = NULL;
    char tied_head[] = TIED_HEAD;
    size_t n = 0;
    int status = HM_OK;

    if (!spec || !order || !source) {
        status = hm_fail_nomem(err, "writing '%s'", path);
        goto out;
    }
    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *param = &adapter->param[i];
        struct hm_tensor_spec whole = {
            param->name, HM_DTYPE_F32, 2, { whole_rows(param), param->cols }
        };
        source[n] = param;
        spec[n++] = whole;
        if (param->kind == HM_PARAM_EMBED && ckpt->arch.tied) {
            whole.name = tied_head;
            source[n] = param;
            spec[n++] = whole;
        }
    }
    status = hm_st_writer_open(path, spec, n, NULL, &writer, order, err);
    for (size_t i = 0; i < n && status == HM_OK; i++)
        status = write_param(writer, adapter, ckpt, source[order[i]], err);
    if (status == HM_OK) {
        status = hm_st_writer_commit(writer, err);
        writer = NULL;
    }
out:
    hm_st_writer_abort(writer);
    hm_free(spec);
    hm_free(order);
    hm_free(source);
    return status;
}

int hm_adapter_save(const struct hm_adapter *adapter, const struct hm_checkpoint *ckpt,
                    const char *base_path, const char *dir, struct hm_error *err)
{
    char *weights = NULL;
    json_t *json = NULL;
    int status;

    HM_BUG(adapter->config.all);
    if ((status = hm_dir_make(dir, err)) < 0 ||
        (status = hm_path_join(&weights, dir, "adapter_model.safetensors", err)) < 0 ||
        (status = hm_peft_config_json(adapter, &ckpt->arch, base_path, &json, err)) < 0 ||
        (status = write_tensors(adapter, ckpt, weights, err)) < 0 ||
        (status = hm_peft_record_write(dir, adapter, ckpt, err)) < 0)
        goto out;
    status = hm_json_save_in(dir, "adapter_config.json", json, err);
out:
    json_decref(json);
    hm_free(weights);
    return status;
}

/* One trained weight in the model's type, by blocks. */
static int write_weight(struct hm_folder_writer *writer, const struct hm_param *param,
                        enum hm_dtype dtype, uint8_t *block, struct hm_error *err)
{
    size_t count = hm_param_values(param);

    for (size_t at = 0; at < count; at += BLOCK_VALUES) {
        size_t n = count - at < BLOCK_VALUES ? count - at : BLOCK_VALUES;
        HM_TRY(hm_dtype_from_f32(dtype, param->value + at, n, block, err));
        HM_TRY(hm_folder_writer_data(writer, block, n * hm_dtype_bytes(dtype), err));
    }
    return HM_OK;
}

static int write_model_tensors(const struct hm_adapter *adapter, const struct hm_arch *arch,
                               const char *dir, struct hm_error *err)
{
    struct hm_tensor_spec *spec = hm_calloc(HM_MEM_SCRATCH, adapter->n_params, sizeof *spec);
    uint8_t *block = hm_alloc(HM_MEM_SCRATCH, BLOCK_VALUES * sizeof(double));
    struct hm_folder_writer *writer = NULL;
    size_t next;
    int status = HM_OK;

    if (!spec || !block) {
        status = hm_fail_nomem(err, "writing '%s'", dir);
        goto out;
    }
    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *param = &adapter->param[i];
        spec[i] = (struct hm_tensor_spec){
            param->name, arch->dtype, param->cols > 1 ? 2 : 1, { param->rows, param->cols }
        };
    }
    status = hm_folder_writer_open(dir, spec, adapter->n_params, UINT64_C(5) << 30, &writer, err);
    while (status == HM_OK && (next = hm_folder_writer_next(writer)) < adapter->n_params)
        status = write_weight(writer, &adapter->param[next], arch->dtype, block, err);
    if (status == HM_OK) {
        status = hm_folder_writer_finish(writer, false, err);
        writer = NULL;
    }
out:
    hm_folder_writer_abort(writer);
    hm_free(spec);
    hm_free(block);
    return status;
}

int hm_adapter_save_model(const struct hm_adapter *adapter, const struct hm_checkpoint *ckpt,
                          const char *dir, struct hm_error *err)
{
    json_t *config = NULL;
    int status;

    HM_BUG(!adapter->config.all);
    HM_TRY(hm_arch_config(ckpt->config, &ckpt->arch, &config, err));
    status = write_model_tensors(adapter, &ckpt->arch, dir, err);
    if (status == HM_OK)
        status = hm_model_files_copy(ckpt->dir, dir, err);
    if (status == HM_OK)
        status = hm_config_write(config, dir, err);
    json_decref(config);
    return status;
}
