/* SPDX-License-Identifier: MIT */
/*
 * base/scratch_file.c: arrays keep what is written across drops, leave no name, are zero at first
 * and again, and leave memory, discarded ones too; disk space that is not there is told at once.
 */
#include "support/support.h"

#include <signal.h>
#include <sys/resource.h>

#include "hanmix/base/scratch.h"

#define BYTES ((size_t)24 << 20)

static void test_arrays(void **state)
{
    struct hm_scratch *scratch = NULL;
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };
    size_t small = 1000;

    (void)state;
    assert_ok(hm_scratch_new(test_dir, BYTES + hm_scratch_room(small), &scratch, &err), err);
    assert_ok(hm_dir_list(test_dir, &names, &err), err);
    assert_int_equal(names.count, 0);
    hm_names_release(&names);
    uint8_t *first = hm_scratch_take(scratch, small), *second = hm_scratch_take(scratch, BYTES);
    assert_int_equal(second - first, hm_scratch_room(small));
    for (size_t i = 0; i < BYTES; i += 997)
        assert_int_equal(second[i], 0);
    memset(first, 7, small);
    for (size_t i = 0; i < BYTES; i++)
        second[i] = (uint8_t)(i * 31 >> 4);
    uint64_t full = hm_rss_bytes();
    hm_scratch_drop(scratch, first, small);
    hm_scratch_drop(scratch, second, BYTES);
    assert_true(hm_rss_bytes() + BYTES / 2 < full);
    hm_scratch_fetch(scratch, second + 5, BYTES - 5);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(second[i], (uint8_t)(i * 31 >> 4));
    hm_scratch_zero(scratch, second, BYTES);
    for (size_t i = 0; i < BYTES; i++)
        assert_int_equal(second[i], 0);
    assert_int_equal(first[small - 1], 7);
    memset(second, 1, BYTES);
    full = hm_rss_bytes();
    hm_scratch_discard(scratch, second, BYTES);
    assert_true(hm_rss_bytes() + BYTES / 2 < full);
    assert_int_equal(first[small - 1], 7);
    hm_scratch_free(scratch);
}

static void test_heap(void **state)
{
    uint8_t block[100] = { 1 };

    (void)state;
    hm_scratch_fetch(NULL, block, sizeof(block));
    hm_scratch_drop(NULL, block, sizeof(block));
    hm_scratch_discard(NULL, block, sizeof(block));
    assert_int_equal(block[0], 1);
    hm_scratch_zero(NULL, block, sizeof(block));
    assert_int_equal(block[0], 0);
    hm_scratch_free(NULL);
}

static void test_no_room(void **state)
{
    struct hm_scratch *scratch = NULL;
    struct hm_error err = { 0 };
    struct rlimit kept, small = { 1 << 20, 1 << 20 };
    uint64_t room = 0;

    (void)state;
    assert_ok(hm_disk_free(test_dir, &room, &err), err);
    assert_fails(hm_scratch_new(test_dir, room * 2, &scratch, &err), HM_ERR_IO, "state.scratch",
                 err);
    assert_non_null(strstr(err.text, "left"));
    assert_fails(hm_scratch_new(tmp_path(test_dir, "none"), 10, &scratch, &err), HM_ERR_IO,
                 "cannot create", err);
    getrlimit(RLIMIT_FSIZE, &kept);
    small.rlim_max = kept.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int status = hm_scratch_new(test_dir, BYTES, &scratch, &err);
    setrlimit(RLIMIT_FSIZE, &kept);
    assert_int_equal(status, HM_ERR_IO);
    assert_non_null(strstr(err.text, "needs 24.0 MiB"));
    assert_null(scratch);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_scratch *scratch = NULL;

    HM_TRY(hm_scratch_new(context, 5000, &scratch, err));
    hm_scratch_free(scratch);
    return HM_OK;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    assert_true(oom_sweep(oom_attempt, test_dir) >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_arrays, test_dir_setup, test_dir_teardown),
        cmocka_unit_test(test_heap),
        cmocka_unit_test_setup_teardown(test_no_room, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, test_dir_setup, test_dir_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
