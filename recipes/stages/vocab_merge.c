/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.merge: learned pieces into a base SentencePiece model, with the files every loader
 * reads and the list of what was added and dropped. The rules are vocab/piece_merge.c.
 */
#include <stdlib.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/vocab/piece_merge.h"
#include "hanmix/vocab/piece_select.h"
#include "stage_model.h"
#include "stage_util.h"

#define DISK_PIECE_BYTES 128 /* in tokenizer.model, tokenizer.json and the lists */

struct config {
    int score, script;
    uint64_t max_piece_chars;
};

enum score { SCORE_RANKED, SCORE_ZERO };
static const char *const scores[] = { "ranked", "zero", NULL };
enum script { SCRIPT_AUTO, SCRIPT_HAN, SCRIPT_ANY, SCRIPT_HAN_MARKS };
static const char *const scripts[] = { "auto", "han", "any", "han-marks", NULL };
static const struct hm_field fields[] = {
    { .name = "score",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, score),
      .fallback = "ranked",
      .choices = scores,
      .help = "ranked: strictly falling scores below the base's; zero: as the published scripts, "
              "all that the base has not, in its order; loaders then disagree" },
    { .name = "script",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct config, script),
      .fallback = "auto",
      .choices = scripts,
      .help = "pieces taken: han keeps those of Han-class characters with an ideograph, han-marks "
              "also those with an ideograph and Chinese punctuation, any keeps all; auto is han, "
              "but any with score zero, for the published scripts take every "
              "piece that the base lacks: han would leave out 961 of the 17,187 that "
              "chinese_sp.model adds to Mixtral's" },
    { .name = "max_piece_chars",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, max_piece_chars),
      .fallback = "16",
      .min = 1,
      .max = 16,
      .help = "longer pieces are dropped, in characters" },
};
static const struct hm_input inputs[] = {
    { .name = "base",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .help = "SentencePiece model to extend" },
    { .name = "extra",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .help = "BPE model whose pieces are added, in the order of its scores" },
};

static int added_write(const struct hm_stage_run *run, const struct hm_merge_result *result,
                       int32_t first_id, struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    struct hm_buf piece = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "added_pieces.tsv", &file, err));
    int r = hm_out_printf(&file, err, "id\tpiece\tscore\n");
    for (size_t i = 0; r == HM_OK && i < result->n_added; i++) {
        hm_buf_clear(&piece);
        r = hm_buf_word(&piece, result->added[i].text, err);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, "%d\t%s\t%.9g\n", first_id + (int32_t)i, piece.ptr,
                              (double)result->added[i].score);
    }
    hm_buf_release(&piece);
    return hm_out_end(&file, r, err);
}

static int dropped_write(const struct hm_stage_run *run, const struct hm_merge_result *result,
                         struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    struct hm_buf piece = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "dropped_pieces.tsv", &file, err));
    int r = hm_out_printf(&file, err, "piece\treason\n");
    for (size_t i = 0; r == HM_OK && i < result->n_dropped; i++) {
        hm_buf_clear(&piece);
        r = hm_buf_word(&piece, hm_str_of(result->dropped[i].piece), err);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, "%s\t%s\n", piece.ptr, result->dropped[i].reason);
    }
    hm_buf_release(&piece);
    return hm_out_end(&file, r, err);
}

/* tokenizer.model, then the files around it; base_dir lends its tokenizer.json when the base is a
 * folder. */
static int files_write(const struct hm_stage_run *run, const struct hm_merge_result *result,
                       const char *base_path, struct hm_error *err)
{
    struct hm_spm_model merged = { 0 };

    HM_TRY(hm_file_write_in(run->out_dir, "tokenizer.model", result->model_bytes.ptr,
                            result->model_bytes.len, err));
    int r = hm_spm_model_load(run->out_dir, &merged, err);
    if (r == HM_OK)
        r = hm_tokenizer_json_write(&merged, hm_path_is_dir(base_path) ? base_path : NULL,
                                    run->out_dir, err);
    hm_spm_model_release(&merged);
    return r;
}

static int warn(const struct hm_stage_run *run, json_t *warnings, const char *text,
                struct hm_error *err)
{
    hm_ctl_message(run->ctl, "%s: %s", run->id, text);
    return json_array_append_new(warnings, json_string(text)) < 0
               ? hm_fail_nomem(err, "for a warning")
               : HM_OK;
}

static int score_order(const void *a, const void *b)
{
    float left = *(const float *)a, right = *(const float *)b;

    return left < right ? -1 : left > right;
}

/* Merges of the base whose score another one has too; pieces of spaces alone always share theirs.
 */
static int ties_count(const struct hm_spm_model *base, size_t *ret_ties, struct hm_error *err)
{
    float *score = hm_alloc_array(HM_MEM_VOCAB, base->count, sizeof(*score));
    size_t n = 0, ties = 0;

    if (!score)
        return hm_fail_nomem(err, "for %zu scores", base->count);
    for (size_t i = 0; i < base->count; i++)
        if (base->piece[i].type == HM_PIECE_NORMAL &&
            base->piece[i].score > HM_SPM_WHITESPACE_SCORE &&
            hm_utf8_count(base->piece[i].text) > 1)
            score[n++] = base->piece[i].score;
    qsort(score, n, sizeof(*score), score_order);
    for (size_t i = 0; i < n; i++)
        ties += (i > 0 && score[i] == score[i - 1]) || (i + 1 < n && score[i] == score[i + 1]);
    hm_free(score);
    *ret_ties = ties;
    return HM_OK;
}

static bool has_user_pieces(const struct hm_spm_model *model)
{
    for (size_t i = 0; i < model->count; i++)
        if (model->piece[i].type == HM_PIECE_USER)
            return true;
    return false;
}

/* What the model that pieces come from makes doubtful about them, and a base that loaders already
 * disagree about. */
static int warnings_fill(const struct hm_stage_run *run, const struct hm_spm_model *base,
                         const struct hm_spm_model *extra, struct hm_error *err)
{
    json_t *warnings = hm_report_array(run->report, "warnings", err);
    size_t ties = 0;

    if (!warnings)
        return HM_ERR_NOMEM;
    HM_TRY(ties_count(base, &ties, err));
    if (ties > 0)
        HM_TRY(warn(run, warnings,
                    "pieces of the base share a score: SentencePiece merges the leftmost of them "
                    "first, which tokenizer.json cannot say, so the fast tokenizer cuts some text "
                    "otherwise, with the base alone too; load it with use_fast=False",
                    err));
    if (base->add_dummy_prefix && has_user_pieces(base))
        HM_TRY(warn(run, warnings,
                    "the base has user-defined pieces: behind one of them transformers puts U+2581 "
                    "before the text that follows, SentencePiece does not, so such text is cut "
                    "otherwise by the fast tokenizer, with the base alone too",
                    err));
    if (extra->has_charsmap && extra->normalizer_hash != base->normalizer_hash)
        HM_TRY(warn(run, warnings,
                    "the pieces were learned from normalised text (NFKC or the like), the base "
                    "does not normalise: full-width and compatibility forms were folded before "
                    "they were counted and are missing; train with identity (vocab.train does)",
                    err));
    if (extra->kind != HM_SPM_BPE)
        HM_TRY(warn(run, warnings,
                    "the pieces come from a model that is not BPE: their order is not one of "
                    "merges, so pieces out of reach are dropped or, with score: zero, dead; train "
                    "a BPE model (vocab.train does)",
                    err));
    return HM_OK;
}

static int report_fill(const struct hm_stage_run *run, const struct hm_merge_result *result,
                       size_t base_pieces, struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "base_pieces", base_pieces, err));
    HM_TRY(hm_report_u64(run->report, "added", result->n_added, err));
    HM_TRY(hm_report_u64(run->report, "dropped", result->n_dropped, err));
    return hm_report_u64(run->report, "vocab_size", base_pieces + result->n_added, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_merge_options options = {
        .score_zero = config->score == SCORE_ZERO,
        .han_marks = config->script == SCRIPT_HAN_MARKS,
        .max_piece_chars = (uint32_t)config->max_piece_chars,
        .any_script = config->script == SCRIPT_ANY ||
                      (config->script == SCRIPT_AUTO && config->score == SCORE_ZERO),
    };
    struct hm_merge_result result = { 0 };
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    const char *base_path = NULL;
    const char *extra_path = NULL;

    HM_TRY(hm_stage_path(run, "base", &base_path, err));
    HM_TRY(hm_stage_path(run, "extra", &extra_path, err));
    int r = hm_spm_model_load(base_path, &base, err);
    if (r == HM_OK)
        r = hm_spm_model_load(extra_path, &extra, err);
    if (r == HM_OK)
        r = hm_piece_merge(&base, &extra, &options, &result, err);
    if (r == HM_OK)
        r = hm_tokenizer_json_check(&base,
                                    err); /* the merged one would say the same, by another name */
    if (r == HM_OK)
        r = files_write(run, &result, base_path, err);
    if (r == HM_OK)
        r = added_write(run, &result, (int32_t)base.count, err);
    if (r == HM_OK)
        r = dropped_write(run, &result, err);
    if (r == HM_OK)
        r = report_fill(run, &result, base.count, err);
    if (r == HM_OK)
        r = warnings_fill(run, &base, &extra, err);
    hm_merge_result_release(&result);
    hm_spm_model_release(&extra);
    hm_spm_model_release(&base);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t base = 0;
    uint64_t extra = 0;

    HM_TRY(hm_stage_vocab_size(run, "base", &base, err));
    HM_TRY(hm_stage_vocab_size(run, "extra", &extra, err));
    const uint64_t known = HM_SELECTION_META; /* add nothing */
    uint64_t added = extra > known ? extra - known : 0;
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary",
                                3 * STAGE_PIECE_BYTES * (base + extra) + (4ull << 20), err));
    ret_plan->disk_bytes = DISK_PIECE_BYTES * (base + extra);
    return hm_stage_plan_fact(ret_plan, "vocab_size", json_integer((json_int_t)(base + added)),
                              err);
}

const struct hm_stage hm_stage_vocab_merge = {
    .name = "vocab.merge",
    .summary = "Add learned pieces to a base SentencePiece model.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "tokenizer.model, tokenizer.json, tokenizer_config.json, special_tokens_map.json, "
              "added_pieces.tsv, "
              "dropped_pieces.tsv, report.json",
    .product = { HM_INPUT_TOKENIZER },
    .product_path = { "" },
    .rehearsed = true,
    .plan = plan_stage,
    .run = run_stage,
};
