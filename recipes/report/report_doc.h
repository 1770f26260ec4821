/* SPDX-License-Identifier: MIT */
/*
 * A report as a list of blocks (headings, paragraphs, tables, pictures), written once and rendered
 * twice: Markdown, HTML. Owner thread; report_* copy what they are given.
 */
#ifndef HANMIX_RECIPES_REPORT_DOC_H
#define HANMIX_RECIPES_REPORT_DOC_H

#include "hanmix/base/str.h"

enum block_kind { BLOCK_TITLE, BLOCK_HEADING, BLOCK_TEXT, BLOCK_TABLE, BLOCK_PICTURE };

#define TABLE_MAX_COLUMNS 12

struct block {
    enum block_kind kind;
    char *text;  /* heading, paragraph; caption of a picture */
    char *path;  /* picture: path relative to the run folder */
    char **cell; /* table: rows x columns, the first row is the header */
    size_t columns, cells, cap;
};

struct report_doc {
    struct block *block;
    size_t count, cap;
};

int report_add(struct report_doc *doc, enum block_kind kind, const char *text,
               struct hm_error *err);
int report_picture(struct report_doc *doc, const char *path, const char *caption,
                   struct hm_error *err);
/* A table with n header cells; report_cell fills it row by row. */
int report_table(struct report_doc *doc, const char *const *header, size_t n, struct hm_error *err);
int report_cell(struct report_doc *doc, struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void report_release(struct report_doc *doc);

int report_markdown(const struct report_doc *doc, struct hm_buf *out, struct hm_error *err);
/* One page without outside references: pictures (SVG) are read from run_dir and placed inline. */
int report_html(const struct report_doc *doc, const char *run_dir, struct hm_buf *out,
                struct hm_error *err);

#endif
