/* SPDX-License-Identifier: MIT */
/*
 * What the report of a run says: the gain first (tokens saved, bits per byte before and after),
 * then the stages, then each stage's own numbers and pictures. Reads manifest.json and the
 * stage.json and report.json of every stage folder.
 */
#include "hanmix/recipes/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "report_doc.h"

#define JSON_MAX_BYTES (64ull << 20)

struct stage_view { /* borrowed from the json objects */
    const char *id, *stage, *state;
    json_t *info;   /* stage.json, owned; may be NULL */
    json_t *report; /* report.json, owned; may be NULL */
};

static const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : otherwise;
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static int load_optional(const char *run_dir, const char *id, const char *name, json_t **ret_value,
                         struct hm_error *err)
{
    char *path = NULL;
    int r = hm_format(&path, err, "%s/%s/%s", run_dir, id, name);
    if (r == HM_OK && hm_path_exists(path))
        r = hm_json_load(path, JSON_MAX_BYTES, ret_value, err);
    hm_free(path);
    return r;
}

/* --- the gain --- */

static int saved_tokens(struct report_doc *doc, const struct stage_view *view, struct hm_error *err)
{
    static const char *const header[] = { "tokenizer",   "pieces",      "text",         "tokens",
                                          "tokens/char", "bytes/token", "fewer tokens", "95 %" };
    size_t i, j;
    json_t *tokenizer, *set;
    HM_TRY(report_table(doc, header, 8, err));
    json_array_foreach(json_object_get(view->report, "tokenizers"), i, tokenizer)
    {
        json_array_foreach(json_object_get(tokenizer, "sets"), j, set)
        {
            const json_t *gain = json_object_get(set, "reduction_vs_first");
            double reduction = json_is_object(gain)   ? number_of(gain, "value")
                               : json_is_number(gain) ? json_number_value(gain)
                                                      : NAN;
            const json_t *interval = json_is_object(gain) ? gain : set;
            HM_TRY(report_cell(doc, err, "%s", hm_path_tail(text_of(tokenizer, "path", "?"), 2)));
            HM_TRY(report_cell(doc, err, "%.0f", number_of(tokenizer, "vocab_size")));
            HM_TRY(report_cell(doc, err, "%s", text_of(set, "name", "")));
            HM_TRY(report_cell(doc, err, "%.0f", number_of(set, "tokens")));
            HM_TRY(report_cell(doc, err, "%.4f", number_of(set, "tokens_per_char")));
            HM_TRY(report_cell(doc, err, "%.3f", number_of(set, "bytes_per_token")));
            if (i == 0 || isnan(reduction)) {
                HM_TRY(report_cell(doc, err, "-"));
                HM_TRY(report_cell(doc, err, "-"));
                continue;
            }
            HM_TRY(report_cell(doc, err, "%.2f %%", 100.0 * reduction));
            HM_TRY(report_cell(doc, err, "%.2f to %.2f %%", 100.0 * number_of(interval, "low"),
                               100.0 * number_of(interval, "high")));
        }
    }
    return HM_OK;
}

static int loss_table(struct report_doc *doc, const struct stage_view *views, size_t n,
                      struct hm_error *err)
{
    static const char *const header[] = { "stage",      "text",   "bits/byte",
                                          "nats/token", "tokens", "bytes" };
    bool started = false;
    for (size_t s = 0; s < n; s++) {
        size_t i;
        json_t *set;
        if (strcmp(views[s].stage, "eval.loss") != 0 || views[s].report == NULL)
            continue;
        if (!started) {
            HM_TRY(report_add(
                doc, BLOCK_TEXT,
                "Bits per byte compare models with different vocabularies; lower is better.", err));
            HM_TRY(report_table(doc, header, 6, err));
        }
        started = true;
        json_array_foreach(json_object_get(views[s].report, "sets"), i, set)
        {
            HM_TRY(report_cell(doc, err, "%s", views[s].id));
            HM_TRY(report_cell(doc, err, "%s", text_of(set, "name", "")));
            HM_TRY(report_cell(doc, err, "%.4f", number_of(set, "bits_per_byte")));
            HM_TRY(report_cell(doc, err, "%.4f", number_of(set, "nats_per_token")));
            HM_TRY(report_cell(doc, err, "%.0f", number_of(set, "tokens")));
            HM_TRY(report_cell(doc, err, "%.0f", number_of(set, "bytes")));
        }
    }
    return HM_OK;
}

static int gain_section(struct report_doc *doc, const struct stage_view *views, size_t n,
                        struct hm_error *err)
{
    HM_TRY(report_add(doc, BLOCK_HEADING, "What was gained", err));
    for (size_t s = 0; s < n; s++)
        if (strcmp(views[s].stage, "vocab.measure") == 0 && views[s].report != NULL)
            HM_TRY(saved_tokens(doc, &views[s], err));
    return loss_table(doc, views, n, err);
}

/* --- the stages --- */

static int stage_table(struct report_doc *doc, const struct stage_view *views, size_t n,
                       struct hm_error *err)
{
    static const char *const header[] = { "id", "stage", "state", "seconds", "peak memory" };
    HM_TRY(report_add(doc, BLOCK_HEADING, "Stages", err));
    HM_TRY(report_table(doc, header, 5, err));
    for (size_t s = 0; s < n; s++) {
        double peak = number_of(views[s].info, "peak_rss_bytes");
        HM_TRY(report_cell(doc, err, "%s", views[s].id));
        HM_TRY(report_cell(doc, err, "%s", views[s].stage));
        HM_TRY(report_cell(doc, err, "%s", views[s].state));
        HM_TRY(report_cell(doc, err, "%.1f", number_of(views[s].info, "wall_seconds")));
        if (isnan(peak))
            HM_TRY(report_cell(doc, err, "-"));
        else
            HM_TRY(report_cell(doc, err, "%.0f MiB", peak / 1048576.0));
    }
    return HM_OK;
}

static int number_cell(struct report_doc *doc, const json_t *value, struct hm_error *err)
{
    if (json_is_integer(value))
        return report_cell(doc, err, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_real(value))
        return report_cell(doc, err, "%.6g", json_real_value(value));
    if (json_is_boolean(value))
        return report_cell(doc, err, "%s", json_is_true(value) ? "yes" : "no");
    if (json_is_array(value))
        return report_cell(doc, err, "%zu entries", json_array_size(value));
    return report_cell(doc, err, "%s", json_is_string(value) ? json_string_value(value) : "");
}

static int report_numbers(struct report_doc *doc, const json_t *report, struct hm_error *err)
{
    static const char *const header[] = { "key", "value" };
    const char *key, *inner_key;
    json_t *value, *inner;
    HM_TRY(report_table(doc, header, 2, err));
    json_object_foreach((json_t *)(uintptr_t)report, key, value)
    {
        if (!json_is_object(value)) {
            HM_TRY(report_cell(doc, err, "%s", key));
            HM_TRY(number_cell(doc, value, err));
            continue;
        }
        json_object_foreach(value, inner_key, inner)
        {
            HM_TRY(report_cell(doc, err, "%s.%s", key, inner_key));
            HM_TRY(number_cell(doc, inner, err));
        }
    }
    return HM_OK;
}

/* Findings of vocab.check by rule, each with one of them. */
static int lint_table(struct report_doc *doc, const json_t *report, struct hm_error *err)
{
    static const char *const header[] = { "rule", "severity", "findings", "for one", "remedy" };
    size_t i, k;
    json_t *rule, *finding;
    if (json_array_size(json_object_get(report, "lint_rules")) == 0)
        return HM_OK;
    HM_TRY(report_table(doc, header, 5, err));
    json_array_foreach(json_object_get(report, "lint_rules"), i, rule)
    {
        const char *example = "";
        json_array_foreach(json_object_get(report, "lint"), k, finding)
        {
            if (strcmp(text_of(finding, "rule", ""), text_of(rule, "rule", "?")) != 0)
                continue;
            example = text_of(finding, "piece", "");
            break;
        }
        HM_TRY(report_cell(doc, err, "%s", text_of(rule, "rule", "?")));
        HM_TRY(report_cell(doc, err, "%s", text_of(rule, "severity", "?")));
        HM_TRY(report_cell(doc, err, "%.0f", number_of(rule, "findings")));
        HM_TRY(report_cell(doc, err, "%s", example));
        HM_TRY(report_cell(doc, err, "%s", text_of(rule, "remedy", "")));
    }
    return HM_OK;
}

static int stage_pictures(struct report_doc *doc, const char *run_dir, const char *folder,
                          struct hm_error *err)
{
    char *path = NULL, *picture = NULL;
    struct hm_names names = { 0 };
    int r = hm_path_join(&path, run_dir, folder, err);
    if (r == HM_OK && hm_path_is_dir(path))
        r = hm_dir_list(path, &names, err);
    for (size_t i = 0; r == HM_OK && i < names.count; i++) {
        if (!hm_text_ends(names.item[i], ".svg"))
            continue;
        r = hm_format(&picture, err, "%s/%s", folder, names.item[i]);
        if (r == HM_OK)
            r = report_picture(doc, picture, picture, err);
        hm_free(picture);
        picture = NULL;
    }
    hm_names_release(&names);
    hm_free(path);
    return r;
}

static int stage_section(struct report_doc *doc, const char *run_dir, const struct stage_view *view,
                         struct hm_error *err)
{
    char title[256], plots[256];
    snprintf(title, sizeof title, "%s (%s)", view->id, view->stage);
    snprintf(plots, sizeof plots, "%s/plots", view->id);
    HM_TRY(report_add(doc, BLOCK_HEADING, title, err));
    if (view->report != NULL)
        HM_TRY(report_numbers(doc, view->report, err));
    HM_TRY(lint_table(doc, view->report, err));
    HM_TRY(stage_pictures(doc, run_dir, view->id, err));
    return stage_pictures(doc, run_dir, plots, err);
}

/* --- all of it --- */

static int load_views(const char *run_dir, const json_t *manifest, struct stage_view *views,
                      size_t n, struct hm_error *err)
{
    size_t i;
    json_t *stage;
    json_array_foreach(json_object_get(manifest, "stages"), i, stage)
    {
        if (i >= n)
            break;
        views[i].id = text_of(stage, "id", "?");
        views[i].stage = text_of(stage, "stage", "?");
        views[i].state = text_of(stage, "state", "?");
        HM_TRY(load_optional(run_dir, views[i].id, "stage.json", &views[i].info, err));
        HM_TRY(load_optional(run_dir, views[i].id, "report.json", &views[i].report, err));
    }
    return HM_OK;
}

static int build(struct report_doc *doc, const char *run_dir, const json_t *manifest,
                 const struct stage_view *views, size_t n, struct hm_error *err)
{
    char text[1024];
    snprintf(text, sizeof text, "hanmix run: %s",
             hm_path_tail(text_of(manifest, "recipe", run_dir), 2));
    HM_TRY(report_add(doc, BLOCK_TITLE, text, err));
    snprintf(
        text, sizeof text,
        "Made by hanmix %s. Every file of this run and its SHA-256 is listed in manifest.json.",
        text_of(manifest, "hanmix", HM_VERSION));
    HM_TRY(report_add(doc, BLOCK_TEXT, text, err));
    HM_TRY(gain_section(doc, views, n, err));
    HM_TRY(stage_table(doc, views, n, err));
    for (size_t s = 0; s < n; s++)
        HM_TRY(stage_section(doc, run_dir, &views[s], err));
    return HM_OK;
}

static int write_forms(const struct report_doc *doc, const char *run_dir, struct hm_error *err)
{
    struct hm_buf out = { 0 };
    int r = report_markdown(doc, &out, err);

    if (r == HM_OK)
        r = hm_file_write_in(run_dir, "report.md", out.ptr, out.len, err);
    hm_buf_clear(&out);
    if (r == HM_OK)
        r = report_html(doc, run_dir, &out, err);
    if (r == HM_OK)
        r = hm_file_write_in(run_dir, "index.html", out.ptr, out.len, err);
    hm_buf_release(&out);
    return r;
}

int hm_run_report_write(const char *run_dir, struct hm_error *err)
{
    char *path = NULL;
    json_t *manifest = NULL;
    struct stage_view *views = NULL;
    struct report_doc doc = { 0 };
    size_t n = 0;
    int r = hm_path_join(&path, run_dir, "manifest.json", err);
    if (r == HM_OK)
        r = hm_json_load(path, JSON_MAX_BYTES, &manifest, err);
    if (r < 0)
        goto out;
    n = json_array_size(json_object_get(manifest, "stages"));
    views = hm_calloc(HM_MEM_OTHER, n + 1, sizeof *views);
    if (views == NULL) {
        r = hm_fail_nomem(err, "for the report of %zu stages", n);
        goto out;
    }
    r = load_views(run_dir, manifest, views, n, err);
    if (r == HM_OK)
        r = build(&doc, run_dir, manifest, views, n, err);
    if (r == HM_OK)
        r = write_forms(&doc, run_dir, err);
out:
    for (size_t s = 0; views != NULL && s < n; s++) {
        json_decref(views[s].info);
        json_decref(views[s].report);
    }
    hm_free(views);
    report_release(&doc);
    json_decref(manifest);
    hm_free(path);
    return r;
}
