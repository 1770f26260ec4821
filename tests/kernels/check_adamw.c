/* SPDX-License-Identifier: MIT */
/*
 * AdamW: steps of the reference against the paper in f64, the sum of squares; every path must give
 * the reference's bits.
 */
#include <math.h>

#include "check.h"

static struct hm_adamw_step step_at(int t)
{
    return (struct hm_adamw_step){ .lr = 1e-3,
                                   .beta1 = 0.9,
                                   .beta2 = 0.999,
                                   .eps = 1e-8,
                                   .weight_decay = 0.1,
                                   .bias1 = 1 - pow(0.9, t),
                                   .bias2 = 1 - pow(0.999, t),
                                   .grad_scale = 0.7f };
}

static void values(const struct hm_kernels *ref)
{
    double p = 0.5, m = 0, v = 0;
    float got_p = 0.5f, got_m = 0, got_v = 0;

    for (int t = 1; t <= 50; t++) {
        struct hm_adamw_step step = step_at(t);
        float grad = (float)check_uniform() - 0.3f;
        double g = 0.7 * (double)grad;

        check_context("adamw step %d", t);
        ref->adamw(&got_p, &grad, &got_m, &got_v, 1, &step);
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p -= 1e-3 * 0.1 * p;
        p -= 1e-3 * (m / step.bias1) / (sqrt(v / step.bias2) + 1e-8);
        check_that(fabs((double)got_m - m) < 1e-6 * fabs(m) + 1e-8, "m is %g, expected %g",
                   (double)got_m, m);
        check_that(fabs((double)got_v - v) < 1e-6 * v, "v is %.9g, expected %.9g", (double)got_v,
                   v);
        check_that(fabs((double)got_p - p) < 3e-7 * t / 5 + 1e-7, "param is %.9g, expected %.9g",
                   (double)got_p, p);
    }
    check_context("sum_squares");
    float *x = check_normals(1001, 1);
    double sum = 0;
    for (size_t i = 0; i < 1001; i++)
        sum += (double)x[i] * (double)x[i];
    check_that(fabs(ref->sum_squares(x, 1001) - sum) < 1e-13 * sum, "the sum is off");
    check_that(ref->sum_squares(x, 0) == 0, "the empty sum is not 0");
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *n = check_sizes; *n; n++) {
        size_t size = *n * sizeof(float);
        float *grad = check_normals(*n, 0.01), *want[3], *got[3];
        struct hm_adamw_step step = step_at(1 + (int)check_below(100));

        check_context("%s adamw n %zu", path->name, *n);
        if (check_below(4) == 0)
            grad[check_below(*n)] = check_below(2) ? NAN : 0;
        for (size_t i = 0; i < 3; i++) {
            want[i] =
                check_normals(*n, i == 2 ? 1e-8 : 0.01); /* v as small as what is added to it */
            for (size_t j = 0; i == 2 && j < *n; j++)
                want[2][j] = fabsf(want[2][j]);
            got[i] = check_copy(want[i], size);
        }
        for (int t = 0; t < 3; t++) {
            ref->adamw(want[0], grad, want[1], want[2], *n, &step);
            path->adamw(got[0], grad, got[1], got[2], *n, &step);
        }
        check_equal("param", got[0], want[0], *n);
        check_equal("m", got[1], want[1], *n);
        check_equal("v", got[2], want[2], *n);
        double got_sum = path->sum_squares(want[0], *n), want_sum = ref->sum_squares(want[0], *n);
        check_near_f64("sum_squares", &got_sum, &want_sum, 1, 0, 0);
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "adamw", values, path);
}
