/* SPDX-License-Identifier: MIT */
/*
 * Plain array kernels: the reference against f64; every path must give the reference's bits.
 */
#include <math.h>

#include "check.h"

static void values(const struct hm_kernels *ref)
{
    enum { N = 300 };
    float *x = check_normals(N, 1), *y = check_normals(N, 1), *z = check_copy(y, N * 4);
    double sum = 0, size = 0;

    for (size_t i = 0; i < N; i++) {
        sum += (double)x[i] * (double)y[i];
        size += fabs((double)x[i] * (double)y[i]);
    }
    check_context("vector");
    check_that(fabs(ref->dot(x, y, N) - sum) < 3e-7 * size, "the dot product is off");
    check_that(ref->dot(x, y, 0) == 0, "the empty dot product is not 0");
    ref->axpy(-0.5f, x, N, z);
    for (size_t i = 0; i < N; i++)
        check_that(z[i] == y[i] - 0.5f * x[i], "axpy at %zu", i);
    ref->add(x, N, y);
    ref->scale(2.0f, y, N);
    for (size_t i = 0; i < N; i++)
        check_that(fabs((double)y[i] - 2 * ((double)z[i] + 1.5 * (double)x[i])) < 2e-6,
                   "add and scale at %zu", i);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *n = check_sizes; *n; n++) {
        float *x = check_normals(*n, 1), *want = check_normals(*n, 1);
        float *got = check_copy(want, *n * sizeof(float));

        check_context("%s vector n %zu", path->name, *n);
        if (check_below(8) == 0)
            x[check_below(*n)] = check_below(2) ? NAN : INFINITY;
        ref->axpy(0.3f, x, *n, want);
        path->axpy(0.3f, x, *n, got);
        check_equal("axpy", got, want, *n);
        ref->add(x, *n, want);
        path->add(x, *n, got);
        check_equal("add", got, want, *n);
        ref->scale(-1.7f, want, *n);
        path->scale(-1.7f, got, *n);
        check_equal("scale", got, want, *n);
        double want_dot = ref->dot(x, want, *n), got_dot = path->dot(x, want, *n);
        check_near_f64("dot", &got_dot, &want_dot, 1, 0, 0);
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "vector", values, path);
}
