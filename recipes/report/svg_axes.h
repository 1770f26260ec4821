/* SPDX-License-Identifier: MIT */
/*
 * Shared drawing of the SVG writers: page, title, linear scales with round ticks, escaped text.
 * Coordinates are in user units of the page. Everything appends to an hm_buf.
 */
#ifndef HANMIX_RECIPES_SVG_AXES_H
#define HANMIX_RECIPES_SVG_AXES_H

#include "hanmix/base/str.h"

#define SVG_COLOURS 8
extern const char
    *const svg_colour[SVG_COLOURS]; /* told apart by the colour-blind; repeated cyclically */

struct svg_scale {          /* value v lies at from + (v - low) / (high - low) * (to - from) */
    double low, high, step; /* data range widened to round ticks; step between ticks */
    double from, to;        /* pixels */
    bool log10;             /* low, high and step are powers: values are placed by log10 */
};

/* A scale that covers low..high with about `ticks` round steps. Equal or non-finite ends are
 * widened. */
struct svg_scale svg_scale_fit(double low, double high, int ticks, double from, double to);
struct svg_scale svg_scale_fit_log(double low, double high, double from, double to);
double svg_place(const struct svg_scale *scale, double value);
/* "0.002", "1.5k", "3e-05": short, without trailing zeros. */
const char *svg_number(double value, char *text, size_t size);

int svg_open(struct hm_buf *svg, double width, double height, const char *title,
             struct hm_error *err);
int svg_close(struct hm_buf *svg, struct hm_error *err);
/* anchor: "start", "middle", "end"; size in px; rotate in degrees around (x, y). */
int svg_text(struct hm_buf *svg, double x, double y, double size, const char *anchor,
             const char *colour, double rotate, const char *text, struct hm_error *err);
int svg_line(struct hm_buf *svg, double x1, double y1, double x2, double y2, const char *colour,
             double width, struct hm_error *err);
int svg_rect(struct hm_buf *svg, double x, double y, double width, double height, const char *fill,
             struct hm_error *err);
/* Horizontal grid with labels at the left of x1, vertical grid with labels below y2. */
int svg_grid_y(struct hm_buf *svg, const struct svg_scale *y, double x1, double x2,
               struct hm_error *err);
int svg_grid_x(struct hm_buf *svg, const struct svg_scale *x, double y1, double y2,
               struct hm_error *err);

#endif
