/* SPDX-License-Identifier: MIT */
/*
 * qlora/lr_schedule.c against values that transformers 4.57.6 printed, and at the ends.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/qlora/trainer.h"

static void assert_rates(enum hm_lr_schedule schedule, double lr, double min_lr, uint64_t warmup,
                         uint64_t steps, const double *want, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        double found = hm_lr_at(schedule, lr, min_lr, warmup, steps, i);
        if (fabs(found - want[i]) > 1e-15 * lr + 1e-12 * want[i])
            fail_msg("update %zu: %.17g, expected %.17g", i, found, want[i]);
    }
}

/* get_cosine_schedule_with_warmup(4, 12) and get_cosine_with_min_lr_schedule_with_warmup(...,
 * min_lr=1e-4), lr 1e-3. */
static void test_cosine(void **state)
{
    static const double plain[] = { 0.0,
                                    0.00025,
                                    0.0005,
                                    0.00075,
                                    0.001,
                                    0.0009619397662556434,
                                    0.0008535533905932737,
                                    0.000691341716182545,
                                    0.0005,
                                    0.0003086582838174551,
                                    0.00014644660940672628,
                                    3.806023374435663e-05 };
    static const double floored[] = { 0.0,
                                      0.00025,
                                      0.0005,
                                      0.00075,
                                      0.001,
                                      0.000965745789630079,
                                      0.0008681980515339464,
                                      0.0007222075445642904,
                                      0.00055,
                                      0.0003777924554357096,
                                      0.00023180194846605365,
                                      0.00013425421036992097 };

    (void)state;
    assert_rates(HM_LR_COSINE, 1e-3, 0, 4, 12, plain, sizeof(plain) / sizeof(*plain));
    assert_rates(HM_LR_COSINE, 1e-3, 1e-4, 4, 12, floored, sizeof(floored) / sizeof(*floored));
}

/* get_linear_schedule_with_warmup(4, 12); get_polynomial_decay_schedule_with_warmup(...,
 * lr_end=1e-4, power=1). */
static void test_linear(void **state)
{
    static const double plain[] = { 0.0,     0.00025,  0.0005, 0.00075,  0.001,   0.000875,
                                    0.00075, 0.000625, 0.0005, 0.000375, 0.00025, 0.000125 };
    static const double floored[] = { 0.0,
                                      0.00025,
                                      0.0005,
                                      0.00075,
                                      0.001,
                                      0.0008875,
                                      0.0007750000000000001,
                                      0.0006625,
                                      0.00055,
                                      0.0004375,
                                      0.000325,
                                      0.00021250000000000002 };

    (void)state;
    assert_rates(HM_LR_LINEAR, 1e-3, 0, 4, 12, plain, sizeof(plain) / sizeof(*plain));
    assert_rates(HM_LR_LINEAR, 1e-3, 1e-4, 4, 12, floored, sizeof(floored) / sizeof(*floored));
}

static void test_constant(void **state)
{
    static const double want[] = { 0, 0.5, 1, 1, 1, 1 };

    (void)state;
    assert_rates(HM_LR_CONSTANT, 1, 0.25, 2, 4, want, 6);
    assert_true(hm_lr_at(HM_LR_CONSTANT, 3, 0, 0, 4, 0) == 3);
}

static void test_ends(void **state)
{
    (void)state;
    for (int schedule = HM_LR_CONSTANT; schedule <= HM_LR_COSINE; schedule++) {
        assert_true(hm_lr_at(schedule, 2, 1, 3, 9, 0) == 0); /* the first update of a warm-up */
        assert_true(hm_lr_at(schedule, 2, 1, 0, 9, 0) == 2);
        assert_true(hm_lr_at(schedule, 2, 1, 0, 1, 0) == 2); /* a run of one step */
        assert_true(hm_lr_at(schedule, 2, 1, 9, 9, 8) < 2);  /* nothing but warm-up */
        double after = hm_lr_at(schedule, 2, 1, 3, 9, 1000);
        assert_true(after == (schedule == HM_LR_CONSTANT ? 2 : 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_constant),
        cmocka_unit_test(test_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
