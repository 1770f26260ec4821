/* SPDX-License-Identifier: MIT */
/*
 * Models and tokenizers as plans see them; see stage_model.h.
 */
#include "stage_model.h"

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/model/model.h"
#include "hanmix/vocab/tokenizer.h"
#include "stage_util.h"

#define CONFIG_MAX_BYTES (4u << 20)

static const json_t *facts_of(const struct hm_stage_run *run, const char *name)
{
    const struct hm_input_value *input = hm_stage_input(run, name);

    return input && input->n_sets > 0 ? input->set[0].facts : NULL;
}

void hm_stage_fact_u64(const struct hm_stage_run *run, const char *name, const char *fact,
                       uint64_t *ret)
{
    const json_t *value = json_object_get(facts_of(run, name), fact);

    if (json_is_integer(value) && json_integer_value(value) >= 0)
        *ret = (uint64_t)json_integer_value(value);
}

static int old_vocab_find(const struct hm_stage_run *run, const char *name, const char *dir,
                          struct stage_model *model, struct hm_error *err)
{
    struct hm_vocab_record record = { 0 };

    model->old_vocab_size = model->arch.vocab_size;
    hm_stage_fact_u64(run, name, "old_vocab_size", &model->old_vocab_size);
    if (hm_stage_pending(run, name))
        return HM_OK;
    HM_TRY(hm_vocab_record_read(dir, model->arch.vocab_size, &record, err));
    model->old_vocab_size = record.old_vocab_size;
    return HM_OK;
}

int hm_stage_model_plan(const struct hm_stage_run *run, const char *name,
                        struct stage_model *ret_model, struct hm_error *err)
{
    struct stage_model model = { 0 };
    const char *dir = NULL;
    char *path = NULL;

    HM_TRY(hm_stage_path(run, name, &dir, err));
    HM_TRY(hm_path_join(&path, dir, "config.json", err));
    int r = HM_OK;
    const json_t *foretold = json_object_get(facts_of(run, name), "config");
    if (hm_path_exists(path) || !hm_stage_pending(run, name)) {
        r = hm_json_load(path, CONFIG_MAX_BYTES, &model.config, err);
    } else if (foretold) {
        model.config = json_deep_copy(foretold);
        if (!model.config)
            r = hm_fail_nomem(err, "for the plan of '%s'", run->id);
    } else {
        hm_free(path);
        *ret_model = model;
        return HM_OK;
    }
    if (r == HM_OK)
        r = hm_arch_parse(model.config, path, &model.arch, err);
    model.known = r == HM_OK;
    if (r == HM_OK)
        r = old_vocab_find(run, name, dir, &model, err);
    if (r == HM_OK)
        model.file_bytes = hm_memory_plan_weights(&model.arch);
    hm_free(path);
    if (r < 0) {
        hm_stage_model_release(&model);
        return r;
    }
    *ret_model = model;
    return HM_OK;
}

void hm_stage_model_release(struct stage_model *model)
{
    if (model->known)
        hm_arch_release(&model->arch);
    json_decref(model->config);
    *model = (struct stage_model){ 0 };
}

int hm_stage_model_foretell(struct hm_stage_plan *plan, const struct stage_model *model,
                            struct hm_error *err)
{
    json_t *config = NULL;

    if (!model->known)
        return HM_OK;
    HM_TRY(hm_arch_config(model->config, &model->arch, &config, err));
    HM_TRY(hm_stage_plan_fact(plan, "config", config, err));
    HM_TRY(hm_stage_plan_fact(plan, "vocab_size", json_integer(model->arch.vocab_size), err));
    return hm_stage_plan_fact(plan, "old_vocab_size",
                              json_integer((json_int_t)model->old_vocab_size), err);
}

static int pieces_of(const char *path, uint64_t *ret_pieces, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };

    HM_TRY(hm_tokenizer_model_load(path, &model, err));
    *ret_pieces = model.count;
    hm_spm_model_release(&model);
    return HM_OK;
}

/* Of the tokenizer.json that stands for a tokenizer; 0 for a tokenizer.model. */
static int json_bytes_of(const char *path, uint64_t *ret_bytes, struct hm_error *err)
{
    bool has_model = false, has_json = false;
    char *json = NULL;

    *ret_bytes = 0;
    if (!hm_path_is_dir(path))
        return hm_text_ends(path, ".json") ? hm_file_size(path, ret_bytes, err) : (int)HM_OK;
    HM_TRY(hm_dir_holds(path, "tokenizer.model", &has_model, err));
    HM_TRY(hm_dir_holds(path, "tokenizer.json", &has_json, err));
    if (has_model || !has_json)
        return HM_OK;
    HM_TRY(hm_path_join(&json, path, "tokenizer.json", err));
    int status = hm_file_size(json, ret_bytes, err);
    hm_free(json);
    return status;
}

int hm_stage_json_plan(const struct hm_stage_run *run, const char *name, struct hm_stage_plan *plan,
                       struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    uint64_t total = 0;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        for (size_t f = 0; !set->pending && f < set->n_paths; f++) {
            uint64_t bytes = 0;
            HM_TRY(json_bytes_of(set->path[f], &bytes, err));
            total += bytes;
        }
    }
    return total ? hm_stage_plan_memory(plan, "tokenizer.json", STAGE_JSON_PER_BYTE * total, err)
                 : (int)HM_OK;
}

int hm_stage_vocab_size(const struct hm_stage_run *run, const char *name, uint64_t *ret_size,
                        struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    uint64_t total = 0;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        const json_t *foretold = json_object_get(set->facts, "vocab_size");
        if (set->pending && json_is_integer(foretold))
            total += (uint64_t)json_integer_value(foretold);
        for (size_t f = 0; !set->pending && f < set->n_paths; f++) {
            uint64_t pieces = 0;
            HM_TRY(pieces_of(set->path[f], &pieces, err));
            total += pieces;
        }
    }
    *ret_size = total;
    return HM_OK;
}
