/* SPDX-License-Identifier: MIT */
/*
 * Stage qlora.quantize: a 16- or 32-bit model folder to bitsandbytes' 4-bit layout. The work is
 * qlora/quantize.c.
 */
#include "hanmix/base/alloc.h"
#include "hanmix/model/model.h"
#include "hanmix/qlora/quantize.h"
#include "stage_model.h"
#include "stage_util.h"

struct config {
    bool double_quant;
    uint64_t blocksize, shard_size;
    struct hm_text_list skip;
    int compute_dtype;
};

static const char *const dtypes[] = { "bf16", "f16", "f32", NULL };
static const enum hm_dtype dtype_of[] = { HM_DTYPE_BF16, HM_DTYPE_F16, HM_DTYPE_F32 };
static const struct hm_field fields[] = {
    { .name = "double_quant",
      .type = HM_FIELD_BOOL,
      .offset = offsetof(struct config, double_quant),
      .fallback = "true",
      .help = "store the blocks' absmax in 8 bits" },
    { .name = "blocksize",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, blocksize),
      .fallback = "64",
      .min = 64,
      .max = 4096,
      .help = "values that share one absmax; a power of two" },
    { .name = "skip",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct config, skip),
      .fallback = "lm_head,embed_tokens,gate",
      .help = "modules kept as they are, by the end of their name" },
    { .name = "compute_dtype",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, compute_dtype),
      .fallback = "bf16",
      .choices = dtypes,
      .help = "type of what stays dense, and the one loaders compute in" },
    STAGE_SHARD_FIELD(struct config),
};
static const struct hm_input inputs[] = {
    { .name = "model",
      .type = HM_INPUT_MODEL,
      .required = true,
      .help = "model folder of 16 or 32 bits" },
};
static const char *const class_name[] = { "expert", "attention", "gate", "embed", "head", "norm" };

static struct hm_quantize_options options_of(const struct config *config)
{
    return (struct hm_quantize_options){ .double_quant = config->double_quant,
                                         .blocksize = (uint32_t)config->blocksize,
                                         .skip = config->skip.item,
                                         .n_skip = config->skip.count,
                                         .compute_dtype = dtype_of[config->compute_dtype],
                                         .shard_bytes = config->shard_size };
}

static int report_fill(const struct hm_stage_run *run, const struct hm_quantize_report *report,
                       struct hm_error *err)
{
    json_t *bytes = hm_report_object(run->report, "bytes_by_class", err);
    json_t *dense = bytes ? hm_report_array(run->report, "unquantized_tensors", err) : NULL;

    if (!dense)
        return HM_ERR_NOMEM;
    for (size_t i = 0; i < COUNT_OF(class_name); i++)
        HM_TRY(hm_report_u64(bytes, class_name[i], report->bytes_by_class[i], err));
    for (size_t i = 0; i < report->n_unquantized; i++) {
        if (json_array_append_new(dense, json_string(report->unquantized[i])) != 0)
            return hm_fail_nomem(err, "for the report");
    }
    HM_TRY(hm_report_u64(run->report, "quantized_tensors", report->quantized_tensors, err));
    return hm_report_f64(run->report, "rms_error", report->rms_error, err);
}

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;

    if ((config->blocksize & (config->blocksize - 1)) != 0)
        return hm_fail(err, HM_ERR_USAGE, "set.blocksize is %d; it must be 64, 128, 256, ... 4096",
                       (int)config->blocksize);
    return HM_OK;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    struct hm_quantize_options options = options_of(run->config);
    struct hm_quantize_report report = { 0 };
    struct hm_kernels kernels;
    const char *model = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    HM_TRY(hm_stage_kernels(run, &kernels, err));
    options.digests = run->read_digests;
    int r = hm_quantize(model, &options, &kernels, run->out_dir, run->ctl, &report, err);
    if (r == HM_OK)
        r = report_fill(run, &report, err);
    hm_quantize_report_release(&report);
    return r;
}

/* The quantised config, for later plans; skip borrows from the stage's own config. */
static int foretell(const struct config *config, struct stage_model *model,
                    struct hm_stage_plan *plan, struct hm_error *err)
{
    struct hm_quant_config before = model->arch.quant;

    model->arch.quant = (struct hm_quant_config){ .present = true,
                                                  .double_quant = config->double_quant,
                                                  .compute_dtype = dtype_of[config->compute_dtype],
                                                  .storage_dtype = HM_DTYPE_U8,
                                                  .skip = config->skip.item,
                                                  .n_skip = config->skip.count };
    model->arch.dtype = dtype_of[config->compute_dtype];
    int r = hm_stage_model_foretell(plan, model, err);
    plan->disk_bytes = hm_memory_plan_weights(&model->arch);
    model->arch.quant = before;
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_model model = { 0 };

    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    if (!model.known)
        return HM_OK;
    struct hm_quantize_options options = options_of(config);
    uint64_t heap = 0;
    uint64_t mapped = 0;
    hm_quantize_memory(&model.arch, &options, run->threads, &heap, &mapped);
    int r = hm_stage_plan_memory(ret_plan, "tensors", heap, err);
    if (r == HM_OK)
        r = hm_stage_plan_mapped(ret_plan, "weights", mapped, err);
    ret_plan->read_bytes = model.file_bytes;
    ret_plan->work = hm_arch_slot_count(&model.arch);
    ret_plan->work_unit = "tensors";
    if (r == HM_OK)
        r = foretell(config, &model, ret_plan, err);
    hm_stage_model_release(&model);
    return r;
}

const struct hm_stage hm_stage_qlora_quantize = {
    .name = "qlora.quantize",
    .summary = "Quantise a model to 4-bit NF4, every expert included.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes =
        "config.json, safetensors in bitsandbytes' 4-bit layout, tokenizer files, report.json",
    .product = { HM_INPUT_MODEL, HM_INPUT_TOKENIZER },
    .product_path = { "", "" },
    .resumable = true,
    .digests_inputs = true,
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
