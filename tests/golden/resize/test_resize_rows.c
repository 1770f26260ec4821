/* SPDX-License-Identifier: MIT */
/*
 * vocab/embed_resize.c against data/resize: rows of new pieces as the published script makes them
 * (tokens of transformers' slow tokenizer, <s> and dummy prefix included, sums as torch rounds
 * them), as bare means and as weighted means, to the bit in f32 and bf16; old rows and all other
 * tensors stay as they were.
 */
#include "support/support.h"

#include "hanmix/base/json.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/vocab/embed_resize.h"

#define OLD_ROWS 512u
#define DIM      64u

static const char *const matrices[] = { "model.embed_tokens.weight", "lm_head.weight" };
static struct hm_tokenizer *old_tokenizer, *new_tokenizer;
static size_t n_pieces;
static struct hm_safetensors expected;

static int set_up(void **state)
{
    struct hm_error err = { 0 };
    struct hm_buf bytes = { 0 };
    json_t *results = NULL;
    json_t *text;
    size_t i;

    (void)state;
    assert_ok(hm_tokenizer_open(golden_path("models/tok512.model"), &old_tokenizer, &err), err);
    assert_ok(hm_safetensors_open(golden_path("resize/rows.safetensors"), &expected, &err), err);
    assert_ok(hm_json_load(golden_path("resize/results.json"), 1 << 20, &results, &err), err);
    json_t *list = json_object_get(results, "pieces");
    n_pieces = json_array_size(list);
    struct hm_piece *piece = calloc(n_pieces, sizeof(*piece));
    json_array_foreach(list, i, text) piece[i] =
        (struct hm_piece){ hm_str_of(json_string_value(text)), -1e5f - (float)i, HM_PIECE_NORMAL };
    assert_ok(hm_spm_model_append(&old_tokenizer->model, piece, n_pieces, &bytes, &err), err);
    assert_ok(hm_tokenizer_open_bytes((struct hm_str){ bytes.ptr, bytes.len }, "grown",
                                      &new_tokenizer, &err),
              err);
    free(piece);
    json_decref(results);
    hm_buf_release(&bytes);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hm_tokenizer_free(old_tokenizer);
    hm_tokenizer_free(new_tokenizer);
    hm_safetensors_close(&expected);
    return 0;
}

/* A copy of the golden model with every tensor in bf16. */
static void bf16_copy(const char *to)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_tensor tensor[100];
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(golden_path("models/stories260K-llama-hf"), &ckpt, &err), err);
    assert_true(ckpt.count <= 100);
    for (size_t i = 0; i < ckpt.count; i++) {
        float *value = malloc(ckpt.tensor[i]->count * sizeof(float));
        uint8_t *out = malloc(ckpt.tensor[i]->count * 2);
        assert_ok(
            hm_dtype_to_f32(HM_DTYPE_F32, ckpt.tensor[i]->data, ckpt.tensor[i]->count, value, &err),
            err);
        assert_ok(hm_dtype_from_f32(HM_DTYPE_BF16, value, ckpt.tensor[i]->count, out, &err), err);
        free(value);
        tensor[i] = *ckpt.tensor[i];
        tensor[i].dtype = HM_DTYPE_BF16;
        tensor[i].size_bytes /= 2;
        tensor[i].data = out;
    }
    assert_ok(hm_dir_make(to, &err), err);
    assert_ok(
        hm_safetensors_write(tmp_path(to, "model.safetensors"), tensor, ckpt.count, NULL, &err),
        err);
    assert_ok(hm_json_save(tmp_path(to, "config.json"), ckpt.config, &err), err);
    for (size_t i = 0; i < ckpt.count; i++)
        free((void *)(uintptr_t)tensor[i].data);
    hm_checkpoint_close(&ckpt);
}

static void check_matrix(const struct hm_tensor *before, const struct hm_tensor *after,
                         const char *rule, const char *dtype)
{
    const struct hm_tensor *want = NULL;
    uint64_t shape[2] = { n_pieces, DIM };
    float found[DIM];
    float rows[DIM];
    char name[96];
    struct hm_error err = { 0 };

    assert_int_equal(after->shape[0], OLD_ROWS + n_pieces);
    assert_memory_equal(after->data, before->data, before->size_bytes);
    snprintf(name, sizeof(name), "%s.%s.%s", rule, dtype, before->name);
    assert_ok(hm_safetensors_need(&expected, name, HM_DTYPE_F32, 2, shape, &want, &err), err);
    for (size_t row = 0; row < n_pieces; row++) {
        size_t row_bytes = DIM * hm_dtype_bytes(after->dtype);
        assert_ok(hm_dtype_to_f32(after->dtype, after->data + (OLD_ROWS + row) * row_bytes, DIM,
                                  found, &err),
                  err);
        memcpy(rows, want->data + row * sizeof(rows), sizeof(rows));
        for (size_t d = 0; d < DIM; d++)
            if (found[d] != rows[d])
                fail_msg("%s row %zu column %zu is %.9g, recorded %.9g", name, row, d,
                         (double)found[d], (double)rows[d]);
    }
}

static void check_rule(enum hm_resize_init init, const char *rule, const char *dtype)
{
    struct hm_resize_options options = { .init = init, .pad_to = 1 };
    struct hm_resize_report report = { 0 };
    struct hm_checkpoint before = { 0 };
    struct hm_checkpoint after = { 0 };
    struct hm_error err = { 0 };
    char *dir = tmp_new();
    char from[512];
    char to[512];

    snprintf(from, sizeof(from), "%s", golden_path("models/stories260K-llama-hf"));
    snprintf(to, sizeof(to), "%s", tmp_path(dir, "grown"));
    if (strcmp(dtype, "bf16") == 0) {
        snprintf(from, sizeof(from), "%s", tmp_path(dir, "bf16"));
        bf16_copy(from);
    }
    assert_ok(
        hm_embed_resize(from, old_tokenizer, new_tokenizer, &options, to, NULL, &report, &err),
        err);
    assert_ok(hm_checkpoint_open(from, &before, &err), err);
    assert_ok(hm_checkpoint_open(to, &after, &err), err);
    assert_int_equal(after.arch.vocab_size, OLD_ROWS + n_pieces);
    assert_int_equal(after.count, before.count);
    for (size_t i = 0; i < before.count; i++) {
        const struct hm_tensor *old = before.tensor[i];
        const struct hm_tensor *grown = hm_checkpoint_find(&after, old->name);
        assert_non_null(grown);
        assert_int_equal(grown->dtype, old->dtype);
        if (strcmp(old->name, matrices[0]) == 0 || strcmp(old->name, matrices[1]) == 0) {
            check_matrix(old, grown, rule, dtype);
        } else {
            assert_int_equal(grown->size_bytes, old->size_bytes);
            assert_memory_equal(grown->data, old->data, old->size_bytes);
        }
    }
    assert_int_equal(report.old_rows, OLD_ROWS);
    assert_int_equal(report.new_rows, OLD_ROWS + n_pieces);
    hm_checkpoint_close(&before);
    hm_checkpoint_close(&after);
    tmp_release(dir);
}

static void test_upstream(void **state)
{
    (void)state;
    check_rule(HM_RESIZE_MEAN_UPSTREAM, "mean_upstream", "f32");
    check_rule(HM_RESIZE_MEAN_UPSTREAM, "mean_upstream", "bf16");
}

static void test_mean(void **state)
{
    (void)state;
    check_rule(HM_RESIZE_MEAN, "mean", "f32");
    check_rule(HM_RESIZE_MEAN, "mean", "bf16");
}

static void test_weighted(void **state)
{
    (void)state;
    check_rule(HM_RESIZE_WEIGHTED, "weighted", "f32");
    check_rule(HM_RESIZE_WEIGHTED, "weighted", "bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weighted),
        cmocka_unit_test(test_upstream),
        cmocka_unit_test(test_mean),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
