/* SPDX-License-Identifier: MIT */
/*
 * Heat maps: rows x cols cells shaded from white to a dark blue by value, each with its number when
 * cells are few.
 */
#include "hanmix/recipes/report.h"

#include <math.h>
#include <stdio.h>

#include "svg_axes.h"

#define HEAT_LEFT     84.0
#define HEAT_TOP      62.0
#define HEAT_MAX_CELL 64.0

/* White at share 0, #08306b at share 1. */
static void shade(double share, char *text, size_t size)
{
    int red = (int)lround(255.0 + share * (8.0 - 255.0));
    int green = (int)lround(255.0 + share * (48.0 - 255.0));
    int blue = (int)lround(255.0 + share * (107.0 - 255.0));
    snprintf(text, size, "#%02x%02x%02x", (unsigned)red, (unsigned)green, (unsigned)blue);
}

static double heat_maximum(const double *values, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i]))
            most = fmax(most, values[i]);
    return most > 0.0 ? most : 1.0;
}

static int draw_cell(struct hm_buf *svg, double value, double most, double x, double y,
                     double cell_x, double cell_y, bool number, struct hm_error *err)
{
    char colour[16], text[32];
    double share = isfinite(value) && value > 0.0 ? fmin(value / most, 1.0) : 0.0;
    shade(share, colour, sizeof colour);
    HM_TRY(svg_rect(svg, x, y, cell_x - 1, cell_y - 1, colour, err));
    if (!number)
        return HM_OK;
    snprintf(text, sizeof text, "%.2f", value);
    return svg_text(svg, x + cell_x / 2, y + cell_y / 2 + 4, 11, "middle",
                    share > 0.5 ? "#ffffff" : "#222222", 0, text, err);
}

int hm_svg_heat(const char *title, const char *row_label, const char *col_label,
                const double *values, size_t rows, size_t cols, struct hm_buf *svg,
                struct hm_error *err)
{
    double cell_x = fmin(HEAT_MAX_CELL, 640.0 / (double)(cols > 0 ? cols : 1));
    double cell_y = fmin(30.0, 640.0 / (double)(rows > 0 ? rows : 1));
    double width = fmax(HEAT_LEFT + cell_x * (double)cols + 24, 360.0);
    double height = HEAT_TOP + cell_y * (double)rows + 24;
    double most = heat_maximum(values, rows * cols);
    char label[32];

    HM_TRY(svg_open(svg, width, height, title, err));
    HM_TRY(svg_text(svg, HEAT_LEFT + cell_x * (double)cols / 2, HEAT_TOP - 20, 12, "middle",
                    "#222222", 0, col_label, err));
    HM_TRY(svg_text(svg, 20, HEAT_TOP + cell_y * (double)rows / 2, 12, "middle", "#222222", -90,
                    row_label, err));
    for (size_t c = 0; c < cols; c++) {
        if (cols > 16 && c % 8 != 0)
            continue;
        snprintf(label, sizeof label, "%zu", c);
        HM_TRY(svg_text(svg, HEAT_LEFT + cell_x * ((double)c + 0.5), HEAT_TOP - 6, 11, "middle",
                        "#444444", 0, label, err));
    }
    for (size_t r = 0; r < rows; r++) {
        double y = HEAT_TOP + cell_y * (double)r;
        snprintf(label, sizeof label, "%zu", r);
        HM_TRY(
            svg_text(svg, HEAT_LEFT - 8, y + cell_y / 2 + 4, 11, "end", "#444444", 0, label, err));
        for (size_t c = 0; c < cols; c++)
            HM_TRY(draw_cell(svg, values[r * cols + c], most, HEAT_LEFT + cell_x * (double)c, y,
                             cell_x, cell_y, cell_x >= 36.0, err));
    }
    return svg_close(svg, err);
}
