/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/safetensors_read.c: good files at odd alignments, every hostile header with its
 * sentence, truncation at every length, allocation failures.
 */
#include "support/support.h"

#include "hanmix/checkpoint/safetensors.h"

/* claimed < 0: the header's true length. */
static const char *put(const char *header, int64_t claimed, size_t data_bytes)
{
    size_t len = strlen(header);
    uint64_t said = claimed < 0 ? len : (uint64_t)claimed;
    char *bytes = calloc(1, 8 + len + data_bytes + 1);
    const char *path = tmp_path(test_dir, "x.safetensors");

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (char)(said >> (8 * i));
    memcpy(bytes + 8, header, len);
    for (size_t i = 0; i < data_bytes; i++)
        bytes[8 + len + i] = (char)i;
    file_put(path, bytes, 8 + len + data_bytes);
    free(bytes);
    return path;
}

#define T(name, dtype, shape, offsets) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_good(void **state)
{
    const char *path =
        put("{\"__metadata__\":{\"format\":\"pt\",\"k\":\"\"}," T("b", "U8", "[3]", "[0,3]") "," T(
                "a", "F32", "[1,2]", "[3,11]") "," T("empty", "I64", "[0,9]",
                                                     "[11,11]") "," T("sc\\u00e9lar", "BF16", "[]",
                                                                      "[11,13]") "}     ",
            -1, 13);
    struct hm_safetensors file = { 0 };
    struct hm_error err = { 0 };
    const struct hm_tensor *tensor = NULL;
    char text[64];

    (void)state;
    assert_ok(hm_safetensors_open(path, &file, &err), err);
    assert_int_equal(file.count, 4);
    assert_string_equal(file.tensor[0].name, "a");
    assert_string_equal(json_string_value(json_object_get(file.metadata, "format")), "pt");
    assert_ok(hm_safetensors_need(&file, "a", HM_DTYPE_F32, 2, (uint64_t[]){ 1, 2 }, &tensor, &err),
              err);
    assert_int_equal(tensor->data[0], 3);
    assert_int_equal(tensor->count, 2);
    assert_string_equal(hm_shape_text(tensor->n_dims, tensor->shape, text, sizeof text), "[1, 2]");
    tensor = hm_safetensors_find(&file, "sc\xc3\xa9lar");
    assert_non_null(tensor);
    assert_int_equal(tensor->count, 1);
    assert_string_equal(hm_shape_text(0, NULL, text, sizeof text), "[]");
    assert_null(hm_safetensors_find(&file, "c"));
    assert_fails(hm_safetensors_need(&file, "c", HM_DTYPE_COUNT, 0, NULL, &tensor, &err),
                 HM_ERR_FORMAT, "tensor 'c' is missing", err);
    assert_fails(hm_safetensors_need(&file, "b", HM_DTYPE_F32, 0, NULL, &tensor, &err),
                 HM_ERR_FORMAT, "tensor 'b' is U8, expected F32", err);
    assert_fails(
        hm_safetensors_need(&file, "a", HM_DTYPE_COUNT, 1, (uint64_t[]){ 2 }, &tensor, &err),
        HM_ERR_FORMAT, "has shape [1, 2], expected [2]", err);
    hm_safetensors_close(&file);
    assert_ok(hm_safetensors_open(put("{}", -1, 0), &file, &err), err);
    assert_int_equal(file.count, 0);
    assert_null(hm_safetensors_find(&file, "a"));
    hm_safetensors_close(&file);
}

static void test_hostile(void **state)
{
    static const struct {
        const char *header;
        int64_t claimed;
        size_t data_bytes;
        const char *part; /* of the sentence */
    } cases[] = {
        { "{}", 100000001, 0, "the header claims 100000001 bytes, at most 100000000" },
        { "{}", INT64_MAX, 0, "at most 100000000" },
        { "{}", 3, 0, "the header claims 3 bytes but the file holds 10" },
        { "{}", 0, 0, "the header is not '{...}'" },
        { " {}", -1, 0, "the header is not '{...}'" },
        { "{}\n", -1, 0, "the header is not '{...}'" },
        { "[]", -1, 0, "the header is not '{...}'" },
        { "{} {}", -1, 0, "not JSON" },
        { "{\"a\xff\":1}", -1, 0, "not JSON" },
        { "{" T("a", "U8", "[1]", "[0,1]") "," T("a", "U8", "[1]", "[0,1]") "}", -1, 1,
          "not JSON" },
        { "{" T("a", "U8", "[1]", "[0,1]") "}", -1, 2, "1 bytes follow the last tensor" },
        { "{" T("a", "U8", "[2]", "[0,2]") "}", -1, 1, "lies at 0..2 of a buffer of 1 bytes" },
        { "{" T("a", "U8", "[1]", "[1,0]") "}", -1, 1, "lies at 1..0" },
        { "{" T("a", "U8", "[1]", "[-1,0]") "}", -1, 1, "not a non-negative integer" },
        { "{" T("a", "U8", "[1]", "[0,1.0]") "}", -1, 1, "not a non-negative integer" },
        { "{" T("a", "U8", "[1e0]", "[0,1]") "}", -1, 1, "not a non-negative integer" },
        { "{" T("a", "U8", "[-1]", "[0,1]") "}", -1, 1, "not a non-negative integer" },
        { "{" T("a", "U8", "[\"1\"]", "[0,1]") "}", -1, 1, "not a non-negative integer" },
        { "{" T("a", "U8", "[1]", "[0,99999999999999999999]") "}", -1, 1, "not JSON" },
        { "{" T("a", "U8", "[1]", "[0]") "}", -1, 1, "no pair 'data_offsets'" },
        { "{" T("a", "U8", "[1]", "[0,1,2]") "}", -1, 1, "no pair 'data_offsets'" },
        { "{" T("a", "U8", "1", "[0,1]") "}", -1, 1, "no 'shape' list" },
        { "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", -1, 1, "9 dimensions, at most 8" },
        { "{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", -1, 0, "overflows" },
        { "{" T("a", "F64", "[4611686018427387904]", "[0,0]") "}", -1, 0, "overflows" },
        { "{" T("a", "F32", "[2]", "[0,4]") "}", -1, 4,
          "F32 [2], needs 8 bytes but its offsets give 4" },
        { "{" T("a", "F32", "[0]", "[0,4]") "}", -1, 4, "needs 0 bytes" },
        { "{" T("a", "F33", "[1]", "[0,4]") "}", -1, 4, "the unsupported dtype 'F33'" },
        { "{" T("a", "f32", "[1]", "[0,4]") "}", -1, 4, "the unsupported dtype 'f32'" },
        { "{" T("a", "float32", "[1]", "[0,4]") "}", -1, 4, "the unsupported dtype 'float32'" },
        { "{" T("a", "F32\\u0000", "[1]", "[0,4]") "}", -1, 4, "no 'dtype' string" },
        { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", -1, 1, "no 'dtype' string" },
        { "{\"a\":7}", -1, 0, "no 'dtype' string" },
        { "{\"__metadata__\":7}", -1, 0, "__metadata__ must be an object" },
        { "{\"__metadata__\":{\"a\":1}}", -1, 0, "__metadata__ 'a' must be a string" },
        { "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", -1, 0, "not JSON" },
        { "{" T("a", "U8", "[2]", "[0,2]") "," T("b", "U8", "[2]", "[1,3]") "}", -1, 3,
          "'b' begins at byte 1, before the previous one's end at 2" },
        { "{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[2,3]") "}", -1, 3,
          "'b' begins at byte 2, after the previous one's end at 1" },
        { "{" T("a", "U8", "[1]", "[1,2]") "}", -1, 2, "'a' begins at byte 1, after" },
        { "{" T("a", "U8", "[1]", "[0,1]") "," T("b", "U8", "[1]", "[0,1]") "}", -1, 1, "before" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hm_safetensors file = { .count = 77 };
        const char *path = put(cases[i].header, cases[i].claimed, cases[i].data_bytes);
        assert_fails(hm_safetensors_open(path, &file, &err), HM_ERR_FORMAT, cases[i].part, err);
        assert_non_null(strstr(err.text, path));
        assert_int_equal(file.count, 77); /* untouched */
    }
}

static void test_depth(void **state)
{
    char header[400] = "{\"a\":{\"dtype\":";
    struct hm_safetensors file = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    memset(header + strlen(header), '[', 200);
    strcat(header, "}}");
    assert_fails(hm_safetensors_open(put(header, -1, 0), &file, &err), HM_ERR_FORMAT,
                 "nested deeper", err);
}

static void test_truncated(void **state)
{
    const char *from = golden_path("nf4/len_63.f32.dq.safetensors");
    const char *to = tmp_path(test_dir, "cut.safetensors");
    struct hm_safetensors file = { 0 };
    struct hm_error err = { 0 };
    size_t len;

    (void)state;
    char *bytes = file_get(from, &len);
    for (size_t cut = 0; cut < len; cut += cut < 64 ? 1 : 37) {
        file_put(to, bytes, cut);
        assert_fails(hm_safetensors_open(to, &file, &err), HM_ERR_FORMAT, "cut.safetensors", err);
    }
    file_put(to, bytes, len);
    assert_ok(hm_safetensors_open(to, &file, &err), err);
    hm_safetensors_close(&file);
    hm_free(bytes);
    assert_fails(hm_safetensors_open(tmp_path(test_dir, "absent"), &file, &err), HM_ERR_USAGE,
                 "absent", err);
}

static int open_attempt(void *context, struct hm_error *err)
{
    struct hm_safetensors file = { 0 };

    HM_TRY(hm_safetensors_open(context, &file, err));
    hm_safetensors_close(&file);
    return HM_OK;
}

static void test_oom(void **state)
{
    char *path = strdup(golden_path("nf4/len_63.f32.dq.safetensors"));

    (void)state;
    assert_true(oom_sweep(open_attempt, path) > 20);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),  cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_depth), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
