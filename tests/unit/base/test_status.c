/* SPDX-License-Identifier: MIT */
/*
 * base/status.c: sentences, prefixes, exit codes.
 */
#include "support/support.h"

static void test_sentence(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_int_equal(hm_fail(&err, HM_ERR_FORMAT, "'%s' has %d rows", "x", 3), HM_ERR_FORMAT);
    assert_int_equal(err.code, HM_ERR_FORMAT);
    assert_string_equal(err.text, "'x' has 3 rows");
    assert_int_equal(hm_fail(NULL, HM_ERR_IO, "nobody listens"), HM_ERR_IO);
}

static void test_out_of_memory(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_int_equal(hm_fail_nomem(&err, "for %d rows of '%s'", 3, "x"), HM_ERR_NOMEM);
    assert_int_equal(err.code, HM_ERR_NOMEM);
    assert_string_equal(err.text, "out of memory for 3 rows of 'x'");
    assert_int_equal(hm_fail_nomem(NULL, "for nobody"), HM_ERR_NOMEM);
}

static void test_argument_may_alias(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    hm_fail(&err, HM_ERR_IO, "inner");
    hm_fail(&err, HM_ERR_IO, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
    hm_error_prefix(&err, "shard %d", 2);
    assert_string_equal(err.text, "shard 2: outer (inner)");
}

static void test_pass(void **state)
{
    struct hm_error from = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    hm_fail(&from, HM_ERR_NUMERIC, "100%% NaN");
    assert_int_equal(hm_error_pass(&err, &from), HM_ERR_NUMERIC);
    assert_int_equal(err.code, HM_ERR_NUMERIC);
    assert_string_equal(err.text, "100% NaN");
    assert_int_equal(hm_error_pass(NULL, &from), HM_ERR_NUMERIC);
}

static void test_control_bytes_are_removed(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    hm_fail(&err, HM_ERR_IO, "name 'a\n\x1b[31mb\x7f'");
    assert_string_equal(err.text, "name 'a  [31mb '");
}

static void test_malformed_bytes_are_replaced(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    hm_fail(&err, HM_ERR_IO, "name '\xff\xe4\xb8x\xe4\xb8\xad\xc2\x9b'");
    assert_string_equal(err.text, "name '???x\xe4\xb8\xad  '");
}

static void test_long_text_is_cut_at_a_code_point(void **state)
{
    char text[2000] = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t lead = 0; lead < 3; lead++) {
        size_t at = 0;
        for (; at < lead; at++)
            text[at] = 'x';
        for (; at + 3 < sizeof(text); at += 3)
            memcpy(text + at, "\xe4\xb8\xad", 3);
        text[at] = '\0';
        hm_fail(&err, HM_ERR_IO, "%s", text);
        size_t bad;
        assert_true(hm_utf8_valid(hm_str_of(err.text), &bad));
        assert_in_range(strlen(err.text), HM_ERROR_TEXT_BYTES - 8, HM_ERROR_TEXT_BYTES - 1);
        hm_error_prefix(&err, "%s", "y");
        assert_true(hm_utf8_valid(hm_str_of(err.text), &bad));
    }
}

static void test_long_text_keeps_its_end(void **state)
{
    char name[3000];
    struct hm_error err = { 0 };

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    hm_fail(&err, HM_ERR_USAGE, "'%s' does not exist", name);
    assert_true(hm_text_starts(err.text, "'nnn") && hm_text_ends(err.text, "n' does not exist"));
    hm_error_prefix(&err, "r.yaml:%d", 3);
    assert_true(hm_text_starts(err.text, "r.yaml:3: 'nnn") &&
                hm_text_ends(err.text, "n' does not exist"));
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(hm_status_exit_code(HM_OK), 0);
    assert_int_equal(hm_status_exit_code(1), 0);
    assert_int_equal(hm_status_exit_code(HM_ERR_CHECK), 1);
    assert_int_equal(hm_status_exit_code(HM_ERR_USAGE), 2);
    assert_int_equal(hm_status_exit_code(HM_ERR_NOFIT), 3);
    assert_int_equal(hm_status_exit_code(HM_ERR_FORMAT), 4);
    assert_int_equal(hm_status_exit_code(HM_ERR_NUMERIC), 5);
    assert_int_equal(hm_status_exit_code(HM_ERR_IO), 6);
    assert_int_equal(hm_status_exit_code(HM_ERR_NOMEM), 6);
    assert_int_equal(hm_status_exit_code(HM_ERR_STOPPED), 75);
    assert_int_equal(hm_status_exit_code(-99), 6);
    assert_string_equal(hm_status_text(HM_ERR_NOFIT), "will not fit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sentence),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_argument_may_alias),
        cmocka_unit_test(test_pass),
        cmocka_unit_test(test_control_bytes_are_removed),
        cmocka_unit_test(test_malformed_bytes_are_replaced),
        cmocka_unit_test(test_long_text_is_cut_at_a_code_point),
        cmocka_unit_test(test_long_text_keeps_its_end),
        cmocka_unit_test(test_exit_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
