/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.resize: embed_tokens and lm_head grown from the old to the new vocabulary. The rules
 * for new rows are vocab/embed_resize.c.
 */
#include "hanmix/base/parallel.h"
#include "hanmix/model/model.h"
#include "hanmix/vocab/embed_resize.h"
#include "stage_model.h"
#include "stage_util.h"

/* Of a piece in a tokenizer.json that is looked at, its merges included. */
#define COMPANION_BYTES 256ull

struct config {
    int init;
    double noise, scale;
    uint64_t pad_to;
};

static const char *const inits[] = { "mean",     "mean_upstream", "normal", "zero",
                                     "weighted", "copy",          NULL };
static const struct hm_field fields[] = {
    { .name = "init",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, init),
      .fallback = "mean",
      .choices = inits,
      .help =
          "new rows: mean of the old subtokens; weighted, the same with weights 1/(k-i) in "
          "embed_tokens and 1/(i+1) in lm_head for subtoken i of k; mean_upstream with <s> and "
          "dummy prefix, rounded as the published script; normal, drawn from mean and scale "
          "times covariance of the old rows; zero; copy, the old row of a piece whose id moved, "
          "the mean for others" },
    { .name = "noise",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, noise),
      .fallback = "1e-3",
      .max = 10,
      .help = "mean, weighted, copy: added normal noise relative to the old rows' deviation, so "
              "that anagrams differ; 0 none" },
    { .name = "scale",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, scale),
      .fallback = "1e-9",
      .max = 100,
      .help = "normal: factor of the covariance; 1e-9 as transformers, 1e-5 as Hewitt, 1 spread "
              "like the old rows" },
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
    HM_TRY(hm_report_u64(run->report, "kept_rows", report->kept_rows, err));
    HM_TRY(hm_report_u64(run->report, "moved_rows", report->moved_rows, err));
    HM_TRY(hm_report_u64(run->report, "replaced_rows", report->replaced_rows, err));
    HM_TRY(hm_report_bool(run->report, "covariance_definite", !report->not_definite, err));
    HM_TRY(hm_report_u64(run->report, "files_copied", report->files_copied, err));
    HM_TRY(hm_report_u64(run->report, "bytes_written", report->bytes_written, err));
    return hm_report_u64(run->report, "files_linked", report->files_linked, err);
}

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;

    bool noisy = config->init == HM_RESIZE_MEAN || config->init == HM_RESIZE_WEIGHTED ||
                 config->init == HM_RESIZE_COPY;

    if (!noisy && config->noise > 0 && hm_stage_given(run, "noise"))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.noise is added by init=mean, weighted and copy, not by init=%s; leave "
                       "it out",
                       inits[config->init]);
    if (config->init != HM_RESIZE_NORMAL && hm_stage_given(run, "scale"))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.scale is of init=normal, not of init=%s; leave it out",
                       inits[config->init]);
    return HM_OK;
}

static struct hm_resize_options options_of(const struct hm_stage_run *run)
{
    const struct config *config = run->config;

    return (struct hm_resize_options){ .init = (enum hm_resize_init)config->init,
                                       .noise = config->noise,
                                       .scale = config->scale,
                                       .pad_to = (uint32_t)config->pad_to,
                                       .seed = run->seed };
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    struct hm_resize_options options = options_of(run);
    struct hm_resize_report report = { 0 };
    struct hm_kernels kernels;
    struct hm_tokenizer *old_tokenizer = NULL;
    struct hm_tokenizer *new_tokenizer = NULL;
    const char *model = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    if (options.init == HM_RESIZE_NORMAL) {
        HM_TRY(hm_stage_kernels(run, &kernels, err));
        options.kernels = &kernels;
    }
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

/* What running would refuse is told before a large model is read for its digest. The outlook stays
 * as it is while an input is yet to be made. */
static int inputs_look(const struct hm_stage_run *run, struct hm_resize_outlook *outlook,
                       struct hm_error *err)
{
    struct hm_resize_options options = options_of(run);
    struct hm_tokenizer *old_tokenizer = NULL;
    struct hm_tokenizer *new_tokenizer = NULL;
    const char *model = NULL;

    if (hm_stage_pending(run, "model") || hm_stage_pending(run, "old") ||
        hm_stage_pending(run, "new"))
        return HM_OK;
    HM_TRY(hm_stage_path(run, "model", &model, err));
    int r = hm_stage_tokenizer_open(run, "old", &old_tokenizer, err);
    if (r == HM_OK)
        r = hm_stage_tokenizer_open(run, "new", &new_tokenizer, err);
    if (r == HM_OK)
        r = hm_embed_resize_check(model, old_tokenizer, new_tokenizer, &options, outlook, err);
    hm_tokenizer_free(new_tokenizer);
    hm_tokenizer_free(old_tokenizer);
    return r;
}

/* What is written: all of a model that is yet to be made; of one that is there, what is not linked.
 */
static int disk_plan(const struct hm_stage_run *run, const struct stage_model *model, uint64_t rows,
                     uint64_t *ret_bytes, struct hm_error *err)
{
    const char *dir = NULL;

    if (hm_stage_pending(run, "model") || !rows) {
        *ret_bytes = model->known ? hm_memory_plan_weights(&model->arch) : 0;
        return HM_OK;
    }
    HM_TRY(hm_stage_path(run, "model", &dir, err));
    return hm_embed_resize_disk(dir, rows, hm_stage_on_file_system_of(run, dir), ret_bytes, err);
}

/* Two matrices pass by, beside both tokenizers, one after the other; their old rows are mapped and
 * given back. */
static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_model model = { 0 };
    struct hm_resize_outlook outlook = { 0 };
    uint64_t old_pieces = 0, pieces = 0;

    HM_TRY(inputs_look(run, &outlook, err));
    HM_TRY(hm_stage_vocab_size(run, "old", &old_pieces, err));
    HM_TRY(hm_stage_vocab_size(run, "new", &pieces, err));
    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    uint64_t row_bytes = (uint64_t)model.arch.hidden * hm_dtype_bytes(model.arch.dtype);
    uint64_t matrices = model.arch.tied ? 1 : 2;
    uint64_t old_rows = model.arch.vocab_size;
    if (!outlook.rows) {
        outlook.rows = (pieces + config->pad_to - 1) / config->pad_to * config->pad_to;
        outlook.kept_rows = old_pieces ? hm_least(old_pieces, old_rows) : old_rows;
        if (outlook.rows)
            outlook.kept_rows = hm_least(outlook.kept_rows, outlook.rows);
        outlook.matrix_bytes = old_rows * row_bytes;
    }
    uint64_t rows = outlook.rows;
    int r = hm_stage_plan_memory(
        ret_plan, "tensors",
        hm_embed_resize_bytes(&model.arch, rows, (enum hm_resize_init)config->init), err);
    if (r == HM_OK)
        r = hm_stage_plan_memory(
            ret_plan, "vocabulary",
            STAGE_PIECE_BYTES * (old_pieces + pieces) + COMPANION_BYTES * pieces, err);
    if (r == HM_OK)
        r = hm_stage_plan_mapped(ret_plan, "weights", outlook.matrix_bytes, err);
    model.old_vocab_size = outlook.kept_rows;
    model.arch.vocab_size = (uint32_t)(rows ? rows : old_rows);
    if (r == HM_OK)
        r = hm_stage_model_foretell(ret_plan, &model, err);
    if (r == HM_OK)
        r = disk_plan(run, &model, rows, &ret_plan->disk_bytes, err);
    ret_plan->read_bytes = model.file_bytes;
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
