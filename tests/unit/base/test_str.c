/* SPDX-License-Identifier: MIT */
/*
 * base/str.c: buffers and UTF-8.
 */
#include "support/support.h"

static void test_buffer_grows(void **state)
{
    struct hm_buf buf = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_ok(hm_buf_printf(&buf, &err, "%03d,", i), err);
    assert_int_equal(buf.len, 4000);
    assert_int_equal(strlen(buf.ptr), 4000);
    assert_memory_equal(buf.ptr + 3996, "999,", 5);
    hm_buf_clear(&buf);
    assert_string_equal(buf.ptr, "");
    assert_ok(hm_buf_append(&buf, "a\0b", 3, &err), err);
    assert_int_equal(buf.len, 3);
    assert_fails(hm_buf_reserve(&buf, SIZE_MAX - 1, &err), HM_ERR_NOMEM, "memory", err);
    hm_buf_release(&buf);
    hm_buf_release(&buf);
}

static void test_xml(void **state)
{
    struct hm_buf buf = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_buf_xml(&buf, "a<b> & \"中\"", &err), err);
    assert_string_equal(buf.ptr, "a&lt;b&gt; &amp; &quot;中&quot;");
    hm_buf_release(&buf);
}

static void test_compare(void **state)
{
    (void)state;
    assert_true(hm_str_is((struct hm_str){ "abcd", 3 }, "abc"));
    assert_false(hm_str_is((struct hm_str){ "abcd", 3 }, "abcd"));
    assert_true(hm_str_equal((struct hm_str){ NULL, 0 }, hm_str_of("")));
    assert_true(hm_text_starts("prefix", "pre"));
    assert_false(hm_text_starts("pr", "pre"));
    assert_true(hm_text_ends("a.jsonl.zst", ".zst"));
    assert_false(hm_text_ends("zst", ".zst"));
}

static void test_format(void **state)
{
    struct hm_error err = { 0 };
    char *text = NULL;

    (void)state;
    assert_ok(hm_format(&text, &err, "%s-%d", "a", 5), err);
    assert_string_equal(text, "a-5");
    hm_free(text);
    hm_alloc_fail_after(0);
    char *kept = (char *)"untouched";
    int status = hm_format(&kept, &err, "%d", 1);
    hm_alloc_fail_after(-1);
    assert_int_equal(status, HM_ERR_NOMEM);
    assert_string_equal(kept, "untouched");
}

static void test_every_code_point_round_trips(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x110005; code++) {
        char bytes[4];
        uint32_t back = 0;
        unsigned len = hm_utf8_encode(code, bytes);
        bool valid = code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
        assert_int_equal(len > 0, valid);
        if (!valid)
            continue;
        assert_int_equal(hm_utf8_decode(bytes, len, &back), len);
        assert_int_equal(back, code);
        if (len > 1)
            assert_int_equal(hm_utf8_decode(bytes, len - 1, &back), 0);
    }
}

static void test_malformed(void **state)
{
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xf8\x88\x80\x80\x80",
        "\xff",
        "\xe4\xb8",
        "\xe4",
        "\xe4x\xad",
    };
    uint32_t code;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(hm_utf8_decode(bad[i], strlen(bad[i]), &code), 0);
    size_t offset = 0;
    assert_false(hm_utf8_valid(hm_str_of("ab\xe4\xb8\xad\xff"
                                         "c"),
                               &offset));
    assert_int_equal(offset, 5);
    assert_false(hm_utf8_valid(hm_str_of("\xff"), NULL));
    assert_int_equal(hm_utf8_count(hm_str_of("a\xe4\xb8\xad\xff\xf0\x9f\x98\x80")), 4);
    assert_int_equal(hm_utf8_decode("", 0, &code), 0);
}

static void test_word(void **state)
{
    static const char odd[] = "a\t\0中\n\xff \r";
    struct hm_buf buf = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_buf_word(&buf, (struct hm_str){ odd, sizeof(odd) - 1 }, &err), err);
    assert_string_equal(buf.ptr, "a\\x09\\x00中\\x0a\\xff \\x0d");
    hm_buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffer_grows), cmocka_unit_test(test_xml),
        cmocka_unit_test(test_word),         cmocka_unit_test(test_compare),
        cmocka_unit_test(test_format),       cmocka_unit_test(test_every_code_point_round_trips),
        cmocka_unit_test(test_malformed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
