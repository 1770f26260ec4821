/* SPDX-License-Identifier: MIT */
/*
 * Horizontal bar charts, with groups (a set of texts) and optional interval whiskers. One bar a
 * row, value at its end.
 */
#include "hanmix/recipes/report.h"

#include <math.h>
#include <string.h>

#include "svg_axes.h"

#define BAR_PITCH  26.0
#define GROUP_GAP  30.0
#define BARS_WIDTH 760.0
#define BARS_RIGHT 690.0
#define BARS_TOP   48.0

static bool starts_group(const struct hm_bar *bars, size_t i)
{
    if (bars[i].group == NULL)
        return false;
    return i == 0 || bars[i - 1].group == NULL || strcmp(bars[i].group, bars[i - 1].group) != 0;
}

/* Bars of one label keep one colour across groups. */
static size_t colour_of(const struct hm_bar *bars, size_t i)
{
    size_t seen = 0;
    for (size_t j = 0; j < i; j++) {
        if (strcmp(bars[j].label, bars[i].label) == 0)
            return colour_of(bars, j);
        bool fresh = true;
        for (size_t k = 0; k < j; k++)
            fresh = fresh && strcmp(bars[k].label, bars[j].label) != 0;
        seen += fresh;
    }
    return seen;
}

static double label_width(const struct hm_bar *bars, size_t n)
{
    size_t longest = 4;
    for (size_t i = 0; i < n; i++) {
        size_t chars = hm_utf8_count(hm_str_of(bars[i].label));
        longest = chars > longest ? chars : longest;
    }
    return fmin(24.0 + 7.0 * (double)longest, 330.0);
}

static int draw_bar(struct hm_buf *svg, const struct hm_bar *bar, const char *colour,
                    const struct svg_scale *x, double top, struct hm_error *err)
{
    char number[32];
    double zero = svg_place(x, x->low > 0.0 ? x->low : 0.0);
    double end = svg_place(x, isfinite(bar->value) ? bar->value : 0.0);
    double beyond = end;
    HM_TRY(svg_rect(svg, fmin(zero, end), top + 4, fmax(fabs(end - zero), 0.5), BAR_PITCH - 8,
                    colour, err));
    HM_TRY(svg_text(svg, x->from - 8, top + BAR_PITCH / 2 + 4, 12, "end", "#222222", 0, bar->label,
                    err));
    if (isfinite(bar->low) && isfinite(bar->high)) {
        double middle = top + BAR_PITCH / 2;
        HM_TRY(svg_line(svg, svg_place(x, bar->low), middle, svg_place(x, bar->high), middle,
                        "#111111", 1.5, err));
        HM_TRY(svg_line(svg, svg_place(x, bar->low), middle - 4, svg_place(x, bar->low), middle + 4,
                        "#111111", 1.5, err));
        HM_TRY(svg_line(svg, svg_place(x, bar->high), middle - 4, svg_place(x, bar->high),
                        middle + 4, "#111111", 1.5, err));
        beyond = fmax(beyond, svg_place(x, bar->high));
    }
    return svg_text(svg, beyond + 6, top + BAR_PITCH / 2 + 4, 11, "start", "#444444", 0,
                    svg_number(bar->value, number, sizeof number), err);
}

int hm_svg_bars(const char *title, const char *x_label, const struct hm_bar *bars, size_t n,
                struct hm_buf *svg, struct hm_error *err)
{
    double high = 0.0, low = 0.0, height = BARS_TOP;
    for (size_t i = 0; i < n; i++) {
        high = fmax(high, isfinite(bars[i].high) ? bars[i].high : bars[i].value);
        low = fmin(low, isfinite(bars[i].low) ? bars[i].low : bars[i].value);
        height += BAR_PITCH + (starts_group(bars, i) ? GROUP_GAP : 0.0);
    }
    struct svg_scale x = svg_scale_fit(low, high, 6, label_width(bars, n), BARS_RIGHT);
    HM_TRY(svg_open(svg, BARS_WIDTH, height + 52, title, err));
    HM_TRY(svg_grid_x(svg, &x, BARS_TOP, height, err));
    double top = BARS_TOP;
    for (size_t i = 0; i < n; i++) {
        if (starts_group(bars, i)) {
            HM_TRY(svg_text(svg, x.from, top + 20, 12, "start", "#222222", 0, bars[i].group, err));
            top += GROUP_GAP;
        }
        HM_TRY(draw_bar(svg, &bars[i], svg_colour[colour_of(bars, i) % SVG_COLOURS], &x, top, err));
        top += BAR_PITCH;
    }
    HM_TRY(
        svg_text(svg, (x.from + x.to) / 2, height + 40, 12, "middle", "#222222", 0, x_label, err));
    return svg_close(svg, err);
}
