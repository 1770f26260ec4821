/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/folder_writer.c: a recorded model written again in one file and in shards, order of
 * production, digests, unfinished folders.
 */
#include "support/support.h"

#include "hanmix/checkpoint/checkpoint.h"

/* The slots of a model as specs in canonical order; free with specs_free. */
static struct hm_tensor_spec *specs_of(const struct hm_checkpoint *ckpt)
{
    struct hm_tensor_spec *specs = calloc(ckpt->count, sizeof *specs);

    for (size_t i = 0; i < ckpt->count; i++) {
        struct hm_weight_slot slot;
        char module[HM_SLOT_NAME_BYTES], name[176];
        hm_arch_slot(&ckpt->arch, i, &slot, module);
        snprintf(name, sizeof name, "%s.weight", module);
        const struct hm_tensor *tensor = hm_checkpoint_find(ckpt, name);
        assert_non_null(tensor);
        specs[i].name = strdup(name);
        specs[i].dtype = tensor->dtype;
        specs[i].n_dims = tensor->n_dims;
        memcpy(specs[i].shape, tensor->shape, sizeof tensor->shape);
    }
    return specs;
}

static void specs_free(struct hm_tensor_spec *specs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(specs[i].name);
    free(specs);
}

/* Write ckpt's tensors to out in two pieces each. */
static int write_all(const struct hm_checkpoint *ckpt, const struct hm_tensor_spec *specs,
                     const char *out, uint64_t shard_bytes, bool digests, struct hm_error *err)
{
    struct hm_folder_writer *writer = NULL;
    size_t i;
    int status = HM_OK;

    HM_TRY(hm_folder_writer_open(out, specs, ckpt->count, shard_bytes, &writer, err));
    while (status == HM_OK && (i = hm_folder_writer_next(writer)) < ckpt->count) {
        const struct hm_tensor *tensor = hm_checkpoint_find(ckpt, specs[i].name);
        size_t half = tensor->size_bytes / 2;
        status = hm_folder_writer_data(writer, tensor->data, half, err);
        if (status == HM_OK)
            status =
                hm_folder_writer_data(writer, tensor->data + half, tensor->size_bytes - half, err);
    }
    if (status == HM_OK)
        return hm_folder_writer_finish(writer, digests, err);
    hm_folder_writer_abort(writer);
    return status;
}

static void check_digests(const struct hm_checkpoint *ckpt, const struct hm_tensor_spec *specs,
                          const char *path)
{
    char *text = file_get(path, NULL);
    char *line = strtok(text, "\n");
    struct hm_error err = { 0 };

    assert_string_equal(line, "tensor\tdtype\tshape\tsha256");
    for (size_t i = 0; i < ckpt->count; i++) {
        const struct hm_tensor *tensor = hm_checkpoint_find(ckpt, specs[i].name);
        char hex[HM_SHA256_HEX_BYTES], shape[64], expected[512];
        assert_ok(hm_sha256_of(tensor->data, tensor->size_bytes, hex, &err), err);
        snprintf(expected, sizeof expected, "%s\t%s\t%s\t%s", tensor->name,
                 hm_dtype_name(tensor->dtype),
                 hm_shape_text(tensor->n_dims, tensor->shape, shape, sizeof shape), hex);
        line = strtok(NULL, "\n");
        assert_string_equal(line, expected);
    }
    assert_null(strtok(NULL, "\n"));
    hm_free(text);
}

static void round_trip(const char *relative, uint64_t shard_bytes, bool sharded)
{
    const char *out = tmp_path(test_dir, "%s-%zu", sharded ? "s" : "o", (size_t)shard_bytes);
    struct hm_checkpoint ckpt = { 0 }, again = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(golden_path(relative), &ckpt, &err), err);
    struct hm_tensor_spec *specs = specs_of(&ckpt);
    assert_ok(write_all(&ckpt, specs, out, shard_bytes, true, &err), err);
    assert_ok(hm_config_write(ckpt.config, out, &err), err);
    assert_ok(hm_checkpoint_open(out, &again, &err), err);
    assert_int_equal(again.count, ckpt.count);
    assert_int_equal(again.n_files > 1, sharded);
    for (size_t i = 0; i < ckpt.count; i++) {
        assert_string_equal(again.tensor[i]->name, ckpt.tensor[i]->name);
        assert_int_equal(again.tensor[i]->size_bytes, ckpt.tensor[i]->size_bytes);
        assert_memory_equal(again.tensor[i]->data, ckpt.tensor[i]->data,
                            ckpt.tensor[i]->size_bytes);
    }
    check_digests(&ckpt, specs, tmp_path(out, "digests.tsv"));
    specs_free(specs, ckpt.count);
    hm_checkpoint_close(&again);
    hm_checkpoint_close(&ckpt);
}

static void test_round_trip(void **state)
{
    (void)state;
    round_trip("mixtral/model", UINT64_MAX, false);
    round_trip("mixtral/model", 150000, true);
    round_trip("llama/tied-model", 1, true); /* each tensor its own shard */
}

static struct hm_tensor_spec spec(const char *name, uint64_t n)
{
    return (struct hm_tensor_spec){ (char *)(uintptr_t)name, HM_DTYPE_U8, 1, { n } };
}

/* Shards follow the caller's order, empty tensors need no call, the index comes last. */
static void test_shards(void **state)
{
    struct hm_tensor_spec specs[] = { spec("z", 3), spec("a", 2), spec("none", 0), spec("m", 5),
                                      spec("tail", 0) };
    const char *out = tmp_path(test_dir, "shards");
    struct hm_folder_writer *writer = NULL;
    struct hm_error err = { 0 };
    json_t *index = NULL;

    (void)state;
    assert_ok(hm_folder_writer_open(out, specs, 5, 5, &writer, &err), err);
    assert_int_equal(hm_folder_writer_next(writer), 1); /* "a" before "z" in the file */
    assert_fails(hm_folder_writer_data(writer, "xyz", 3, &err), HM_ERR_CHECK, "3 bytes more", err);
    assert_ok(hm_folder_writer_data(writer, "aa", 2, &err), err);
    assert_int_equal(hm_folder_writer_next(writer), 0);
    assert_false(hm_path_exists(tmp_path(out, "model-00001-of-00002.safetensors")));
    assert_ok(hm_folder_writer_data(writer, "zzz", 3, &err), err);
    assert_true(hm_path_exists(tmp_path(out, "model-00001-of-00002.safetensors")));
    assert_int_equal(hm_folder_writer_next(writer), 3);
    assert_ok(hm_folder_writer_data(writer, "mmmmm", 5, &err), err);
    assert_int_equal(hm_folder_writer_next(writer), 5);
    assert_fails(hm_folder_writer_data(writer, "x", 1, &err), HM_ERR_CHECK, "1 bytes more", err);
    assert_false(hm_path_exists(tmp_path(out, "model.safetensors.index.json")));
    assert_ok(hm_folder_writer_finish(writer, false, &err), err);
    assert_false(hm_path_exists(tmp_path(out, "digests.tsv")));
    assert_ok(hm_json_load(tmp_path(out, "model.safetensors.index.json"), 4096, &index, &err), err);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(index, "metadata"), "total_size")), 10);
    json_t *map = json_object_get(index, "weight_map");
    assert_int_equal(json_object_size(map), 5);
    assert_string_equal(json_object_iter_key(json_object_iter(map)), "a");
    assert_string_equal(json_string_value(json_object_get(map, "m")),
                        "model-00002-of-00002.safetensors");
    json_decref(index);
}

static void test_refused(void **state)
{
    struct hm_tensor_spec specs[] = { spec("a", 2), spec("b", 2), spec("a", 2) };
    const char *out = tmp_path(test_dir, "refused");
    struct hm_folder_writer *writer = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_folder_writer_open(out, specs, 3, 1, &writer, &err), HM_ERR_FORMAT,
                 "tensor 'a' is planned twice", err);
    assert_fails(hm_folder_writer_open(out, specs, 0, 1, &writer, &err), HM_ERR_FORMAT,
                 "needs tensors", err);
    assert_ok(hm_folder_writer_open(out, specs, 2, 1, &writer, &err), err);
    assert_ok(hm_folder_writer_data(writer, "aa", 2, &err), err);
    assert_ok(hm_folder_writer_data(writer, "b", 1, &err), err);
    assert_fails(hm_folder_writer_finish(writer, true, &err), HM_ERR_CHECK, "'b' lacks 1 bytes",
                 err);
    assert_false(hm_path_exists(tmp_path(out, "model.safetensors.index.json")));
    assert_false(hm_path_exists(tmp_path(out, "model-00002-of-00002.safetensors.tmp")));
    file_put(tmp_path(test_dir, "file"), "", 0);
    assert_fails(hm_folder_writer_open(tmp_path(test_dir, "file"), specs, 2, 1, &writer, &err),
                 HM_ERR_USAGE, "file", err);
}

/* Two shards of small tensors: each failing run syncs what it wrote, so there must be little of it.
 */
static int attempt(void *context, struct hm_error *err)
{
    struct hm_tensor_spec specs[] = { spec("b", 3), spec("a", 2), spec("c", 5) };
    struct hm_folder_writer *writer = NULL;
    int status = HM_OK;
    size_t i;

    HM_TRY(hm_folder_writer_open(context, specs, 3, 5, &writer, err));
    while (status == HM_OK && (i = hm_folder_writer_next(writer)) < 3)
        status = hm_folder_writer_data(writer, "12345", specs[i].shape[0], err);
    if (status == HM_OK)
        return hm_folder_writer_finish(writer, true, err);
    hm_folder_writer_abort(writer);
    return status;
}

static void test_oom(void **state)
{
    char *out = strdup(tmp_path(test_dir, "oom"));

    (void)state;
    assert_true(oom_sweep(attempt, out) > 40);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
