/* SPDX-License-Identifier: MIT */
/*
 * Axes, ticks and text of the SVG writers (see svg_axes.h). Owns no data; leaves what is drawn to
 * svg_lines.c, svg_bars.c and svg_heat.c. Colours are those of Okabe and Ito (2008) with a dark
 * neutral first.
 */
#include "svg_axes.h"

#include <math.h>
#include <stdio.h>

const char *const svg_colour[SVG_COLOURS] = { "#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#6a3d9a", "#444444" };

static const char grid_colour[] = "#e3e3e3";
static const char label_colour[] = "#444444";

/* The step of 1, 2, 2.5 or 5 times a power of ten that cuts `range` into about `ticks` pieces. */
static double round_step(double range, int ticks)
{
    double raw = range / ticks;
    double power = pow(10.0, floor(log10(raw)));
    double lead = raw / power;
    double nice = lead <= 1.0   ? 1.0
                  : lead <= 2.0 ? 2.0
                  : lead <= 2.5 ? 2.5
                  : lead <= 5.0 ? 5.0
                                : 10.0;
    return nice * power;
}

struct svg_scale svg_scale_fit(double low, double high, int ticks, double from, double to)
{
    if (!isfinite(low) || !isfinite(high)) {
        low = 0.0;
        high = 1.0;
    }
    if (high - low <= 1e-12 * fmax(fabs(low), fabs(high)) || high <= low) {
        double pad = low == 0.0 ? 1.0 : fabs(low) * 0.1;
        low -= pad;
        high += pad;
    }
    double step = round_step(high - low, ticks);
    struct svg_scale scale = { .step = step, .from = from, .to = to };
    scale.low = floor(low / step + 1e-9) * step;
    scale.high = ceil(high / step - 1e-9) * step;
    return scale;
}

struct svg_scale svg_scale_fit_log(double low, double high, double from, double to)
{
    struct svg_scale scale = svg_scale_fit(floor(log10(low)), ceil(log10(high)), 5, from, to);
    scale.log10 = true;
    if (scale.step < 1.0)
        scale.step = 1.0;
    return scale;
}

double svg_place(const struct svg_scale *scale, double value)
{
    double position = scale->log10 ? log10(value) : value;
    return scale->from +
           (position - scale->low) / (scale->high - scale->low) * (scale->to - scale->from);
}

const char *svg_number(double value, char *text, size_t size)
{
    double magnitude = fabs(value);
    if (magnitude >= 1e6)
        snprintf(text, size, "%.4gM", value / 1e6);
    else if (magnitude >= 1e4)
        snprintf(text, size, "%.4gk", value / 1e3);
    else
        snprintf(text, size, "%.4g", magnitude < 1e-12 ? 0.0 : value);
    return text;
}

int svg_open(struct hm_buf *svg, double width, double height, const char *title,
             struct hm_error *err)
{
    HM_TRY(hm_buf_printf(svg, err,
                         "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
                         "width=\"%.0f\" height=\"%.0f\" "
                         "font-family=\"DejaVu Sans, Noto Sans CJK SC, Helvetica, Arial, "
                         "sans-serif\" role=\"img\">\n<title>",
                         width, height, width, height));
    HM_TRY(hm_buf_xml(svg, title, err));
    HM_TRY(hm_buf_text(svg, "</title>\n", err));
    HM_TRY(svg_rect(svg, 0, 0, width, height, "#ffffff", err));
    return svg_text(svg, width / 2, 24, 15, "middle", "#222222", 0, title, err);
}

int svg_close(struct hm_buf *svg, struct hm_error *err)
{
    return hm_buf_text(svg, "</svg>\n", err);
}

int svg_text(struct hm_buf *svg, double x, double y, double size, const char *anchor,
             const char *colour, double rotate, const char *text, struct hm_error *err)
{
    HM_TRY(hm_buf_printf(
        svg, err, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%.0f\" text-anchor=\"%s\" fill=\"%s\"",
        x, y, size, anchor, colour));
    if (rotate != 0.0)
        HM_TRY(hm_buf_printf(svg, err, " transform=\"rotate(%.0f %.1f %.1f)\"", rotate, x, y));
    HM_TRY(hm_buf_text(svg, ">", err));
    HM_TRY(hm_buf_xml(svg, text, err));
    return hm_buf_text(svg, "</text>\n", err);
}

int svg_line(struct hm_buf *svg, double x1, double y1, double x2, double y2, const char *colour,
             double width, struct hm_error *err)
{
    return hm_buf_printf(svg, err,
                         "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
                         "stroke-width=\"%.1f\"/>\n",
                         x1, y1, x2, y2, colour, width);
}

int svg_rect(struct hm_buf *svg, double x, double y, double width, double height, const char *fill,
             struct hm_error *err)
{
    return hm_buf_printf(
        svg, err, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x,
        y, width, height, fill);
}

static const char *tick_label(const struct svg_scale *scale, double tick, char *text, size_t size)
{
    return svg_number(scale->log10 ? pow(10.0, tick) : tick, text, size);
}

static double tick_place(const struct svg_scale *scale, double tick)
{
    return scale->from +
           (tick - scale->low) / (scale->high - scale->low) * (scale->to - scale->from);
}

int svg_grid_y(struct hm_buf *svg, const struct svg_scale *y, double x1, double x2,
               struct hm_error *err)
{
    char label[32];
    int ticks = (int)floor((y->high - y->low) / y->step + 0.5);
    for (int i = 0; i <= ticks; i++) {
        double tick = y->low + i * y->step;
        double place = tick_place(y, tick);
        HM_TRY(svg_line(svg, x1, place, x2, place, grid_colour, 1, err));
        HM_TRY(svg_text(svg, x1 - 8, place + 4, 11, "end", label_colour, 0,
                        tick_label(y, tick, label, sizeof label), err));
    }
    return HM_OK;
}

int svg_grid_x(struct hm_buf *svg, const struct svg_scale *x, double y1, double y2,
               struct hm_error *err)
{
    char label[32];
    int ticks = (int)floor((x->high - x->low) / x->step + 0.5);
    for (int i = 0; i <= ticks; i++) {
        double tick = x->low + i * x->step;
        double place = tick_place(x, tick);
        HM_TRY(svg_line(svg, place, y1, place, y2, grid_colour, 1, err));
        HM_TRY(svg_text(svg, place, y2 + 18, 11, "middle", label_colour, 0,
                        tick_label(x, tick, label, sizeof label), err));
    }
    return HM_OK;
}
