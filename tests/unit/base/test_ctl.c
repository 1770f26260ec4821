/* SPDX-License-Identifier: MIT */
/*
 * base/ctl.c: stop flag, deadline, reports; NULL listens to nothing. Also base/text.c: progress of
 * sources, the id array.
 */
#include "support/support.h"

#include "hanmix/base/ctl.h"
#include "hanmix/base/text.h"

static void test_stop(void **state)
{
    volatile sig_atomic_t flag = 0;
    struct hm_ctl ctl = { .stop = &flag };

    (void)state;
    assert_false(hm_ctl_stopped(NULL));
    assert_false(hm_ctl_stopped(&ctl));
    flag = 1;
    assert_true(hm_ctl_stopped(&ctl));
    ctl = (struct hm_ctl){ .deadline_seconds = hm_clock_seconds() + 1000 };
    assert_false(hm_ctl_stopped(&ctl));
    ctl.deadline_seconds = hm_clock_seconds() - 1;
    assert_true(hm_ctl_stopped(&ctl));
}

struct heard {
    uint64_t done;
    char sentence[100];
};

static void hear_progress(void *context, const struct hm_progress *progress)
{
    ((struct heard *)context)->done = progress->done;
}

static void hear_message(void *context, const char *sentence)
{
    snprintf(((struct heard *)context)->sentence, 100, "%s", sentence);
}

static void test_reports(void **state)
{
    struct heard heard = { 0 };
    struct hm_ctl ctl = { .progress = hear_progress, .message = hear_message, .context = &heard };
    const struct hm_progress progress = { .what = "x", .unit = "y", .done = 5, .total = 7 };

    (void)state;
    hm_ctl_progress(NULL, &progress);
    hm_ctl_message(NULL, "nobody");
    hm_ctl_progress(&ctl, &progress);
    hm_ctl_message(&ctl, "%d lines", 3);
    assert_int_equal(heard.done, 5);
    assert_string_equal(heard.sentence, "3 lines");
}

static uint64_t position(void *context)
{
    return *(uint64_t *)context;
}

static void test_text_progress(void **state)
{
    uint64_t at = 11;
    struct heard heard = { .done = 1 };
    struct hm_ctl ctl = { .progress = hear_progress, .context = &heard };
    struct hm_text_source source = { .context = &at, .total_bytes = 20 };

    (void)state;
    hm_text_progress(NULL, "read", &source);
    hm_text_progress(&ctl, "read", &source);
    assert_int_equal(heard.done, 0); /* a source that cannot tell */
    source.position_bytes = position;
    hm_text_progress(&ctl, "read", &source);
    assert_int_equal(heard.done, 11);
}

static void test_ids(void **state)
{
    struct hm_error err = { 0 };
    struct hm_ids ids = { 0 };

    (void)state;
    for (int32_t i = 0; i < 1000; i++) {
        const int32_t pair[2] = { i, -i };
        assert_ok(hm_ids_append(&ids, pair, 2, &err), err);
    }
    assert_int_equal(ids.count, 2000);
    for (int32_t i = 0; i < 1000; i++)
        assert_true(ids.id[2 * i] == i && ids.id[2 * i + 1] == -i);
    assert_fails(hm_ids_append(&ids, ids.id, SIZE_MAX / 8, &err), HM_ERR_NOMEM, "too many", err);
    hm_ids_clear(&ids);
    assert_int_equal(ids.count, 0);
    hm_ids_release(&ids);
    hm_alloc_fail_after(0);
    int status = hm_ids_append(&ids, (const int32_t[]){ 1 }, 1, &err);
    hm_alloc_fail_after(-1);
    assert_int_equal(status, HM_ERR_NOMEM);
    hm_ids_release(&ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_reports),
        cmocka_unit_test(test_text_progress),
        cmocka_unit_test(test_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
