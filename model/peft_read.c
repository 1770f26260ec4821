/* SPDX-License-Identifier: MIT */
/*
 * PEFT folders, read: adapter_config.json decides which parameters there are, every one must have
 * its tensor in adapter_model.safetensors and every tensor its parameter, of the base's shape.
 * Plain matrices of embedding, head and gate replace the base's (modules_to_save), also in the form
 * that repeats them as *.modules_to_save and *.original_module. Nothing is believed before it is
 * checked.
 */
#include "hanmix/model/peft_folder.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "adapter_layout.h"
#include "adapter_rules.h"
#include "hanmix/base/parallel.h"
#include "peft_config.h"
#include "peft_record.h"

#define CONFIG_MAX_BYTES (16u << 20)

enum { COPY_PLAIN, COPY_SAVED, COPY_ORIGINAL, COPIES };

struct opener {
    struct hm_peft_folder *folder; /* under construction */
    const struct hm_checkpoint *ckpt;
    bool *used; /* [file.count] */
    struct hm_error *err;
};

static const struct hm_tensor *take(const struct opener *o, const char *name)
{
    const struct hm_tensor *tensor = hm_safetensors_find(&o->folder->file, name);

    if (tensor && o->used)
        o->used[tensor - o->folder->file.tensor] = true;
    return tensor;
}

/* The three names a fully trained module's matrix may have. */
static int take_copies(const struct opener *o, const char *module,
                       const struct hm_tensor *ret[COPIES])
{
    static const char *const infix[COPIES] = { "", ".modules_to_save", ".original_module" };

    for (int i = 0; i < COPIES; i++) {
        char *name = NULL;
        HM_TRY(hm_format(&name, o->err, "base_model.model.%s%s.weight", module, infix[i]));
        ret[i] = take(o, name);
        hm_free(name);
    }
    return HM_OK;
}

static bool same_values(const struct hm_tensor *a, const struct hm_tensor *b)
{
    return a->dtype == b->dtype && a->size_bytes == b->size_bytes &&
           memcmp(a->data, b->data, a->size_bytes) == 0;
}

static int check_tensor(const struct opener *o, const struct hm_tensor *tensor, uint64_t rows,
                        uint64_t cols)
{
    const uint64_t shape[2] = { rows, cols };
    char expected[64], found[192];

    if (tensor->n_dims != 2 || tensor->shape[0] != rows || tensor->shape[1] != cols)
        return hm_fail(o->err, HM_ERR_FORMAT,
                       "'%s': '%s' is %s, but the model '%s' and the configuration make it %s: the "
                       "adapter belongs to another model, vocabulary or rank",
                       o->folder->file.path, tensor->name,
                       hm_shape_text(tensor->n_dims, tensor->shape, found, sizeof found),
                       o->ckpt->dir, hm_shape_text(2, shape, expected, sizeof expected));
    if (!hm_dtype_is_weight(tensor->dtype))
        return hm_fail(o->err, HM_ERR_FORMAT, "'%s': '%s' is of type %s, expected F32, BF16 or F16",
                       o->folder->file.path, tensor->name, hm_dtype_name(tensor->dtype));
    return HM_OK;
}

static int bind_full(const struct opener *o, const struct hm_param *param,
                     const struct hm_tensor **ret)
{
    const struct hm_tensor *copy[COPIES];
    struct hm_weight_slot slot;
    char module[HM_SLOT_NAME_BYTES];

    hm_arch_slot(&o->ckpt->arch, param->slot, &slot, module);
    HM_TRY(take_copies(o, module, copy));
    if (!copy[COPY_PLAIN])
        copy[COPY_PLAIN] = copy[COPY_SAVED];
    if (!copy[COPY_PLAIN])
        return hm_fail(o->err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' is missing, but '%s' is in modules_to_save",
                       o->folder->file.path, param->name, module);
    HM_TRY(check_tensor(o, copy[COPY_PLAIN], slot.rows, slot.cols));
    if (copy[COPY_SAVED] && !same_values(copy[COPY_PLAIN], copy[COPY_SAVED]))
        return hm_fail(o->err, HM_ERR_FORMAT, "'%s': '%s' and its modules_to_save copy differ",
                       o->folder->file.path, param->name);
    *ret = copy[COPY_PLAIN];
    return HM_OK;
}

static int bind_params(const struct opener *o)
{
    struct hm_peft_folder *folder = o->folder;
    const struct hm_adapter *layout = folder->layout;

    folder->tensor = hm_calloc(HM_MEM_ADAPTER, layout->n_params, sizeof(struct hm_tensor *));
    if (!folder->tensor)
        return hm_fail_nomem(o->err, "for the tensors of '%s'", folder->dir);
    for (size_t i = 0; i < layout->n_params; i++) {
        const struct hm_param *param = &layout->param[i];
        if (param->kind != HM_PARAM_LORA_A && param->kind != HM_PARAM_LORA_B) {
            HM_TRY(bind_full(o, param, &folder->tensor[i]));
            continue;
        }
        folder->tensor[i] = take(o, param->name);
        if (!folder->tensor[i])
            return hm_fail(o->err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' is missing, but the configuration "
                           "targets that module of '%s': the adapter belongs to another model",
                           folder->file.path, param->name, o->ckpt->dir);
        HM_TRY(check_tensor(o, folder->tensor[i], param->rows, param->cols));
    }
    return HM_OK;
}

static int check_leftovers(const struct opener *o)
{
    const struct hm_safetensors *file = &o->folder->file;
    const struct hm_arch *arch = &o->ckpt->arch;

    for (size_t i = 0; i < file->count; i++) {
        if (!o->used[i])
            return hm_fail(o->err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' belongs to no module that the configuration "
                           "adapts in the model '%s' of %" PRIu32 " layers and %" PRIu32 " experts",
                           file->path, file->tensor[i].name, o->ckpt->dir, arch->layers,
                           arch->experts);
    }
    return HM_OK;
}

/* A matrix may be there without being listed: PEFT then loads it into the base all the same. */
static int find_unlisted(const struct opener *o, struct hm_adapter_config *config)
{
    const struct hm_tensor *copy[COPIES];

    HM_TRY(take_copies(o, "model.embed_tokens", copy));
    if ((copy[COPY_PLAIN] || copy[COPY_SAVED]) && config->embed == HM_ROWS_NONE)
        config->embed = HM_ROWS_ALL;
    HM_TRY(take_copies(o, "lm_head", copy));
    if ((copy[COPY_PLAIN] || copy[COPY_SAVED]) && config->head == HM_ROWS_NONE &&
        !o->ckpt->arch.tied)
        config->head = HM_ROWS_ALL;
    return HM_OK;
}

/* The head of a tied base: PEFT keeps a copy of its own, which must say what the embedding says. */
static int check_tied(const struct opener *o, const json_t *json)
{
    const struct hm_tensor *embed[COPIES], *head[COPIES];
    bool tying = false;

    if (!o->ckpt->arch.tied)
        return HM_OK;
    HM_TRY(hm_json_bool_opt(json, "ensure_weight_tying", o->folder->dir, &tying, o->err));
    HM_TRY(take_copies(o, "model.embed_tokens", embed));
    HM_TRY(take_copies(o, "lm_head", head));
    const struct hm_tensor *e = embed[COPY_PLAIN] ? embed[COPY_PLAIN] : embed[COPY_SAVED];
    const struct hm_tensor *h = head[COPY_PLAIN] ? head[COPY_PLAIN] : head[COPY_SAVED];
    if ((h && !e) || (e && !h && !tying) || (e && h && !same_values(e, h)))
        return hm_fail(o->err, HM_ERR_FORMAT,
                       "'%s': the model '%s' ties lm_head to embed_tokens, but the adapter "
                       "trains them apart: untie the model first",
                       o->folder->file.path, o->ckpt->dir);
    return HM_OK;
}

static int open_weights(const struct opener *o)
{
    char *path = NULL, *pickle = NULL;
    int status = hm_path_join(&path, o->folder->dir, "adapter_model.safetensors", o->err);

    if (status == HM_OK)
        status = hm_path_join(&pickle, o->folder->dir, "adapter_model.bin", o->err);
    if (status == HM_OK && !hm_path_exists(path) && hm_path_exists(pickle))
        status = hm_fail(o->err, HM_ERR_FORMAT,
                         "'%s': pickled adapters are not read: save it again with "
                         "safe_serialization=True",
                         pickle);
    if (status == HM_OK)
        status = hm_safetensors_open(path, &o->folder->file, o->err);
    hm_free(path);
    hm_free(pickle);
    return status;
}

/* The configuration, refined by our own record of the run when it is there. */
static int read_config(const struct opener *o, struct hm_adapter_config *config,
                       uint64_t *ret_old_vocab)
{
    char *path = NULL;
    json_t *json = NULL;
    int status = hm_path_join(&path, o->folder->dir, "adapter_config.json", o->err);

    if (status == HM_OK)
        status = hm_json_load(path, CONFIG_MAX_BYTES, &json, o->err);
    if (status == HM_OK)
        status = hm_peft_config_parse(json, path, &o->ckpt->arch, config, o->err);
    if (status == HM_OK)
        status = find_unlisted(o, config);
    if (status == HM_OK)
        status = check_tied(o, json);
    if (status == HM_OK)
        status = hm_peft_record_read(o->folder->dir, o->ckpt, config, ret_old_vocab, o->err);
    json_decref(json);
    hm_free(path);
    return status;
}

int hm_peft_open(const char *dir, const struct hm_checkpoint *ckpt,
                 struct hm_peft_folder *ret_folder, struct hm_error *err)
{
    struct hm_peft_folder folder = { 0 };
    struct hm_adapter_config config = { 0 };
    struct opener o = { .folder = &folder, .ckpt = ckpt, .err = err };
    uint64_t old_vocab = 0;
    int status;

    folder.dir = hm_strdup(HM_MEM_ADAPTER, dir);
    if (!folder.dir)
        return hm_fail_nomem(err, "opening '%s'", dir);
    if ((status = open_weights(&o)) < 0)
        goto out;
    o.used = hm_calloc(HM_MEM_ADAPTER, folder.file.count, sizeof *o.used);
    if (!o.used) {
        status = hm_fail_nomem(err, "opening '%s'", dir);
        goto out;
    }
    if ((status = read_config(&o, &config, &old_vocab)) < 0)
        goto out;
    status = hm_adapter_lay_out(&ckpt->arch, &config, old_vocab, false, &folder.layout, err);
    if (status == HM_ERR_USAGE) { /* the settings came from the file */
        hm_error_prefix(err, "'%s'", dir);
        status = HM_ERR_FORMAT;
    }
    if (status == HM_OK)
        status = bind_params(&o);
    if (status == HM_OK)
        status = check_leftovers(&o);
out:
    hm_free(o.used);
    hm_adapter_config_release(&config);
    if (status < 0)
        hm_peft_close(&folder);
    else
        *ret_folder = folder;
    return status;
}

void hm_peft_close(struct hm_peft_folder *folder)
{
    if (!folder)
        return;
    hm_adapter_free(folder->layout);
    hm_free(folder->tensor);
    hm_safetensors_close(&folder->file);
    hm_free(folder->dir);
    *folder = (struct hm_peft_folder){ 0 };
}

struct load_job {
    const struct hm_peft_folder *folder;
    struct hm_adapter *adapter;
    bool *finite; /* [n_params] */
};

static void load_unit(void *context, size_t index, int worker)
{
    struct load_job *job = context;
    struct hm_param *param = &job->adapter->param[index];
    const struct hm_tensor *tensor = job->folder->tensor[index];
    size_t count = hm_param_values(param);
    size_t skip = (size_t)param->first_row * param->cols * hm_dtype_bytes(tensor->dtype);

    (void)worker;
    hm_floats_load(tensor->dtype, tensor->data + skip, count, param->value);
    job->finite[index] = true;
    for (size_t i = 0; i < count; i++)
        job->finite[index] = job->finite[index] && isfinite(param->value[i]);
}

int hm_adapter_load(const char *dir, const struct hm_checkpoint *ckpt, bool with_gradients,
                    struct hm_adapter **ret_adapter, struct hm_error *err)
{
    struct hm_peft_folder folder = { 0 };
    struct load_job job = { .folder = &folder };
    int status;

    HM_TRY(hm_peft_open(dir, ckpt, &folder, err));
    job.adapter = folder.layout;
    if ((status = hm_adapter_allocate(job.adapter, with_gradients, err)) < 0)
        goto out;
    job.finite = hm_calloc(HM_MEM_ADAPTER, job.adapter->n_params, sizeof *job.finite);
    if (!job.finite) {
        status = hm_fail_nomem(err, "loading '%s'", dir);
        goto out;
    }
    hm_parallel_for(job.adapter->n_params, load_unit, &job);
    for (size_t i = 0; i < job.adapter->n_params && status == HM_OK; i++) {
        if (!job.finite[i])
            status = hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' holds NaN or Inf",
                             folder.file.path, job.adapter->param[i].name);
    }
out:
    hm_free(job.finite);
    if (status == HM_OK) {
        *ret_adapter = job.adapter;
        folder.layout = NULL;
    }
    hm_peft_close(&folder);
    return status;
}
