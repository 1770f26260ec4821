/* SPDX-License-Identifier: MIT */
/*
 * Rotary positions: the reference against complex multiplication in f64, forward then backward
 * gives the input back; every path must give the reference's bits.
 */
#include <math.h>

#include "check.h"

#define POSITIONS 50

static void tables(size_t half, float **ret_cos, float **ret_sin)
{
    float *c = check_floats(POSITIONS * half), *s = check_floats(POSITIONS * half);

    for (size_t p = 0; p < POSITIONS; p++)
        for (size_t j = 0; j < half; j++) {
            double angle = (double)p * pow(1e4, -(double)j / (double)half);
            c[p * half + j] = (float)cos(angle);
            s[p * half + j] = (float)sin(angle);
        }
    *ret_cos = c;
    *ret_sin = s;
}

static void values(const struct hm_kernels *ref)
{
    const size_t half = 8, heads = 3, n = 2, ldx = 2 * half * heads + 5;
    const int32_t pos[2] = { 7, 49 };
    float *c, *s, *x = check_normals(n * ldx, 1), *y = check_copy(x, n * ldx * sizeof(*x));

    check_context("rope");
    tables(half, &c, &s);
    ref->rope(y, n, ldx, heads, 2 * half, c, s, pos, 1.0f);
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < ldx; i++) {
            size_t at = t * ldx + i, j = i % half;
            bool high = i / half % 2;
            double angle = pos[t] * pow(1e4, -(double)j / (double)half);
            double other = high ? (double)x[at - half] : i + half < ldx ? -(double)x[at + half] : 0;
            double want = i < 2 * half * heads ? (double)x[at] * cos(angle) + other * sin(angle)
                                               : (double)x[at];
            check_that(fabs((double)y[at] - want) < 1e-6, "x[%zu][%zu] is %g, expected %g", t, i,
                       (double)y[at], want);
        }
    ref->rope(y, n, ldx, heads, 2 * half, c, s, pos, -1.0f);
    check_near("turned back", y, x, n * ldx, 0, 1e-6);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    static const size_t halves[] = { 1, 2, 3, 4, 7, 8, 12, 16, 17, 24, 32, 33, 40, 64, 80, 128 };

    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        size_t half = halves[i], heads = 1 + check_below(4), n = 1 + check_below(5);
        size_t ldx = 2 * half * heads + check_below(3), count = (n - 1) * ldx + 2 * half * heads;
        int32_t *pos = check_bytes(n * sizeof(*pos));
        float *c, *s, *want = check_normals(count, 1);
        float *got = check_copy(want, count * sizeof(*want));

        check_context("%s rope n %zu heads %zu head_dim %zu", path->name, n, heads, 2 * half);
        tables(half, &c, &s);
        for (size_t t = 0; t < n; t++)
            pos[t] = t == 0 ? POSITIONS - 1 : (int32_t)check_below(POSITIONS);
        for (float sign = 1.0f; sign >= -1.0f; sign -= 2.0f) {
            ref->rope(want, n, ldx, heads, 2 * half, c, s, pos, sign);
            path->rope(got, n, ldx, heads, 2 * half, c, s, pos, sign);
            check_equal("x", got, want, count);
        }
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "rope", values, path);
}
