/* SPDX-License-Identifier: MIT */
/*
 * Line charts: one polyline per series over shared axes, with a legend below the title. Long series
 * are thinned to one point per pixel column by averaging, so a picture of a million steps stays
 * small.
 */
#include "hanmix/recipes/report.h"

#include <math.h>

#include "svg_axes.h"

#define CHART_WIDTH  760.0
#define CHART_HEIGHT 420.0
#define PLOT_LEFT    72.0
#define PLOT_RIGHT   736.0
#define PLOT_TOP     62.0
#define PLOT_BOTTOM  364.0
#define MAX_POINTS   640

struct range {
    double low, high;
};

static void range_take(struct range *range, double value)
{
    if (!isfinite(value))
        return;
    range->low = fmin(range->low, value);
    range->high = fmax(range->high, value);
}

static void chart_ranges(const struct hm_chart *chart, struct range *x, struct range *y)
{
    *x = (struct range){ INFINITY, -INFINITY };
    *y = (struct range){ INFINITY, -INFINITY };
    for (size_t s = 0; s < chart->n_series; s++) {
        const struct hm_series *series = &chart->series[s];
        for (size_t i = 0; i < series->n; i++) {
            if (!isfinite(series->y[i]) || (chart->log_y && series->y[i] <= 0.0))
                continue;
            range_take(x, series->x[i]);
            range_take(y, series->y[i]);
        }
    }
    if (chart->y_from_zero)
        range_take(y, 0.0);
}

/* Points i..i+group-1 become their mean; a gap (NaN) starts a new path. */
static int draw_series(struct hm_buf *svg, const struct hm_chart *chart,
                       const struct hm_series *series, const char *colour,
                       const struct svg_scale *x, const struct svg_scale *y, struct hm_error *err)
{
    size_t group = series->n / MAX_POINTS + 1;
    bool open = false;
    HM_TRY(hm_buf_text(
        svg, "<path fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\" stroke=\"", err));
    HM_TRY(hm_buf_printf(svg, err, "%s\" d=\"", colour));
    for (size_t i = 0; i < series->n; i += group) {
        double sum_x = 0.0, sum_y = 0.0;
        size_t used = 0;
        for (size_t j = i; j < i + group && j < series->n; j++) {
            if (!isfinite(series->y[j]) || (chart->log_y && series->y[j] <= 0.0))
                continue;
            sum_x += series->x[j];
            sum_y += series->y[j];
            used++;
        }
        if (used == 0) {
            open = false;
            continue;
        }
        HM_TRY(hm_buf_printf(svg, err, "%s%.1f %.1f", open ? "L" : "M",
                             svg_place(x, sum_x / (double)used),
                             svg_place(y, sum_y / (double)used)));
        open = true;
    }
    HM_TRY(hm_buf_text(svg, "\"/>\n", err));
    if (series->n > 40)
        return HM_OK;
    for (size_t i = 0; i < series->n; i++)
        if (isfinite(series->y[i]))
            HM_TRY(hm_buf_printf(svg, err,
                                 "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n",
                                 svg_place(x, series->x[i]), svg_place(y, series->y[i]), colour));
    return HM_OK;
}

static int draw_legend(struct hm_buf *svg, const struct hm_chart *chart, struct hm_error *err)
{
    if (chart->n_series < 2)
        return HM_OK;
    double x = PLOT_LEFT;
    for (size_t s = 0; s < chart->n_series; s++) {
        const char *name = chart->series[s].name;
        HM_TRY(svg_line(svg, x, 44, x + 20, 44, svg_colour[s % SVG_COLOURS], 3, err));
        HM_TRY(svg_text(svg, x + 26, 48, 12, "start", "#222222", 0, name, err));
        x += 26 + 7.5 * (double)hm_utf8_count(hm_str_of(name)) + 24;
    }
    return HM_OK;
}

int hm_svg_lines(const struct hm_chart *chart, struct hm_buf *svg, struct hm_error *err)
{
    struct range range_x, range_y;
    chart_ranges(chart, &range_x, &range_y);
    struct svg_scale x = svg_scale_fit(range_x.low, range_x.high, 8, PLOT_LEFT, PLOT_RIGHT);
    if (isfinite(range_x.low) &&
        range_x.high > range_x.low) { /* data fill the width: ticks need not end at the border */
        x.low = range_x.low;
        x.high = range_x.high;
    }
    bool use_log = chart->log_y && isfinite(range_y.low) && range_y.low > 0.0;
    struct svg_scale y = use_log
                             ? svg_scale_fit_log(range_y.low, range_y.high, PLOT_BOTTOM, PLOT_TOP)
                             : svg_scale_fit(range_y.low, range_y.high, 6, PLOT_BOTTOM, PLOT_TOP);

    HM_TRY(svg_open(svg, CHART_WIDTH, CHART_HEIGHT, chart->title, err));
    HM_TRY(svg_grid_y(svg, &y, PLOT_LEFT, PLOT_RIGHT, err));
    struct svg_scale ticks = x; /* ticks at round numbers inside the data range */
    double first = ceil(x.low / x.step - 1e-9) * x.step;
    double last = floor(x.high / x.step + 1e-9) * x.step;
    ticks.from = svg_place(&x, first);
    ticks.to = svg_place(&x, last);
    ticks.low = first;
    ticks.high = last;
    if (last > first)
        HM_TRY(svg_grid_x(svg, &ticks, PLOT_TOP, PLOT_BOTTOM, err));
    HM_TRY(svg_line(svg, PLOT_LEFT, PLOT_BOTTOM, PLOT_RIGHT, PLOT_BOTTOM, "#888888", 1, err));
    HM_TRY(svg_text(svg, (PLOT_LEFT + PLOT_RIGHT) / 2, CHART_HEIGHT - 14, 12, "middle", "#222222",
                    0, chart->x_label, err));
    HM_TRY(svg_text(svg, 18, (PLOT_TOP + PLOT_BOTTOM) / 2, 12, "middle", "#222222", -90,
                    chart->y_label, err));
    for (size_t s = 0; s < chart->n_series; s++)
        HM_TRY(
            draw_series(svg, chart, &chart->series[s], svg_colour[s % SVG_COLOURS], &x, &y, err));
    HM_TRY(draw_legend(svg, chart, err));
    return svg_close(svg, err);
}
