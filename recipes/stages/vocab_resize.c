/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.resize: embed_tokens and lm_head grown from the old to the new vocabulary. The rules
 * for new rows are vocab/embed_resize.c.
 */
#include "hanmix/model/model.h"
#include "hanmix/vocab/embed_resize.h"
#include "stage_model.h"
#include "stage_util.h"

struct config {
    int init;
    double noise;
    uint64_t pad_to;
};

static const char *const inits[] = { "mean", "mean_upstream", "normal", "zero", NULL };
static const struct hm_field fields[] = {
    { .name = "init",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, init),
      .fallback = "mean",
      .choices = inits,
      .help = "new rows: mean of the old subtokens; mean_upstream with <s> and the dummy prefix as "
              "the published "
              "script; normal of the old rows' mean and deviation; zero" },
    { .name = "noise",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, noise),
      .fallback = "1e-3",
      .max = 10,
      .help = "mean: added normal noise relative to the old rows' deviation, so that anagrams "
              "differ; 0 none" },
    { .name = "pad_to",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, pad_to),
      .fallback = "1",
      .min = 1,
      .max = 4096,
      .help = "round the rows up to a multiple; padding rows get the mean of the old rows" },
};
static const struct hm_input inputs[] = {
    { .name = "model",
      .type = HM_INPUT_MODEL,
      .required = true,
      .help = "model folder whose rows grow" },
    { .name = "old",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .help = "tokenizer the model was made with" },
    { .name = "new",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .help = "tokenizer with the added pieces" },
};

static int report_fill(const struct hm_stage_run *run, const struct hm_resize_report *report,
                       struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "old_rows", report->old_rows, err));
    HM_TRY(hm_report_u64(run->report, "new_rows", report->new_rows, err));
    HM_TRY(hm_report_u64(run->report, "padded_rows", report->padded_rows, err));
    HM_TRY(hm_report_u64(run->report, "duplicate_rows", report->duplicate_rows, err));
    HM_TRY(hm_report_u64(run->report, "bytes_written", report->bytes_written, err));
    return hm_report_u64(run->report, "files_linked", report->files_linked, err);
}

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;

    if (config->init != HM_RESIZE_MEAN && config->noise > 0 && hm_stage_given(run, "noise"))
        return hm_fail(err, HM_ERR_USAGE, "set.noise is added by init=mean alone; leave it out");
    return HM_OK;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_resize_options options = { .init = (enum hm_resize_init)config->init,
                                         .noise = config->noise,
                                         .pad_to = (uint32_t)config->pad_to,
                                         .seed = run->seed };
    struct hm_resize_report report = { 0 };
    struct hm_tokenizer *old_tokenizer = NULL;
    struct hm_tokenizer *new_tokenizer = NULL;
    const char *model = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    int r = hm_stage_tokenizer_open(run, "old", &old_tokenizer, err);
    if (r == HM_OK)
        r = hm_stage_tokenizer_open(run, "new", &new_tokenizer, err);
    if (r == HM_OK)
        r = hm_embed_resize(model, old_tokenizer, new_tokenizer, &options, run->out_dir, run->ctl,
                            &report, err);
    if (r == HM_OK)
        r = report_fill(run, &report, err);
    hm_tokenizer_free(new_tokenizer);
    hm_tokenizer_free(old_tokenizer);
    return r;
}

/* Two matrices pass through memory in f32, one after the other; their old rows are mapped. */
static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_model model = { 0 };
    uint64_t pieces = 0;

    HM_TRY(hm_stage_vocab_size(run, "new", &pieces, err));
    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    uint64_t row_bytes = (uint64_t)model.arch.hidden * hm_dtype_bytes(model.arch.dtype);
    uint64_t matrices = model.arch.tied ? 1 : 2;
    uint64_t old_rows = model.arch.vocab_size;
    uint64_t rows = (pieces + config->pad_to - 1) / config->pad_to * config->pad_to;
    int r =
        hm_stage_plan_memory(ret_plan, "tensors", hm_embed_resize_bytes(&model.arch, rows), err);
    if (r == HM_OK)
        r = hm_stage_plan_mapped(ret_plan, "weights", matrices * old_rows * row_bytes, err);
    model.old_vocab_size = old_rows;
    model.arch.vocab_size = (uint32_t)(rows ? rows : old_rows);
    if (r == HM_OK)
        r = hm_stage_model_foretell(ret_plan, &model, err);
    ret_plan->read_bytes = model.file_bytes;
    ret_plan->disk_bytes = model.known ? hm_memory_plan_weights(&model.arch) : 0;
    ret_plan->work = matrices;
    ret_plan->work_unit = "tensors";
    hm_stage_model_release(&model);
    return r;
}

const struct hm_stage hm_stage_vocab_resize = {
    .name = "vocab.resize",
    .summary = "Grow embed_tokens and lm_head to a new vocabulary.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "config.json, safetensors, tokenizer files, hanmix.json, report.json",
    .product = { HM_INPUT_MODEL, HM_INPUT_TOKENIZER },
    .product_path = { "", "" },
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
