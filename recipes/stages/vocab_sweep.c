/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.sweep: how good Chinese vocabularies of many sizes would be, scored on held-out text
 * in one pass. Scores are vocab/size_sweep.c's; a table, a picture and the bend are made here.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/recipes/report.h"
#include "hanmix/vocab/size_sweep.h"
#include "stage_model.h"
#include "stage_vocab.h"

struct config {
    struct stage_text text;
    struct hm_text_list pieces, singles;
    uint64_t max_piece_chars;
    int script;
};

static const struct hm_field fields[] = {
    { .name = "pieces",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct config, pieces),
      .fallback = "10000,15000,20000,25000,30000,35000,40000",
      .help = "numbers of new pieces to try, merges and single characters together" },
    { .name = "singles",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct config, singles),
      .fallback = "auto",
      .help = "single characters to try with each of them: numbers of the most frequent, auto (at "
              "least half as frequent as the last merge), all seen" },
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
      .help = "text to learn from; .tsv: lines of text, tab, count; sample_bytes is of this" },
    { .name = "held_out",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .help = "other text, on which the vocabularies are scored line by line" },
    { .name = "base",
      .type = HM_INPUT_TOKENIZER,
      .help = "tokenizer the pieces will be merged into: its own do not count, and held-out text "
              "is encoded by both together" },
};

struct sweep {
    const struct hm_spm_model *base; /* may be NULL */
    struct hm_sweep_point *point;    /* [singles][pieces] */
    size_t n_points, n_pieces, n_singles;
    struct hm_sweep_text text;
    size_t elbow; /* a point */
};

/* --- the grid --------------------------------------------------------------------------------- */

static int pieces_parse(const char *text, uint64_t *ret_pieces, struct hm_error *err)
{
    HM_TRY(hm_parse_count(text, ret_pieces, err));
    if (*ret_pieces < 1 || *ret_pieces > 4000000)
        return hm_fail(err, HM_ERR_USAGE, "set.pieces: %s is not between 1 and 4000000", text);
    return HM_OK;
}

static int singles_parse(const char *text, struct hm_sweep_point *point, struct hm_error *err)
{
    point->rule = HM_SINGLES_COUNT;
    if (strcmp(text, "auto") == 0)
        point->rule = HM_SINGLES_AUTO;
    else if (strcmp(text, "all") == 0)
        point->rule = HM_SINGLES_ALL;
    else if (hm_stage_is_count(text))
        return hm_parse_count(text, &point->n_singles, err);
    else
        return hm_fail(err, HM_ERR_USAGE,
                       "set.singles: '%s' is neither auto nor all nor a number (a file is for "
                       "vocab.train)",
                       text);
    return HM_OK;
}

static int ascending(const void *left, const void *right)
{
    uint64_t a = ((const struct hm_sweep_point *)left)->pieces;
    uint64_t b = ((const struct hm_sweep_point *)right)->pieces;

    return (a > b) - (a < b);
}

static int grid_make(const struct config *config, struct sweep *sweep, struct hm_error *err)
{
    const size_t n = config->pieces.count, n_singles = config->singles.count;

    if (n == 0 || n_singles == 0 || n * n_singles > HM_SWEEP_MOST)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.pieces and set.singles make %zu vocabularies: 1 to %u are possible",
                       n * n_singles, HM_SWEEP_MOST);
    sweep->point = hm_calloc(HM_MEM_VOCAB, n * n_singles, sizeof(*sweep->point));
    if (!sweep->point)
        return hm_fail_nomem(err, "for a sweep");
    sweep->n_pieces = n, sweep->n_singles = n_singles, sweep->n_points = n * n_singles;
    for (size_t i = 0; i < sweep->n_points; i++) {
        struct hm_sweep_point *point = &sweep->point[i];
        HM_TRY(pieces_parse(config->pieces.item[i % n], &point->pieces, err));
        HM_TRY(singles_parse(config->singles.item[i / n], point, err));
        if (point->rule == HM_SINGLES_COUNT && point->n_singles > point->pieces)
            return hm_fail(err, HM_ERR_USAGE,
                           "set.singles: %" PRIu64 " single characters are more than %" PRIu64
                           " pieces; leave one of them out",
                           point->n_singles, point->pieces);
    }
    for (size_t s = 0; s < n_singles; s++)
        qsort(&sweep->point[s * n], n, sizeof(*sweep->point), ascending);
    for (size_t i = 1; i < n; i++)
        if (sweep->point[i].pieces == sweep->point[i - 1].pieces)
            return hm_fail(err, HM_ERR_USAGE, "set.pieces: %" PRIu64 " stands there twice",
                           sweep->point[i].pieces);
    return HM_OK;
}

static int choose(void *context, const struct hm_bpe_result *trained, struct hm_error *err)
{
    const struct sweep *sweep = context;

    for (size_t i = 0; i < sweep->n_points; i++) {
        const struct hm_select_options options = { .pieces = sweep->point[i].pieces,
                                                   .singles = sweep->point[i].rule,
                                                   .n_singles = sweep->point[i].n_singles };
        struct hm_selection selection = { 0 };
        HM_TRY(hm_piece_select(trained, sweep->base, &options, &selection, err));
        hm_selection_release(&selection);
    }
    return HM_OK;
}

static int held_out_score(const struct hm_stage_run *run, const struct hm_bpe_result *trained,
                          struct sweep *sweep, struct hm_error *err)
{
    const struct config *config = run->config;
    struct stage_text text = config->text;
    struct hm_text_source source = { 0 };

    text.sample_bytes = 0;
    HM_TRY(hm_stage_text_open(run, "held_out", &text, &source, err));
    int r = hm_size_sweep(trained, sweep->base, sweep->point, sweep->n_points, &source, run->ctl,
                          &sweep->text, err);
    source.close(source.context);
    if (r == HM_OK && sweep->text.lines == 0)
        r = hm_fail(err, HM_ERR_FORMAT, "in.held_out holds no text: give some that is not empty");
    return r;
}

/* --- the bend --------------------------------------------------------------------------------- */

/* Of the vocabularies of one number of pieces the best. */
static size_t best_singles(const struct sweep *sweep, size_t pieces)
{
    size_t best = pieces;

    for (size_t s = 1; s < sweep->n_singles; s++)
        if (sweep->point[s * sweep->n_pieces + pieces].alp > sweep->point[best].alp)
            best = s * sweep->n_pieces + pieces;
    return best;
}

/* Where the curve of the best scores over pieces lies highest above the chord of its ends (Satopaa
 * et al. 2011); with fewer than three sizes the best point. */
static void elbow_find(struct sweep *sweep)
{
    const size_t n = sweep->n_pieces;
    const struct hm_sweep_point *first = &sweep->point[best_singles(sweep, 0)];
    const struct hm_sweep_point *last = &sweep->point[best_singles(sweep, n - 1)];
    double highest = -INFINITY;

    for (size_t i = 0; i < n; i++) {
        size_t at = best_singles(sweep, i);
        const struct hm_sweep_point *point = &sweep->point[at];
        double height = point->alp;
        if (n > 2) {
            double part =
                (double)(point->pieces - first->pieces) / (double)(last->pieces - first->pieces);
            height -= first->alp + part * (last->alp - first->alp);
        }
        if (height > highest) {
            highest = height;
            sweep->elbow = at;
        }
    }
}

/* Tokens of the held-out text that a row saves, against the size before with the same rule for
 * characters. */
static double saved_per_row(const struct sweep *sweep, size_t i)
{
    if (i % sweep->n_pieces == 0)
        return NAN;
    const struct hm_sweep_point *point = &sweep->point[i], *before = point - 1;
    return ((double)before->tokens - (double)point->tokens) /
           (double)(point->pieces - before->pieces);
}

/* --- what is written -------------------------------------------------------------------------- */

static const char *rule_name(enum hm_singles rule)
{
    return rule == HM_SINGLES_AUTO ? "auto" : rule == HM_SINGLES_ALL ? "all" : "count";
}

static int csv_write(const struct hm_stage_run *run, const struct sweep *sweep,
                     struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "alp.csv", &file, err));
    int r =
        hm_out_printf(&file, err,
                      "singles,pieces,tokens_per_line,entropy,alp,rule,merges,vocab_size,tokens,"
                      "byte_tokens,tokens_per_char,saved_per_row,rare_share,renyi_efficiency\n");
    for (size_t i = 0; r == HM_OK && i < sweep->n_points; i++) {
        const struct hm_sweep_point *p = &sweep->point[i];
        double saved = saved_per_row(sweep, i);
        r = hm_out_printf(&file, err,
                          "%" PRIu64 ",%" PRIu64 ",%.9g,%.9g,%.9g,%s,%" PRIu64 ",%" PRIu64
                          ",%" PRIu64 ",%" PRIu64 ",%.9g,",
                          p->singles, p->pieces, p->tokens_per_line, p->entropy, p->alp,
                          rule_name(p->rule), p->merges, p->vocab_size, p->tokens, p->byte_tokens,
                          (double)p->tokens / (double)sweep->text.chars);
        if (r == HM_OK && !isnan(saved))
            r = hm_out_printf(&file, err, "%.9g", saved);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, ",%.9g,%.9g\n", (double)p->rare / (double)p->pieces,
                              p->renyi);
    }
    return hm_out_end(&file, r, err);
}

static int chart_draw(const struct sweep *sweep, struct hm_series *series, double *values,
                      char (*names)[32], struct hm_buf *svg, struct hm_error *err)
{
    const size_t n = sweep->n_pieces;
    double *x = values, *y = values + sweep->n_points;
    const struct hm_sweep_point *elbow = &sweep->point[sweep->elbow];
    const double at_x = (double)elbow->pieces, at_y = elbow->alp;
    const struct hm_chart chart = { .title = "ALP over new pieces (higher is better)",
                                    .x_label = "new pieces",
                                    .y_label = "ALP",
                                    .series = series,
                                    .n_series = sweep->n_singles + 1 };

    for (size_t i = 0; i < sweep->n_points; i++) {
        x[i] = (double)sweep->point[i].pieces;
        y[i] = sweep->point[i].alp;
    }
    for (size_t s = 0; s < sweep->n_singles; s++) {
        const struct hm_sweep_point *point = &sweep->point[s * n];
        if (point->rule == HM_SINGLES_COUNT)
            snprintf(names[s], sizeof(names[s]), "%" PRIu64 " characters", point->n_singles);
        else
            snprintf(names[s], sizeof(names[s]), "characters: %s", rule_name(point->rule));
        series[s] = (struct hm_series){ names[s], &x[s * n], &y[s * n], n };
    }
    series[sweep->n_singles] = (struct hm_series){ "elbow", &at_x, &at_y, 1 };
    return hm_svg_lines(&chart, svg, err);
}

static int picture_write(const struct hm_stage_run *run, const struct sweep *sweep,
                         struct hm_error *err)
{
    struct hm_series *series = hm_calloc(HM_MEM_OTHER, sweep->n_singles + 1, sizeof(*series));
    double *values = hm_calloc(HM_MEM_OTHER, 2 * sweep->n_points, sizeof(*values));
    char(*names)[32] = hm_calloc(HM_MEM_OTHER, sweep->n_singles, sizeof(*names));
    struct hm_buf svg = { 0 };
    int r = HM_OK;

    if (series && values && names)
        r = chart_draw(sweep, series, values, names, &svg, err);
    else
        r = hm_fail_nomem(err, "for a picture");
    if (r == HM_OK)
        r = hm_file_write_in(run->out_dir, "alp.svg", svg.ptr, svg.len, err);
    hm_buf_release(&svg);
    hm_free(names);
    hm_free(values);
    hm_free(series);
    return r;
}

static int point_report(json_t *object, const struct hm_sweep_point *point, struct hm_error *err)
{
    HM_TRY(hm_report_u64(object, "singles", point->singles, err));
    HM_TRY(hm_report_u64(object, "pieces", point->pieces, err));
    HM_TRY(hm_report_u64(object, "vocab_size", point->vocab_size, err));
    HM_TRY(hm_report_f64(object, "tokens_per_line", point->tokens_per_line, err));
    HM_TRY(hm_report_f64(object, "entropy", point->entropy, err));
    return hm_report_f64(object, "alp", point->alp, err);
}

static int report_fill(const struct hm_stage_run *run, const struct sweep *sweep,
                       struct hm_error *err)
{
    json_t *elbow = hm_report_object(run->report, "elbow", err);
    json_t *best = hm_report_object(run->report, "best", err);
    json_t *held_out = hm_report_object(run->report, "held_out", err);
    size_t highest = 0;

    if (!elbow || !best || !held_out)
        return HM_ERR_NOMEM;
    for (size_t i = 1; i < sweep->n_points; i++)
        if (sweep->point[i].alp > sweep->point[highest].alp)
            highest = i;
    HM_TRY(point_report(elbow, &sweep->point[sweep->elbow], err));
    HM_TRY(point_report(best, &sweep->point[highest], err));
    HM_TRY(hm_report_u64(held_out, "documents", sweep->text.documents, err));
    HM_TRY(hm_report_u64(held_out, "lines", sweep->text.lines, err));
    HM_TRY(hm_report_u64(held_out, "chars", sweep->text.chars, err));
    HM_TRY(hm_report_u64(run->report, "candidates", sweep->n_points, err));
    return hm_report_text(run->report, "rule",
                          sweep->n_pieces > 2
                              ? "the number of pieces where the best ALP lies highest above the "
                                "chord between the smallest and the largest, with the characters "
                                "that score best there"
                              : "the highest ALP (fewer than three sizes have no bend)",
                          err);
}

static int sweep_write(const struct hm_stage_run *run, const struct sweep *sweep,
                       struct hm_error *err)
{
    HM_TRY(csv_write(run, sweep, err));
    HM_TRY(picture_write(run, sweep, err));
    return report_fill(run, sweep, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct sweep sweep = { 0 };
    struct hm_bpe_result trained = { 0 };
    struct hm_han_counts *counts = NULL;
    struct hm_spm_model base = { 0 };
    const char *base_path = NULL;
    uint64_t most = 0;

    int r = grid_make(config, &sweep, err);
    if (r == HM_OK && hm_stage_input(run, "base"))
        r = hm_stage_path(run, "base", &base_path, err);
    if (r == HM_OK && base_path)
        r = hm_spm_model_load(base_path, &base, err);
    sweep.base = base_path ? &base : NULL;
    if (r == HM_OK)
        r = hm_han_counts_new(&counts, err);
    if (r == HM_OK && config->script == HM_SCRIPT_HAN_MARKS)
        hm_han_counts_take_marks(counts);
    if (r == HM_OK)
        r = hm_stage_runs_count(run, &config->text, counts, err);
    if (r == HM_OK) {
        most = sweep.point[sweep.n_pieces - 1].pieces;
        r = hm_stage_train(run, &config->text, counts, most, (uint32_t)config->max_piece_chars,
                           choose, &sweep, &trained, err);
    }
    if (r == HM_OK)
        r = hm_stage_spill_report(run, counts, err);
    hm_han_counts_free(counts);
    hm_stage_spill_leave(run, r);
    if (r == HM_OK)
        r = held_out_score(run, &trained, &sweep, err);
    if (r == HM_OK) {
        elbow_find(&sweep);
        r = sweep_write(run, &sweep, err);
    }
    hm_bpe_result_release(&trained);
    hm_spm_model_release(&base);
    hm_free(sweep.point);
    return r;
}

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    struct sweep sweep = { 0 };
    int r = hm_stage_text_is_one(run, err);

    if (r == HM_OK)
        r = grid_make(run->config, &sweep, err);
    hm_free(sweep.point);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    struct sweep sweep = { 0 };
    uint64_t base = HM_SELECTION_META, most = 0, least_singles = 0, held_out = 0;
    int r = grid_make(config, &sweep, err);

    if (r == HM_OK)
        most = sweep.point[sweep.n_pieces - 1].pieces;
    for (size_t i = 0; r == HM_OK && i < sweep.n_points; i++)
        if (sweep.point[i].rule == HM_SINGLES_COUNT &&
            (least_singles == 0 || sweep.point[i].n_singles < least_singles))
            least_singles = sweep.point[i].n_singles;
    hm_free(sweep.point);
    HM_TRY(r);
    if (hm_stage_input(run, "base"))
        HM_TRY(hm_stage_vocab_size(run, "base", &base, err));
    HM_TRY(hm_stage_train_plan(run, &config->text, most, least_singles, ret_plan, err));
    HM_TRY(hm_stage_after_train_plan(run, &config->text, "counts of candidates",
                                     hm_size_sweep_bytes(sweep.n_points, base + most), ret_plan,
                                     err));
    HM_TRY(hm_stage_input_bytes(run, "held_out", &held_out, err));
    HM_TRY(hm_stage_plan_long(run, "held_out", STAGE_LONG_TEXT_TIMES, ret_plan, err));
    ret_plan->disk_bytes += 256 << 10;
    ret_plan->read_bytes += held_out;
    ret_plan->work = ret_plan->read_bytes;
    ret_plan->work_unit = "bytes";
    return HM_OK;
}

const struct hm_stage hm_stage_vocab_sweep = {
    .name = "vocab.sweep",
    .summary = "Score Chinese vocabularies of many sizes on held-out text, to choose one.",
    .own_memory = true,
    .rehearsed = true,
    .resumable = true,
    .check = check_stage,
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "alp.csv, alp.svg, report.json",
    .plan = plan_stage,
    .run = run_stage,
};
