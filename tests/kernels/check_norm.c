/* SPDX-License-Identifier: MIT */
/*
 * RMSNorm: the reference against the formulas in f64 and its gradient against central differences;
 * every path must give the reference's bits.
 */
#include <math.h>

#include "check.h"

#define EPS 1e-5f

static double rho_f64(const float *x, size_t d)
{
    double sum = 0;

    for (size_t j = 0; j < d; j++)
        sum += (double)x[j] * (double)x[j];
    return 1 / sqrt(sum / (double)d + (double)EPS);
}

static void backward_value(const struct hm_kernels *ref, const float *x, const float *w, size_t d)
{
    float *dy = check_normals(d, 1), *dx = check_floats(d), *dw = check_floats(d), *probe;
    float rho = (float)rho_f64(x, d);

    for (size_t j = 0; j < d; j++)
        dx[j] = dw[j] = 0.25f;
    ref->rmsnorm_backward(x, w, &rho, dy, 1, d, dx, dw);
    probe = check_copy(x, d * sizeof(*x));
    for (size_t j = 0; j < d; j++) { /* d<y, dy>/dx[j] by central differences, y in f64 */
        double side[2], step[2];
        for (int s = 0; s < 2; s++) {
            probe[j] = x[j] + (s ? 1e-3f : -1e-3f);
            step[s] = (double)probe[j];
            double r = rho_f64(probe, d);
            side[s] = 0;
            for (size_t i = 0; i < d; i++)
                side[s] += (double)probe[i] * r * (double)w[i] * (double)dy[i];
        }
        probe[j] = x[j];
        double want = 0.25 + (side[1] - side[0]) / (step[1] - step[0]);
        check_that(fabs((double)dx[j] - want) < 2e-4, "dx[%zu] of %zu is %g, expected %g", j, d,
                   (double)dx[j], want);
        double want_dw = 0.25 + (double)x[j] * (double)rho * (double)dy[j];
        check_that(fabs((double)dw[j] - want_dw) < 1e-6 * (1 + fabs(want_dw)),
                   "dw[%zu] is %g, expected %g", j, (double)dw[j], want_dw);
    }
}

static void values(const struct hm_kernels *ref)
{
    static const size_t widths[] = { 1, 5, 64, 100, 257 };

    for (size_t c = 0; c < sizeof(widths) / sizeof(widths[0]); c++) {
        size_t d = widths[c];
        float *x = check_normals(d, 2), *w = check_normals(d, 1), *y = check_floats(d), rho;

        check_context("rmsnorm d %zu", d);
        for (size_t j = 0; j < d; j++) /* near zero one narrow row would be all curvature */
            x[j] += x[j] < 0.0f ? -0.5f : 0.5f;
        ref->rmsnorm(x, w, 1, d, EPS, y, &rho);
        double want_rho = rho_f64(x, d);
        check_that(fabs((double)rho - want_rho) < 3e-7 * want_rho, "rho is %g, expected %g",
                   (double)rho, want_rho);
        for (size_t j = 0; j < d; j++) {
            double want = (double)x[j] * want_rho * (double)w[j];
            check_that(fabs((double)y[j] - want) <= 5e-7 * fabs(want), "y[%zu] is %g, expected %g",
                       j, (double)y[j], want);
        }
        backward_value(ref, x, w, d);
        check_release();
    }
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *size = check_sizes; *size; size++) {
        size_t d = *size, n = 1 + check_below(4);
        float *x = check_normals(n * d, 2), *w = check_normals(d, 1), *dy = check_normals(n * d, 1);
        float *got_y = check_floats(n * d), *want_y = check_floats(n * d);
        float *got_rho = check_floats(n), *want_rho = check_floats(n);

        check_context("%s norm n %zu d %zu", path->name, n, d);
        if (check_below(8) == 0)
            x[check_below(n * d)] = check_below(2) ? NAN : INFINITY;
        ref->rmsnorm(x, w, n, d, EPS, want_y, want_rho);
        path->rmsnorm(x, w, n, d, EPS, got_y, got_rho);
        check_equal("y", got_y, want_y, n * d);
        check_equal("rho", got_rho, want_rho, n);
        float *want_dx = check_normals(n * d, 1);
        float *got_dx = check_copy(want_dx, n * d * sizeof(*want_dx));
        float *want_dw = check_normals(d, 1), *got_dw = check_copy(want_dw, d * sizeof(*want_dw));
        ref->rmsnorm_backward(x, w, want_rho, dy, n, d, want_dx, want_dw);
        path->rmsnorm_backward(x, w, want_rho, dy, n, d, got_dx, got_dw);
        check_equal("dx", got_dx, want_dx, n * d);
        check_equal("dw", got_dw, want_dw, d);
        ref->rmsnorm_backward(x, w, want_rho, dy, n, d, want_dx, NULL);
        path->rmsnorm_backward(x, w, want_rho, dy, n, d, got_dx, NULL);
        check_equal("dx without dw", got_dx, want_dx, n * d);
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "norm", values, path);
}
