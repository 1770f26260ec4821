/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/model_files.c: what travels, what does not, the vocabulary record and its refusals.
 */
#include "support/support.h"

#include "hanmix/checkpoint/checkpoint.h"

static void test_copy(void **state)
{
    char *to = tmp_new();
    struct hm_error err = { 0 };
    size_t len;

    (void)state;
    file_put(tmp_path(test_dir, "tokenizer.model"), "abc", 3);
    file_put(tmp_path(test_dir, "generation_config.json"), "{}", 2);
    file_put(tmp_path(test_dir, "config.json"), "{}", 2);
    file_put(tmp_path(test_dir, "model.safetensors"), "x", 1);
    assert_ok(hm_model_files_copy(test_dir, to, &err), err);
    char *text = file_get(tmp_path(to, "tokenizer.model"), &len);
    assert_string_equal(text, "abc");
    hm_free(text);
    assert_true(hm_path_exists(tmp_path(to, "generation_config.json")));
    assert_false(hm_path_exists(tmp_path(to, "tokenizer.json")));
    assert_false(hm_path_exists(tmp_path(to, "config.json")));
    assert_false(hm_path_exists(tmp_path(to, "model.safetensors")));
    assert_fails(hm_model_files_copy(test_dir, tmp_path(test_dir, "absent"), &err), HM_ERR_IO,
                 "absent", err);
    tmp_release(to);
}

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_record(void **state)
{
    struct hm_vocab_record record = { 512, 1000, HEX64, HEX64, true }, again = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_vocab_record_read(test_dir, 77, &again, &err), err);
    assert_false(again.present);
    assert_int_equal(again.old_vocab_size, 77);
    assert_int_equal(again.new_vocab_size, 77);
    assert_string_equal(again.old_tokenizer, "");
    record.new_tokenizer[0] = 'f';
    assert_ok(hm_vocab_record_write(test_dir, &record, &err), err);
    assert_ok(hm_vocab_record_read(test_dir, 1000, &again, &err), err);
    assert_true(again.present);
    assert_int_equal(again.old_vocab_size, 512);
    assert_string_equal(again.new_tokenizer, record.new_tokenizer);
    assert_fails(hm_vocab_record_read(test_dir, 999, &again, &err), HM_ERR_FORMAT,
                 "grown from 512 to 1000, but the model has 999 rows", err);
}

static void test_record_hostile(void **state)
{
    static const char *const cases[][2] = {
        { "{}", "'version' is missing" },
        { "{\"version\": 2}", "version 2, expected 1" },
        { "{\"version\": 1}", "expected an object with 'old_vocab_size'" },
        { "{\"version\": 1, \"vocab_resize\": {\"old_vocab_size\": 9, \"new_vocab_size\": 8,"
          " \"old_tokenizer_sha256\": \"" HEX64 "\", \"new_tokenizer_sha256\": \"" HEX64 "\"}}",
          "grown from 9 to 8" },
        { "{\"version\": 1, \"vocab_resize\": {\"old_vocab_size\": 8, \"new_vocab_size\": 8,"
          " \"old_tokenizer_sha256\": \"" HEX64 "0\", \"new_tokenizer_sha256\": \"" HEX64 "\"}}",
          "'old_tokenizer_sha256' is no SHA-256" },
        { "{\"version\": 1, \"vocab_resize\": {\"old_vocab_size\": 8, \"new_vocab_size\": 8,"
          " \"old_tokenizer_sha256\": \"" HEX64 "\", \"new_tokenizer_sha256\": \"x\"}}",
          "'new_tokenizer_sha256' is no SHA-256" },
        { "[", "not JSON" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hm_vocab_record record = { .old_vocab_size = 77 };
        file_put(tmp_path(test_dir, "hanmix.json"), cases[i][0], strlen(cases[i][0]));
        assert_fails(hm_vocab_record_read(test_dir, 8, &record, &err), HM_ERR_FORMAT, cases[i][1],
                     err);
        assert_int_equal(record.old_vocab_size, 77);
    }
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_vocab_record record = { 512, 1000, HEX64, HEX64, true };

    HM_TRY(hm_vocab_record_write(context, &record, err));
    return hm_vocab_record_read(context, 1000, &record, err);
}

static void test_oom(void **state)
{
    (void)state;
    assert_true(oom_sweep(attempt, test_dir) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_record_hostile),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
