/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/checkpoint.c: single and sharded folders as one namespace, every way in which an index
 * can disagree with its shards, fingerprints.
 */
#include "support/support.h"

#include "hanmix/checkpoint/checkpoint.h"

static const char config_text[] =
    "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"intermediate_size\": 64,"
    " \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"vocab_size\": 64,"
    " \"max_position_embeddings\": 8, \"rms_norm_eps\": 1e-5}";

/* A shard of tensors named by the letters of `names`, one byte each. */
static void put_shard(const char *file, const char *names)
{
    struct hm_tensor tensor[8];
    char name[8][2];
    struct hm_error err = { 0 };
    size_t n = strlen(names);

    for (size_t i = 0; i < n; i++) {
        name[i][0] = names[i];
        name[i][1] = '\0';
        tensor[i] = (struct hm_tensor){ .name = name[i],
                                        .dtype = HM_DTYPE_U8,
                                        .n_dims = 1,
                                        .shape = { 1 },
                                        .data = (const uint8_t *)name[i] };
    }
    assert_ok(hm_safetensors_write(tmp_path(test_dir, "%s", file), tensor, n, NULL, &err), err);
}

static void put_index(const char *text)
{
    file_put(tmp_path(test_dir, "model.safetensors.index.json"), text, strlen(text));
}

static void reset(void)
{
    struct hm_error err = { 0 };

    assert_ok(hm_dir_remove(test_dir, &err), err);
    assert_ok(hm_dir_make(test_dir, &err), err);
    file_put(tmp_path(test_dir, "config.json"), config_text, sizeof config_text - 1);
    put_shard("1.safetensors", "ac");
    put_shard("2.safetensors", "bd");
}

#define GOOD_MAP                                           \
    "\"a\": \"1.safetensors\", \"b\": \"2.safetensors\", " \
    "\"c\": \"1.safetensors\", \"d\": \"2.safetensors\""

static void test_sharded(void **state)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    const struct hm_tensor *tensor = NULL;

    (void)state;
    reset();
    put_index("{\"metadata\": {\"total_size\": 99}, \"weight_map\": {" GOOD_MAP "}}");
    assert_ok(hm_checkpoint_open(test_dir, &ckpt, &err), err);
    assert_int_equal(ckpt.n_files, 2);
    assert_int_equal(ckpt.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(ckpt.tensor[i]->name[0], 'a' + (char)i);
        assert_int_equal(ckpt.tensor[i]->data[0], 'a' + (char)i);
        assert_int_equal(ckpt.tensor[i]->file, i % 2);
        hm_checkpoint_drop(&ckpt, ckpt.tensor[i], 0, 1);
    }
    assert_ok(hm_checkpoint_need(&ckpt, "c", &tensor, &err), err);
    assert_ptr_equal(tensor, ckpt.tensor[2]);
    assert_null(hm_checkpoint_find(&ckpt, "e"));
    assert_fails(hm_checkpoint_need(&ckpt, "e", &tensor, &err), HM_ERR_FORMAT,
                 "tensor 'e' is missing", err);
    hm_checkpoint_close(&ckpt);
    put_shard("model.safetensors", "z"); /* the single file wins, as in transformers */
    assert_ok(hm_checkpoint_open(test_dir, &ckpt, &err), err);
    assert_int_equal(ckpt.count, 1);
    hm_checkpoint_close(&ckpt);
}

static void test_hostile_index(void **state)
{
    static const char *const cases[][2] = {
        { "{\"weight_map\": {\"a\": \"3.safetensors\"}}", "3.safetensors' is missing" },
        { "{\"weight_map\": {" GOOD_MAP ", \"e\": \"2.safetensors\"}}",
          "tensor 'e' is mapped to '2.safetensors' but not in it" },
        { "{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": \"2.safetensors\", \"d\": "
          "\"2.safetensors\"}}",
          "tensor 'c' lies in '1.safetensors' but is mapped to 'no file'" },
        { "{\"weight_map\": {\"a\": \"2.safetensors\", \"b\": \"2.safetensors\", "
          "\"c\": \"1.safetensors\", \"d\": \"2.safetensors\"}}",
          "tensor 'a' lies in '1.safetensors' but is mapped to '2.safetensors'" },
        { "{\"weight_map\": {" GOOD_MAP ", \"a\": \"1.safetensors\"}}", "not JSON" },
        { "{\"weight_map\": {\"a\": \"../1.safetensors\"}}",
          "names no safetensors file of the folder" },
        { "{\"weight_map\": {\"a\": \"/etc/x.safetensors\"}}", "names no safetensors file" },
        { "{\"weight_map\": {\"a\": \"config.json\"}}", "names no safetensors file" },
        { "{\"weight_map\": {\"a\": \"1\\u0000.safetensors\"}}", "names no safetensors file" },
        { "{\"weight_map\": {\"a\": 1}}", "names no safetensors file" },
        { "{\"weight_map\": {}}", "'weight_map' is missing or empty" },
        { "{\"weight_map\": []}", "'weight_map' is missing or empty" },
        { "{}", "'weight_map' is missing or empty" },
        { "[1]", "'weight_map' is missing or empty" },
        { "{", "not JSON" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hm_checkpoint ckpt = { .count = 77 };
        reset();
        put_index(cases[i][0]);
        assert_fails(hm_checkpoint_open(test_dir, &ckpt, &err), HM_ERR_FORMAT, cases[i][1], err);
        assert_int_equal(ckpt.count, 77);
    }
}

static void test_no_folder(void **state)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    reset();
    assert_fails(hm_checkpoint_open(tmp_path(test_dir, "absent"), &ckpt, &err), HM_ERR_USAGE,
                 "does not exist", err);
    assert_fails(hm_checkpoint_open(tmp_path(test_dir, "config.json"), &ckpt, &err), HM_ERR_USAGE,
                 "no model folder but a file", err);
    assert_fails(hm_checkpoint_open(test_dir, &ckpt, &err), HM_ERR_FORMAT,
                 "neither model.safetensors nor model.safetensors.index.json", err);
    remove(tmp_path(test_dir, "config.json"));
    assert_fails(hm_checkpoint_open(test_dir, &ckpt, &err), HM_ERR_USAGE, "config.json", err);
    file_put(tmp_path(test_dir, "config.json"), "{\"model_type\": \"gpt2\"}", 22);
    assert_fails(hm_checkpoint_open(test_dir, &ckpt, &err), HM_ERR_FORMAT, "'gpt2'", err);
}

/* The cheap digest sees names, types, shapes and sizes; the full one the values too. */
static void test_fingerprint(void **state)
{
    char cheap[HM_SHA256_HEX_BYTES], full[HM_SHA256_HEX_BYTES];
    char cheap_2[HM_SHA256_HEX_BYTES], full_2[HM_SHA256_HEX_BYTES];
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    size_t len;

    (void)state;
    reset();
    put_index("{\"weight_map\": {" GOOD_MAP "}}");
    assert_ok(hm_checkpoint_open(test_dir, &ckpt, &err), err);
    assert_ok(hm_checkpoint_fingerprint(&ckpt, false, cheap, &err), err);
    assert_ok(hm_checkpoint_fingerprint(&ckpt, true, full, &err), err);
    assert_string_not_equal(cheap, full);
    hm_checkpoint_close(&ckpt);
    char *bytes = file_get(tmp_path(test_dir, "2.safetensors"), &len);
    bytes[len - 1] ^= 1;
    file_put(tmp_path(test_dir, "2.safetensors"), bytes, len);
    hm_free(bytes);
    assert_ok(hm_checkpoint_open(test_dir, &ckpt, &err), err);
    assert_ok(hm_checkpoint_fingerprint(&ckpt, false, cheap_2, &err), err);
    assert_ok(hm_checkpoint_fingerprint(&ckpt, true, full_2, &err), err);
    assert_string_equal(cheap, cheap_2);
    assert_string_not_equal(full, full_2);
    hm_checkpoint_close(&ckpt);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_checkpoint ckpt = { 0 };

    HM_TRY(hm_checkpoint_open(context, &ckpt, err));
    hm_checkpoint_close(&ckpt);
    return HM_OK;
}

static void test_oom(void **state)
{
    (void)state;
    reset();
    put_index("{\"weight_map\": {" GOOD_MAP "}}");
    assert_true(oom_sweep(attempt, test_dir) > 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharded),   cmocka_unit_test(test_hostile_index),
        cmocka_unit_test(test_no_folder), cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
