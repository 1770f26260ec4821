/* SPDX-License-Identifier: MIT */
/*
 * The plan of qlora.train: shapes of data that exist or are foretold, memory by purpose, steps.
 */
#include "hanmix/corpus/packed.h"
#include "stage_runtime.h"
#include "stage_util.h"
#include "train_adapter.h"

#define DEFAULT_SEQ_LEN 2048

struct data_shape {
    uint64_t samples;
    uint32_t seq_len, micro_rows;
};

static int shape_find(const struct hm_stage_run *run, struct data_shape *ret_shape,
                      struct hm_error *err)
{
    const char *name = hm_stage_input(run, "ids") ? "ids" : "data";
    struct hm_sample_source *source = NULL;
    uint64_t seq_len = DEFAULT_SEQ_LEN;
    uint64_t windows = 0;

    if (hm_stage_pending(run, name)) {
        hm_stage_fact_u64(run, name, "seq_len", &seq_len);
        hm_stage_fact_u64(run, name, "windows", &windows);
        *ret_shape = (struct data_shape){ windows, (uint32_t)seq_len, 0 };
        return HM_OK;
    }
    HM_TRY(hm_train_data_open(run, &source, err));
    *ret_shape = (struct data_shape){ hm_samples_count(source), hm_samples_seq_len(source),
                                      hm_samples_micro_rows(source) };
    hm_samples_close(source);
    return HM_OK;
}

/* The longest window there is, and the bytes of the evaluation sets. */
static int valid_find(const struct hm_stage_run *run, uint32_t *seq_len, uint64_t *bytes,
                      struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "valid");
    uint64_t valid_bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "valid", &valid_bytes, err));
    *bytes += valid_bytes;
    for (size_t i = 0; input && i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        struct hm_packed packed = { 0 };
        uint64_t length = 0;
        if (set->pending) {
            length = (uint64_t)json_integer_value(json_object_get(set->facts, "seq_len"));
        } else {
            char *path = NULL;
            HM_TRY(hm_stage_held_out(set->path[0], &path, err));
            int r = hm_packed_open(path, &packed, err);
            hm_free(path);
            HM_TRY(r);
            length = packed.seq_len;
            r = hm_stage_packed_check(run, set->path[0], packed.tokenizer, err);
            hm_packed_close(&packed);
            HM_TRY(r);
        }
        if (length > *seq_len)
            *seq_len = (uint32_t)length;
    }
    return HM_OK;
}

/* What the chosen optimizer keeps. */
static int moments_plan(const struct train_settings *settings, const struct stage_model *model,
                        const struct hm_adapter_config *config, struct hm_memory_plan *memory,
                        struct hm_error *err)
{
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_adapter_plan(&model->arch, config, model->old_vocab_size, &adapter, err));
    memory->optimizer = hm_train_moments_bytes(adapter, settings->optimizer == 1);
    hm_adapter_free(adapter);
    return HM_OK;
}

int hm_train_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                  struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    struct hm_adapter_config adapter = { 0 };
    struct hm_train_config config = { 0 };
    struct hm_memory_plan memory = { 0 };
    struct stage_model model = { 0 };
    struct data_shape shape = { 0 };
    struct hm_kernels kernels;
    uint64_t data_bytes = 0;

    HM_TRY(hm_stage_kernels(run, &kernels, err));
    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    if (!model.known)
        return HM_OK;
    int r = HM_OK;
    if (settings->aux_coef > 0 && model.arch.experts < 2)
        r = hm_fail(err, HM_ERR_USAGE,
                    "set.aux_coef weighs the loss of routers, and the model has none");
    if (r == HM_OK)
        r = shape_find(run, &shape, err);
    if (r == HM_OK)
        r = hm_train_job_config(run, shape.samples, shape.seq_len, shape.micro_rows, &config, err);
    if (r == HM_OK)
        r = hm_train_adapter_plan(run, &model.arch, model.old_vocab_size, &adapter, err);
    if (r == HM_OK)
        r = hm_stage_input_bytes(run, hm_stage_input(run, "ids") ? "ids" : "data", &data_bytes,
                                 err);
    uint32_t longest = shape.seq_len;
    if (r == HM_OK)
        r = valid_find(run, &longest, &data_bytes, err);
    if (r == HM_OK)
        r = hm_memory_plan_train(&model.arch, &adapter, model.old_vocab_size, config.micro_batch,
                                 longest, config.recompute,
                                 hm_model_packs(&kernels, (enum hm_round)settings->compute),
                                 run->threads, &memory, err);
    if (r == HM_OK)
        r = moments_plan(settings, &model, &adapter, &memory, err);
    memory.weights_mapped = model.file_bytes;
    if (r == HM_OK)
        r = hm_stage_ram_check(run, settings->ram, memory.weights_mapped, err);
    if (r == HM_OK)
        r = hm_stage_plan_lines(ret_plan, &memory, err);
    if (r == HM_OK)
        r = hm_stage_plan_mapped(ret_plan, "data", data_bytes, err);
    if (r == HM_OK)
        r = hm_stage_plan_memory(ret_plan, "peak measurement", STAGE_PEAK_BYTES, err);
    ret_plan->disk_bytes =
        (settings->keep + 1) * (memory.adapter + memory.optimizer) + memory.adapter;
    ret_plan->work = config.steps;
    ret_plan->work_unit = "steps";
    ret_plan->flops = (double)config.steps * (double)config.accumulate *
                      hm_model_step_flops(&model.arch, (uint64_t)config.micro_batch * shape.seq_len,
                                          true, config.recompute);
    if (r == HM_OK)
        r = hm_train_adapter_foretell(ret_plan, &adapter, err);
    hm_adapter_config_release(&adapter);
    hm_stage_model_release(&model);
    return r;
}
