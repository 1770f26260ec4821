/* SPDX-License-Identifier: MIT */
/*
 * The plan of qlora.train: shapes of data that exist or are foretold, memory by purpose, steps.
 */
#include "hanmix/base/hash.h"
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

/* One evaluation set: windows and their length, foretold or read. */
static int valid_set(const struct hm_stage_run *run, const struct hm_input_set *set,
                     uint64_t *ret_seq_len, uint64_t *ret_windows, struct hm_error *err)
{
    struct hm_packed packed = { 0 };
    char *path = NULL;

    if (set->pending) {
        *ret_seq_len = (uint64_t)json_integer_value(json_object_get(set->facts, "seq_len"));
        *ret_windows = (uint64_t)json_integer_value(json_object_get(set->facts, "windows"));
        return HM_OK;
    }
    HM_TRY(hm_stage_held_out(set->path[0], &path, err));
    int r = hm_packed_open(path, &packed, err);
    hm_free(path);
    HM_TRY(r);
    *ret_seq_len = packed.seq_len;
    *ret_windows = packed.windows;
    r = hm_stage_packed_check(run, set->path[0], packed.tokenizer, err);
    hm_packed_close(&packed);
    return r;
}

static int valid_find(const struct hm_stage_run *run, struct train_forecast *forecast,
                      struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "valid");
    uint64_t valid_bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "valid", &valid_bytes, err));
    forecast->data_bytes += valid_bytes;
    for (size_t i = 0; input && i < input->n_sets; i++) {
        uint64_t seq_len = 0;
        uint64_t windows = 0;
        HM_TRY(valid_set(run, &input->set[i], &seq_len, &windows, err));
        if (seq_len > forecast->eval_seq_len)
            forecast->eval_seq_len = (uint32_t)seq_len;
        forecast->eval_windows += windows;
        forecast->n_eval++;
    }
    forecast->longest =
        forecast->eval_seq_len > forecast->seq_len ? forecast->eval_seq_len : forecast->seq_len;
    return HM_OK;
}

/* Read: values in both passes, gradients for the norm, all for the update. Written: gradients, then
 * all but them. */
static void store_traffic(struct train_forecast *f)
{
    uint64_t values = f->parameters * sizeof(float);

    f->store_read = (2 * f->config.accumulate + 1) * values + f->store_bytes;
    f->store_write = f->config.accumulate * values + f->store_bytes - values;
}

/* What is trained and the optimizer's share of it: in memory, or what of a file is there at once.
 */
static int trained_plan(const struct hm_stage_run *run, struct train_forecast *f,
                        struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    const bool coded = settings->optimizer == 1;
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_adapter_plan(&f->model.arch, &f->adapter, f->model.old_vocab_size, &adapter, err));
    f->memory.optimizer = hm_train_moments_bytes(adapter, coded);
    f->parameters = hm_adapter_param_count(adapter);
    f->saved_bytes = f->memory.adapter + f->memory.optimizer;
    if (settings->state == 1) {
        f->store_bytes = hm_train_store_bytes(adapter, coded);
        store_traffic(f);
        f->memory.adapter = f->memory.gradients =
            sizeof(float) * hm_adapter_window_values(adapter, &f->model.arch,
                                                     (uint64_t)f->config.micro_batch * f->seq_len);
        f->memory.optimizer = hm_train_store_window_bytes(run->threads);
    }
    hm_adapter_free(adapter);
    return HM_OK;
}

static int forecast_fill(const struct hm_stage_run *run, struct train_forecast *f,
                         struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    const char *data = hm_stage_input(run, "ids") ? "ids" : "data";
    struct data_shape shape = { 0 };
    struct hm_kernels kernels;

    HM_TRY(hm_stage_kernels(run, &kernels, err));
    if (settings->aux_coef > 0 && f->model.arch.experts < 2)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.aux_coef weighs the loss of routers, and the model has none");
    HM_TRY(shape_find(run, &shape, err));
    f->seq_len = shape.seq_len;
    HM_TRY(
        hm_train_job_config(run, shape.samples, shape.seq_len, shape.micro_rows, &f->config, err));
    HM_TRY(hm_train_adapter_plan(run, &f->model.arch, f->model.old_vocab_size, &f->adapter, err));
    HM_TRY(hm_stage_input_bytes(run, data, &f->data_bytes, err));
    HM_TRY(valid_find(run, f, err));
    HM_TRY(hm_memory_plan_train(&f->model.arch, &f->adapter, f->model.old_vocab_size,
                                f->config.micro_batch, f->longest, f->config.recompute,
                                hm_model_packs(&kernels, (enum hm_round)settings->compute),
                                run->threads, &f->memory, err));
    f->memory.weights_mapped = f->model.file_bytes;
    HM_TRY(trained_plan(run, f, err));
    f->side_bytes = hm_sha256_file_bytes(f->saved_bytes);
    if (f->side_bytes < STAGE_PEAK_BYTES)
        f->side_bytes = STAGE_PEAK_BYTES;
    return hm_stage_ram_plan(run, settings->ram, &f->model.arch,
                             (uint64_t)f->config.micro_batch * f->longest, true, f->side_bytes,
                             &f->memory, err);
}

int hm_train_forecast(const struct hm_stage_run *run, struct train_forecast *ret_forecast,
                      struct hm_error *err)
{
    struct train_forecast forecast = { 0 };

    HM_TRY(hm_stage_model_plan(run, "model", &forecast.model, err));
    int r = forecast.model.known ? forecast_fill(run, &forecast, err) : HM_OK;
    if (r < 0)
        hm_train_forecast_release(&forecast);
    else
        *ret_forecast = forecast;
    return r;
}

void hm_train_forecast_release(struct train_forecast *forecast)
{
    hm_adapter_config_release(&forecast->adapter);
    hm_stage_model_release(&forecast->model);
}

/* The most that lies on the disk at once: the store and the states before the last one; or the last
   one beside those that are kept, the values and the adapter written of them, when all else of the
   store is given back. */
static uint64_t disk_bytes(const struct train_forecast *f, const struct train_settings *settings)
{
    const uint64_t every = settings->save_every, steps = f->config.steps, keep = settings->keep;
    uint64_t earlier =
        every > 0 && steps > 0 ? (steps - 1) / every : 0; /* states before the last */
    uint64_t values = f->parameters * sizeof(float);
    uint64_t last = ((earlier < keep ? earlier : keep) + 1) * f->saved_bytes + values;
    uint64_t before = (earlier < keep + 1 ? earlier : keep + 1) * f->saved_bytes + f->store_bytes;

    last += f->store_bytes > 0 ? values : 0;
    return last > before ? last : before;
}

static int plan_fill(const struct hm_stage_run *run, const struct train_forecast *f,
                     struct hm_stage_plan *plan, struct hm_error *err)
{
    const struct train_settings *settings = run->config;

    HM_TRY(hm_stage_plan_lines(plan, &f->memory, err));
    HM_TRY(hm_stage_plan_mapped(plan, "data", f->data_bytes, err));
    HM_TRY(hm_stage_plan_memory(plan, "digests, peak measurement", f->side_bytes, err));
    plan->disk_bytes = disk_bytes(f, settings);
    plan->read_bytes_per_step = f->config.accumulate * f->memory.weights_read + f->store_read;
    plan->write_bytes_per_step = f->store_write;
    plan->read_bytes =
        f->model.file_bytes + f->data_bytes + f->config.steps * plan->read_bytes_per_step;
    plan->work = f->config.steps;
    plan->work_unit = "steps";
    plan->flops = (double)f->config.steps * (double)f->config.accumulate *
                  hm_model_step_flops(&f->model.arch, (uint64_t)f->config.micro_batch * f->seq_len,
                                      true, f->config.recompute);
    return hm_train_adapter_foretell(plan, &f->adapter, err);
}

int hm_train_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                  struct hm_error *err)
{
    struct train_forecast forecast = { 0 };

    HM_TRY(hm_train_forecast(run, &forecast, err));
    int r = forecast.model.known ? plan_fill(run, &forecast, ret_plan, err) : HM_OK;
    hm_train_forecast_release(&forecast);
    return r;
}
