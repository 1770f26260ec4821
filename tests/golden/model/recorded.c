/* SPDX-License-Identifier: MIT */
/*
 * Recorded inputs and outputs as arrays; see recorded.h.
 */
#include "recorded.h"

#include "hanmix/base/json.h"

float *recorded_f32(const struct hm_safetensors *file, const char *name, size_t count)
{
    struct hm_error err = { 0 };
    const struct hm_tensor *tensor = hm_safetensors_find(file, name);

    if (!tensor)
        fail_msg("no tensor '%s' in '%s'", name, file->path);
    if (count && tensor->count != count)
        fail_msg("'%s' has %llu values, expected %zu", name, (unsigned long long)tensor->count,
                 count);
    float *values = hm_alloc_array(HM_MEM_OTHER, tensor->count, sizeof(float));
    assert_non_null(values);
    assert_ok(hm_dtype_to_f32(tensor->dtype, tensor->data, tensor->count, values, &err), err);
    return values;
}

static int32_t *int_tensor(const struct hm_tensor *tensor)
{
    int32_t *values = hm_alloc_array(HM_MEM_OTHER, tensor->count, sizeof(int32_t));

    assert_non_null(values);
    assert_int_equal(tensor->dtype, HM_DTYPE_I64);
    for (size_t i = 0; i < tensor->count; i++) {
        int64_t value;
        memcpy(&value, tensor->data + i * sizeof value, sizeof value);
        values[i] = (int32_t)value;
    }
    return values;
}

void recorded_batch_read(const char *path, struct recorded_batch *ret_batch)
{
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    struct recorded_batch out = { 0 };

    assert_ok(hm_safetensors_open(path, &file, &err), err);
    const struct hm_tensor *ids = hm_safetensors_find(&file, "input_ids");
    const struct hm_tensor *labels = hm_safetensors_find(&file, "labels");
    const struct hm_tensor *mask = hm_safetensors_find(&file, "attention_mask");
    assert_non_null(ids);
    assert_non_null(labels);
    assert_int_equal(ids->n_dims, 2);
    out.ids = int_tensor(ids);
    out.labels = int_tensor(labels);
    if (mask) {
        int32_t *wide = int_tensor(mask);
        out.mask = hm_alloc(HM_MEM_OTHER, mask->count);
        for (size_t i = 0; i < mask->count; i++)
            out.mask[i] = (uint8_t)wide[i];
        hm_free(wide);
    }
    out.batch = (struct hm_batch){
        (uint32_t)ids->shape[0], (uint32_t)ids->shape[1], out.ids, out.labels, out.mask, NULL
    };
    hm_safetensors_close(&file);
    *ret_batch = out;
}

void recorded_batch_release(struct recorded_batch *batch)
{
    hm_free(batch->ids);
    hm_free(batch->labels);
    hm_free(batch->mask);
}

double recorded_number(const char *path, const char *const keys[])
{
    struct hm_error err = { 0 };
    json_t *root = NULL;

    assert_ok(hm_json_load(path, (uint64_t)1 << 24, &root, &err), err);
    json_t *value = root;
    for (size_t i = 0; keys[i]; i++)
        value = json_object_get(value, keys[i]);
    assert_true(json_is_number(value));
    double number = json_number_value(value);
    json_decref(root);
    return number;
}

const char *model_with_config(const char *dir, const char *model, const char *key, int value)
{
    struct hm_error err = { 0 };
    struct hm_names names = { 0 };
    json_t *config = NULL;

    assert_ok(hm_dir_list(model, &names, &err), err);
    for (size_t i = 0; i < names.count; i++)
        assert_ok(hm_file_copy(tmp_path(model, "%s", names.item[i]),
                               tmp_path(dir, "%s", names.item[i]), &err),
                  err);
    hm_names_release(&names);
    const char *path = tmp_path(dir, "config.json");
    assert_ok(hm_json_load(path, 1 << 20, &config, &err), err);
    json_object_set_new(config, key, json_integer(value));
    assert_ok(hm_json_save(path, config, &err), err);
    json_decref(config);
    return dir;
}

struct hm_model *model_opened(const char *dir, const struct hm_kernels *kernels,
                              enum hm_round round)
{
    struct hm_error err = { 0 };
    struct hm_model *model = NULL;
    struct hm_model_options options = { kernels, round, true };

    assert_ok(hm_model_open(dir, &options, &model, &err), err);
    return model;
}

void forward_run(struct hm_model *model, const struct hm_batch *batch, struct outputs *ret_outputs)
{
    const struct hm_arch *arch = hm_model_arch(model);
    struct hm_error err = { 0 };
    struct hm_workspace *workspace = NULL;
    size_t tokens = (size_t)batch->rows * batch->seq_len;
    struct outputs out = { 0 };

    out.logits = hm_alloc_array(HM_MEM_OTHER, tokens * arch->vocab_size, sizeof(float));
    out.hidden =
        hm_alloc_array(HM_MEM_OTHER, (arch->layers + 2) * tokens * arch->hidden, sizeof(float));
    out.router = hm_calloc(HM_MEM_OTHER, arch->layers, sizeof(float *));
    for (uint32_t l = 0; l < arch->layers; l++)
        out.router[l] = hm_alloc_array(HM_MEM_OTHER, tokens * arch->experts, sizeof(float));
    struct hm_step_options options = { .want_aux = true,
                                       .logits_out = out.logits,
                                       .hidden_out = out.hidden,
                                       .router_logits_out = out.router };
    assert_ok(hm_workspace_new(model, batch->rows, batch->seq_len, false, false, &workspace, &err),
              err);
    assert_ok(hm_model_step(model, workspace, batch, &options, &out.result, &err), err);
    hm_workspace_free(workspace);
    *ret_outputs = out;
}

void outputs_release(struct hm_model *model, struct outputs *outputs)
{
    hm_free(outputs->logits);
    hm_free(outputs->hidden);
    for (uint32_t l = 0; l < hm_model_arch(model)->layers; l++)
        hm_free(outputs->router[l]);
    hm_free(outputs->router);
}
