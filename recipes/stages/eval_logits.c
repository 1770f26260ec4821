/* SPDX-License-Identifier: MIT */
/*
 * Stage eval.logits: logits, losses and router logits of given token ids. The work is
 * eval/logits.c.
 */
#include "hanmix/base/alloc.h"
#include "hanmix/eval/eval.h"
#include "hanmix/model/ids_file.h"
#include "stage_runtime.h"
#include "stage_util.h"

struct config {
    int compute;
    uint64_t ram;
};

static const struct hm_field fields[] = {
    STAGE_COMPUTE_FIELD(struct config),
    STAGE_RAM_FIELD(struct config),
};
static const struct hm_input inputs[] = {
    { .name = "model", .type = HM_INPUT_MODEL, .required = true, .help = "model folder" },
    { .name = "adapter", .type = HM_INPUT_ADAPTER, .help = "PEFT adapter folder" },
    { .name = "ids",
      .type = HM_INPUT_IDS,
      .required = true,
      .help = "safetensors with I64 input_ids or ids, [B, T]" },
};

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_ids_file ids = { 0 };
    const char *path = NULL;

    HM_TRY(hm_stage_path(run, "ids", &path, err));
    if (!hm_stage_pending(run, "ids"))
        HM_TRY(hm_ids_file_open(path, &ids, err));
    uint32_t seq_len = ids.seq_len;
    uint64_t rows = ids.rows;
    ret_plan->work = ids.rows;
    ret_plan->work_unit = "rows";
    hm_ids_file_close(&ids);
    return hm_stage_eval_plan(run, (enum hm_round)config->compute, config->ram, seq_len, rows, true,
                              ret_plan, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_runtime runtime = { 0 };
    const char *ids = NULL;
    char *out = NULL;

    HM_TRY(hm_stage_path(run, "ids", &ids, err));
    HM_TRY(hm_path_join(&out, run->out_dir, "logits.safetensors", err));
    int r = hm_stage_runtime_open(run, (enum hm_round)config->compute, &runtime, err);
    if (r == HM_OK)
        r = hm_stage_stream(run, plan_stage, runtime.model, err);
    if (r == HM_OK)
        r = hm_eval_logits(runtime.model, ids, out, run->ctl, err);
    if (r == HM_OK)
        r = hm_report_u64(run->report, "vocab_size", hm_model_arch(runtime.model)->vocab_size, err);
    hm_stage_runtime_release(&runtime);
    hm_free(out);
    return r;
}

const struct hm_stage hm_stage_eval_logits = {
    .name = "eval.logits",
    .summary = "Logits and losses of given token ids.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "logits.safetensors, report.json",
    .plan = plan_stage,
    .run = run_stage,
};
