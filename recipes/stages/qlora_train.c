/* SPDX-License-Identifier: MIT */
/*
 * Stage qlora.train: LoRA adapters, new rows, or every weight, over a frozen base. Settings are
 * train_config.c, logs train_log.c; the loop is qlora/trainer.c.
 */

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/kernels/peak.h"
#include "stage_runtime.h"
#include "stage_util.h"
#include "train_adapter.h"
#include "train_bench.h"
#include "train_log.h"

static const struct hm_input inputs[] = {
    { .name = "model",
      .type = HM_INPUT_MODEL,
      .required = true,
      .help = "base: 4-bit, 16-bit or 32-bit folder" },
    { .name = "data",
      .type = HM_INPUT_PACKED,
      .help = "packed windows, or a safetensors file of ids" },
    { .name = "ids",
      .type = HM_INPUT_IDS,
      .help = "safetensors with I64 input_ids or ids, [rows, T] or [micro-batches, rows, T], and "
              "optional labels and "
              "attention_mask; taken in file order" },
    { .name = "valid",
      .type = HM_INPUT_PACKED,
      .many = true,
      .help = "packed windows to evaluate on, named sets; of a folder with valid.hmp that file" },
    { .name = "adapter",
      .type = HM_INPUT_ADAPTER,
      .help = "PEFT adapter to start from: its settings stand, and those written beside it must "
              "agree; dropout is the run's own, matrices it lacks begin as the base's" },
};

struct training { /* everything a run holds */
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_scratch *store; /* of the adapter and its moments; NULL: memory */
    struct hm_adapter *adapter;
    struct hm_sample_source *data;
    struct hm_eval_set *eval;
    size_t n_eval;
    struct hm_train_config config;
    struct expert_load load;
    struct train_log log;
};

static bool is_safetensors(const char *path)
{
    return hm_text_ends(path, ".safetensors");
}

/* Windows that the model's own tokenizer made. */
static int packed_open(const struct hm_stage_run *run, const char *path, bool shuffle,
                       uint64_t seed, struct hm_sample_source **ret_source, struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    struct hm_sample_source *source = NULL;

    HM_TRY(hm_samples_open_packed(path, shuffle, seed, settings->attention == 1, &source, err));
    int r = hm_stage_packed_check(run, path, hm_samples_tokenizer(source), err);
    if (r < 0)
        hm_samples_close(source);
    else
        *ret_source = source;
    return r;
}

int hm_train_data_open(const struct hm_stage_run *run, struct hm_sample_source **ret_source,
                       struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    const char *path = NULL;
    bool ids = hm_stage_input(run, "ids") != NULL;

    HM_TRY(hm_stage_path(run, ids ? "ids" : "data", &path, err));
    if (ids || is_safetensors(path))
        return hm_samples_open_ids(path, ret_source, err);
    return packed_open(run, path, settings->shuffle, run->seed, ret_source, err);
}

static int eval_sets_open(const struct hm_stage_run *run, struct training *t, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "valid");

    if (!input)
        return HM_OK;
    t->eval = hm_calloc(HM_MEM_OTHER, input->n_sets, sizeof(*t->eval));
    if (!t->eval)
        return hm_fail_nomem(err, "for in.valid");
    for (size_t i = 0; i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        if (set->n_paths != 1)
            return hm_fail(err, HM_ERR_USAGE,
                           "set '%s' of in.valid has %zu files; give each a name of its own",
                           set->name, set->n_paths);
        t->eval[i].name = set->name[0] ? set->name : (char *)(uintptr_t) "valid";
        t->n_eval = i + 1;
        char *path = NULL;
        HM_TRY(hm_stage_held_out(set->path[0], &path, err));
        int r = packed_open(run, path, false, 0, &t->eval[i].source, err);
        hm_free(path);
        HM_TRY(r);
        HM_TRY(hm_samples_check(t->eval[i].source, hm_model_arch(t->model), err));
    }
    return HM_OK;
}

/* A run that goes on keeps the kernel path it began with, unless a change is allowed. */
static int kernels_open(const struct hm_stage_run *run, struct hm_kernels *ret,
                        struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    char name[HM_KERNELS_NAME_BYTES];

    HM_TRY(hm_train_state_kernels(run->out_dir, name, err));
    if (name[0] == '\0' || settings->allow_kernel_change)
        return hm_stage_kernels(run, ret, err);
    int r = hm_kernels_choose(ret, name, err);
    if (r < 0) {
        hm_error_prefix(err,
                        "'%s' was begun with kernel path '%s' (set.allow_kernel_change goes on "
                        "with another)",
                        run->id, name);
        return r;
    }
    return run->stage_info ? hm_report_text(run->stage_info, "kernels", name, err) : HM_OK;
}

static int training_open(const struct hm_stage_run *run, struct training *t, struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    const char *model = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    HM_TRY(kernels_open(run, &t->kernels, err));
    struct hm_model_options options = { .kernels = &t->kernels,
                                        .round = (enum hm_round)settings->compute,
                                        .check_finite = true };
    HM_TRY(hm_model_open(model, &options, &t->model, err));
    HM_TRY(hm_train_store_open(run, hm_model_checkpoint(t->model), &t->store, err));
    HM_TRY(hm_train_adapter_open(run, hm_model_checkpoint(t->model), t->store, &t->adapter, err));
    hm_model_attach(t->model, t->adapter);
    HM_TRY(hm_stage_stream(run, hm_train_plan, t->model, err));
    HM_TRY(hm_train_data_open(run, &t->data, err));
    HM_TRY(hm_samples_check(t->data, hm_model_arch(t->model), err));
    HM_TRY(eval_sets_open(run, t, err));
    HM_TRY(hm_train_job_config(run, hm_samples_count(t->data), hm_samples_seq_len(t->data),
                               hm_samples_micro_rows(t->data), &t->config, err));
    HM_TRY(hm_expert_load_open(t->model, &t->load, err));
    return hm_train_log_open(run->out_dir, t->config.steps, &t->load, run->ctl, &t->log, err);
}

static void training_release(struct training *t)
{
    hm_train_log_close(&t->log);
    hm_expert_load_release(&t->load);
    for (size_t i = 0; i < t->n_eval; i++)
        hm_samples_close(t->eval[i].source);
    hm_free(t->eval);
    hm_samples_close(t->data);
    if (t->model)
        hm_model_attach(t->model, NULL);
    hm_adapter_free(t->adapter);
    hm_scratch_free(t->store);
    hm_model_free(t->model);
}

static int report_fill(const struct hm_stage_run *run, const struct training *t,
                       const struct hm_train_report *report, struct hm_error *err)
{
    double gflops = report->seconds > 0 ? report->flops / report->seconds / 1e9 : 0;
    double peak = hm_gemm_peak_gflops(&t->kernels, STAGE_PEAK_SIZE, STAGE_PEAK_SECONDS);

    HM_TRY(hm_report_u64(run->report, "steps", report->steps, err));
    HM_TRY(hm_report_u64(run->report, "tokens", report->tokens, err));
    HM_TRY(hm_report_f64(run->report, "tokens_per_s", report->tokens_per_s, err));
    HM_TRY(hm_report_f64(run->report, "gflops", gflops, err));
    HM_TRY(hm_report_f64(run->report, "gemm_peak_fraction", peak > 0 ? gflops / peak : 0, err));
    HM_TRY(hm_report_u64(run->report, "peak_rss_bytes", hm_rss_peak_bytes(), err));
    HM_TRY(hm_report_u64(run->report, "planned_bytes", run->planned_bytes, err));
    HM_TRY(hm_report_u64(run->report, "trainable_parameters", hm_adapter_param_count(t->adapter),
                         err));
    HM_TRY(hm_report_f64(run->report, "final_loss", report->final_loss, err));
    json_t *phases = hm_report_object(run->report, "phase_seconds", err);
    json_t *targets = phases ? hm_report_object(run->report, "targets", err) : NULL;
    if (!targets)
        return HM_ERR_NOMEM;
    for (size_t i = 0; i <= HM_PHASE_COUNT; i++)
        HM_TRY(hm_report_f64(phases, hm_train_phase_name(i), report->phase_seconds[i], err));
    for (int kind = 0; kind < HM_WEIGHT_KINDS; kind++) {
        if (t->adapter->matched[kind] > 0)
            HM_TRY(hm_report_u64(
                targets, hm_weight_kind_name(hm_model_arch(t->model), (enum hm_weight_kind)kind),
                t->adapter->matched[kind], err));
    }
    return HM_OK;
}

/* adapter/ or model/, and the plots. */
static int results_write(const struct hm_stage_run *run, const struct training *t,
                         struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(t->model);
    char *result = NULL;
    char *plots = NULL;

    HM_TRY(hm_path_join(&result, run->out_dir, settings->train_all ? "model" : "adapter", err));
    int r = settings->train_all ? hm_adapter_save_model(t->adapter, ckpt, result, err)
                                : hm_adapter_save(t->adapter, ckpt, ckpt->dir, result, err);
    if (r == HM_OK)
        r = hm_path_join(&plots, run->out_dir, "plots", err);
    if (r == HM_OK)
        r = hm_dir_make(plots, err);
    if (r == HM_OK)
        r = hm_plots_from_metrics(t->log.metrics_path, plots, err);
    if (r == HM_OK)
        r = hm_expert_load_write(&t->load, plots, err);
    hm_free(plots);
    hm_free(result);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    struct hm_train_report report = { 0 };
    struct training t = { 0 };

    int r = training_open(run, &t, err);
    if (r == HM_OK) {
        struct hm_train_job job = { .model = t.model,
                                    .kernels = &t.kernels,
                                    .adapter = t.adapter,
                                    .data = t.data,
                                    .eval = t.eval,
                                    .n_eval = t.n_eval,
                                    .config = t.config,
                                    .state_dir = run->out_dir,
                                    .gradients_dir = run->out_dir,
                                    .config_digest = run->config_digest,
                                    .callbacks = hm_train_log_callbacks(&t.log) };
        r = hm_train(&job, run->ctl, &report, err);
    }
    if (r == HM_OK)
        r = results_write(run, &t, err);
    if (r == HM_OK)
        r = report_fill(run, &t, &report, err);
    training_release(&t);
    return r;
}

const struct hm_stage hm_stage_qlora_train = {
    .name = "qlora.train",
    .summary = "Train LoRA adapters and new rows over a frozen base, or every weight.",
    .config_bytes = sizeof(struct train_settings),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = hm_train_fields,
    .n_fields = HM_TRAIN_N_FIELDS,
    .writes =
        "adapter/ or model/, state-<step>/, metrics.jsonl, tensorboard/, plots/*.svg, report.json",
    .product = { HM_INPUT_ADAPTER, HM_INPUT_MODEL },
    .product_path = { "adapter", "model" },
    .resumable = true,
    .check = hm_train_settings_check,
    .plan = hm_train_plan,
    .smaller = hm_train_smaller,
    .bench = hm_train_bench,
    .run = run_stage,
};
