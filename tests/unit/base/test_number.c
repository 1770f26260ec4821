/* SPDX-License-Identifier: MIT */
/*
 * base/number.c: sizes, counts, reals, booleans, shortest doubles, name distance.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/rng.h"

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        { "0", 0 },
        { "64K", 65536 },
        { "2M", 2097152 },
        { "24G", 25769803776 },
        { "1.5GiB", 1610612736 },
        { "10kb", 10240 },
        { "1T", 1099511627776 },
        { "123", 123 },
        { "1e6", 1000000 },
        { "7B", 7 },
        { "18446744073709551615", UINT64_MAX },
    };
    static const char *const bad[] = { "",
                                       "G",
                                       "-1",
                                       "1.3",
                                       "0.1K",
                                       "12Q",
                                       "12 G",
                                       "99999999999G",
                                       "18446744073709551616",
                                       "1e400",
                                       "nan",
                                       "0x10",
                                       "1iB",
                                       "1GG" };
    struct hm_error err = { 0 };
    uint64_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_ok(hm_parse_size(good[i].text, &bytes, &err), err);
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(hm_parse_size(bad[i], &bytes, &err), HM_ERR_USAGE, "not a size", err);
}

static void test_counts(void **state)
{
    static const char *const bad[] = { "",    "1.5", "1e", "1e-1", "1e30", "+",
                                       "ten", "5 ",  "1K", "-3",   "." };
    struct hm_error err = { 0 };
    uint64_t count;

    (void)state;
    assert_ok(hm_parse_count("2.5e3", &count, &err), err);
    assert_int_equal(count, 2500);
    assert_ok(hm_parse_count("1e6", &count, &err), err);
    assert_int_equal(count, 1000000);
    assert_ok(hm_parse_count("100e-2", &count, &err), err);
    assert_int_equal(count, 1);
    assert_ok(hm_parse_count("0e99", &count, &err), err);
    assert_int_equal(count, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(hm_parse_count(bad[i], &count, &err), HM_ERR_USAGE, "not a count", err);
}

static void test_doubles_and_booleans(void **state)
{
    static const char *const bad[] = { "",      "nan", "inf", "1e999", "1x",
                                       "0x1p3", " 1",  "1 ",  "-",     "e5" };
    struct hm_error err = { 0 };
    double value;
    bool flag;

    (void)state;
    assert_ok(hm_parse_double("-1e-5", &value, &err), err);
    assert_true(value == -1e-5);
    assert_ok(hm_parse_double(".5", &value, &err), err);
    assert_true(value == 0.5);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(hm_parse_double(bad[i], &value, &err), HM_ERR_USAGE, "finite", err);
    assert_ok(hm_parse_bool("True", &flag, &err), err);
    assert_true(flag);
    assert_ok(hm_parse_bool("off", &flag, &err), err);
    assert_false(flag);
    assert_fails(hm_parse_bool("maybe", &flag, &err), HM_ERR_USAGE, "truth", err);
}

static void test_shortest_doubles(void **state)
{
    static const struct {
        double value;
        const char *text; /* as Python 3 prints it */
    } known[] = {
        { 0.0, "0.0" },
        { -0.0, "-0.0" },
        { 0.1, "0.1" },
        { 1.0 / 3, "0.3333333333333333" },
        { 1e-5, "1e-05" },
        { 1.5e-7, "1.5e-07" },
        { 0.0001, "0.0001" },
        { 0.00123, "0.00123" },
        { 1e15, "1000000000000000.0" },
        { 1e16, "1e+16" },
        { 123456.75, "123456.75" },
        { 1e100, "1e+100" },
        { 5e-324, "5e-324" },
        { 1.7976931348623157e308, "1.7976931348623157e+308" },
        { 0.04473930597305298, "0.04473930597305298" },
        { 9007199254740993.0, "9007199254740992.0" },
    };
    char text[HM_DOUBLE_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        hm_double_text(known[i].value, text);
        assert_string_equal(text, known[i].text);
    }
    for (unsigned i = 0; i < 20000; i++) {
        double value;
        uint64_t bits = hm_rng_u64((struct hm_rng_key){ 1, 2 }, i);
        memcpy(&value, &bits, sizeof(value));
        if (!isfinite(value))
            continue;
        hm_double_text(value, text);
        assert_true(strtod(text, NULL) == value);
    }
    hm_double_text(NAN, text);
    assert_string_equal(text, "NaN");
    hm_double_text(-INFINITY, text);
    assert_string_equal(text, "-Infinity");
}

static void test_edit_distance(void **state)
{
    char longer[200];

    (void)state;
    assert_int_equal(hm_edit_distance("rank", "rank"), 0);
    assert_int_equal(hm_edit_distance("rank", "rnak"), 1);
    assert_int_equal(hm_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(hm_edit_distance("", "abc"), 3);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_true(hm_edit_distance(longer, "x") >= 64);
    assert_int_equal(hm_edit_distance(longer, longer), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_doubles_and_booleans),
        cmocka_unit_test(test_shortest_doubles),
        cmocka_unit_test(test_edit_distance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
