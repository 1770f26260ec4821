/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.check: the proof on pieces and the trial on text that a grown vocabulary leaves text
 * without Han characters as it was. The work is vocab/vocab_lint.c and vocab/check_lines.c.
 */
#include <inttypes.h>

#include "hanmix/vocab/vocab_check.h"
#include "stage_model.h"
#include "stage_util.h"

#define LINTS_REPORTED 1000

struct config {
    struct stage_text text;
    uint64_t limit;
};

static const struct hm_field fields[] = {
    { .name = "limit",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, limit),
      .fallback = "0",
      .help = "lines without Han characters that may differ before the check fails" },
    STAGE_TEXT_FIELDS(struct config, text),
};
static const struct hm_input inputs[] = {
    { .name = "old", .type = HM_INPUT_TOKENIZER, .required = true, .help = "tokenizer before" },
    { .name = "new", .type = HM_INPUT_TOKENIZER, .required = true, .help = "tokenizer after" },
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .help = "text to encode with both" },
};

static int lints_report(const struct hm_stage_run *run, const struct hm_lints *lints,
                        struct hm_error *err)
{
    json_t *list = hm_report_array(run->report, "lint", err);

    for (size_t i = 0; list && i < lints->count && i < LINTS_REPORTED; i++) {
        json_t *item = hm_report_item(list, err);
        if (!item)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_text(item, "piece", lints->item[i].piece, err));
        HM_TRY(hm_report_text(item, "rule", lints->item[i].rule, err));
        HM_TRY(hm_report_text(item, "detail", lints->item[i].detail, err));
    }
    return list ? hm_report_u64(run->report, "lint_findings", lints->count, err) : HM_ERR_NOMEM;
}

static int lines_report(const struct hm_stage_run *run, const struct hm_line_check *check,
                        struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "lines", check->lines, err));
    HM_TRY(hm_report_u64(run->report, "han_lines", check->han_lines, err));
    HM_TRY(hm_report_u64(run->report, "differing", check->differing, err));
    json_t *list = hm_report_array(run->report, "first_differing", err);
    for (size_t i = 0; list && i < check->n_first; i++) {
        const struct hm_differing_line *line = &check->first[i];
        json_t *item = hm_report_item(list, err);
        if (!item)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_u64(item, "document", line->document, err));
        HM_TRY(hm_report_u64(item, "line", line->line, err));
        HM_TRY(hm_report_text(item, "text", line->text, err));
        HM_TRY(hm_report_u64(item, "old_ids", line->old_ids, err));
        HM_TRY(hm_report_u64(item, "new_ids", line->new_ids, err));
        HM_TRY(hm_report_u64(item, "first_difference", line->first_difference, err));
    }
    return list ? HM_OK : HM_ERR_NOMEM;
}

/* What the check concludes: a failure is told after the report is complete. */
static int verdict(const struct hm_stage_run *run, const struct hm_line_check *check,
                   const struct hm_lints *lints, struct hm_error *err)
{
    const struct config *config = run->config;

    if (check->differing > config->limit)
        return hm_fail(err, HM_ERR_CHECK,
                       "%" PRIu64 " of %" PRIu64
                       " lines without Han characters are encoded differently (limit %" PRIu64
                       "); the first: '%.80s'",
                       check->differing, check->lines - check->han_lines, config->limit,
                       check->first[0].text);
    if (lints->count > 0) {
        const struct hm_lint *first = &lints->item[0];
        bool whole = first->piece[0] == '\0'; /* about the tokenizer, not one of its pieces */
        return hm_fail(err, HM_ERR_CHECK, "findings about the tokenizers: %zu; the first: %s%s%s%s",
                       lints->count, whole ? "" : "'", first->piece,
                       whole ? "" : "': ", first->detail);
    }
    return HM_OK;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_tokenizer *old_tokenizer = NULL;
    struct hm_tokenizer *new_tokenizer = NULL;
    struct hm_text_source source = { 0 };
    struct hm_line_check check = { 0 };
    struct hm_lints lints = { 0 };
    bool proved = false;

    int r = hm_stage_tokenizer_open(run, "old", &old_tokenizer, err);
    if (r == HM_OK)
        r = hm_stage_tokenizer_open(run, "new", &new_tokenizer, err);
    if (r == HM_OK)
        r = hm_vocab_lint(&old_tokenizer->model, new_tokenizer, &lints, &proved, err);
    if (r == HM_OK)
        r = hm_stage_text_open(run, "text", &config->text, &source, err);
    if (r == HM_OK)
        r = hm_vocab_check_lines(&source, old_tokenizer, new_tokenizer, run->ctl, &check, err);
    if (r == HM_OK && check.lines == 0)
        r = hm_fail(err, HM_ERR_FORMAT, "the text to check holds no line");
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    if (r == HM_OK)
        r = lines_report(run, &check, err);
    if (r == HM_OK)
        r = hm_report_bool(run->report, "every_new_piece_has_han", proved, err);
    if (r == HM_OK)
        r = lints_report(run, &lints, err);
    if (r == HM_OK)
        r = verdict(run, &check, &lints, err);
    hm_line_check_release(&check);
    hm_lints_release(&lints);
    if (source.close)
        source.close(source.context);
    hm_tokenizer_free(new_tokenizer);
    hm_tokenizer_free(old_tokenizer);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t before = 0;
    uint64_t after = 0;

    HM_TRY(hm_stage_vocab_size(run, "old", &before, err));
    HM_TRY(hm_stage_vocab_size(run, "new", &after, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", STAGE_PIECE_BYTES * (before + after), err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    ret_plan->disk_bytes = 64 << 10;
    ret_plan->work_unit = "bytes";
    return hm_stage_input_bytes(run, "text", &ret_plan->work, err);
}

const struct hm_stage hm_stage_vocab_check = {
    .name = "vocab.check",
    .summary = "Prove and try that text without Chinese is encoded as before.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "report.json",
    .rehearsed = true,
    .check = hm_stage_text_is_one,
    .plan = plan_stage,
    .run = run_stage,
};
