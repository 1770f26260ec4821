/* SPDX-License-Identifier: MIT */
/*
 * Routing: the softmax in f64, the order of experts, ties, NaN. Every path must choose the
 * reference's experts and may differ in the last bits of the weights.
 */
#include <math.h>

#include "check.h"

static void ids_check(const float *prob, size_t experts, const int32_t *ids, size_t k)
{
    for (size_t i = 0; i < k; i++) {
        check_that(ids[i] >= 0 && (size_t)ids[i] < experts, "id %d of %zu experts", ids[i],
                   experts);
        for (size_t e = 0; e < experts; e++) { /* nothing better is left out or comes later */
            bool before = false;
            for (size_t j = 0; j <= i; j++)
                before |= (size_t)ids[j] == e;
            if (!before)
                check_that(prob[ids[i]] > prob[e] ||
                               (prob[ids[i]] == prob[e] && (size_t)ids[i] < e),
                           "expert %d chosen before %zu", ids[i], e);
        }
    }
}

static void values(const struct hm_kernels *ref)
{
    for (size_t experts = 1; experts < 20; experts++)
        for (size_t k = 1; k <= experts && k < 9; k++) {
            float *logits = check_normals(experts, 3), *prob = check_floats(experts);
            float *weight = check_floats(k);
            int32_t *ids = check_bytes(k * sizeof(*ids));
            double sum = 0, kept = 0;

            check_context("route experts %zu k %zu", experts, k);
            if (experts > 3) /* a tie */
                logits[experts - 1] = logits[1];
            ref->route(logits, 1, experts, k, prob, ids, weight);
            for (size_t e = 0; e < experts; e++)
                sum += exp((double)logits[e]);
            for (size_t e = 0; e < experts; e++)
                check_that(fabs((double)prob[e] - exp((double)logits[e]) / sum) < 1e-6,
                           "prob[%zu] is %g", e, (double)prob[e]);
            ids_check(prob, experts, ids, k);
            for (size_t i = 0; i < k; i++)
                kept += exp((double)logits[ids[i]]);
            for (size_t i = 0; i < k; i++)
                check_that(fabs((double)weight[i] - exp((double)logits[ids[i]]) / kept) < 1e-6,
                           "weight[%zu] is %g", i, (double)weight[i]);
            check_release();
        }
    const float bad[4] = { NAN, INFINITY, 1.0f, NAN };
    float prob[4], weight[3];
    int32_t ids[3];
    check_context("route of NaN");
    ref->route(bad, 1, 4, 3, prob, ids, weight);
    check_equal("ids", (const float[]){ (float)ids[0], (float)ids[1], (float)ids[2] },
                (const float[]){ 0, 1, 2 }, 3);
    check_that(isnan(weight[0]), "NaN is hidden");
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    static const size_t shapes[][2] = {
        { 8, 2 }, { 4, 1 }, { 16, 4 }, { 64, 6 }, { 3, 3 }, { 1, 1 }
    };

    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        size_t experts = shapes[s][0], k = shapes[s][1], n = 1 + check_below(40);
        float *logits = check_normals(n * experts, 2);
        float *prob[2] = { check_floats(n * experts), check_floats(n * experts) };
        float *weight[2] = { check_floats(n * k), check_floats(n * k) };
        int32_t *ids[2] = { check_bytes(n * k * 4), check_bytes(n * k * 4) };

        check_context("%s route n %zu experts %zu k %zu", path->name, n, experts, k);
        ref->route(logits, n, experts, k, prob[0], ids[0], weight[0]);
        path->route(logits, n, experts, k, prob[1], ids[1], weight[1]);
        check_near("prob", prob[1], prob[0], n * experts, 1e-6, 0);
        check_bytes_equal("ids", ids[1], ids[0], n * k * 4);
        check_near("weight", weight[1], weight[0], n * k, 1e-6, 0);
        check_release();
    }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "topk", values, path);
}
