/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.check: the proof on pieces and the trial on text that a grown vocabulary leaves text
 * without Han characters as it was. The work is vocab/vocab_lint.c and vocab/check_lines.c.
 */
#include <inttypes.h>

#include "hanmix/vocab/vocab_check.h"
#include "stage_model.h"
#include "stage_util.h"

/* Should every piece be found wanting: in both files, and in memory. */
#define DISK_PIECE_BYTES 1024u
#define FINDING_BYTES    2304u

struct config {
    struct stage_text text;
    uint64_t limit, verify;
    int fail_on;
};

enum fail_on { AUTO, ON_WARNING, ON_ERROR, ON_NOTHING };
static const char *const fail_on_names[] = { "auto", "warning", "error", "never", NULL };
static const struct hm_field fields[] = {
    { .name = "fail_on",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, fail_on),
      .fallback = "auto",
      .choices = fail_on_names,
      .help = "findings of the lint that fail the check: any, errors alone, or none; auto: errors, "
              "or none when a limit above 0 allows differences" },
    { .name = "limit",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, limit),
      .fallback = "0",
      .help = "lines without Han characters that may differ before the check fails" },
    STAGE_TEXT_FIELDS(struct config, text),
    STAGE_VERIFY_FIELD(struct config),
};
static const struct hm_input inputs[] = {
    { .name = "old",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .json = true,
      .help = "tokenizer before" },
    { .name = "new",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .json = true,
      .help = "tokenizer after" },
    { .name = "extra",
      .type = HM_INPUT_TOKENIZER,
      .help = "the model that new pieces were taken from: its normaliser is compared too" },
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .help = "text to encode with both" },
};

static const char *severity(enum hm_lint_rule rule)
{
    return hm_lint_rule_info[rule].error ? "error" : "warning";
}

static int rules_report(const struct hm_stage_run *run, const struct hm_lints *lints,
                        struct hm_error *err)
{
    json_t *list = hm_report_array(run->report, "lint_rules", err);

    for (int rule = 0; list && rule < HM_LINT_RULES; rule++) {
        if (lints->of_rule[rule] == 0)
            continue;
        json_t *item = hm_report_item(list, err);
        if (!item)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_text(item, "rule", hm_lint_rule_info[rule].name, err));
        HM_TRY(hm_report_text(item, "severity", severity(rule), err));
        HM_TRY(hm_report_u64(item, "findings", lints->of_rule[rule], err));
        HM_TRY(hm_report_text(item, "remedy", hm_lint_rule_info[rule].remedy, err));
    }
    return list ? HM_OK : HM_ERR_NOMEM;
}

static int lints_report(const struct hm_stage_run *run, const struct hm_lints *lints,
                        struct hm_error *err)
{
    json_t *list = hm_report_array(run->report, "lint", err);

    for (size_t i = 0; list && i < lints->count; i++) {
        const struct hm_lint *lint = &lints->item[i];
        json_t *item = hm_report_item(list, err);
        if (!item)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_text(item, "piece", lint->piece, err));
        if (lint->id >= 0)
            HM_TRY(hm_report_u64(item, "id", (uint64_t)lint->id, err));
        HM_TRY(hm_report_text(item, "rule", hm_lint_rule_info[lint->rule].name, err));
        HM_TRY(hm_report_text(item, "severity", severity(lint->rule), err));
        HM_TRY(hm_report_text(item, "detail", lint->detail, err));
        HM_TRY(hm_report_text(item, "remedy", hm_lint_rule_info[lint->rule].remedy, err));
    }
    if (!list)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_u64(run->report, "lint_findings", lints->count, err));
    HM_TRY(hm_report_u64(run->report, "lint_errors", lints->errors, err));
    return rules_report(run, lints, err);
}

/* The findings as a table to read and to sort. */
static int lints_write(const struct hm_stage_run *run, const struct hm_lints *lints,
                       struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    struct hm_buf piece = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "lint.tsv", &file, err));
    int r = hm_out_printf(&file, err, "rule\tseverity\tid\tpiece\tdetail\tremedy\n");
    for (size_t i = 0; r == HM_OK && i < lints->count; i++) {
        const struct hm_lint *lint = &lints->item[i];
        hm_text_clean(lint->detail); /* it may quote pieces */
        hm_buf_clear(&piece);
        r = hm_buf_word(&piece, hm_str_of(lint->piece), err);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, "%s\t%s\t%d\t%s\t%s\t%s\n",
                              hm_lint_rule_info[lint->rule].name, severity(lint->rule), lint->id,
                              piece.len ? piece.ptr : "", lint->detail,
                              hm_lint_rule_info[lint->rule].remedy);
    }
    hm_buf_release(&piece);
    return hm_out_end(&file, r, err);
}

static int lines_report(const struct hm_stage_run *run, const struct hm_line_check *check,
                        struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "lines", check->lines, err));
    HM_TRY(hm_report_u64(run->report, "han_lines", check->han_lines, err));
    HM_TRY(hm_report_u64(run->report, "differing", check->differing, err));
    HM_TRY(hm_report_u64(run->report, "verified_documents", check->verified, err));
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
    bool tolerant = config->fail_on == ON_NOTHING || (config->fail_on == AUTO && config->limit > 0);
    bool wrong = config->fail_on == ON_WARNING ? lints->count > 0 : !tolerant && lints->errors > 0;
    const struct hm_lint *first = lints->item;

    if (check->differing > config->limit)
        return hm_fail(err, HM_ERR_CHECK,
                       "%" PRIu64 " of %" PRIu64
                       " lines without Han characters are encoded differently (limit %" PRIu64
                       "); the first: '%.80s'",
                       check->differing, check->lines - check->han_lines, config->limit,
                       check->first[0].text);
    if (!wrong)
        return HM_OK;
    while (lints->errors > 0 && !hm_lint_rule_info[first->rule].error)
        first++;
    bool whole = first->piece[0] == '\0'; /* about the tokenizer, not one of its pieces */
    return hm_fail(err, HM_ERR_CHECK,
                   "findings about the tokenizers: %zu (%zu errors; all in lint.tsv); the first: "
                   "%s%s%s%s; %s",
                   lints->count, lints->errors, whole ? "" : "'", first->piece,
                   whole ? "" : "': ", first->detail, hm_lint_rule_info[first->rule].remedy);
}

static int open_extra(const struct hm_stage_run *run, struct hm_spm_model *extra,
                      struct hm_error *err)
{
    const char *path = NULL;

    if (!hm_stage_input(run, "extra"))
        return HM_OK;
    HM_TRY(hm_stage_path(run, "extra", &path, err));
    return hm_spm_model_load(path, extra, err);
}

/* r is what opening the new tokenizer came to. A file that no loader takes because of texts that
 * stand twice is no failure: those are the findings. */
static int take_duplicates(const struct hm_stage_run *run, int r, struct hm_lints *lints,
                           struct hm_error *err)
{
    const char *path = NULL;

    if (r != HM_ERR_FORMAT)
        return r;
    HM_TRY(hm_stage_path(run, "new", &path, err));
    if (hm_vocab_lint_duplicates(path, lints, NULL) < 0 || lints->count == 0)
        return r; /* something else is wrong with it, and err says what */
    *err = (struct hm_error){ 0 };
    return HM_OK;
}

static int check_text(const struct hm_stage_run *run, const struct hm_tokenizer *old_tokenizer,
                      const struct hm_tokenizer *new_tokenizer, struct hm_line_check *check,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_text_source source = { 0 };

    int r = hm_stage_text_open(run, "text", &config->text, &source, err);
    if (r == HM_OK)
        r = hm_vocab_check_lines(&source, old_tokenizer, new_tokenizer, config->verify, run->ctl,
                                 check, err);
    if (r == HM_OK && check->lines == 0)
        r = hm_fail(err, HM_ERR_FORMAT, "the text to check holds no line");
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    if (source.close)
        source.close(source.context);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    struct hm_tokenizer *old_tokenizer = NULL;
    struct hm_tokenizer *new_tokenizer = NULL;
    struct hm_spm_model extra = { 0 };
    struct hm_line_check check = { 0 };
    struct hm_lints lints = { 0 };

    int r = hm_stage_tokenizer_open(run, "old", &old_tokenizer, err);
    if (r == HM_OK)
        r = take_duplicates(run, hm_stage_tokenizer_open(run, "new", &new_tokenizer, err), &lints,
                            err);
    if (r == HM_OK)
        r = open_extra(run, &extra, err);
    if (r == HM_OK && new_tokenizer)
        r = hm_vocab_lint(old_tokenizer, new_tokenizer, extra.count ? &extra : NULL, &lints, err);
    if (r == HM_OK && new_tokenizer)
        r = check_text(run, old_tokenizer, new_tokenizer, &check, err);
    if (r == HM_OK)
        r = lines_report(run, &check, err);
    if (r == HM_OK)
        r = hm_report_bool(run->report, "every_new_piece_has_han", lints.every_new_piece_has_han,
                           err);
    if (r == HM_OK)
        r = hm_report_bool(run->report, "identity_proved", lints.proved, err);
    if (r == HM_OK)
        r = lints_report(run, &lints, err);
    if (r == HM_OK)
        r = lints_write(run, &lints, err);
    if (r == HM_OK)
        r = verdict(run, &check, &lints, err);
    hm_line_check_release(&check);
    hm_lints_release(&lints);
    hm_spm_model_release(&extra);
    hm_tokenizer_free(new_tokenizer);
    hm_tokenizer_free(old_tokenizer);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    struct hm_lints lints = { 0 };
    uint64_t before = 0;
    uint64_t after = 0;

    HM_TRY(hm_stage_vocab_size(run, "old", &before, err));
    int r = take_duplicates(run, hm_stage_vocab_size(run, "new", &after, err), &lints, err);
    hm_lints_release(&lints);
    HM_TRY(r);
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", STAGE_PIECE_BYTES * (before + after), err));
    HM_TRY(hm_stage_json_plan(run, "old", ret_plan, err));
    HM_TRY(hm_stage_json_plan(run, "new", ret_plan, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "findings", FINDING_BYTES * after, err));
    ret_plan->disk_bytes = (64 << 10) + DISK_PIECE_BYTES * after;
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
    .writes = "report.json, lint.tsv",
    .rehearsed = true,
    .check = hm_stage_text_is_one,
    .plan = plan_stage,
    .run = run_stage,
};
