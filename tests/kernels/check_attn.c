/* SPDX-License-Identifier: MIT */
/*
 * Attention tiles: two tiles joined by the running form against a softmax in f64, the gradient
 * formula, unseen keys never read. Paths may differ by the error of their exp: P by EXP_REL
 * relative (exp itself by 1.02 units of the last place), sums by SUM_REL; the gradient of scores
 * must be the same bits.
 */
#include <math.h>

#include "check.h"

#define EXP_REL 5e-7
#define SUM_REL 2e-6
#define TINY    1e-37 /* powers below this may be flushed */

static void values(const struct hm_kernels *ref)
{
    enum { N = 40, SPLIT = 24 };
    const float scale = 0.125f;
    const int32_t first[2] = { 3, 0 }, end[2] = { SPLIT, N - SPLIT };
    float *s = check_normals(N, 20), *raw = check_copy(s, N * sizeof(*s));
    float row_max = -INFINITY, row_sum = 0, alpha[2];
    double sum = 0, largest = -INFINITY;

    check_context("softmax_tile in two tiles");
    ref->softmax_tile(s, 1, SPLIT, N, &first[0], &end[0], scale, &row_max, &row_sum, &alpha[0]);
    ref->softmax_tile(s + SPLIT, 1, N - SPLIT, N, &first[1], &end[1], scale, &row_max, &row_sum,
                      &alpha[1]);
    for (size_t j = 3; j < N; j++)
        largest = fmax(largest, 0.125 * (double)raw[j]);
    for (size_t j = 3; j < N; j++)
        sum += exp(0.125 * (double)raw[j] - largest);
    check_that(alpha[0] == 0.0f, "alpha of the first tile is %g", (double)alpha[0]);
    check_that((double)row_max == largest, "the maximum is %g, expected %g", (double)row_max,
               largest);
    check_that(fabs((double)row_sum - sum) < 1e-5 * sum, "the sum is %g, expected %g",
               (double)row_sum, sum);
    for (size_t j = 0; j < N; j++) {
        double got = (double)s[j] * (j < SPLIT ? (double)alpha[1] : 1);
        double want = j < 3 ? 0 : exp(0.125 * (double)raw[j] - largest);
        check_that(fabs(got - want) <= 1e-5 * want, "P[%zu] is %g, expected %g", j, got, want);
    }

    check_context("prob_tile");
    float lse = row_max + logf(row_sum);
    ref->prob_tile(raw, 1, N, N, &first[0], (const int32_t[]){ N }, scale, &lse);
    for (size_t j = 0; j < N; j++)
        check_that(fabs((double)raw[j] * sum - (double)s[j] * (j < SPLIT ? (double)alpha[1] : 1)) <
                       1e-5,
                   "P[%zu] is %g", j, (double)raw[j]);

    check_context("dscore_tile");
    const float p[2] = { 0.25f, 0.5f }, delta = 3.0f;
    float dp[2] = { 7.0f, 1.0f };
    ref->dscore_tile(p, dp, 1, 2, 2, 0.5f, &delta);
    check_equal("dS", dp, (const float[]){ 0.5f, -0.5f }, 2);
}

/* exp through prob_tile with scale 1 and lse 0, over the whole range that gives ordinary numbers.
 */
static void exp_error(const struct hm_kernels *path)
{
    enum { N = 1 << 12 };
    const int32_t first = 0, end = N;
    const float lse = 0;
    float *x = check_floats(N), *y = check_floats(N);
    double worst = 0;

    for (uint32_t bits = 0x30000000u; bits < 0x42ae0000u; bits += 509 * N) /* to 87 */
        for (uint32_t sign = 0;; sign = 0x80000000u) {
            for (uint32_t i = 0; i < N; i++)
                y[i] = x[i] = fminf(hm_f32_from_bits(bits + 509 * i), 87) * (sign ? -1.0f : 1.0f);
            path->prob_tile(y, 1, N, N, &first, &end, 1.0f, &lse);
            for (size_t i = 0; i < N; i++) {
                double want = exp((double)x[i]);
                worst = fmax(worst, fabs((double)y[i] - want) / ldexp(1, ilogb(want) - 23));
            }
            if (sign)
                break;
        }
    check_context("%s exp", path->name);
    check_that(worst < 1.02, "the error is %.3f units of the last place, at most 1.02 are stated",
               worst);
    for (size_t i = 0; i < 5; i++) /* the ends */
        y[i] = ((float[]){ -INFINITY, -104.5f, 0, 89, NAN })[i];
    path->prob_tile(y, 1, 5, N, &first, &end, 1.0f, &lse);
    check_equal("exp", y, (const float[]){ 0, 0, 1, INFINITY, NAN }, 5);
    check_release();
}

struct tile {
    size_t n_q, n_k, ld, count;
    int32_t *first, *end;
    float *score; /* [n_q][ld], NaN where no key is seen */
};

static struct tile tile_random(size_t n_k)
{
    struct tile t = { .n_q = 1 + check_below(n_k < 20 ? 150 : 5), .n_k = n_k };

    t.ld = n_k + check_below(3);
    t.count = (t.n_q - 1) * t.ld + n_k;
    t.first = check_bytes(t.n_q * sizeof(*t.first));
    t.end = check_bytes(t.n_q * sizeof(*t.end));
    t.score = check_normals(t.count, 30);
    for (size_t i = 0; i < t.n_q; i++) {
        size_t kind = check_below(4);
        t.first[i] = kind == 0 ? -3 : (int32_t)check_below(n_k + 2);
        t.end[i] = kind == 1 ? (int32_t)n_k + 7 : (int32_t)check_below(n_k + 2);
        for (size_t j = 0; j < n_k; j++)
            if ((int32_t)j < t.first[i] || (int32_t)j >= t.end[i])
                t.score[i * t.ld + j] = NAN;
    }
    return t;
}

static void softmax_path(const struct hm_kernels *ref, const struct hm_kernels *path,
                         const struct tile *t)
{
    float *want = check_copy(t->score, t->count * sizeof(float));
    float *got = check_copy(t->score, t->count * sizeof(float));
    float *state[2][3];

    for (size_t s = 0; s < 3; s++) {
        state[0][s] = check_normals(t->n_q, 3);
        for (size_t i = 0; i < t->n_q; i++)
            if (s == 0 && check_below(2) == 0)
                state[0][0][i] = -INFINITY;
            else if (s == 1)
                state[0][1][i] = state[0][0][i] == -INFINITY ? 0 : 1 + fabsf(state[0][1][i]);
        state[1][s] = check_copy(state[0][s], t->n_q * sizeof(float));
    }
    ref->softmax_tile(want, t->n_q, t->n_k, t->ld, t->first, t->end, 0.3f, state[0][0], state[0][1],
                      state[0][2]);
    path->softmax_tile(got, t->n_q, t->n_k, t->ld, t->first, t->end, 0.3f, state[1][0], state[1][1],
                       state[1][2]);
    check_near("P", got, want, t->count, EXP_REL, TINY);
    check_equal("row_max", state[1][0], state[0][0], t->n_q);
    check_near("row_sum", state[1][1], state[0][1], t->n_q, SUM_REL, TINY);
    check_near("row_alpha", state[1][2], state[0][2], t->n_q, EXP_REL, TINY);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    exp_error(path);
    for (size_t round = 0; round < 4; round++)
        for (const size_t *n = check_sizes; *n && *n < 1000; n++) {
            struct tile t = tile_random(*n);

            check_context("%s attn n_q %zu n_k %zu", path->name, t.n_q, t.n_k);
            softmax_path(ref, path, &t);
            float *lse = check_normals(t.n_q, 10);
            float *want = check_copy(t.score, t.count * sizeof(float));
            float *got = check_copy(t.score, t.count * sizeof(float));
            ref->prob_tile(want, t.n_q, t.n_k, t.ld, t.first, t.end, 0.3f, lse);
            path->prob_tile(got, t.n_q, t.n_k, t.ld, t.first, t.end, 0.3f, lse);
            check_near("P from lse", got, want, t.count, EXP_REL, TINY);
            float *want_ds = check_normals(t.count, 1);
            float *got_ds = check_copy(want_ds, t.count * sizeof(float));
            ref->dscore_tile(want, want_ds, t.n_q, t.n_k, t.ld, 0.3f, lse);
            path->dscore_tile(want, got_ds, t.n_q, t.n_k, t.ld, 0.3f, lse);
            check_equal("dS", got_ds, want_ds, t.count);
            check_release();
        }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "attn", values, path);
}
