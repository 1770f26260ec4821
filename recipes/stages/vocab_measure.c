/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.measure: how many tokens each tokenizer needs for the same texts, as JSON, CSV,
 * Markdown and a picture. Counting and intervals are vocab/efficiency.c.
 */
#include <inttypes.h>
#include <math.h>

#include "hanmix/base/alloc.h"
#include "hanmix/recipes/report.h"
#include "hanmix/vocab/efficiency.h"
#include "stage_model.h"
#include "stage_util.h"

struct config {
    struct stage_text text;
    double confidence;
};

static const struct hm_field fields[] = {
    STAGE_TEXT_FIELDS(struct config, text),
    { .name = "confidence",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, confidence),
      .fallback = "0.95",
      .min = 0.5,
      .max = 0.9999,
      .help = "coverage of the bootstrap interval of the reduction" },
};
static const struct hm_input inputs[] = {
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .help = "held-out text, one or several named sets" },
    { .name = "tokenizers",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .many = true,
      .help = "tokenizers to compare; reductions are against the first" },
};

struct measured { /* everything the writers need */
    struct hm_tokenizer **tokenizer;
    const char **path;
    const char **label; /* the set's name, else the end of the path */
    size_t n_tokenizers;
    struct hm_efficiency result;
};

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : NAN;
}

static const struct hm_set_efficiency *cell_at(const struct measured *m, size_t tokenizer,
                                               size_t set)
{
    return &m->result.cell[tokenizer * m->result.n_sets + set];
}

static void measured_release(struct measured *m)
{
    hm_efficiency_release(&m->result);
    for (size_t i = 0; m->tokenizer && i < m->n_tokenizers; i++)
        hm_tokenizer_free(m->tokenizer[i]);
    hm_free(m->tokenizer);
    hm_free((void *)m->path);
    hm_free((void *)m->label);
}

static int tokenizers_open(const struct hm_stage_run *run, struct measured *m, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "tokenizers");
    size_t count = 0;

    for (size_t i = 0; i < input->n_sets; i++)
        count += input->set[i].n_paths;
    m->tokenizer = hm_calloc(HM_MEM_VOCAB, count, sizeof(struct hm_tokenizer *));
    m->path = hm_calloc(HM_MEM_VOCAB, count, sizeof(*m->path));
    m->label = hm_calloc(HM_MEM_VOCAB, count, sizeof(*m->label));
    if (!m->tokenizer || !m->path || !m->label)
        return hm_fail_nomem(err, "for %zu tokenizers", count);
    for (size_t i = 0; i < input->n_sets; i++) {
        for (size_t f = 0; f < input->set[i].n_paths; f++) {
            const char *path = input->set[i].path[f];
            bool named = input->set[i].name[0] && input->set[i].n_paths == 1;
            m->path[m->n_tokenizers] = path;
            m->label[m->n_tokenizers] = named ? input->set[i].name : hm_path_tail(path, 2);
            HM_TRY(hm_tokenizer_open(path, &m->tokenizer[m->n_tokenizers], err));
            m->n_tokenizers++;
        }
    }
    return HM_OK;
}

static int cell_report(json_t *sets, const struct hm_set_efficiency *cell, bool first,
                       struct hm_error *err)
{
    json_t *item = hm_report_item(sets, err);

    if (!item)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_text(item, "name", cell->name, err));
    HM_TRY(hm_report_u64(item, "documents", cell->documents, err));
    HM_TRY(hm_report_u64(item, "bytes", cell->bytes, err));
    HM_TRY(hm_report_u64(item, "chars", cell->chars, err));
    HM_TRY(hm_report_u64(item, "han_chars", cell->han_chars, err));
    HM_TRY(hm_report_u64(item, "tokens", cell->tokens, err));
    HM_TRY(hm_report_f64(item, "tokens_per_char", ratio(cell->tokens, cell->chars), err));
    HM_TRY(hm_report_f64(item, "bytes_per_token", ratio(cell->bytes, cell->tokens), err));
    HM_TRY(hm_report_u64(item, "byte_fallback_tokens", cell->byte_fallback_tokens, err));
    HM_TRY(hm_report_u64(item, "unk_tokens", cell->unk_tokens, err));
    HM_TRY(hm_report_f64(item, "reduction_vs_first", first ? 0 : cell->reduction, err));
    HM_TRY(hm_report_f64(item, "low", first ? 0 : cell->reduction_low, err));
    return hm_report_f64(item, "high", first ? 0 : cell->reduction_high, err);
}

static int report_fill(const struct hm_stage_run *run, const struct measured *m,
                       struct hm_error *err)
{
    json_t *list = hm_report_array(run->report, "tokenizers", err);

    if (!list)
        return HM_ERR_NOMEM;
    for (size_t t = 0; t < m->n_tokenizers; t++) {
        json_t *item = hm_report_item(list, err);
        if (!item)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_text(item, "path", m->path[t], err));
        HM_TRY(hm_report_text(item, "name", m->label[t], err));
        HM_TRY(hm_report_u64(item, "vocab_size", m->tokenizer[t]->model.count, err));
        json_t *sets = hm_report_array(item, "sets", err);
        if (!sets)
            return HM_ERR_NOMEM;
        for (size_t s = 0; s < m->result.n_sets; s++)
            HM_TRY(cell_report(sets, cell_at(m, t, s), t == 0, err));
    }
    return HM_OK;
}

static int csv_write(const struct hm_stage_run *run, const struct measured *m, struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "efficiency.csv", &file, err));
    int r = hm_out_printf(
        &file, err,
        "tokenizer,vocab_size,set,documents,bytes,chars,han_chars,tokens,tokens_per_char,"
        "bytes_per_token,byte_fallback_tokens,unk_tokens,reduction_vs_first,low,high\n");
    for (size_t i = 0; r == HM_OK && i < m->n_tokenizers * m->result.n_sets; i++) {
        const struct hm_set_efficiency *c = &m->result.cell[i];
        size_t t = i / m->result.n_sets;
        r = hm_out_printf(&file, err,
                          "\"%s\",%zu,\"%s\",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64
                          ",%" PRIu64 ",%.6f,%.6f,%" PRIu64 ",%" PRIu64 ",%.6f,%.6f,%.6f\n",
                          m->path[t], m->tokenizer[t]->model.count, c->name, c->documents, c->bytes,
                          c->chars, c->han_chars, c->tokens, ratio(c->tokens, c->chars),
                          ratio(c->bytes, c->tokens), c->byte_fallback_tokens, c->unk_tokens,
                          t ? c->reduction : 0.0, t ? c->reduction_low : 0.0,
                          t ? c->reduction_high : 0.0);
    }
    return hm_out_end(&file, r, err);
}

static int markdown_write(const struct hm_stage_run *run, const struct measured *m,
                          struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "efficiency.md", &file, err));
    int r = hm_out_printf(
        &file, err,
        "| tokenizer | pieces | text | tokens | tokens/char | bytes/token | fewer tokens |\n"
        "|---|---:|---|---:|---:|---:|---:|\n");
    for (size_t i = 0; r == HM_OK && i < m->n_tokenizers * m->result.n_sets; i++) {
        const struct hm_set_efficiency *c = &m->result.cell[i];
        size_t t = i / m->result.n_sets;
        r = hm_out_printf(&file, err, "| %s | %zu | %s | %" PRIu64 " | %.4f | %.3f | ", m->label[t],
                          m->tokenizer[t]->model.count, c->name, c->tokens,
                          ratio(c->tokens, c->chars), ratio(c->bytes, c->tokens));
        if (r == HM_OK && t == 0)
            r = hm_out_printf(&file, err, "- |\n");
        else if (r == HM_OK)
            r = hm_out_printf(&file, err, "%.2f %% (%.2f to %.2f) |\n", 100 * c->reduction,
                              100 * c->reduction_low, 100 * c->reduction_high);
    }
    return hm_out_end(&file, r, err);
}

static int picture_write(const struct hm_stage_run *run, const struct measured *m,
                         struct hm_error *err)
{
    size_t n = m->n_tokenizers * m->result.n_sets;
    struct hm_bar *bars = hm_calloc(HM_MEM_OTHER, n, sizeof(*bars));
    struct hm_buf svg = { 0 };

    if (!bars)
        return hm_fail_nomem(err, "for a picture");
    for (size_t s = 0, at = 0; s < m->result.n_sets; s++) {
        for (size_t t = 0; t < m->n_tokenizers; t++, at++) {
            const struct hm_set_efficiency *c = cell_at(m, t, s);
            bars[at] = (struct hm_bar){ .label = m->label[t],
                                        .group = c->name,
                                        .value = ratio(c->tokens, c->chars),
                                        .low = NAN,
                                        .high = NAN };
        }
    }
    int r = hm_svg_bars("Tokens per character (fewer is better)", "tokens per character", bars, n,
                        &svg, err);
    if (r == HM_OK)
        r = hm_file_write_in(run->out_dir, "efficiency.svg", svg.ptr, svg.len, err);
    hm_buf_release(&svg);
    hm_free(bars);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_text_source source = { 0 };
    struct measured m = { 0 };
    int r = tokenizers_open(run, &m, err);

    if (r == HM_OK)
        r = hm_stage_text_open(run, "text", &config->text, &source, err);
    if (r == HM_OK)
        r = hm_efficiency_measure(&source, (const struct hm_tokenizer *const *)m.tokenizer,
                                  m.n_tokenizers, config->confidence, run->seed, run->ctl,
                                  &m.result, err);
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    if (r == HM_OK)
        r = report_fill(run, &m, err);
    if (r == HM_OK)
        r = csv_write(run, &m, err);
    if (r == HM_OK)
        r = markdown_write(run, &m, err);
    if (r == HM_OK)
        r = picture_write(run, &m, err);
    if (source.close)
        source.close(source.context);
    measured_release(&m);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t pieces = 0;
    uint64_t text = 0;

    HM_TRY(hm_stage_vocab_size(run, "tokenizers", &pieces, err));
    HM_TRY(hm_stage_input_bytes(run, "text", &text, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", STAGE_PIECE_BYTES * pieces, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    ret_plan->disk_bytes = 64 << 10;
    ret_plan->work = text;
    ret_plan->work_unit = "bytes";
    return HM_OK;
}

const struct hm_stage hm_stage_vocab_measure = {
    .name = "vocab.measure",
    .summary = "Compare how many tokens tokenizers need for the same text.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "report.json, efficiency.csv, efficiency.svg, efficiency.md",
    .rehearsed = true,
    .plan = plan_stage,
    .run = run_stage,
};
