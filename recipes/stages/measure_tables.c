/* SPDX-License-Identifier: MIT */
/*
 * Tables and picture of vocab.measure: the same rows, a tokenizer and a set each and the total of
 * several sets last, in the form a spreadsheet, a page or a terminal takes.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/recipes/report.h"
#include "hanmix/vocab/bpe_train.h"
#include "measure_tables.h"

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : NAN;
}

/* Rows of one tokenizer: its sets, then the total where there are several. */
static size_t rows_of(const struct measured *m)
{
    return m->result.n_sets + (m->result.n_sets > 1);
}

static const struct hm_set_efficiency *row_at(const struct measured *m, size_t tokenizer,
                                              size_t row)
{
    return row < m->result.n_sets ? &m->result.cell[tokenizer * m->result.n_sets + row]
                                  : &m->result.total[tokenizer];
}

/* --- CSV -------------------------------------------------------------------------------------- */

/* In quotes, with quotes doubled. */
static int csv_text(struct hm_out_file *file, const char *text, struct hm_error *err)
{
    HM_TRY(hm_out_printf(file, err, "\""));
    for (const char *quote; (quote = strchr(text, '"')) != NULL; text = quote + 1)
        HM_TRY(hm_out_printf(file, err, "%.*s\"\"", (int)(quote - text), text));
    return hm_out_printf(file, err, "%s\"", text);
}

/* An empty cell where there is no number. */
static int csv_number(struct hm_out_file *file, double value, struct hm_error *err)
{
    return isfinite(value) ? hm_out_printf(file, err, ",%.6f", value)
                           : hm_out_printf(file, err, ",");
}

static int csv_row(struct hm_out_file *file, const struct measured *m, size_t t, size_t row,
                   struct hm_error *err)
{
    const struct hm_set_efficiency *c = row_at(m, t, row);
    const struct hm_token_sums *sums = &c->sums;
    const double tail[] = {
        t ? c->reduction : 0.0,
        t ? c->reduction_low : 0.0,
        t ? c->reduction_high : 0.0,
        ratio(sums->own_chars, c->chars),
        ratio(sums->own_han_chars, c->han_chars),
        ratio(c->pieces_used, m->tokenizer[t]->count),
        ratio(sums->tokens, row_at(m, 0, row)->sums.tokens),
    };

    HM_TRY(csv_text(file, m->path[t], err));
    HM_TRY(hm_out_printf(file, err, ",%zu,", m->tokenizer[t]->count));
    HM_TRY(csv_text(file, c->name, err));
    HM_TRY(hm_out_printf(file, err, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64,
                         c->documents, c->bytes, c->chars, c->han_chars, sums->tokens));
    HM_TRY(csv_number(file, ratio(sums->tokens, c->chars), err));
    HM_TRY(csv_number(file, ratio(c->bytes, sums->tokens), err));
    HM_TRY(hm_out_printf(file, err, ",%" PRIu64 ",%" PRIu64, sums->byte_fallback_tokens,
                         sums->unk_tokens));
    for (size_t i = 0; i < COUNT_OF(tail); i++)
        HM_TRY(csv_number(file, tail[i], err));
    HM_TRY(hm_out_printf(file, err, ",%" PRIu64 ",%" PRIu64, c->pieces_used, c->new_pieces_used));
    if (!m->result.usage[t].extends)
        return hm_out_printf(file, err, ",,\n");
    return hm_out_printf(file, err, ",%" PRIu64 ",%" PRIu64 "\n", c->plain_lines,
                         sums->changed_lines);
}

static int csv_write(const struct hm_stage_run *run, const struct measured *m, struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(run->out_dir, "efficiency.csv", &file, err));
    int r = hm_out_printf(
        &file, err,
        "tokenizer,vocab_size,set,documents,bytes,chars,han_chars,tokens,tokens_per_char,"
        "bytes_per_token,byte_fallback_tokens,unk_tokens,reduction_vs_first,low,high,coverage,"
        "han_coverage,utilisation,cost_vs_first,pieces_used,new_pieces_used,lines_without_han,"
        "changed_lines\n");
    for (size_t i = 0; r == HM_OK && i < m->n_tokenizers * rows_of(m); i++)
        r = csv_row(&file, m, i / rows_of(m), i % rows_of(m), err);
    return hm_out_end(&file, r, err);
}

/* --- Markdown and text ------------------------------------------------------------------------ */

#define COLUMNS 11
static const char *const heading[COLUMNS] = {
    "tokenizer",    "pieces",      "text",        "tokens",      "tokens/char",      "bytes/token",
    "fewer tokens", "Han covered", "byte tokens", "pieces used", "chars in context",
};

static int percent_text(double share, struct hm_buf *cell, struct hm_error *err)
{
    return isfinite(share) ? hm_buf_printf(cell, err, "%.2f %%", 100 * share)
                           : hm_buf_text(cell, "-", err);
}

static int number_text(int digits, double value, struct hm_buf *cell, struct hm_error *err)
{
    if (!isfinite(value))
        return hm_buf_text(cell, "-", err);
    return hm_buf_printf(cell, err, "%.*f", digits, value);
}

static int reduction_text(const struct hm_set_efficiency *c, size_t t, struct hm_buf *cell,
                          struct hm_error *err)
{
    if (t == 0)
        return hm_buf_text(cell, "-", err);
    return hm_buf_printf(cell, err, "%.2f %% (%.2f to %.2f)", 100 * c->reduction,
                         100 * c->reduction_low, 100 * c->reduction_high);
}

static int cell_text(const struct measured *m, size_t t, size_t row, size_t column,
                     struct hm_buf *cell, struct hm_error *err)
{
    const struct hm_set_efficiency *c = row_at(m, t, row);
    const struct hm_token_sums *sums = &c->sums;
    double context = m->n_context ? (double)m->context[0] : NAN;

    switch (column) {
    case 0:
        return hm_buf_text(cell, m->label[t], err);
    case 1:
        return hm_buf_printf(cell, err, "%zu", m->tokenizer[t]->count);
    case 2:
        return hm_buf_text(cell, c->name, err);
    case 3:
        return hm_buf_printf(cell, err, "%" PRIu64, sums->tokens);
    case 4:
        return number_text(4, ratio(sums->tokens, c->chars), cell, err);
    case 5:
        return number_text(3, ratio(c->bytes, sums->tokens), cell, err);
    case 6:
        return reduction_text(c, t, cell, err);
    case 7:
        return percent_text(ratio(sums->own_han_chars, c->han_chars), cell, err);
    case 8:
        return percent_text(ratio(sums->byte_fallback_tokens, sums->tokens), cell, err);
    case 9:
        return percent_text(ratio(c->pieces_used, m->tokenizer[t]->count), cell, err);
    default:
        return number_text(0, context * ratio(c->chars, sums->tokens), cell, err);
    }
}

/* Every cell of the table: cell[row * COLUMNS + column], the headings first. */
static int cells_make(const struct measured *m, struct hm_buf *cell, struct hm_error *err)
{
    for (size_t c = 0; c < COLUMNS; c++)
        HM_TRY(hm_buf_text(&cell[c], heading[c], err));
    if (m->n_context)
        HM_TRY(hm_buf_printf(&cell[COLUMNS - 1], err, " of %" PRIu64, m->context[0]));
    for (size_t i = 0; i < m->n_tokenizers * rows_of(m); i++)
        for (size_t c = 0; c < COLUMNS; c++)
            HM_TRY(
                cell_text(m, i / rows_of(m), i % rows_of(m), c, &cell[(i + 1) * COLUMNS + c], err));
    return HM_OK;
}

static bool is_words(size_t column)
{
    return column == 0 || column == 2;
}

static int markdown_write(const struct hm_stage_run *run, const struct hm_buf *cell, size_t rows,
                          struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    int r;

    HM_TRY(hm_out_open_in(run->out_dir, "efficiency.md", &file, err));
    r = HM_OK;
    for (size_t i = 0; r == HM_OK && i < rows; i++) {
        for (size_t c = 0; r == HM_OK && c < COLUMNS; c++)
            r = hm_out_printf(&file, err, "| %s ", cell[i * COLUMNS + c].ptr);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, "|\n");
        for (size_t c = 0; r == HM_OK && i == 0 && c < COLUMNS; c++)
            r = hm_out_printf(&file, err, is_words(c) ? "|---" : "|---:");
        if (r == HM_OK && i == 0)
            r = hm_out_printf(&file, err, "|\n");
    }
    return hm_out_end(&file, r, err);
}

/* Columns on a terminal: ideographs take two. */
static size_t width_of(const struct hm_buf *cell)
{
    size_t width = 0;
    uint32_t code;

    for (size_t at = 0; at < cell->len; width++) {
        unsigned len = hm_utf8_decode(cell->ptr + at, cell->len - at, &code);
        width += len > 0 && hm_is_ideograph(code);
        at += len ? len : 1;
    }
    return width;
}

static int text_line(const struct hm_buf *cell, const size_t *width, struct hm_buf *line,
                     struct hm_error *err)
{
    hm_buf_clear(line);
    for (size_t c = 0; c < COLUMNS; c++) {
        int pad = (int)(width[c] - width_of(&cell[c]));
        HM_TRY(is_words(c) ? hm_buf_printf(line, err, "%s%*s", cell[c].ptr, pad, "")
                           : hm_buf_printf(line, err, "%*s%s", pad, "", cell[c].ptr));
        HM_TRY(hm_buf_text(line, c + 1 < COLUMNS ? "  " : "", err));
    }
    return HM_OK;
}

/* Also told to who listens. */
static int text_write(const struct hm_stage_run *run, const struct hm_buf *cell, size_t rows,
                      struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    struct hm_buf line = { 0 };
    size_t width[COLUMNS] = { 0 };

    for (size_t i = 0; i < rows * COLUMNS; i++) {
        size_t own = width_of(&cell[i]);
        width[i % COLUMNS] = own > width[i % COLUMNS] ? own : width[i % COLUMNS];
    }
    HM_TRY(hm_out_open_in(run->out_dir, "efficiency.txt", &file, err));
    int r = HM_OK;
    for (size_t i = 0; r == HM_OK && i < rows; i++) {
        r = text_line(&cell[i * COLUMNS], width, &line, err);
        if (r == HM_OK)
            r = hm_out_printf(&file, err, "%s\n", line.ptr);
        if (r == HM_OK)
            hm_ctl_message(run->ctl, "%s", line.ptr);
    }
    hm_buf_release(&line);
    return hm_out_end(&file, r, err);
}

static int tables_write(const struct hm_stage_run *run, const struct measured *m,
                        struct hm_error *err)
{
    size_t rows = m->n_tokenizers * rows_of(m) + 1;
    struct hm_buf *cell = hm_calloc(HM_MEM_OTHER, rows * COLUMNS, sizeof(*cell));

    if (!cell)
        return hm_fail_nomem(err, "for a table of %zu rows", rows);
    int r = cells_make(m, cell, err);
    if (r == HM_OK)
        r = markdown_write(run, cell, rows, err);
    if (r == HM_OK)
        r = text_write(run, cell, rows, err);
    for (size_t i = 0; i < rows * COLUMNS; i++)
        hm_buf_release(&cell[i]);
    hm_free(cell);
    return r;
}

/* --- picture ---------------------------------------------------------------------------------- */

static int picture_write(const struct hm_stage_run *run, const struct measured *m,
                         struct hm_error *err)
{
    size_t n = m->n_tokenizers * rows_of(m);
    struct hm_bar *bars = hm_calloc(HM_MEM_OTHER, n, sizeof(*bars));
    struct hm_buf svg = { 0 };

    if (!bars)
        return hm_fail_nomem(err, "for a picture");
    for (size_t i = 0; i < n; i++) {
        size_t t = i % m->n_tokenizers, row = i / m->n_tokenizers;
        const struct hm_set_efficiency *c = row_at(m, t, row);
        double first = ratio(row_at(m, 0, row)->sums.tokens, c->chars);
        bars[i] = (struct hm_bar){ .label = m->label[t],
                                   .group = c->name,
                                   .value = ratio(c->sums.tokens, c->chars),
                                   .low = t ? first * (1 - c->reduction_high) : NAN,
                                   .high = t ? first * (1 - c->reduction_low) : NAN };
    }
    int r = hm_svg_bars("Tokens per character (fewer is better)",
                        "tokens per character; whiskers: interval of the reduction against the "
                        "first",
                        bars, n, &svg, err);
    if (r == HM_OK)
        r = hm_file_write_in(run->out_dir, "efficiency.svg", svg.ptr, svg.len, err);
    hm_buf_release(&svg);
    hm_free(bars);
    return r;
}

int hm_measured_write(const struct hm_stage_run *run, const struct measured *m,
                      struct hm_error *err)
{
    HM_TRY(csv_write(run, m, err));
    HM_TRY(tables_write(run, m, err));
    return picture_write(run, m, err);
}
