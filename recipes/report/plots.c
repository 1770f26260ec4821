/* SPDX-License-Identifier: MIT */
/*
 * Curves of a training run: metrics.jsonl to loss, learning rate and bits per byte, each as SVG
 * with its CSV beside.
 */
#include "hanmix/recipes/report.h"

#include <string.h>

#include "hanmix/base/file.h"

#define METRICS_MAX_BYTES (1ull << 31)
#define PLOT_MAX_SERIES   16

struct curve { /* growing list of points */
    char *name;
    double *x, *y;
    size_t n, cap;
};
struct curves {
    struct curve item[PLOT_MAX_SERIES];
    size_t count;
};

static void curves_release(struct curves *curves)
{
    for (size_t i = 0; i < curves->count; i++) {
        hm_free(curves->item[i].name);
        hm_free(curves->item[i].x);
        hm_free(curves->item[i].y);
    }
    curves->count = 0;
}

static int curve_add(struct curves *curves, const char *name, double x, double y,
                     struct hm_error *err)
{
    struct curve *curve = NULL;
    for (size_t i = 0; i < curves->count && curve == NULL; i++)
        if (strcmp(curves->item[i].name, name) == 0)
            curve = &curves->item[i];
    if (curve == NULL) {
        if (curves->count == PLOT_MAX_SERIES)
            return HM_OK; /* a chart of more lines is unreadable; the numbers stay in metrics.jsonl
                           */
        curve = &curves->item[curves->count];
        *curve = (struct curve){ .name = hm_strdup(HM_MEM_OTHER, name) };
        if (curve->name == NULL)
            return hm_fail_nomem(err, "for a plot");
        curves->count++;
    }
    if (curve->n == curve->cap) {
        size_t cap = curve->cap == 0 ? 256 : 2 * curve->cap;
        double *grown_x = hm_realloc(HM_MEM_OTHER, curve->x, cap * sizeof *grown_x);
        if (grown_x != NULL)
            curve->x = grown_x;
        double *grown_y = hm_realloc(HM_MEM_OTHER, curve->y, cap * sizeof *grown_y);
        if (grown_y != NULL)
            curve->y = grown_y;
        if (grown_x == NULL || grown_y == NULL)
            return hm_fail_nomem(err, "for a plot");
        curve->cap = cap;
    }
    curve->x[curve->n] = x;
    curve->y[curve->n++] = y;
    return HM_OK;
}

static int take_number(struct curves *curves, const json_t *line, const char *key, const char *name,
                       double step, struct hm_error *err)
{
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? curve_add(curves, name, step, json_number_value(value), err)
                                 : HM_OK;
}

struct training_curves {
    struct curves loss, rate, bits;
};

static int take_line(struct training_curves *all, const json_t *line, struct hm_error *err)
{
    double step = json_number_value(json_object_get(line, "step"));
    HM_TRY(take_number(&all->loss, line, "loss", "train", step, err));
    HM_TRY(take_number(&all->rate, line, "lr", "lr", step, err));
    const char *set;
    json_t *scores;
    json_object_foreach(json_object_get(line, "eval"), set, scores)
        HM_TRY(take_number(&all->bits, scores, "bits_per_byte", set, step, err));
    return HM_OK;
}

static int write_csv(const char *path, const char *y_name, const struct curves *curves,
                     struct hm_error *err)
{
    struct hm_buf csv = { 0 };
    int r = hm_buf_printf(&csv, err, "series,step,%s\n", y_name);
    for (size_t i = 0; r == HM_OK && i < curves->count; i++)
        for (size_t j = 0; r == HM_OK && j < curves->item[i].n; j++)
            r = hm_buf_printf(&csv, err, "%s,%.0f,%.9g\n", curves->item[i].name,
                              curves->item[i].x[j], curves->item[i].y[j]);
    if (r == HM_OK)
        r = hm_file_write(path, csv.ptr, csv.len, err);
    hm_buf_release(&csv);
    return r;
}

static int write_plot(const char *dir, const char *stem, const char *title, const char *y_label,
                      const struct curves *curves, struct hm_error *err)
{
    struct hm_series series[PLOT_MAX_SERIES];
    struct hm_chart chart = {
        .title = title, .x_label = "optimiser step", .y_label = y_label, .series = series
    };
    struct hm_buf svg = { 0 };
    char *path = NULL;
    int r = HM_OK;
    if (curves->count == 0)
        return HM_OK;
    for (size_t i = 0; i < curves->count; i++)
        series[chart.n_series++] = (struct hm_series){ curves->item[i].name, curves->item[i].x,
                                                       curves->item[i].y, curves->item[i].n };
    r = hm_svg_lines(&chart, &svg, err);
    if (r < 0)
        goto out;
    r = hm_format(&path, err, "%s/%s.svg", dir, stem);
    if (r < 0)
        goto out;
    r = hm_file_write(path, svg.ptr, svg.len, err);
    if (r < 0)
        goto out;
    memcpy(path + strlen(path) - 4, ".csv", 4);
    r = write_csv(path, stem, curves, err);
out:
    hm_buf_release(&svg);
    hm_free(path);
    return r;
}

int hm_plots_from_metrics(const char *metrics_path, const char *plots_dir, struct hm_error *err)
{
    struct training_curves all = { 0 };
    struct hm_buf text = { 0 };
    int r = hm_file_read(metrics_path, METRICS_MAX_BYTES, &text, err);
    for (size_t start = 0; r == HM_OK && start < text.len;) {
        const char *end = memchr(text.ptr + start, '\n', text.len - start);
        size_t len = end != NULL ? (size_t)(end - (text.ptr + start)) : text.len - start;
        json_t *line = NULL;
        if (len > 0)
            r = hm_json_parse((struct hm_str){ text.ptr + start, len }, metrics_path, &line, err);
        if (r == HM_OK && line != NULL)
            r = take_line(&all, line, err);
        json_decref(line);
        start += len + 1;
    }
    if (r == HM_OK)
        r = hm_dir_make(plots_dir, err);
    if (r == HM_OK)
        r = write_plot(plots_dir, "loss", "Training loss", "nats per token", &all.loss, err);
    if (r == HM_OK)
        r = write_plot(plots_dir, "lr", "Learning rate", "learning rate", &all.rate, err);
    if (r == HM_OK)
        r = write_plot(plots_dir, "bits_per_byte", "Held-out bits per byte", "bits per UTF-8 byte",
                       &all.bits, err);
    curves_release(&all.loss);
    curves_release(&all.rate);
    curves_release(&all.bits);
    hm_buf_release(&text);
    return r;
}
