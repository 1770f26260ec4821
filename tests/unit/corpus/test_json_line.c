/* SPDX-License-Identifier: MIT */
/*
 * Lines of JSON: what the scan takes by itself, what it leaves to the tree, what both find, and the
 * sentences about broken lines. That the two agree on anything is fuzz_json_line's to show.
 */
#include "support/support.h"

#include "internal.h"

struct row {
    const char *line, *text, *set; /* text NULL: refused by the scan */
};

static void test_scan(void **state)
{
    static const struct row rows[] = {
        { "{\"text\":\"\xe4\xb8\xad\xe6\x96\x87\"}", "\xe4\xb8\xad\xe6\x96\x87", NULL },
        { " { \"n\" : -0 , \"text\" : \"a\\u4e2d\\n\\/\\ud83d\\ude00b\" } \r",
          "a\xe4\xb8\xad\n/\xf0\x9f\x98\x80"
          "b",
          NULL },
        { "{\"text\":\"a\",\"meta\":{\"source\":\"web\"}}", "a", "web" },
        { "{\"meta\":{\"source\":\"deep\"},\"text\":\"a\",\"meta.source\":\"flat\"}", "a", "flat" },
        { "{\"meta.source\":1,\"text\":\"a\",\"meta\":{\"source\":\"deep\"}}", "a", NULL },
        { "{\"meta\":[{\"source\":\"x\"}],\"text\":\"a\"}", "a", NULL },
        { "{\"x\":{\"meta\":{\"source\":\"x\"}},\"text\":\"a\"}", "a", NULL },
        { "{\"text\":\"\",\"n\":[9223372036854775807,-9223372036854775808,1e99,0.5E-3,null]}", "",
          NULL },
        { "{\"text\":\"a\",\"o\":{\"text\":\"b\"},\"p\":[{\"k\":1},{\"k\":1}]}", "a", NULL },
        { "{\"text\":\"a\",\"n\":[18446744073709551615,-123456789012345678901234567890]}", "a",
          NULL },
        { "{\"text\":\"a\",\"n\":1e308}", NULL, NULL }, /* the tree takes it */
        { "{\"text\":\"a\",\"n\":01}", NULL, NULL },
        { "{\"text\":\"a\",\"text\":\"b\"}", NULL, NULL },
        { "{\"te\\u0078t\":\"a\"}", NULL, NULL }, /* the tree takes it */
        { "{\"text\":\"\\ud83d\"}", NULL, NULL },
        { "{\"text\":\"\\udc00\"}", NULL, NULL },
        { "{\"text\":\"\\x\"}", NULL, NULL },
        { "{\"text\":\"a\tb\"}", NULL, NULL },
        { "{\"text\":\"\xed\xa0\x80\"}", NULL, NULL },
        { "{\"text\":\"a\"", NULL, NULL },
        { "{\"text\":\"a\",}", NULL, NULL },
        { "{\"text\":\"a\"}}", NULL, NULL },
        { "{\"text\":\"a\",\"w\":tru}", NULL, NULL },
        { "{\"text\":5}", NULL, NULL },
        { "{\"texts\":\"a\"}", NULL, NULL },
        { "[\"text\"]", NULL, NULL },
        { "{", NULL, NULL },
        { " ", NULL, NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[256];
        struct json_line found = { 0 };
        size_t len = strlen(rows[i].line);
        memcpy(line, rows[i].line, len);
        bool accepted = hm_json_scan(line, len, "text", "meta.source", &found);
        assert_int_equal(accepted, rows[i].text != NULL);
        if (!accepted)
            continue;
        assert_true(hm_str_is(found.text, rows[i].text));
        assert_int_equal(found.set != NULL, rows[i].set != NULL);
        if (found.set)
            assert_string_equal(found.set, rows[i].set);
    }
}

/* NUL characters and a text that is also the set's name. */
static void test_shared_and_nul(void **state)
{
    char line[] = "{\"text\":\"a\\u0000b\\tc\"}", again[] = "{\"text\":\"a\\u0000b\\tc\"}";
    struct json_line found = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_true(hm_json_scan(line, strlen(line), "text", "text", &found));
    assert_true(hm_str_equal(found.text, (struct hm_str){ "a\0b\tc", 5 }));
    assert_string_equal(found.set, "a");
    assert_ok(hm_json_tree(again, strlen(again), "w", "text", "text", &found, &err), err);
    assert_true(hm_str_equal(found.text, (struct hm_str){ "a\0b\tc", 5 }));
    assert_string_equal(found.set, "a");
}

static void test_sentences(void **state)
{
    static const char *const broken[][2] = {
        { "{\"text\": ", "'f:3': not JSON at column 9: " },
        { "{\"text\":\"a\",\"text\":\"b\"}", "'f:3': not JSON at column 18: duplicate object key" },
        { "{\"text\":\"\\ud80\"}", "'f:3': not JSON at column 15: invalid escape" },
        { "{\"texts\":\"a\"}", "'f:3': no field 'text'" },
        { "{\"text\":null}", "'f:3': field 'text' is not a string" },
        { "\"text\"", "'f:3': the line is not a JSON object" },
    };
    struct hm_text_options options = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct json_line found = { 0 };
        struct hm_error err = { 0 };
        char line[64];
        size_t len = strlen(broken[i][0]);
        memcpy(line, broken[i][0], len);
        assert_fails(hm_json_line_parse(line, len, "f", 3, &options, &found, &err), HM_ERR_FORMAT,
                     broken[i][1], err);
    }
}

/* Halves of surrogate pairs, in any of the strings, with an escaped key (the tree) and without. */
static void test_lone_surrogates(void **state)
{
    static const char *const lines[][2] = {
        { "{\"text\":\"a\\ud83db\",\"k\\\\\":\"\\uDC00\"}", "a\xef\xbf\xbd"
                                                            "b" },
        { "{\"te\\u0078t\":\"\\udc00\\ud83d\\ude00\\ud83d\"}",
          "\xef\xbf\xbd\xf0\x9f\x98\x80\xef\xbf\xbd" },
        { "{\"text\":\"\\\\ud800\\ud800\\ud800\\udc00\\n\"}",
          "\\ud800\xef\xbf\xbd\xf0\x90\x80\x80\n" },
    };
    struct hm_text_options options = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct json_line found = { 0 };
        struct hm_error err = { 0 };
        char line[128];
        size_t len = strlen(lines[i][0]);
        memcpy(line, lines[i][0], len);
        assert_ok(hm_json_line_parse(line, len, "f", 3, &options, &found, &err), err);
        assert_true(hm_str_is(found.text, lines[i][1]));
    }
    assert_false(hm_json_surrogates_mend((char[]){ "\\\\ud800\\" }, 8));
}

/* What the scan refuses as rare is read all the same. */
static void test_rare(void **state)
{
    struct hm_text_options options = { .set_field = "source" };
    struct json_line found = { 0 };
    struct hm_error err = { 0 };
    struct hm_buf line = { 0 };
    char escaped[] = "{\"te\\u0078t\":\"a\\tb\",\"source\":\"w\\u0065b\"}";

    (void)state;
    assert_ok(hm_json_line_parse(escaped, strlen(escaped), "w", 1, &options, &found, &err), err);
    assert_true(hm_str_is(found.text, "a\tb"));
    assert_string_equal(found.set, "web");
    assert_ok(hm_buf_text(&line, "{", &err), err);
    for (int i = 0; i < 500; i++)
        assert_ok(hm_buf_printf(&line, &err, "\"k%d\":%d,", i, i), err);
    assert_ok(hm_buf_text(&line, "\"text\":\"a\"}", &err), err);
    assert_ok(hm_json_line_parse(line.ptr, line.len, "w", 1, &options, &found, &err), err);
    assert_true(hm_str_is(found.text, "a"));
    assert_null(found.set);
    hm_buf_release(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scan),      cmocka_unit_test(test_shared_and_nul),
        cmocka_unit_test(test_sentences), cmocka_unit_test(test_lone_surrogates),
        cmocka_unit_test(test_rare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
