/* SPDX-License-Identifier: MIT */
/*
 * eval/bootstrap.c: intervals of known spread, the same for any thread count, joined documents,
 * memory.
 */
#include "bootstrap.h"
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"

/* Documents of 100 bytes whose loss is 100 + noise of deviation 30. */
static struct hm_scored *documents(size_t n)
{
    struct hm_scored *scored = calloc(n, sizeof(*scored));

    for (size_t i = 0; i < n; i++)
        scored[i] =
            (struct hm_scored){ 100 + 30 * hm_rng_normal((struct hm_rng_key){ 1, 2 }, i), 100 };
    return scored;
}

static void check_width(size_t n)
{
    struct hm_scored *scored = documents(n);
    struct hm_error err = { 0 };
    double low, high, mean = 0, square = 0;

    for (size_t i = 0; i < n; i++)
        mean += scored[i].loss / (double)n;
    for (size_t i = 0; i < n; i++)
        square += pow(scored[i].loss - mean, 2) / (double)n;
    assert_ok(hm_bootstrap_ratio(scored, n, &low, &high, &err), err);
    double half = 1.96 * sqrt(square / (double)n) / 100; /* of a normal approximation */
    assert_true(fabs(low - (mean / 100 - half)) < 0.15 * half);
    assert_true(fabs(high - (mean / 100 + half)) < 0.15 * half);
    free(scored);
}

static void test_width(void **state)
{
    (void)state;
    check_width(400);
    check_width(20000); /* joined to blocks */
}

static void test_threads(void **state)
{
    struct hm_scored *scored = documents(50);
    struct hm_error err = { 0 };
    double low[2], high[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        hm_threads_set(i + 1);
        assert_ok(hm_bootstrap_ratio(scored, 50, &low[i], &high[i], &err), err);
    }
    assert_true(low[0] == low[1] && high[0] == high[1] && low[0] < high[0]);
    hm_threads_set(0);
    free(scored);
}

static void test_ends(void **state)
{
    const struct hm_scored one = { 70, 100 }, none = { 0, 0 };
    struct hm_error err = { 0 };
    double low, high;

    (void)state;
    assert_ok(hm_bootstrap_ratio(&one, 1, &low, &high, &err), err);
    assert_true(low == 0.7 && high == 0.7);
    assert_ok(hm_bootstrap_ratio(&none, 1, &low, &high, &err), err);
    assert_true(low == 0 && high == 0);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    double low, high;

    return hm_bootstrap_ratio(context, 3, &low, &high, err);
}

static void test_out_of_memory(void **state)
{
    struct hm_scored scored[3] = { { 1, 1 }, { 2, 2 }, { 3, 1 } };

    (void)state;
    assert_int_equal(oom_sweep(oom_attempt, scored), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_width),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
