/* SPDX-License-Identifier: MIT */
/*
 * The HTML form of a report: one self-contained page, SVG pictures inline, no script, nothing
 * loaded from elsewhere.
 */
#include "report_doc.h"

#include "hanmix/base/file.h"

#define PICTURE_MAX_BYTES (8u << 20)

static const char page_head[] =
    "<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, "
    "initial-scale=1\">\n<style>\n"
    "body{font:15px/1.55 system-ui,-apple-system,\"Noto Sans\",\"Noto Sans CJK "
    "SC\",sans-serif;max-width:60rem;margin:2rem auto;"
    "padding:0 1rem;color:#222;background:#fff}\n"
    "h1{font-size:1.7rem}h2{font-size:1.2rem;margin-top:2.2rem;border-bottom:1px solid "
    "#ddd;padding-bottom:.3rem}\n"
    "table{border-collapse:collapse;margin:1rem "
    "0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}\n"
    "th,td{padding:.3rem .8rem;border-bottom:1px solid "
    "#e6e6e6;text-align:right}th:first-child,td:first-child{text-align:left}\n"
    "th{font-weight:600;background:#f6f6f6}figure{margin:1.2rem 0}figure "
    "svg{max-width:100%;height:auto}\n"
    "figcaption{color:#666;font-size:.9rem}\n</style>\n";

static int element(struct hm_buf *out, const char *tag, const char *text, struct hm_error *err)
{
    HM_TRY(hm_buf_printf(out, err, "<%s>", tag));
    HM_TRY(hm_buf_xml(out, text, err));
    return hm_buf_printf(out, err, "</%s>\n", tag);
}

static int table(struct hm_buf *out, const struct block *block, struct hm_error *err)
{
    HM_TRY(hm_buf_text(out, "<table>\n", err));
    for (size_t i = 0; i < block->cells; i++) {
        if (i % block->columns == 0)
            HM_TRY(hm_buf_text(out, "<tr>", err));
        HM_TRY(element(out, i < block->columns ? "th" : "td", block->cell[i], err));
        if ((i + 1) % block->columns == 0)
            HM_TRY(hm_buf_text(out, "</tr>\n", err));
    }
    return hm_buf_text(out, "</table>\n", err);
}

/* Our own SVG writer made the picture, so it is placed as it stands; a file that is gone leaves its
 * caption. */
static int picture(struct hm_buf *out, const char *run_dir, const struct block *block,
                   struct hm_error *err)
{
    char *path = NULL;
    struct hm_buf svg = { 0 };
    int r = hm_path_join(&path, run_dir, block->path, err);
    if (r == HM_OK)
        r = hm_buf_text(out, "<figure>\n", err);
    if (r == HM_OK && hm_path_exists(path))
        r = hm_file_read(path, PICTURE_MAX_BYTES, &svg, err);
    if (r == HM_OK && svg.len > 0)
        r = hm_buf_append(out, svg.ptr, svg.len, err);
    if (r == HM_OK)
        r = element(out, "figcaption", block->text, err);
    if (r == HM_OK)
        r = hm_buf_text(out, "</figure>\n", err);
    hm_buf_release(&svg);
    hm_free(path);
    return r;
}

int report_html(const struct report_doc *doc, const char *run_dir, struct hm_buf *out,
                struct hm_error *err)
{
    static const char *const tag[] = {
        [BLOCK_TITLE] = "h1", [BLOCK_HEADING] = "h2", [BLOCK_TEXT] = "p"
    };
    HM_TRY(hm_buf_text(out, "<!doctype html>\n<html lang=\"en\">\n", err));
    HM_TRY(hm_buf_text(out, page_head, err));
    HM_TRY(element(out, "title", doc->count > 0 ? doc->block[0].text : "hanmix", err));
    for (size_t i = 0; i < doc->count; i++) {
        const struct block *block = &doc->block[i];
        if (block->kind == BLOCK_TABLE)
            HM_TRY(table(out, block, err));
        else if (block->kind == BLOCK_PICTURE)
            HM_TRY(picture(out, run_dir, block, err));
        else
            HM_TRY(element(out, tag[block->kind], block->text, err));
    }
    return hm_buf_text(out, "</html>\n", err);
}
