/* SPDX-License-Identifier: MIT */
/*
 * Stage qlora.merge: an adapter into a base model, streamed. The work is qlora/adapter_merge.c;
 * `verify` runs a text through base + adapter and through the result.
 */

#include <inttypes.h>

#include "hanmix/base/alloc.h"
#include "hanmix/eval/compare.h"
#include "hanmix/model/model.h"
#include "hanmix/qlora/adapter_merge.h"
#include "stage_model.h"
#include "stage_util.h"

#define VERIFY_TOKENS            512
#define VERIFY_FILE_MAX_BYTES    (1u << 20)
#define DEFAULT_RANK             64 /* planned with when nothing tells it */
#define ADAPTER_CONFIG_MAX_BYTES (4u << 20)

struct config {
    int onto, dtype;
    uint64_t shard_size;
    char *verify;
};

static const char *const ontos[] = { "original", "dequantised", NULL };
static const char *const dtypes[] = { "base", "bf16", "f16", "f32", NULL };
static const enum hm_dtype dtype_of[] = { HM_DTYPE_COUNT, HM_DTYPE_BF16, HM_DTYPE_F16,
                                          HM_DTYPE_F32 };
static const struct hm_field fields[] = {
    { .name = "onto",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, onto),
      .fallback = "original",
      .choices = ontos,
      .help =
          "original: the 16-bit base; dequantised: the 4-bit values the adapter was trained on" },
    { .name = "dtype",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, dtype),
      .fallback = "base",
      .choices = dtypes,
      .help = "type of the result; base keeps the base's" },
    STAGE_SHARD_FIELD(struct config),
    { .name = "verify",
      .type = HM_FIELD_TEXT,
      .offset = offsetof(struct config, verify),
      .path = true,
      .help = "text file; its first 512 tokens go through base + adapter and through the result, "
              "and the logits are "
              "compared" },
};
static const struct hm_input inputs[] = {
    { .name = "model",
      .type = HM_INPUT_MODEL,
      .required = true,
      .help = "16-bit base, or a 4-bit one with onto: dequantised" },
    { .name = "adapter",
      .type = HM_INPUT_ADAPTER,
      .required = true,
      .help = "PEFT adapter folder" },
};

static int report_fill(const struct hm_stage_run *run, const struct hm_adapter_merge_report *report,
                       struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "tensors", report->tensors, err));
    HM_TRY(hm_report_u64(run->report, "merged", report->merged, err));
    HM_TRY(hm_report_u64(run->report, "replaced", report->replaced, err));
    HM_TRY(hm_report_u64(run->report, "changed_values", report->changed_values, err));
    HM_TRY(hm_report_u64(run->report, "unchanged_values", report->unchanged_values, err));
    HM_TRY(hm_report_f64(run->report, "max_abs_delta", report->max_abs_delta, err));
    return hm_report_f64(run->report, "relative_norm", report->relative_norm, err);
}

static int verify_ids(const struct hm_stage_run *run, const char *model, struct hm_ids *ids,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_buf text = { 0 };

    int r = hm_file_read(config->verify, VERIFY_FILE_MAX_BYTES, &text, err);
    if (r == HM_OK)
        r = hm_tokenizer_open(model, &tokenizer, err);
    if (r == HM_OK && tokenizer->model.bos_id >= 0)
        r = hm_ids_append(ids, &tokenizer->model.bos_id, 1, err);
    if (r == HM_OK)
        r = hm_tokenizer_encode(tokenizer, (struct hm_str){ text.ptr, text.len }, ids, err);
    hm_tokenizer_free(tokenizer);
    hm_buf_release(&text);
    return r;
}

/* The text to verify with is looked at before the work, not after it. */
static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    uint64_t bytes = 0;

    if (!config->verify || !config->verify[0])
        return HM_OK;
    HM_TRY(hm_file_size(config->verify, &bytes, err));
    if (bytes < 1 || bytes > VERIFY_FILE_MAX_BYTES)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.verify: '%s' has %" PRIu64 " bytes; a text of 1 to %u bytes is needed",
                       config->verify, bytes, VERIFY_FILE_MAX_BYTES);
    return HM_OK;
}

/* Logits of base + adapter beside those of the merged folder, on the same tokens. */
static int verify(const struct hm_stage_run *run, const char *base, const char *adapter,
                  const struct hm_kernels *kernels, struct hm_error *err)
{
    struct hm_compare_side before = { base, adapter };
    struct hm_compare_side after = { run->out_dir, NULL };
    struct hm_compare_result result = { 0 };
    struct hm_ids ids = { 0 };

    int r = verify_ids(run, run->out_dir, &ids, err);
    size_t count = ids.count < VERIFY_TOKENS ? ids.count : VERIFY_TOKENS;
    if (r == HM_OK)
        r = hm_eval_compare(&before, &after, ids.id, (uint32_t)count, kernels, run->ctl, &result,
                            err);
    json_t *object = r == HM_OK ? hm_report_object(run->report, "verify", err) : NULL;
    if (r == HM_OK && !object)
        r = HM_ERR_NOMEM;
    if (r == HM_OK)
        r = hm_report_u64(object, "tokens", count, err);
    if (r == HM_OK)
        r = hm_report_f64(object, "max_abs_logit_difference", result.max_abs, err);
    if (r == HM_OK)
        r = hm_report_f64(object, "mean_kl", result.mean_kl, err);
    hm_ids_release(&ids);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_adapter_merge_options options = { .onto_dequantised = config->onto == 1,
                                                .dtype = dtype_of[config->dtype],
                                                .shard_bytes = config->shard_size,
                                                .digests = run->read_digests,
                                                .keep_journal = true };
    struct hm_adapter_merge_report report = { 0 };
    struct hm_kernels kernels;
    const char *model = NULL;
    const char *adapter = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    HM_TRY(hm_stage_path(run, "adapter", &adapter, err));
    HM_TRY(hm_stage_kernels(run, &kernels, err));
    HM_TRY(
        hm_adapter_merge(model, adapter, &options, &kernels, run->out_dir, run->ctl, &report, err));
    HM_TRY(report_fill(run, &report, err));
    if (config->verify && config->verify[0])
        HM_TRY(verify(run, model, adapter, &kernels, err));
    hm_folder_journal_remove(run->out_dir);
    return HM_OK;
}

/* Rank of an adapter that exists, or foretold by the plan of its training. */
static int adapter_rank(const struct hm_stage_run *run, uint64_t *ret_rank, struct hm_error *err)
{
    const char *dir = NULL;
    char *path = NULL;
    json_t *config = NULL;

    hm_stage_fact_u64(run, "adapter", "rank", ret_rank);
    if (hm_stage_pending(run, "adapter"))
        return HM_OK;
    HM_TRY(hm_stage_path(run, "adapter", &dir, err));
    HM_TRY(hm_path_join(&path, dir, "adapter_config.json", err));
    int r = hm_json_load(path, ADAPTER_CONFIG_MAX_BYTES, &config, err);
    if (r == HM_OK)
        r = hm_json_u64_opt(config, "r", path, ret_rank, err);
    if (r == HM_OK && *ret_rank > HM_ADAPTER_RANK_MAX)
        r = hm_fail(err, HM_ERR_FORMAT, "'%s': r is %" PRIu64 ", expected a rank from 1 to %d",
                    path, *ret_rank, HM_ADAPTER_RANK_MAX);
    json_decref(config);
    hm_free(path);
    return r;
}

/* One model at a time with its activations, and the logits of both. */
static int verify_plan(const struct hm_stage_run *run, const struct hm_arch *arch,
                       struct hm_stage_plan *plan, struct hm_error *err)
{
    struct hm_memory_plan memory = { 0 };

    HM_TRY(hm_memory_plan_eval(arch, 1, VERIFY_TOKENS, false, run->threads, &memory, err));
    memory.activations += 2ull * VERIFY_TOKENS * arch->vocab_size * sizeof(float);
    HM_TRY(hm_stage_plan_mapped(plan, "weights to verify", memory.weights_mapped, err));
    memory.weights_mapped = 0;
    return hm_stage_plan_memory(plan, "verification", hm_memory_plan_total(&memory), err);
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_model model = { 0 };

    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    if (!model.known)
        return HM_OK;
    if (config->onto == 1 && !model.arch.quant.present) {
        hm_stage_model_release(&model);
        return hm_fail(err, HM_ERR_USAGE,
                       "set.onto=dequantised needs a 4-bit model; this one is not quantised, and "
                       "onto=original is what merges into it");
    }
    uint64_t rank = DEFAULT_RANK;
    uint64_t heap = 0;
    uint64_t mapped = 0;
    int r = adapter_rank(run, &rank, err);
    hm_adapter_merge_memory(&model.arch, dtype_of[config->dtype], (uint32_t)rank, run->threads,
                            &heap, &mapped);
    if (r == HM_OK)
        r = hm_stage_plan_memory(ret_plan, "tensors", heap, err);
    if (r == HM_OK)
        r = hm_stage_plan_mapped(ret_plan, "weights", mapped, err);
    if (r == HM_OK && config->verify && config->verify[0])
        r = verify_plan(run, &model.arch, ret_plan, err);
    struct hm_arch dense = model.arch; /* the same without its quantisation */
    dense.quant = (struct hm_quant_config){ 0 };
    hm_arch_release(&model.arch);
    model.arch = dense;
    if (config->dtype > 0)
        model.arch.dtype = dtype_of[config->dtype];
    if (r == HM_OK)
        r = hm_stage_model_foretell(ret_plan, &model, err);
    ret_plan->disk_bytes = hm_memory_plan_weights(&model.arch);
    ret_plan->read_bytes = model.file_bytes;
    ret_plan->work = hm_arch_slot_count(&model.arch);
    ret_plan->work_unit = "tensors";
    hm_stage_model_release(&model);
    return r;
}

const struct hm_stage hm_stage_qlora_merge = {
    .name = "qlora.merge",
    .summary = "Merge an adapter into a base model.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "config.json, safetensors, tokenizer files, digests.tsv, report.json",
    .product = { HM_INPUT_MODEL, HM_INPUT_TOKENIZER },
    .product_path = { "", "" },
    .resumable = true,
    .digests_inputs = true,
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
