/* SPDX-License-Identifier: MIT */
/*
 * The gated unit: the reference against f64 over the whole range of f32, its gradient against
 * central differences, aliased outputs. Paths may differ by the error of their exp (REL, relative).
 */
#include <math.h>

#include "check.h"

#define REL  1e-6
#define TINY 1e-36 /* below a = -88.7 exp(-a) overflows and the sigmoid is 0 */

static double silu(double a)
{
    return a / (1 + exp(-a));
}

static void values(const struct hm_kernels *ref)
{
    check_context("swiglu");
    for (size_t i = 0; i < 2000; i++) {
        float a = (float)((check_uniform() - 0.5) * (i % 2 ? 20 : 250));
        float b = (float)(check_uniform() * 4 - 2), dm = (float)(check_uniform() * 4 - 2), m;
        float da, db;
        double h = 1e-5, x = (double)a;

        ref->swiglu(&a, &b, 1, &m);
        ref->swiglu_backward(&a, &b, &dm, 1, &da, &db);
        double want = silu(x) * (double)b;
        check_that(fabs((double)m - want) <= REL * fabs(want) + TINY, "m(%g, %g) is %g", x,
                   (double)b, (double)m);
        double slope = (silu(x + h) - silu(x - h)) / (2 * h) * (double)b * (double)dm;
        check_that(fabs((double)da - slope) < 1e-6 * (1 + fabs(slope)), "da(%g) is %g, expected %g",
                   x, (double)da, slope);
        check_that(fabs((double)db - silu(x) * (double)dm) <=
                       REL * fabs(silu(x) * (double)dm) + TINY,
                   "db(%g) is %g", x, (double)db);
    }
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *n = check_sizes; *n; n++) {
        float *a = check_normals(*n, *n % 2 ? 2 : 50), *b = check_normals(*n, 1);
        float *dm = check_normals(*n, 1), *got = check_floats(*n), *want = check_floats(*n);
        float *want_da = check_floats(*n), *want_db = check_floats(*n);

        check_context("%s swiglu n %zu", path->name, *n);
        if (check_below(4) == 0)
            a[check_below(*n)] = NAN;
        a[check_below(*n)] = check_below(2) ? 1e30f : -1e30f;
        ref->swiglu(a, b, *n, want);
        path->swiglu(a, b, *n, got);
        check_near("m", got, want, *n, REL, TINY);
        ref->swiglu_backward(a, b, dm, *n, want_da, want_db);
        path->swiglu_backward(a, b, dm, *n, a, b); /* outputs over the inputs */
        for (size_t i = 0; i < *n; i++)            /* near its zero the slope is a difference */
            check_near("da", &a[i], &want_da[i], 1, REL, 1e-6 * (double)fabsf(dm[i]) * 4);
        check_near("db", b, want_db, *n, REL, TINY);
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "swiglu", values, path);
}
