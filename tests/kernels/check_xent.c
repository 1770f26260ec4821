/* SPDX-License-Identifier: MIT */
/*
 * Cross entropy: loss and gradient against f64, ignored rows, rows with huge logits and NaN. Paths
 * may differ by the error of their exp: loss by LOSS_ABS, gradient by GRAD_REL of softmax *
 * row_scale.
 */
#include <math.h>

#include "check.h"

#define LOSS_ABS 1e-6
#define GRAD_REL 1e-6

static void values(const struct hm_kernels *ref)
{
    enum { V = 100 };
    const int32_t target[3] = { 7, -100, 0 };
    const float row_scale[3] = { 0.5f, 0.5f, -2.0f };
    double loss[3];
    float *x = check_normals(3 * V, 4), *dx = check_copy(x, 3 * V * sizeof(*x));

    check_context("xent");
    ref->xent(dx, 3, V, V, target, row_scale, false, loss);
    check_equal("logits without gradient", dx, x, 3 * V);
    ref->xent(dx, 3, V, V, target, row_scale, true, loss);
    for (size_t t = 0; t < 3; t++) {
        const float *row = x + t * V;
        double sum = 0;
        for (size_t j = 0; j < V; j++)
            sum += exp((double)row[j]);
        double want = target[t] < 0 ? 0 : log(sum) - (double)row[target[t]];
        check_that(fabs(loss[t] - want) <= LOSS_ABS, "loss[%zu] is %.9g, expected %.9g", t, loss[t],
                   want);
        for (size_t j = 0; j < V; j++) {
            double p = exp((double)row[j]) / sum - (target[t] == (int32_t)j);
            double grad = target[t] < 0 ? 0 : p * (double)row_scale[t];
            check_that(fabs((double)dx[t * V + j] - grad) < GRAD_REL, "gradient[%zu][%zu] is %g", t,
                       j, (double)dx[t * V + j]);
        }
    }
    const float huge[3] = { 3e38f, -3e38f, 2e38f }, bad[3] = { 0, NAN, 0 };
    float *row = check_copy(huge, sizeof(huge));
    ref->xent(row, 1, 3, 3, target + 2, row_scale, true, loss);
    check_that(loss[0] == 0, "loss of a sure row is %g", loss[0]);
    row = check_copy(bad, sizeof(bad));
    ref->xent(row, 1, 3, 3, target + 2, row_scale, true, loss);
    check_that(isnan(loss[0]), "NaN gives the loss %g", loss[0]);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    for (const size_t *size = check_sizes; *size; size++) {
        size_t vocab = *size, n = 1 + check_below(4), ld = vocab + check_below(3);
        size_t count = (n - 1) * ld + vocab;
        float *x = check_normals(count, *size % 2 ? 5 : 40), *row_scale = check_normals(n, 1);
        int32_t *target = check_bytes(n * sizeof(*target));
        double *got_loss = check_bytes(n * sizeof(double)), *want_loss = check_bytes(n * 8);

        check_context("%s xent n %zu vocab %zu", path->name, n, vocab);
        for (size_t t = 0; t < n; t++)
            target[t] = check_below(4) == 0 ? -1 : (int32_t)check_below(vocab);
        for (int gradient = 0; gradient < 2; gradient++) {
            float *got = check_copy(x, count * sizeof(*x)), *want = check_copy(x, count * 4);
            ref->xent(want, n, vocab, ld, target, row_scale, gradient, want_loss);
            path->xent(got, n, vocab, ld, target, row_scale, gradient, got_loss);
            check_near_f64("loss", got_loss, want_loss, n, 0, LOSS_ABS);
            for (size_t t = 0; t < n; t++)
                check_near("gradient", got + t * ld, want + t * ld, vocab, gradient ? GRAD_REL : 0,
                           gradient ? GRAD_REL / 4 * (double)fabsf(row_scale[t]) : 0);
        }
        if (target[0] >= 0) {
            x[check_below(vocab)] = NAN;
            path->xent(x, n, vocab, ld, target, row_scale, true, got_loss);
            check_that(isnan(got_loss[0]), "NaN gives the loss %g", got_loss[0]);
        }
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "xent", values, path);
}
