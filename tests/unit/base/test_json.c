/* SPDX-License-Identifier: MIT */
/*
 * base/json.c: hostile texts, typed members, canonical writing, allocation failures.
 */
#include "support/support.h"

#include "hanmix/base/json.h"

static void test_hostile(void **state)
{
    static const char *const bad[] = {
        "",
        "{",
        "[1,]",
        "{\"a\":1,\"a\":2}",
        "\"\xff\"",
        "\"\xed\xa0\x80\"",
        "\"\\ud800\"",
        "{\"a\":1} x",
        "nul",
        "1e999",
        "99999999999999999999",
        "{\"a\\u0000b\":1}",
        "[NaN]",
        "\"line\nbreak\"",
        "{'a':1}",
    };
    struct hm_error err = { 0 };
    json_t *value = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_fails(hm_json_parse(hm_str_of(bad[i]), "x.json", &value, &err), HM_ERR_FORMAT,
                     "'x.json': not JSON at ", err);
        assert_null(value);
    }
    assert_fails(hm_json_parse((struct hm_str){ NULL, 0 }, "x.json", &value, &err), HM_ERR_FORMAT,
                 "not JSON", err);
}

static void test_depth(void **state)
{
    char text[200001];
    struct hm_error err = { 0 };
    json_t *value = NULL;

    (void)state;
    memset(text, '[', 200000);
    text[200000] = '\0';
    assert_fails(hm_json_parse(hm_str_of(text), "x", &value, &err), HM_ERR_FORMAT, "deeper than 64",
                 err);
    memset(text + 64, ']', 64);
    text[128] = '\0';
    assert_ok(hm_json_parse(hm_str_of(text), "x", &value, &err), err);
    json_decref(value);
    assert_ok(hm_json_parse(hm_str_of("[\"[[[[\\\"[[\"]"), "x", &value, &err), err);
    json_decref(value);
}

static void test_members(void **state)
{
    const char *text =
        "{\"n\": 7, \"neg\": -1, \"r\": 2.5, \"t\": \"text\", \"b\": true, \"null\": null, "
        "\"nul\": \"a\\u0000b\"}";
    struct hm_error err = { 0 };
    json_t *object = NULL;
    uint64_t n = 1;
    double r = 1;
    const char *t = "kept";
    bool b = false;

    (void)state;
    assert_ok(hm_json_parse(hm_str_of(text), "c.json", &object, &err), err);
    assert_ok(hm_json_u64(object, "n", "c.json", &n, &err), err);
    assert_int_equal(n, 7);
    assert_ok(hm_json_f64(object, "n", "c.json", &r, &err), err);
    assert_true(r == 7.0);
    assert_ok(hm_json_f64(object, "r", "c.json", &r, &err), err);
    assert_true(r == 2.5);
    assert_ok(hm_json_text(object, "t", "c.json", &t, &err), err);
    assert_string_equal(t, "text");
    assert_ok(hm_json_bool_opt(object, "b", "c.json", &b, &err), err);
    assert_true(b);
    assert_fails(hm_json_u64(object, "x", "c.json", &n, &err), HM_ERR_FORMAT,
                 "'c.json': 'x' is missing", err);
    assert_fails(hm_json_u64(object, "null", "c.json", &n, &err), HM_ERR_FORMAT, "missing", err);
    assert_fails(hm_json_u64(object, "neg", "c.json", &n, &err), HM_ERR_FORMAT, "negative", err);
    assert_fails(hm_json_u64(object, "r", "c.json", &n, &err), HM_ERR_FORMAT, "a real number", err);
    assert_fails(hm_json_f64(object, "t", "c.json", &r, &err), HM_ERR_FORMAT, "must be a number",
                 err);
    assert_fails(hm_json_text(object, "nul", "c.json", &t, &err), HM_ERR_FORMAT, "NUL", err);
    assert_fails(hm_json_bool_opt(object, "n", "c.json", &b, &err), HM_ERR_FORMAT, "true or false",
                 err);
    assert_ok(hm_json_u64_opt(object, "x", "c.json", &n, &err), err);
    assert_ok(hm_json_f64_opt(object, "null", "c.json", &r, &err), err);
    assert_ok(hm_json_text_opt(object, "x", "c.json", &t, &err), err);
    assert_true(n == 7 && r == 2.5);
    assert_string_equal(t, "text");
    assert_fails(hm_json_u64_opt(object, "t", "c.json", &n, &err), HM_ERR_FORMAT, "a string", err);
    json_t *list = json_array();
    assert_fails(hm_json_u64_opt(list, "t", "c.json", &n, &err), HM_ERR_FORMAT,
                 "expected an object", err);
    assert_fails(hm_json_u64(NULL, "t", "c.json", &n, &err), HM_ERR_FORMAT, "expected an object",
                 err);
    json_decref(list);
    json_decref(object);
}

static void test_writing(void **state)
{
    /* What Python's json.dumps(..., ensure_ascii=False) gives for the same text. */
    const char *text =
        "{\"b\":[1,2.0,1e-05,true,null],\"a\":{},\"c\":[],\"q\":\"\\\"\\\\\\n\\u0001/中\"}";
    const char *line = "{\"b\": [1, 2.0, 1e-05, true, null], \"a\": {}, \"c\": [], "
                       "\"q\": \"\\\"\\\\\\n\\u0001/中\"}";
    const char *saved =
        "{\n  \"b\": [\n    1,\n    2.0,\n    1e-05,\n    true,\n    null\n  ],\n  \"a\": {},\n"
        "  \"c\": [],\n  \"q\": \"\\\"\\\\\\n\\u0001/中\"\n}\n";
    char *dir = tmp_new();
    const char *path = tmp_path(dir, "x.json");
    struct hm_error err = { 0 };
    struct hm_buf buf = { 0 };
    json_t *value = NULL;
    json_t *again = NULL;

    (void)state;
    assert_ok(hm_json_parse(hm_str_of(text), "x", &value, &err), err);
    assert_ok(hm_json_dump(value, &buf, &err), err);
    assert_string_equal(buf.ptr, line);
    assert_ok(hm_json_save(path, value, &err), err);
    char *content = file_get(path, NULL);
    assert_string_equal(content, saved);
    assert_ok(hm_json_save_in(dir, "y.json", value, &err), err);
    hm_free(content);
    content = file_get(tmp_path(dir, "y.json"), NULL);
    assert_string_equal(content, saved);
    assert_ok(hm_json_load(path, 1000, &again, &err), err);
    assert_true(json_equal(value, again));
    json_decref(again);
    again = NULL;
    assert_fails(hm_json_load(path, 10, &again, &err), HM_ERR_FORMAT, "at most 10", err);
    assert_fails(hm_json_save(path, NULL, &err), HM_ERR_NOMEM, "memory", err);
    assert_fails(hm_json_save_in(dir, "none/x.json", again, &err), HM_ERR_NOMEM, "none/x.json",
                 err);
    assert_fails(hm_json_save_in(dir, "none/x.json", value, &err), HM_ERR_IO, "none/x.json", err);
    hm_free(content);
    hm_buf_release(&buf);
    json_decref(value);
    tmp_release(dir);
}

static int round_trip(void *context, struct hm_error *err)
{
    json_t *value = NULL;
    char *copy = NULL;

    HM_TRY(hm_json_load(context, 1000, &value, err));
    int status = hm_format(&copy, err, "%s.copy", (const char *)context);
    if (status == HM_OK)
        status = hm_json_save(copy, value, err);
    hm_free(copy);
    json_decref(value);
    return status;
}

static void test_without_memory(void **state)
{
    const char *text = "{\"a\": [1, 2, {\"b\": \"text\"}], \"c\": 1.5}";
    char *dir = tmp_new();
    const char *path = tmp_path(dir, "x.json");

    (void)state;
    file_put(path, text, strlen(text));
    assert_true(oom_sweep(round_trip, (void *)(uintptr_t)path) > 10);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_members),        cmocka_unit_test(test_writing),
        cmocka_unit_test(test_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
