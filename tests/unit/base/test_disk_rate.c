/* SPDX-License-Identifier: MIT */
/*
 * base/disk_rate.c: rates are positive, no file is left, a folder that is not there is told.
 */
#include "support/support.h"

#include "hanmix/base/disk_rate.h"

static void test_rates(void **state)
{
    struct hm_disk_rates rates = { 0 };
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_disk_rates_measure(test_dir, 5u << 20, &rates, &err), err);
    assert_true(rates.read > 0 && rates.write > 0);
    assert_ok(hm_dir_list(test_dir, &names, &err), err);
    assert_int_equal(names.count, 0);
    hm_names_release(&names);
}

static void test_no_folder(void **state)
{
    struct hm_disk_rates rates = { .write = 1, .read = 2 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_disk_rates_measure(tmp_path(test_dir, "absent"), 1, &rates, &err), HM_ERR_IO,
                 "absent", err);
    assert_true(rates.write == 1 && rates.read == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_rates),
                                        cmocka_unit_test(test_no_folder) };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
