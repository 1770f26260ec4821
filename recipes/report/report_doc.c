/* SPDX-License-Identifier: MIT */
/*
 * Building a report document, and its Markdown form. The HTML form is report_html.c; what a run's
 * report says is run_report.c.
 */
#include "report_doc.h"

#include <stdarg.h>
#include <stdio.h>

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the report");
}

static int new_block(struct report_doc *doc, enum block_kind kind, const char *text,
                     struct block **ret_block, struct hm_error *err)
{
    if (doc->count == doc->cap) {
        size_t cap = doc->cap == 0 ? 32 : 2 * doc->cap;
        struct block *grown = hm_realloc(HM_MEM_OTHER, doc->block, cap * sizeof *grown);
        if (grown == NULL)
            return fail_nomem(err);
        doc->block = grown;
        doc->cap = cap;
    }
    struct block *block = &doc->block[doc->count];
    *block = (struct block){ .kind = kind, .text = hm_strdup(HM_MEM_OTHER, text) };
    if (block->text == NULL)
        return fail_nomem(err);
    doc->count++;
    *ret_block = block;
    return HM_OK;
}

int report_add(struct report_doc *doc, enum block_kind kind, const char *text, struct hm_error *err)
{
    struct block *block;
    return new_block(doc, kind, text, &block, err);
}

int report_picture(struct report_doc *doc, const char *path, const char *caption,
                   struct hm_error *err)
{
    struct block *block;
    HM_TRY(new_block(doc, BLOCK_PICTURE, caption, &block, err));
    block->path = hm_strdup(HM_MEM_OTHER, path);
    return block->path == NULL ? fail_nomem(err) : HM_OK;
}

int report_table(struct report_doc *doc, const char *const *header, size_t n, struct hm_error *err)
{
    struct block *block;
    HM_BUG(n == 0 || n > TABLE_MAX_COLUMNS);
    HM_TRY(new_block(doc, BLOCK_TABLE, "", &block, err));
    block->columns = n;
    for (size_t i = 0; i < n; i++)
        HM_TRY(report_cell(doc, err, "%s", header[i]));
    return HM_OK;
}

int report_cell(struct report_doc *doc, struct hm_error *err, const char *format, ...)
{
    struct block *block = &doc->block[doc->count - 1];
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (block->cells == block->cap) {
        size_t cap = block->cap == 0 ? 64 : 2 * block->cap;
        char **grown = hm_realloc(HM_MEM_OTHER, block->cell, cap * sizeof *grown);
        if (grown == NULL)
            return fail_nomem(err);
        block->cell = grown;
        block->cap = cap;
    }
    block->cell[block->cells] = hm_strdup(HM_MEM_OTHER, text);
    if (block->cell[block->cells] == NULL)
        return fail_nomem(err);
    block->cells++;
    return HM_OK;
}

void report_release(struct report_doc *doc)
{
    for (size_t i = 0; i < doc->count; i++) {
        struct block *block = &doc->block[i];
        hm_free(block->text);
        hm_free(block->path);
        for (size_t c = 0; c < block->cells; c++)
            hm_free(block->cell[c]);
        hm_free(block->cell);
    }
    hm_free(doc->block);
    *doc = (struct report_doc){ 0 };
}

/* Pipes end a Markdown cell, so they are escaped. */
static int markdown_cell(struct hm_buf *out, const char *text, struct hm_error *err)
{
    HM_TRY(hm_buf_text(out, " ", err));
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '|')
            HM_TRY(hm_buf_text(out, "\\", err));
        HM_TRY(hm_buf_append(out, c, 1, err));
    }
    return hm_buf_text(out, " |", err);
}

static int markdown_table(const struct block *block, struct hm_buf *out, struct hm_error *err)
{
    for (size_t i = 0; i < block->cells; i++) {
        if (i % block->columns == 0)
            HM_TRY(hm_buf_text(out, "|", err));
        HM_TRY(markdown_cell(out, block->cell[i], err));
        if (i % block->columns + 1 < block->columns)
            continue;
        HM_TRY(hm_buf_text(out, "\n", err));
        if (i + 1 != block->columns)
            continue;
        for (size_t c = 0; c < block->columns; c++)
            HM_TRY(hm_buf_text(out, c == 0 ? "|---|" : "---:|", err));
        HM_TRY(hm_buf_text(out, "\n", err));
    }
    return hm_buf_text(out, "\n", err);
}

int report_markdown(const struct report_doc *doc, struct hm_buf *out, struct hm_error *err)
{
    for (size_t i = 0; i < doc->count; i++) {
        const struct block *block = &doc->block[i];
        switch (block->kind) {
        case BLOCK_TITLE:
            HM_TRY(hm_buf_printf(out, err, "# %s\n\n", block->text));
            break;
        case BLOCK_HEADING:
            HM_TRY(hm_buf_printf(out, err, "## %s\n\n", block->text));
            break;
        case BLOCK_TEXT:
            HM_TRY(hm_buf_printf(out, err, "%s\n\n", block->text));
            break;
        case BLOCK_TABLE:
            HM_TRY(markdown_table(block, out, err));
            break;
        case BLOCK_PICTURE:
            HM_TRY(hm_buf_printf(out, err, "![%s](%s)\n\n", block->text, block->path));
            break;
        }
    }
    return HM_OK;
}
