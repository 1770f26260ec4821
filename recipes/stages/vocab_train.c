/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.train: Han runs of the text, exact BPE merges, single characters chosen, a
 * SentencePiece model. Counting is vocab/han_runs.c, training vocab/bpe_train.c, the choice
 * vocab/piece_select.c.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/piece_select.h"
#include "stage_model.h"
#include "stage_vocab.h"

#define SINGLES_FILE_MAX_BYTES (16u << 20)

struct config {
    struct stage_text text;
    uint64_t pieces, max_piece_chars;
    char *singles;
    int script;
};

static const char *const singles_words[] = { "auto", "all", NULL };
static const struct hm_field fields[] = {
    { .name = "pieces",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, pieces),
      .fallback = "25000",
      .min = 1,
      .max = 4e6,
      .help = "new pieces in all: merges and single characters" },
    { .name = "singles",
      .type = HM_FIELD_TEXT,
      .offset = offsetof(struct config, singles),
      .fallback = "auto",
      .choices = singles_words,
      .path = true,
      .help = "single characters: auto (at least half as frequent as the last merge), all seen, a "
              "number of the most frequent, or a file that lists them, seen or not (UTF-8; lines "
              "that begin with # are remarks), such as recipes/characters/standard-8105.txt" },
    STAGE_SCRIPT_FIELD(struct config),
    STAGE_PIECE_CHARS_FIELD(struct config),
    STAGE_TEXT_FIELDS(struct config, text),
};
static const struct hm_input inputs[] = {
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .counted = true,
      .help = "text to learn from; .tsv: lines of text, tab, count" },
    { .name = "base",
      .type = HM_INPUT_TOKENIZER,
      .help = "tokenizer whose pieces do not count towards `pieces`" },
};

/* Which singles are meant; list holds a file's text. */
static int singles_parse(const struct config *config, struct hm_select_options *options,
                         struct hm_buf *list, struct hm_error *err)
{
    *options = (struct hm_select_options){ .pieces = config->pieces };
    if (strcmp(config->singles, "auto") == 0) {
        options->singles = HM_SINGLES_AUTO;
    } else if (strcmp(config->singles, "all") == 0) {
        options->singles = HM_SINGLES_ALL;
    } else if (hm_stage_is_count(config->singles)) {
        options->singles = HM_SINGLES_COUNT;
        HM_TRY(hm_parse_count(config->singles, &options->n_singles, err));
    } else {
        options->singles = HM_SINGLES_LIST;
        HM_TRY(hm_file_read(config->singles, SINGLES_FILE_MAX_BYTES, list, err));
        options->list = (struct hm_str){ list->ptr, list->len };
        options->list_name = config->singles;
    }
    return HM_OK;
}

struct choice {
    const struct hm_spm_model *base; /* may be NULL */
    struct hm_select_options select;
    struct hm_selection *selection;
};

static int choose(void *context, const struct hm_bpe_result *trained, struct hm_error *err)
{
    const struct choice *choice = context;

    return hm_piece_select(trained, choice->base, &choice->select, choice->selection, err);
}

static int pieces_write(const struct hm_stage_run *run, const struct hm_selection *selection,
                        struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "pieces.tsv", &file, err));
    int r = hm_out_printf(&file, err, "rank\tpiece\tcount\n");
    for (size_t i = 0; r == HM_OK && i < selection->n_merges + selection->n_singles; i++)
        r = hm_out_printf(&file, err, "%zu\t%.*s\t%" PRIu64 "\n", i,
                          (int)selection->piece[i].text.len, selection->piece[i].text.ptr,
                          selection->piece[i].count);
    return hm_out_end(&file, r, err);
}

static int model_write(const struct hm_stage_run *run, const struct hm_selection *selection,
                       struct hm_error *err)
{
    struct hm_buf bytes = { 0 };
    int r = hm_selection_model(selection, &bytes, err);

    if (r == HM_OK)
        r = hm_file_write_in(run->out_dir, "tokenizer.model", bytes.ptr, bytes.len, err);
    hm_buf_release(&bytes);
    return r;
}

static int report_fill(const struct hm_stage_run *run, const struct hm_han_counts *counts,
                       const struct hm_selection *selection, struct hm_error *err)
{
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    size_t n = selection->n_merges;

    HM_TRY(hm_report_u64(run->report, "pieces", n + selection->n_singles, err));
    HM_TRY(hm_report_u64(run->report, "merges", n, err));
    HM_TRY(hm_report_u64(run->report, "singles", selection->n_singles, err));
    HM_TRY(hm_report_u64(run->report, "merges_skipped", selection->n_merges_skipped, err));
    HM_TRY(
        hm_report_u64(run->report, "last_merge_count", n ? selection->piece[n - 1].count : 0, err));
    HM_TRY(hm_report_u64(run->report, "han_characters", totals.han_characters, err));
    HM_TRY(hm_report_u64(run->report, "distinct_characters", totals.distinct_characters, err));
    return hm_report_u64(run->report, "runs", totals.runs, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_selection selection = { 0 };
    struct choice choice = { .selection = &selection };
    struct hm_bpe_result trained = { 0 };
    struct hm_han_counts *counts = NULL;
    struct hm_spm_model base = { 0 };
    struct hm_buf list = { 0 };
    const char *base_path = NULL;

    int r = singles_parse(config, &choice.select, &list, err);
    if (r == HM_OK && hm_stage_input(run, "base"))
        r = hm_stage_path(run, "base", &base_path, err);
    if (r == HM_OK && base_path)
        r = hm_spm_model_load(base_path, &base, err);
    choice.base = base_path ? &base : NULL;
    if (r == HM_OK)
        r = hm_han_counts_new(&counts, err);
    if (r == HM_OK && config->script == HM_SCRIPT_HAN_MARKS)
        hm_han_counts_take_marks(counts);
    if (r == HM_OK)
        r = hm_stage_runs_count(run, &config->text, counts, err);
    if (r == HM_OK)
        r = hm_stage_train(run, &config->text, counts, config->pieces,
                           (uint32_t)config->max_piece_chars, choose, &choice, &trained, err);
    if (r == HM_OK)
        r = pieces_write(run, &selection, err);
    if (r == HM_OK)
        r = model_write(run, &selection, err);
    if (r == HM_OK)
        r = report_fill(run, counts, &selection, err);
    if (r == HM_OK)
        r = hm_stage_spill_report(run, counts, err);
    hm_selection_release(&selection);
    hm_bpe_result_release(&trained);
    hm_han_counts_free(counts);
    hm_stage_spill_leave(run, r);
    hm_spm_model_release(&base);
    hm_buf_release(&list);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    uint64_t n_singles = 0;

    if (hm_stage_is_count(config->singles))
        HM_TRY(hm_parse_count(config->singles, &n_singles, err));
    HM_TRY(hm_stage_train_plan(run, &config->text, config->pieces, n_singles, ret_plan, err));
    ret_plan->disk_bytes += config->pieces * 64;
    ret_plan->work = ret_plan->read_bytes;
    ret_plan->work_unit = "bytes";
    return hm_stage_plan_fact(ret_plan, "vocab_size",
                              json_integer((json_int_t)(HM_SELECTION_META + config->pieces)), err);
}

const struct hm_stage hm_stage_vocab_train = {
    .name = "vocab.train",
    .summary = "Learn a Chinese BPE vocabulary from text.",
    .own_memory = true,
    .rehearsed = true,
    .resumable = true,
    .check = hm_stage_text_is_one,
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "tokenizer.model, pieces.tsv, report.json",
    .product = { HM_INPUT_TOKENIZER },
    .product_path = { "" },
    .plan = plan_stage,
    .run = run_stage,
};
