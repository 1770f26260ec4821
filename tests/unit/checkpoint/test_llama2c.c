/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/llama2c.c: stories260K.bin becomes the recorded folder bit for bit, a separate
 * classifier is found behind the rotary tables, and every broken header or length is refused.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/llama2c.h"

static void check_same_tensors(const char *a_dir, const char *b_dir)
{
    struct hm_checkpoint a = { 0 }, b = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(a_dir, &a, &err), err);
    assert_ok(hm_checkpoint_open(b_dir, &b, &err), err);
    assert_int_equal(a.count, b.count);
    for (size_t i = 0; i < a.count; i++) {
        assert_string_equal(a.tensor[i]->name, b.tensor[i]->name);
        assert_int_equal(a.tensor[i]->dtype, b.tensor[i]->dtype);
        assert_int_equal(a.tensor[i]->n_dims, b.tensor[i]->n_dims);
        assert_memory_equal(a.tensor[i]->shape, b.tensor[i]->shape, sizeof a.tensor[i]->shape);
        assert_memory_equal(a.tensor[i]->data, b.tensor[i]->data, a.tensor[i]->size_bytes);
    }
    hm_checkpoint_close(&a);
    hm_checkpoint_close(&b);
}

static void test_stories(void **state)
{
    const char *out = tmp_path(test_dir, "stories");
    const char *recorded = golden_path("models/stories260K-llama-hf");
    json_t *ours = NULL, *theirs = NULL;
    struct hm_error err = { 0 };
    size_t len, len_2;

    (void)state;
    assert_ok(hm_llama2c_import(golden_path("models/stories260K.bin"),
                                golden_path("models/tok512.model"), out, NULL, &err),
              err);
    check_same_tensors(out, recorded);
    assert_ok(hm_json_load(tmp_path(out, "config.json"), 1 << 16, &ours, &err), err);
    assert_ok(hm_json_load(tmp_path(recorded, "config.json"), 1 << 16, &theirs, &err), err);
    assert_true(json_equal(ours, theirs));
    json_decref(ours);
    json_decref(theirs);
    char *a = file_get(tmp_path(out, "tokenizer.model"), &len);
    char *b = file_get(golden_path("models/tok512.model"), &len_2);
    assert_int_equal(len, len_2);
    assert_memory_equal(a, b, len);
    hm_free(a);
    hm_free(b);
}

/* A model of 2 heads of 4, one layer; float i of the file has the value i. */
enum { DIM = 8, HIDDEN = 3, KV = 4, VOCAB = 5, SEQ = 6 };
enum {
    FLOATS = VOCAB * DIM + DIM + DIM * DIM + 2 * KV * DIM + DIM * DIM + DIM + 3 * HIDDEN * DIM +
             DIM + SEQ * 4
};

struct small {
    int32_t header[7];
    float value[FLOATS + VOCAB * DIM];
};

static struct small make_small(bool shared)
{
    struct small s = { .header = { DIM, HIDDEN, 1, 2, 1, shared ? VOCAB : -VOCAB, SEQ } };

    for (size_t i = 0; i < FLOATS + VOCAB * DIM; i++)
        s.value[i] = (float)i;
    return s;
}

static const char *put_small(const struct small *s, size_t n_floats)
{
    const char *path = tmp_path(test_dir, "small.bin");

    file_put(path, s, sizeof s->header + n_floats * 4);
    return path;
}

static float first_of(const struct hm_checkpoint *ckpt, const char *name, uint64_t row,
                      uint64_t cols)
{
    const struct hm_tensor *tensor = hm_checkpoint_find(ckpt, name);
    float value;

    assert_non_null(tensor);
    memcpy(&value, tensor->data + row * cols * 4, 4);
    return value;
}

static void test_separate_head(void **state)
{
    const char *out = tmp_path(test_dir, "separate");
    struct small s = make_small(false);
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    static const int from[] = { 0, 2, 1, 3, 4, 6, 5, 7 }; /* rows of two heads of four */
    int at = VOCAB * DIM + DIM;

    (void)state;
    assert_ok(hm_llama2c_import(put_small(&s, FLOATS + VOCAB * DIM), NULL, out, NULL, &err), err);
    assert_ok(hm_checkpoint_open(out, &ckpt, &err), err);
    assert_int_equal(ckpt.arch.kv_heads, 1);
    assert_int_equal(ckpt.arch.max_positions, SEQ);
    assert_false(ckpt.arch.tied);
    for (int r = 0; r < DIM; r++)
        assert_true(first_of(&ckpt, "model.layers.0.self_attn.q_proj.weight", (uint64_t)r, DIM) ==
                    (float)(at + from[r] * DIM));
    at += DIM * DIM;
    for (int r = 0; r < KV; r++)
        assert_true(first_of(&ckpt, "model.layers.0.self_attn.k_proj.weight", (uint64_t)r, DIM) ==
                    (float)(at + from[r] * DIM));
    at += KV * DIM;
    assert_true(first_of(&ckpt, "model.layers.0.self_attn.v_proj.weight", 1, DIM) ==
                (float)(at + DIM)); /* not turned */
    assert_true(first_of(&ckpt, "lm_head.weight", 0, DIM) == (float)FLOATS);
    assert_false(hm_path_exists(tmp_path(out, "tokenizer.model")));
    hm_checkpoint_close(&ckpt);
}

static void check_refused(const struct small *s, size_t n_floats, int status, const char *part)
{
    const char *out = tmp_path(test_dir, "refused");
    struct hm_error err = { 0 };

    assert_fails(hm_llama2c_import(put_small(s, n_floats), NULL, out, NULL, &err), status, part,
                 err);
    assert_false(hm_path_exists(tmp_path(out, "config.json")));
    assert_false(hm_path_exists(tmp_path(out, "model.safetensors")));
}

static void test_hostile(void **state)
{
    static const struct {
        unsigned at;
        int32_t value;
        const char *part;
    } cases[] = {
        { 0, 0, "'dim' is 0" },
        { 0, -8, "'dim' is -8" },
        { 0, INT32_MAX, "'dim' is 2147483647" },
        { 0, 0x616b3432, "of version 3; only version 0" },
        { 1, 0, "'hidden_dim' is 0" },
        { 2, 5000, "'n_layers' is 5000" },
        { 3, 3, "do not divide into heads" },
        { 3, 8, "do not divide into heads" }, /* heads of one */
        { 4, 3, "do not divide into heads" },
        { 5, 0, "'vocab_size' is 0" },
        { 5, INT32_MIN, "'vocab_size' is -2147483648" },
        { 5, VOCAB + 1, "its header speaks of" },
        { 6, 1 << 28, "its header speaks of" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct small s = make_small(true);
        s.header[cases[i].at] = cases[i].value;
        check_refused(&s, FLOATS, HM_ERR_FORMAT, cases[i].part);
    }
    struct small s = make_small(true);
    check_refused(&s, FLOATS - 1, HM_ERR_FORMAT, "truncated or not a llama2.c checkpoint");
    check_refused(&s, FLOATS + 1, HM_ERR_FORMAT, "truncated or not");
    s.value[VOCAB * DIM + DIM + 3 * DIM] = NAN; /* row 3 of wq stays row 3 */
    check_refused(&s, FLOATS, HM_ERR_FORMAT,
                  "'model.layers.0.self_attn.q_proj' holds NaN or Inf in row 3");
}

static void test_other_refusals(void **state)
{
    volatile sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    struct small s = make_small(true);
    const char *path = put_small(&s, FLOATS);
    const char *out = tmp_path(test_dir, "other");
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_llama2c_import(path, NULL, out, &ctl, &err), HM_ERR_STOPPED, "stopped", err);
    assert_fails(hm_llama2c_import(path, golden_path("models/tok512.bin"), out, NULL, &err),
                 HM_ERR_USAGE, "give the SentencePiece model", err);
    assert_fails(hm_llama2c_import(path, tmp_path(test_dir, "absent.model"), out, NULL, &err),
                 HM_ERR_USAGE, "absent.model", err);
    assert_fails(hm_llama2c_import(tmp_path(test_dir, "absent.bin"), NULL, out, NULL, &err),
                 HM_ERR_USAGE, "absent.bin", err);
    file_put(tmp_path(test_dir, "short.bin"), "abc", 3);
    assert_fails(hm_llama2c_import(tmp_path(test_dir, "short.bin"), NULL, out, NULL, &err),
                 HM_ERR_FORMAT, "too short for a llama2.c header", err);
    assert_false(hm_path_exists(tmp_path(out, "config.json")));
}

static int attempt(void *context, struct hm_error *err)
{
    const char *const *paths = context;

    return hm_llama2c_import(paths[0], NULL, paths[1], NULL, err);
}

static void test_oom(void **state)
{
    struct small s = make_small(true);
    const char *paths[2];

    (void)state;
    paths[0] = strdup(put_small(&s, FLOATS));
    paths[1] = strdup(tmp_path(test_dir, "oom"));
    assert_true(oom_sweep(attempt, paths) > 40);
    free((char *)(uintptr_t)paths[0]);
    free((char *)(uintptr_t)paths[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories), cmocka_unit_test(test_separate_head),
        cmocka_unit_test(test_hostile), cmocka_unit_test(test_other_refusals),
        cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
