/* SPDX-License-Identifier: MIT */
/*
 * Descriptions of models, adapters, tensors, tokenizers, packed data and run folders.
 */
#include "inspect_kinds.h"

#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/corpus/packed.h"
#include "hanmix/recipes/run.h"
#include "hanmix/vocab/tokenizer.h"

static json_t *shape_json(const struct hm_tensor *tensor)
{
    json_t *shape = json_array();

    for (uint32_t i = 0; i < tensor->n_dims; i++)
        (void)json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    return shape;
}

static json_t *tensor_json(const struct hm_tensor *tensor)
{
    return json_pack("{s:s, s:s, s:o, s:I}", "name", tensor->name, "dtype",
                     hm_dtype_name(tensor->dtype), "shape", shape_json(tensor), "bytes",
                     (json_int_t)tensor->size_bytes);
}

/* "tensors", "values", "bytes", "dtypes" and, when asked, the list. */
static void add_tensors(json_t *facts, const struct hm_tensor *const *tensors, size_t n, bool list)
{
    uint64_t values = 0, bytes = 0, by_dtype[HM_DTYPE_COUNT] = { 0 };
    json_t *dtypes = json_object(), *items = json_array();

    for (size_t i = 0; i < n; i++) {
        values += tensors[i]->count;
        bytes += tensors[i]->size_bytes;
        by_dtype[tensors[i]->dtype] += tensors[i]->size_bytes;
        if (list)
            (void)json_array_append_new(items, tensor_json(tensors[i]));
    }
    for (int d = 0; d < HM_DTYPE_COUNT; d++)
        if (by_dtype[d] > 0)
            (void)json_object_set_new(dtypes, hm_dtype_name((enum hm_dtype)d),
                                      json_integer((json_int_t)by_dtype[d]));
    (void)json_object_set_new(facts, "tensors", json_integer((json_int_t)n));
    (void)json_object_set_new(facts, "values", json_integer((json_int_t)values));
    (void)json_object_set_new(facts, "bytes", json_integer((json_int_t)bytes));
    (void)json_object_set_new(facts, "bytes_by_dtype", dtypes);
    if (list)
        (void)json_object_set_new(facts, "tensor_list", items);
    else
        json_decref(items);
}

int hm_inspect_safetensors(const char *path, bool tensors, json_t **ret_facts, struct hm_error *err)
{
    struct hm_safetensors file = { 0 };
    const struct hm_tensor **views = NULL;

    HM_TRY(hm_safetensors_open(path, &file, err));
    views = hm_calloc(HM_MEM_OTHER, file.count + 1, sizeof(*views));
    json_t *facts = json_pack("{s:s, s:s}", "kind", "safetensors", "path", path);
    int status = views && facts ? HM_OK : hm_fail_nomem(err, "for the facts of a file");
    if (status == HM_OK) {
        for (size_t i = 0; i < file.count; i++)
            views[i] = &file.tensor[i];
        add_tensors(facts, views, file.count, tensors);
        if (file.metadata)
            (void)json_object_set(facts, "metadata", file.metadata);
        *ret_facts = facts;
    } else {
        json_decref(facts);
    }
    hm_free(views);
    hm_safetensors_close(&file);
    return status;
}

static json_t *arch_json(const struct hm_arch *arch)
{
    json_t *facts = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:b, s:s}",
        "family", arch->family == HM_FAMILY_MIXTRAL ? "mixtral" : "llama", "hidden",
        (int)arch->hidden, "ffn", (int)arch->ffn, "layers", (int)arch->layers, "heads",
        (int)arch->heads, "kv_heads", (int)arch->kv_heads, "head_dim", (int)arch->head_dim,
        "experts", (int)arch->experts, "top_k", (int)arch->top_k, "vocab_size",
        (int)arch->vocab_size, "max_positions", (int)arch->max_positions, "sliding_window",
        (int)arch->sliding_window, "norm_eps", arch->norm_eps, "rope_theta", arch->rope_theta,
        "tied", arch->tied, "dtype", hm_dtype_hf_name(arch->dtype));

    if (facts && arch->quant.present)
        (void)json_object_set_new(
            facts, "quantized",
            json_pack("{s:s, s:b}", "type", "nf4", "double_quant", arch->quant.double_quant));
    return facts;
}

int hm_inspect_model(const char *dir, bool tensors, json_t **ret_facts, struct hm_error *err)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_vocab_record record = { 0 };

    HM_TRY(hm_checkpoint_open(dir, &ckpt, err));
    json_t *facts = json_pack("{s:s, s:s}", "kind", "model", "path", dir);
    json_t *arch = arch_json(&ckpt.arch);
    int status = facts && arch ? HM_OK : hm_fail_nomem(err, "for the facts of a file");
    if (status == HM_OK)
        status = hm_vocab_record_read(dir, ckpt.arch.vocab_size, &record, err);
    if (status == HM_OK) {
        (void)json_object_update(facts, arch);
        (void)json_object_set_new(facts, "files", json_integer((json_int_t)ckpt.n_files));
        if (record.present)
            (void)json_object_set_new(facts, "old_vocab_size",
                                      json_integer((json_int_t)record.old_vocab_size));
        add_tensors(facts, ckpt.tensor, ckpt.count, tensors);
        *ret_facts = facts;
    } else {
        json_decref(facts);
    }
    json_decref(arch);
    hm_checkpoint_close(&ckpt);
    return status;
}

int hm_inspect_adapter(const char *dir, bool tensors, json_t **ret_facts, struct hm_error *err)
{
    static const char *const keys[] = { "base_model_name_or_path",
                                        "r",
                                        "lora_alpha",
                                        "use_rslora",
                                        "lora_dropout",
                                        "target_modules",
                                        "modules_to_save",
                                        "rank_pattern",
                                        "alpha_pattern" };
    char *config_path = NULL, *weights = NULL;
    json_t *config = NULL, *facts = NULL;
    int status = hm_path_join(&config_path, dir, "adapter_config.json", err);

    if (status == HM_OK)
        status = hm_path_join(&weights, dir, "adapter_model.safetensors", err);
    if (status == HM_OK)
        status = hm_json_load(config_path, 16u << 20, &config, err);
    if (status == HM_OK)
        status = hm_inspect_safetensors(weights, tensors, &facts, err);
    if (status == HM_OK) {
        (void)json_object_set_new(facts, "kind", json_string("adapter"));
        (void)json_object_set_new(facts, "path", json_string(dir));
        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
            if (json_object_get(config, keys[i]))
                (void)json_object_set(facts, keys[i], json_object_get(config, keys[i]));
        *ret_facts = facts;
    }
    json_decref(config);
    hm_free(config_path);
    hm_free(weights);
    return status;
}

int hm_inspect_tokenizer(const char *path, json_t **ret_facts, struct hm_error *err)
{
    static const char *const kinds[] = { "?", "unigram", "bpe", "word", "char" };
    static const char *const types[] = { "?",    "normal", "unknown", "control",
                                         "user", "unused", "byte" };
    struct hm_spm_model model = { 0 };
    uint64_t by_type[7] = { 0 };

    HM_TRY(hm_spm_model_load(path, &model, err));
    for (size_t i = 0; i < model.count; i++)
        by_type[model.piece[i].type]++;
    json_t *by = json_object();
    for (int t = 1; t < 7; t++)
        if (by_type[t] > 0)
            (void)json_object_set_new(by, types[t], json_integer((json_int_t)by_type[t]));
    json_t *facts =
        json_pack("{s:s, s:s, s:s, s:I, s:o, s:b, s:b, s:b, s:b, s:i, s:i, s:i, s:i, s:s}", "kind",
                  "tokenizer", "path", model.path ? model.path : path, "model", kinds[model.kind],
                  "pieces", (json_int_t)model.count, "pieces_by_type", by, "byte_fallback",
                  model.byte_fallback, "add_dummy_prefix", model.add_dummy_prefix,
                  "remove_extra_whitespaces", model.remove_extra_whitespaces, "normaliser",
                  model.has_charsmap, "unk_id", (int)model.unk_id, "bos_id", (int)model.bos_id,
                  "eos_id", (int)model.eos_id, "pad_id", (int)model.pad_id, "sha256", model.sha256);
    const char *obstacle = hm_tokenizer_obstacle(&model);
    (void)json_object_set_new(facts, "encoder",
                              json_string(obstacle ? "libsentencepiece" : "hanmix"));
    if (obstacle)
        (void)json_object_set_new(facts, "encoder_reason", json_string(obstacle));
    hm_spm_model_release(&model);
    *ret_facts = facts;
    return HM_OK;
}

int hm_inspect_packed(const char *path, json_t **ret_facts, struct hm_error *err)
{
    struct hm_packed packed = { 0 };

    HM_TRY(hm_packed_open(path, &packed, err));
    *ret_facts = json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:i, s:i, s:I, s:s, s:s}", "kind", "packed", "path", packed.path,
        "seq_len", (int)packed.seq_len, "windows", (json_int_t)packed.windows, "tokens",
        (json_int_t)(packed.windows * packed.seq_len), "vocab_size", (int)packed.vocab_size,
        "token_bytes", (int)packed.token_bytes, "bytes", (json_int_t)packed.map.size_bytes,
        "tokenizer", packed.tokenizer, "text", packed.text);
    hm_packed_close(&packed);
    return HM_OK;
}

int hm_inspect_run(const char *dir, json_t **ret_facts, struct hm_error *err)
{
    struct hm_run_status status = { 0 };
    json_t *stages = json_array();

    HM_TRY(hm_run_status_read(dir, &status, err));
    for (size_t i = 0; i < status.n_stages; i++) {
        const struct hm_stage_status *stage = &status.stage[i];
        (void)json_array_append_new(stages, json_pack("{s:s, s:s, s:s, s:s}", "id", stage->id,
                                                      "stage", stage->stage, "state", stage->state,
                                                      "detail", stage->detail));
    }
    *ret_facts = json_pack("{s:s, s:s, s:s, s:b, s:o}", "kind", "run", "path", dir, "recipe",
                           status.recipe, "busy", status.busy, "stages", stages);
    hm_run_status_release(&status);
    return HM_OK;
}
