/* SPDX-License-Identifier: MIT */
/*
 * Stage eval.loss: nats per token and bits per byte of named sets of text or packed windows. The
 * work is eval/loss_windows.c.
 */
#include "hanmix/base/alloc.h"
#include "hanmix/eval/eval.h"
#include "stage_model.h"
#include "stage_runtime.h"
#include "stage_util.h"

struct config {
    struct stage_text text;
    uint64_t window, stride, ram, verify;
    int compute;
};

static const struct hm_field fields[] = {
    { .name = "window",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, window),
      .fallback = "512",
      .min = 2,
      .max = 1 << 20,
      .help = "tokens seen at once, of text" },
    { .name = "stride",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, stride),
      .fallback = "0",
      .max = 1 << 20,
      .help = "tokens the window moves by; each is scored once; 0 is the window" },
    STAGE_COMPUTE_FIELD(struct config),
    STAGE_RAM_FIELD(struct config),
    STAGE_VERIFY_FIELD(struct config),
    STAGE_TEXT_FIELDS(struct config, text),
};
static const struct hm_input inputs[] = {
    { .name = "model", .type = HM_INPUT_MODEL, .required = true, .help = "model folder" },
    { .name = "adapter", .type = HM_INPUT_ADAPTER, .help = "PEFT adapter folder" },
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .many = true,
      .help = "text, one or several named sets" },
    { .name = "packed",
      .type = HM_INPUT_PACKED,
      .many = true,
      .help = "packed windows, one or several named sets; of a folder with valid.hmp that file" },
    { .name = "tokenizer",
      .type = HM_INPUT_TOKENIZER,
      .help = "tokenizer of the model; the model folder's by default" },
};

/* What says how text is read and cut. */
static const char *const of_text[] = { "window",       "stride",        "field",
                                       "set_field",    "max_bad_lines", "dedup",
                                       "sample_bytes", "verify",        NULL };

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;

    if (!hm_stage_input(run, "text") == !hm_stage_input(run, "packed"))
        return hm_fail(err, HM_ERR_USAGE, "stage '%s' needs either in.text or in.packed", run->id);
    if (hm_stage_input(run, "packed") && hm_stage_input(run, "tokenizer"))
        return hm_fail(err, HM_ERR_USAGE,
                       "in.tokenizer goes with in.text; in.packed holds ids that are made already");
    if (hm_stage_input(run, "packed"))
        HM_TRY(hm_stage_refuse_given(run, of_text,
                                     "in.packed holds windows that are cut already; it goes with "
                                     "in.text",
                                     err));
    if (config->stride > config->window)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.stride %d is longer than set.window %d: tokens would be left out",
                       (int)config->stride, (int)config->window);
    return HM_OK;
}

static int set_report(json_t *list, const struct hm_loss_set *set, struct hm_error *err)
{
    json_t *item = hm_report_item(list, err);

    if (!item)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_text(item, "name", set->name, err));
    HM_TRY(hm_report_u64(item, "documents", set->documents, err));
    HM_TRY(hm_report_u64(item, "tokens", set->tokens, err));
    HM_TRY(hm_report_u64(item, "bytes", set->bytes, err));
    HM_TRY(hm_report_u64(item, "chars", set->chars, err));
    HM_TRY(hm_report_f64(item, "nats_per_token", set->nats_per_token, err));
    HM_TRY(hm_report_f64(item, "bits_per_byte", set->bits_per_byte, err));
    HM_TRY(hm_report_f64(item, "bits_per_char", set->bits_per_char, err));
    HM_TRY(hm_report_f64(item, "bits_per_byte_low", set->low, err));
    return hm_report_f64(item, "bits_per_byte_high", set->high, err);
}

static int score_text(const struct hm_stage_run *run, struct hm_model *model, json_t *list,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    const char *path = NULL;
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_text_source source = { 0 };
    struct hm_loss_set *sets = NULL;
    uint32_t window = (uint32_t)config->window;
    uint32_t stride = config->stride ? (uint32_t)config->stride : window;
    size_t n = 0;

    HM_TRY(
        hm_stage_path(run, hm_stage_input(run, "tokenizer") ? "tokenizer" : "model", &path, err));
    int r = hm_tokenizer_open(path, &tokenizer, err);
    if (r == HM_OK)
        r = hm_stage_encoder_note(run, "tokenizer", tokenizer, err);
    if (r == HM_OK)
        r = hm_arch_vocab_check(hm_model_arch(model), tokenizer->model.count, path, err);
    if (r == HM_OK)
        r = hm_stage_text_open(run, "text", &config->text, &source, err);
    if (r == HM_OK) {
        struct stage_verifier verifier = { .encoder = hm_tokenizer_encoder(tokenizer),
                                           .every = config->verify };
        struct hm_text_encoder encoder = hm_stage_verified(&verifier);
        r = hm_eval_loss_text(model, &source, &encoder, window, stride, run->ctl, &sets, &n, err);
    }
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    for (size_t i = 0; r == HM_OK && i < n; i++)
        r = set_report(list, &sets[i], err);
    hm_loss_sets_free(sets, n);
    if (source.close)
        source.close(source.context);
    hm_tokenizer_free(tokenizer);
    return r;
}

static int score_packed(const struct hm_stage_run *run, struct hm_model *model, json_t *list,
                        struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "packed");
    int r = HM_OK;

    for (size_t i = 0; r == HM_OK && i < input->n_sets; i++) {
        for (size_t f = 0; r == HM_OK && f < input->set[i].n_paths; f++) {
            struct hm_packed packed = { 0 };
            char *path = NULL;
            struct hm_loss_set *set = hm_calloc(HM_MEM_OTHER, 1, sizeof(*set));
            if (!set)
                return hm_fail_nomem(err, "for a result");
            r = hm_stage_held_out(input->set[i].path[f], &path, err);
            if (r == HM_OK)
                r = hm_packed_open(path, &packed, err);
            if (r == HM_OK)
                r = hm_eval_loss_packed(model, &packed,
                                        input->set[i].name[0] ? input->set[i].name : "packed",
                                        run->ctl, set, err);
            if (r == HM_OK)
                r = set_report(list, set, err);
            hm_packed_close(&packed);
            hm_free(path);
            hm_loss_sets_free(set, 1);
        }
    }
    return r;
}

/* The longest windows there are, foretold or read; of those that are there, whose ids they hold. */
static int packed_window(const struct hm_stage_run *run, uint64_t *ret_window, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "packed");
    uint64_t longest = 2;

    hm_stage_fact_u64(run, "packed", "seq_len", &longest);
    for (size_t i = 0; i < input->n_sets; i++) {
        for (size_t f = 0; !input->set[i].pending && f < input->set[i].n_paths; f++) {
            struct hm_packed packed = { 0 };
            char *path = NULL;
            HM_TRY(hm_stage_held_out(input->set[i].path[f], &path, err));
            int r = hm_packed_open(path, &packed, err);
            hm_free(path);
            HM_TRY(r);
            r = hm_stage_packed_check(run, packed.path, packed.tokenizer, err);
            if (packed.seq_len > longest)
                longest = packed.seq_len;
            hm_packed_close(&packed);
            HM_TRY(r);
        }
    }
    *ret_window = longest;
    return HM_OK;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    uint64_t window = config->window;
    uint64_t pieces = 0;

    if (hm_stage_input(run, "packed")) {
        uint64_t bytes = 0;
        HM_TRY(packed_window(run, &window, err));
        HM_TRY(hm_stage_input_bytes(run, "packed", &bytes, err));
        HM_TRY(hm_stage_plan_mapped(ret_plan, "data", bytes, err));
    } else {
        HM_TRY(hm_stage_vocab_size(run, hm_stage_input(run, "tokenizer") ? "tokenizer" : "model",
                                   &pieces, err));
        HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", pieces * STAGE_PIECE_BYTES, err));
        HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
        HM_TRY(hm_stage_input_bytes(run, "text", &ret_plan->work, err));
        ret_plan->work_unit = "bytes";
    }
    return hm_stage_eval_plan(run, (enum hm_round)config->compute, config->ram, (uint32_t)window, 0,
                              false, ret_plan, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_runtime runtime = { 0 };
    json_t *list = hm_report_array(run->report, "sets", err);

    if (!list)
        return HM_ERR_NOMEM;
    int r = hm_stage_runtime_open(run, (enum hm_round)config->compute, &runtime, err);
    if (r == HM_OK)
        r = hm_stage_stream(run, plan_stage, runtime.model, err);
    if (r == HM_OK)
        r = hm_stage_input(run, "text") ? score_text(run, runtime.model, list, err)
                                        : score_packed(run, runtime.model, list, err);
    hm_stage_runtime_release(&runtime);
    return r;
}

const struct hm_stage hm_stage_eval_loss = {
    .name = "eval.loss",
    .summary = "Loss of text: nats per token, bits per byte, bits per character.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "report.json",
    .rehearsed = true,
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
