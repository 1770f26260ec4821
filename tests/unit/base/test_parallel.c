/* SPDX-License-Identifier: MIT */
/*
 * base/parallel.c: every unit once, the same sums for any number of threads, workers in range, no
 * nesting.
 */
#include "support/support.h"

#include "hanmix/base/cpu.h"
#include "hanmix/base/parallel.h"

#define UNITS 1000

struct work {
    unsigned runs[UNITS];
    double part[UNITS];
    int worst_worker;
    struct work *inner;
    int outer_worker;
};

static void unit_sum(void *context, size_t index, int worker)
{
    struct work *work = context;
    double sum = 0;

    for (unsigned i = 1; i < 100; i++)
        sum += 1.0 / (double)(index * 100 + i);
    work->part[index] = sum;
    work->runs[index]++;
    if (worker < 0 || worker >= hm_threads())
        work->worst_worker = worker;
}

static double run_sum(int threads)
{
    struct work work = { .worst_worker = -1 };
    double sum = 0;

    assert_int_equal(hm_threads_set(threads), threads);
    hm_parallel_for(UNITS, unit_sum, &work);
    for (size_t i = 0; i < UNITS; i++) {
        assert_int_equal(work.runs[i], 1);
        sum += work.part[i];
    }
    assert_int_equal(work.worst_worker, -1);
    return sum;
}

static void test_same_sum_for_any_threads(void **state)
{
    double one = run_sum(1);

    (void)state;
    for (int threads = 2; threads <= 9; threads++)
        assert_true(run_sum(threads) == one);
}

struct nest {
    int outer;
    int wrong[8];
};

static void unit_inner(void *context, size_t index, int worker)
{
    int *outer = context;

    (void)index;
    if (worker != outer[0])
        outer[1]++;
}

static void unit_outer(void *context, size_t index, int worker)
{
    int pair[2] = { worker, 0 };

    hm_parallel_for(10, unit_inner, pair);
    ((int *)context)[index] = pair[1];
}

static void test_inner_loops_stay_on_their_worker(void **state)
{
    int wrong[64] = { 0 };

    (void)state;
    hm_threads_set(4);
    hm_parallel_for(64, unit_outer, wrong);
    for (int i = 0; i < 64; i++)
        assert_int_equal(wrong[i], 0);
    hm_parallel_for(0, unit_outer, NULL);
}

static void test_default_threads(void **state)
{
    (void)state;
    unsetenv("OMP_NUM_THREADS");
    assert_int_equal(hm_threads_set(0), hm_cpu_count());
    assert_true(hm_threads() >= 1);
}

static void test_units(void **state)
{
    (void)state;
    assert_int_equal(hm_units(0, 8), 0);
    assert_int_equal(hm_units(1, 8), 1);
    assert_int_equal(hm_units(8, 8), 1);
    assert_int_equal(hm_units(9, 8), 2);
    assert_int_equal(hm_least(2, 3), 2);
    assert_int_equal(hm_least(3, 2), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_sum_for_any_threads),
        cmocka_unit_test(test_inner_loops_stay_on_their_worker),
        cmocka_unit_test(test_default_threads),
        cmocka_unit_test(test_units),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
