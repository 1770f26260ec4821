/* SPDX-License-Identifier: MIT */
/*
 * What a reader sees of a run: SVG plots, TensorBoard events, tables in Markdown and HTML.
 * Pictures keep their data beside them as CSV. Thread class: owner thread.
 */
#ifndef HANMIX_RECIPES_REPORT_H
#define HANMIX_RECIPES_REPORT_H

#include "hanmix/base/json.h"
#include "hanmix/base/str.h"

struct hm_series { /* one line of a chart */
    const char *name;
    const double *x, *y; /* NaN y breaks the line */
    size_t n;
};
struct hm_chart {
    const char *title, *x_label, *y_label;
    const struct hm_series *series;
    size_t n_series;
    bool y_from_zero, log_y;
};
/* A line chart with axes, grid, legend; readable in light and dark viewers. */
int hm_svg_lines(const struct hm_chart *chart, struct hm_buf *svg, struct hm_error *err);
/* Horizontal bars: label, value, optional low/high whisker (NaN = none), grouped by `group` when
 * not NULL. */
struct hm_bar {
    const char *label, *group;
    double value, low, high;
};
int hm_svg_bars(const char *title, const char *x_label, const struct hm_bar *bars, size_t n,
                struct hm_buf *svg, struct hm_error *err);
/* Heat map: rows x cols values (layer x expert load). */
int hm_svg_heat(const char *title, const char *row_label, const char *col_label,
                const double *values, size_t rows, size_t cols, struct hm_buf *svg,
                struct hm_error *err);

/* TensorBoard scalars: events.out.tfevents.* in dir, TFRecord framing with masked CRC-32C,
 * protobuf-c messages. */
struct hm_tb_writer;
int hm_tb_open(const char *dir, struct hm_tb_writer **ret_writer,
               struct hm_error *err); /* appends to hanmix's own file when it exists, cut to step <=
                                         keep_step by hm_tb_cut */
int hm_tb_scalar(struct hm_tb_writer *writer, const char *tag, uint64_t step, double wall_time,
                 double value, struct hm_error *err);
/* after a resume: drop records beyond keep_step */
int hm_tb_cut(const char *dir, uint64_t keep_step, struct hm_error *err);
void hm_tb_close(struct hm_tb_writer *writer);

/* metrics.jsonl to one SVG each for loss, bits_per_byte and lr, with CSV beside, in plots_dir. */
int hm_plots_from_metrics(const char *metrics_path, const char *plots_dir, struct hm_error *err);

/* report.md and the self-contained index.html of a run folder, from manifest.json and every stage's
 * report.json and SVGs. */
int hm_run_report_write(const char *run_dir, struct hm_error *err);

#endif
