/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/safetensors_write.c: files equal to the reference library's byte for byte, data in
 * pieces, refusals, nothing left behind by a failure.
 */
#include "support/support.h"

#include "hanmix/checkpoint/safetensors.h"

/* Files that safetensors wrote: mixed element types, names in the order of a sort. */
static void test_same_bytes(void **state)
{
    static const char *const names[] = {
        "nf4/gauss_64x96.bf16.dq.safetensors",
        "bnb4bit/dq_gate4bit/model.safetensors",
        "mixtral/model/model-00002-of-00004.safetensors",
        "llama/tied.outputs_f64.safetensors",
    };
    const char *path = tmp_path(test_dir, "again.safetensors");
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct hm_safetensors file = { 0 };
        size_t a_len, b_len;

        assert_ok(hm_safetensors_open(golden_path(names[i]), &file, &err), err);
        char *a = file_get(golden_path(names[i]), &a_len);
        assert_ok(hm_safetensors_write(path, file.tensor, file.count, file.metadata, &err), err);
        char *b = file_get(path, &b_len);
        if (file.metadata) {
            assert_int_equal(a_len, b_len);
            assert_memory_equal(a, b, a_len);
        } else { /* ours adds the metadata that old readers want */
            assert_memory_equal(a + a_len - 64, b + b_len - 64, 64);
        }
        hm_free(a);
        hm_free(b);
        hm_safetensors_close(&file);
    }
}

static struct hm_tensor_spec spec(const char *name, enum hm_dtype dtype, uint64_t n)
{
    return (struct hm_tensor_spec){ (char *)(uintptr_t)name, dtype, 1, { n } };
}

static void test_streamed(void **state)
{
    struct hm_tensor_spec specs[] = { spec("b", HM_DTYPE_U8, 3),
                                      spec("\xe6\xb1\x89\"\n", HM_DTYPE_F32, 1),
                                      spec("none", HM_DTYPE_F64, 0), spec("a", HM_DTYPE_U8, 2) };
    const char *path = tmp_path(test_dir, "s.safetensors");
    json_t *metadata = json_pack("{s:s, s:s}", "format", "pt", "note", "a\"b");
    struct hm_st_writer *writer = NULL;
    struct hm_safetensors file = { 0 };
    struct hm_error err = { 0 };
    float one = 1.0f;
    size_t order[4];

    (void)state;
    assert_ok(hm_st_writer_open(path, specs, 4, metadata, &writer, order, &err), err);
    assert_memory_equal(order, ((size_t[]){ 2, 1, 3, 0 }), sizeof order);
    assert_ok(hm_st_writer_data(writer, &one, 4, &err), err);
    assert_fails(hm_st_writer_data(writer, "xyz", 3, &err), HM_ERR_CHECK,
                 "3 bytes for tensor 'a', which has room for 2", err);
    assert_ok(hm_st_writer_data(writer, "a", 1, &err), err);
    assert_ok(hm_st_writer_data(writer, "", 0, &err), err);
    assert_ok(hm_st_writer_data(writer, "A", 1, &err), err);
    assert_ok(hm_st_writer_data(writer, "bBb", 3, &err), err);
    assert_fails(hm_st_writer_data(writer, "x", 1, &err), HM_ERR_CHECK, "(none left)", err);
    assert_false(hm_path_exists(path));
    assert_ok(hm_st_writer_commit(writer, &err), err);
    assert_ok(hm_safetensors_open(path, &file, &err), err);
    assert_int_equal(file.count, 4);
    assert_true(json_equal(file.metadata, metadata));
    assert_memory_equal(hm_safetensors_find(&file, "a")->data, "aA", 2);
    assert_memory_equal(hm_safetensors_find(&file, "\xe6\xb1\x89\"\n")->data, &one, 4);
    hm_safetensors_close(&file);
    json_decref(metadata);
}

static void test_refused(void **state)
{
    const char *path = tmp_path(test_dir, "r.safetensors");
    struct hm_tensor_spec twice[] = { spec("a", HM_DTYPE_U8, 1), spec("b", HM_DTYPE_U8, 1),
                                      spec("a", HM_DTYPE_F32, 1) };
    struct hm_tensor_spec huge = {
        (char *)(uintptr_t) "h", HM_DTYPE_F32, 2, { 1ull << 32, 1ull << 32 }
    };
    struct hm_tensor_spec reserved = spec("__metadata__", HM_DTYPE_U8, 1);
    struct hm_tensor_spec broken = spec("a\xff", HM_DTYPE_U8, 1);
    json_t *metadata = json_pack("{s:i}", "a", 1);
    struct hm_st_writer *writer = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_int_equal(hm_tensor_spec_bytes(&huge), UINT64_MAX);
    assert_fails(hm_st_writer_open(path, twice, 3, NULL, &writer, NULL, &err), HM_ERR_FORMAT,
                 "tensor 'a' is declared twice", err);
    assert_fails(hm_st_writer_open(path, &huge, 1, NULL, &writer, NULL, &err), HM_ERR_FORMAT,
                 "tensor 'h' cannot be written", err);
    assert_fails(hm_st_writer_open(path, &reserved, 1, NULL, &writer, NULL, &err), HM_ERR_FORMAT,
                 "cannot be written", err);
    assert_fails(hm_st_writer_open(path, &broken, 1, NULL, &writer, NULL, &err), HM_ERR_FORMAT,
                 "cannot be written as JSON", err);
    assert_fails(hm_st_writer_open(path, twice, 2, metadata, &writer, NULL, &err), HM_ERR_FORMAT,
                 "metadata 'a' is not a string", err);
    assert_fails(hm_st_writer_open(tmp_path(test_dir, "no/x"), twice, 2, NULL, &writer, NULL, &err),
                 HM_ERR_IO, "no/x", err);
    assert_ok(hm_st_writer_open(path, twice, 2, NULL, &writer, NULL, &err), err);
    assert_ok(hm_st_writer_data(writer, "x", 1, &err), err);
    assert_fails(hm_st_writer_commit(writer, &err), HM_ERR_CHECK, "tensor 'b' lacks 1 bytes", err);
    assert_false(hm_path_exists(path));
    assert_false(hm_path_exists(tmp_path(test_dir, "r.safetensors.tmp")));
    json_decref(metadata);
}

static int write_attempt(void *context, struct hm_error *err)
{
    static const uint8_t data[16];
    const struct hm_tensor tensors[] = {
        { .name = "a", .dtype = HM_DTYPE_U8, .n_dims = 1, .shape = { 3 }, .data = data },
        { .name = "b", .dtype = HM_DTYPE_F32, .n_dims = 2, .shape = { 2, 2 }, .data = data },
    };

    return hm_safetensors_write(context, tensors, 2, NULL, err);
}

static void test_oom(void **state)
{
    char *path = strdup(tmp_path(test_dir, "oom.safetensors"));

    (void)state;
    assert_true(oom_sweep(write_attempt, path) > 8);
    assert_true(hm_path_exists(path));
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_streamed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
