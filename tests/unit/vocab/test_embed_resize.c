/* SPDX-License-Identifier: MIT */
/*
 * vocab/embed_resize.c and embed_rows.c on small folders made here: shards, tied heads, padding,
 * noise and draws, files that travel, refusals, allocation failures. The rules of the means are
 * tests/golden/resize.
 */
#include "support/support.h"

#include <math.h>
#include <sys/stat.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/vocab/embed_resize.h"

#define ROWS 512u
#define DIM  24u

static struct hm_tokenizer *old_tokenizer, *new_tokenizer;
static const char *const pieces[] = { "中国", "国", "国中", "中", "人民", "民人", "人", "民" };
#define N_PIECES (sizeof(pieces) / sizeof(pieces[0]))

static int set_up(void **state)
{
    struct hm_piece piece[N_PIECES];
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_tokenizer_open(golden_path("models/tok512.model"), &old_tokenizer, &err), err);
    for (size_t i = 0; i < N_PIECES; i++)
        piece[i] = (struct hm_piece){ hm_str_of(pieces[i]), -1e5f - (float)i, HM_PIECE_NORMAL };
    assert_ok(hm_spm_model_append(&old_tokenizer->model, piece, N_PIECES, &bytes, &err), err);
    assert_ok(hm_tokenizer_open_bytes((struct hm_str){ bytes.ptr, bytes.len }, "grown",
                                      &new_tokenizer, &err),
              err);
    hm_buf_release(&bytes);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hm_tokenizer_free(old_tokenizer);
    hm_tokenizer_free(new_tokenizer);
    return 0;
}

/* --- folders ---------------------------------------------------------------------------------- */

struct shape {
    uint32_t rows; /* of embed_tokens and lm_head */
    bool tied, head_stored, sharded;
    enum hm_dtype dtype;
    float spoil; /* put into the embedding when not 0 */
};

/* A LLaMA folder of one layer as far as resizing looks: three tensors, one or two files. */
static void folder_make(const char *dir, struct shape shape)
{
    uint64_t rows = shape.rows;
    struct hm_tensor tensor[3] = {
        { .name = "model.embed_tokens.weight", .n_dims = 2, .shape = { rows, DIM } },
        { .name = "lm_head.weight", .n_dims = 2, .shape = { rows, DIM } },
        { .name = "model.norm.weight", .n_dims = 1, .shape = { DIM } },
    };
    struct hm_error err = { 0 };
    char config[512];
    void *data[3];

    for (size_t t = 0; t < 3; t++) {
        struct hm_rng_key key = { 7, shape.tied && t < 2 ? 0 : t };
        tensor[t].count = t == 2 ? DIM : rows * DIM;
        float *value = malloc(tensor[t].count * sizeof(float));
        for (size_t i = 0; i < tensor[t].count; i++)
            value[i] = (float)(0.02 * hm_rng_normal(key, i) + (i % DIM == 3 ? 0.5 : 0));
        if (shape.spoil != 0 && t == 0)
            value[5 * DIM + 2] = shape.spoil;
        tensor[t].dtype = shape.dtype;
        tensor[t].size_bytes = tensor[t].count * hm_dtype_bytes(shape.dtype);
        void *out = malloc(tensor[t].size_bytes);
        assert_ok(hm_dtype_from_f32(shape.dtype, value, tensor[t].count, out, &err), err);
        tensor[t].data = data[t] = out;
        free(value);
    }
    if (!shape.head_stored)
        tensor[1] = tensor[2];
    size_t n = shape.head_stored ? 3 : 2;
    assert_ok(hm_dir_make(dir, &err), err);
    if (shape.sharded) {
        static const char index[] =
            "{\"metadata\": {\"total_size\": 1, \"note\": \"kept\"}, \"weight_map\": {"
            "\"model.embed_tokens.weight\": \"model-00001-of-00003.safetensors\","
            "\"lm_head.weight\": \"model-00002-of-00003.safetensors\","
            "\"model.norm.weight\": \"model-00003-of-00003.safetensors\"}}";
        for (size_t t = 0; t < 3; t++)
            assert_ok(
                hm_safetensors_write(tmp_path(dir, "model-0000%zu-of-00003.safetensors", t + 1),
                                     &tensor[t], 1, NULL, &err),
                err);
        file_put(tmp_path(dir, "model.safetensors.index.json"), index, strlen(index));
    } else {
        assert_ok(hm_safetensors_write(tmp_path(dir, "model.safetensors"), tensor, n, NULL, &err),
                  err);
    }
    int len = snprintf(config, sizeof(config),
                       "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
                       "\"vocab_size\": %u, \"hidden_size\": %u, \"intermediate_size\": 8, "
                       "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                       "\"num_key_value_heads\": 2, \"max_position_embeddings\": 64, "
                       "\"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", \"custom\": [1], "
                       "\"tie_word_embeddings\": %s}",
                       shape.rows, DIM, shape.tied ? "true" : "false");
    file_put(tmp_path(dir, "config.json"), config, (size_t)len);
    file_put(tmp_path(dir, "generation_config.json"), "{\"max_length\": 9}", 17);
    for (size_t t = 0; t < 3; t++)
        free(data[t]);
}

static const struct shape plain = { .rows = ROWS, .head_stored = true, .dtype = HM_DTYPE_BF16 };

static struct hm_resize_report grow(const char *from, const char *to,
                                    struct hm_resize_options options)
{
    struct hm_resize_report report = { 0 };
    struct hm_error err = { 0 };

    assert_ok(
        hm_embed_resize(from, old_tokenizer, new_tokenizer, &options, to, NULL, &report, &err),
        err);
    return report;
}

/* A matrix of a folder as f32; free() it. */
static float *matrix(const char *dir, const char *name, uint64_t rows)
{
    struct hm_checkpoint ckpt = { 0 };
    const struct hm_tensor *tensor = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(dir, &ckpt, &err), err);
    assert_ok(hm_checkpoint_need(&ckpt, name, &tensor, &err), err);
    assert_int_equal(tensor->shape[0], rows);
    assert_int_equal(ckpt.arch.vocab_size, rows);
    float *value = malloc(tensor->count * sizeof(float));
    assert_ok(hm_dtype_to_f32(tensor->dtype, tensor->data, tensor->count, value, &err), err);
    hm_checkpoint_close(&ckpt);
    return value;
}

/* --- rows ------------------------------------------------------------------------------------- */

static void column_stats(const float *value, size_t rows, double mean[DIM], double deviation[DIM])
{
    for (size_t d = 0; d < DIM; d++) {
        double sum = 0;
        double square = 0;
        for (size_t r = 0; r < rows; r++)
            sum += (double)value[r * DIM + d];
        mean[d] = sum / (double)rows;
        for (size_t r = 0; r < rows; r++)
            square += pow((double)value[r * DIM + d] - mean[d], 2);
        deviation[d] = sqrt(square / (double)rows);
    }
}

static void test_padding_and_zero(void **state)
{
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    double mean[DIM];
    double deviation[DIM];

    (void)state;
    folder_make(from, plain);
    struct hm_resize_report report =
        grow(from, to, (struct hm_resize_options){ .init = HM_RESIZE_ZERO, .pad_to = 64 });
    assert_int_equal(report.old_rows, ROWS);
    assert_int_equal(report.new_rows, 576);
    assert_int_equal(report.padded_rows, 576 - ROWS - N_PIECES);
    assert_int_equal(report.duplicate_rows, N_PIECES - 1);
    for (int which = 0; which < 2; which++) {
        const char *name = which ? "lm_head.weight" : "model.embed_tokens.weight";
        float *before = matrix(from, name, ROWS);
        float *after = matrix(to, name, 576);
        assert_memory_equal(after, before, ROWS * DIM * sizeof(float));
        column_stats(before, ROWS, mean, deviation);
        for (size_t r = ROWS; r < 576; r++)
            for (size_t d = 0; d < DIM; d++)
                assert_float_equal(after[r * DIM + d], r < ROWS + N_PIECES ? 0 : mean[d],
                                   fabs(mean[d]) / 200);
        free(before);
        free(after);
    }
    tmp_release(dir);
}

static void test_noise(void **state)
{
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    double mean[DIM];
    double deviation[DIM];
    double square = 0;

    (void)state;
    folder_make(from, (struct shape){ .rows = ROWS, .head_stored = true, .dtype = HM_DTYPE_F32 });
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .pad_to = 1 };
    struct hm_resize_report bare = grow(from, tmp_path(dir, "bare"), options);
    assert_int_equal(bare.duplicate_rows, 2); /* 国中 and 民人 */
    options.noise = 0.25;
    options.seed = 3;
    assert_int_equal(grow(from, tmp_path(dir, "noisy"), options).duplicate_rows, 0);
    float *old = matrix(from, "model.embed_tokens.weight", ROWS);
    float *smooth = matrix(tmp_path(dir, "bare"), "model.embed_tokens.weight", ROWS + N_PIECES);
    float *noisy = matrix(tmp_path(dir, "noisy"), "model.embed_tokens.weight", ROWS + N_PIECES);
    float *head = matrix(tmp_path(dir, "noisy"), "lm_head.weight", ROWS + N_PIECES);
    float *plain_head = matrix(tmp_path(dir, "bare"), "lm_head.weight", ROWS + N_PIECES);
    column_stats(old, ROWS, mean, deviation);
    size_t same = 0;
    for (size_t i = ROWS * DIM; i < (ROWS + N_PIECES) * DIM; i++) {
        double noise = ((double)noisy[i] - (double)smooth[i]) / deviation[i % DIM];
        square += noise * noise;
        same += noise * deviation[i % DIM] == (double)head[i] - (double)plain_head[i];
    }
    assert_float_equal(sqrt(square / (N_PIECES * DIM)), 0.25, 0.04);
    assert_true(same < 5); /* the two matrices have their own noise */
    free(old);
    free(smooth);
    free(noisy);
    free(head);
    free(plain_head);
    tmp_release(dir);
}

static void test_normal(void **state)
{
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    double mean[DIM];
    double deviation[DIM];
    double sum = 0;
    double square = 0;

    (void)state;
    folder_make(from, plain);
    grow(from, to, (struct hm_resize_options){ .init = HM_RESIZE_NORMAL, .pad_to = 1, .seed = 1 });
    float *before = matrix(from, "lm_head.weight", ROWS);
    float *after = matrix(to, "lm_head.weight", ROWS + N_PIECES);
    column_stats(before, ROWS, mean, deviation);
    for (size_t i = ROWS * DIM; i < (ROWS + N_PIECES) * DIM; i++) {
        double draw = ((double)after[i] - mean[i % DIM]) / deviation[i % DIM];
        sum += draw;
        square += draw * draw;
    }
    assert_float_equal(sum / (N_PIECES * DIM), 0, 0.25);
    assert_float_equal(sqrt(square / (N_PIECES * DIM)), 1, 0.2);
    free(before);
    free(after);
    tmp_release(dir);
}

static void test_threads_and_seed(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .noise = 0.1, .pad_to = 7 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    int threads = hm_threads();
    char *file[3];
    size_t len[3];

    (void)state;
    folder_make(from, plain);
    for (int i = 0; i < 3; i++) {
        hm_threads_set(i == 1 ? 4 : 1);
        options.seed = i == 2;
        grow(from, tmp_path(dir, "to%d", i), options);
        file[i] = file_get(tmp_path(dir, "to%d/model.safetensors", i), &len[i]);
    }
    hm_threads_set(threads);
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(file[0], file[1], len[0]);
    assert_true(memcmp(file[0], file[2], len[0]) != 0);
    for (int i = 0; i < 3; i++)
        hm_free(file[i]);
    tmp_release(dir);
}

static void test_tied(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .noise = 0.1, .pad_to = 1 };
    char *dir = tmp_new();

    (void)state;
    for (int stored = 0; stored < 2; stored++) {
        const char *from = tmp_path(dir, "from%d", stored);
        const char *to = tmp_path(dir, "to%d", stored);
        struct hm_checkpoint ckpt = { 0 };
        struct hm_error err = { 0 };
        folder_make(from,
                    (struct shape){
                        .rows = ROWS, .tied = true, .head_stored = stored, .dtype = HM_DTYPE_F16 });
        grow(from, to, options);
        assert_ok(hm_checkpoint_open(to, &ckpt, &err), err);
        assert_true(ckpt.arch.tied);
        const struct hm_tensor *head = hm_checkpoint_find(&ckpt, "lm_head.weight");
        const struct hm_tensor *embed = hm_checkpoint_find(&ckpt, "model.embed_tokens.weight");
        assert_int_equal(head != NULL, stored);
        if (head)
            assert_memory_equal(head->data, embed->data, embed->size_bytes);
        hm_checkpoint_close(&ckpt);
    }
    tmp_release(dir);
}

/* The old matrix was padded: its padding rows become rows of pieces, and stay where pieces end. */
static void test_padded_before(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_ZERO, .pad_to = 1 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    struct shape shape = plain;

    (void)state;
    shape.rows = ROWS + N_PIECES + 4;
    folder_make(from, shape);
    struct hm_resize_report report = grow(from, to, options);
    assert_int_equal(report.new_rows, shape.rows);
    assert_int_equal(report.padded_rows, 4);
    float *before = matrix(from, "lm_head.weight", shape.rows);
    float *after = matrix(to, "lm_head.weight", shape.rows);
    assert_memory_equal(after, before, ROWS * DIM * sizeof(float));
    for (size_t i = ROWS * DIM; i < (ROWS + N_PIECES) * DIM; i++)
        assert_true(after[i] == 0);
    assert_memory_equal(after + (ROWS + N_PIECES) * DIM, before + (ROWS + N_PIECES) * DIM,
                        4 * DIM * sizeof(float));
    free(before);
    free(after);
    tmp_release(dir);
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_shards(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .pad_to = 1 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    struct hm_vocab_record record = { 0 };
    struct hm_error err = { 0 };
    struct stat a;
    struct stat b;
    struct shape shape = plain;

    (void)state;
    shape.sharded = true;
    folder_make(from, shape);
    struct hm_resize_report report = grow(from, to, options);
    assert_int_equal(report.files_linked, 1);
    assert_int_equal(report.bytes_written, 2 * (ROWS + N_PIECES) * DIM * 2);
    assert_int_equal(stat(tmp_path(from, "model-00003-of-00003.safetensors"), &a), 0);
    assert_int_equal(stat(tmp_path(to, "model-00003-of-00003.safetensors"), &b), 0);
    assert_true(a.st_ino == b.st_ino);
    char *index = file_get(tmp_path(to, "model.safetensors.index.json"), NULL);
    char total[64];
    snprintf(total, sizeof(total), "\"total_size\": %zu", (2 * (ROWS + N_PIECES) + 1) * DIM * 2);
    assert_non_null(strstr(index, total));
    assert_non_null(strstr(index, "kept"));
    hm_free(index);
    char *config = file_get(tmp_path(to, "config.json"), NULL);
    assert_non_null(strstr(config, "\"vocab_size\": 520"));
    assert_non_null(strstr(config, "custom"));
    hm_free(config);
    assert_true(hm_path_exists(tmp_path(to, "generation_config.json")));
    assert_ok(hm_vocab_record_read(to, ROWS + N_PIECES, &record, &err), err);
    assert_int_equal(record.old_vocab_size, ROWS);
    assert_string_equal(record.old_tokenizer, old_tokenizer->model.sha256);
    assert_string_equal(record.new_tokenizer, new_tokenizer->model.sha256);
    float *value = matrix(to, "lm_head.weight", ROWS + N_PIECES);
    free(value);
    tmp_release(dir);
}

static void test_tokenizer_files(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_ZERO, .pad_to = 1 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    struct hm_tokenizer *opened = NULL;
    struct hm_resize_report report;
    struct hm_error err = { 0 };

    (void)state;
    folder_make(from, plain);
    grow(from, tmp_path(dir, "made"), options);
    char *model = file_get(tmp_path(dir, "made/tokenizer.model"), NULL);
    assert_memory_equal(model, new_tokenizer->model.bytes.ptr, new_tokenizer->model.bytes.len);
    hm_free(model);
    /* From a folder the companions come along, byte for byte. */
    assert_ok(hm_dir_make(tmp_path(dir, "tok"), &err), err);
    file_put(tmp_path(dir, "tok/tokenizer.model"), new_tokenizer->model.bytes.ptr,
             new_tokenizer->model.bytes.len);
    file_put(tmp_path(dir, "tok/tokenizer.json"), "{\"a\":  1}", 9);
    file_put(tmp_path(dir, "tok/tokenizer_config.json"), "{}", 2);
    assert_ok(hm_tokenizer_open(tmp_path(dir, "tok"), &opened, &err), err);
    assert_ok(hm_embed_resize(from, old_tokenizer, opened, &options, tmp_path(dir, "taken"), NULL,
                              &report, &err),
              err);
    hm_tokenizer_free(opened);
    char *json = file_get(tmp_path(dir, "taken/tokenizer.json"), NULL);
    assert_string_equal(json, "{\"a\":  1}");
    hm_free(json);
    assert_true(hm_path_exists(tmp_path(dir, "taken/tokenizer_config.json")));
    assert_true(hm_path_exists(tmp_path(dir, "taken/tokenizer.model")));
    tmp_release(dir);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void refuse(const char *from, const char *to, const struct hm_tokenizer *a,
                   const struct hm_tokenizer *b, int code, const char *part)
{
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .pad_to = 1 };
    struct hm_resize_report report = { .old_rows = 99 };
    struct hm_error err = { 0 };

    assert_fails(hm_embed_resize(from, a, b, &options, to, NULL, &report, &err), code, part, err);
    assert_int_equal(report.old_rows, 99);
}

static void test_refusals(void **state)
{
    volatile sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .pad_to = 1 };
    struct hm_resize_report report;
    struct hm_tokenizer *other = NULL;
    struct hm_error err = { 0 };
    char *dir = tmp_new();
    struct shape shape = plain;
    char to[512];

    (void)state;
    snprintf(to, sizeof(to), "%s", tmp_path(dir, "to"));
    refuse(tmp_path(dir, "absent"), to, old_tokenizer, new_tokenizer, HM_ERR_USAGE, "exist");
    folder_make(tmp_path(dir, "good"), plain);
    refuse(tmp_path(dir, "good"), tmp_path(dir, "good"), old_tokenizer, new_tokenizer, HM_ERR_USAGE,
           "own folder");
    refuse(tmp_path(dir, "good"), to, new_tokenizer, old_tokenizer, HM_ERR_FORMAT, "fewer");
    assert_ok(
        hm_tokenizer_open(golden_path("tokenizers/models/mistral-v1-32000.model"), &other, &err),
        err);
    refuse(tmp_path(dir, "good"), to, old_tokenizer, other, HM_ERR_FORMAT, "keep the ids");
    hm_tokenizer_free(other);
    shape.rows = ROWS - 1;
    folder_make(tmp_path(dir, "short"), shape);
    refuse(tmp_path(dir, "short"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT,
           "fewer than the 512 pieces");
    shape = plain;
    shape.spoil = NAN;
    folder_make(tmp_path(dir, "nan"), shape);
    refuse(tmp_path(dir, "nan"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT, "column 2");
    shape = plain;
    shape.head_stored = false;
    folder_make(tmp_path(dir, "headless"), shape);
    refuse(tmp_path(dir, "headless"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT, "lm_head");
    assert_fails(hm_embed_resize(tmp_path(dir, "good"), old_tokenizer, new_tokenizer, &options, to,
                                 &ctl, &report, &err),
                 HM_ERR_STOPPED, "stopped", err);
    tmp_release(dir);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_resize_options options = { .init = HM_RESIZE_MEAN, .noise = 0.1, .pad_to = 3 };
    struct hm_resize_report report;
    const char *dir = context;

    return hm_embed_resize(tmp_path(dir, "from"), old_tokenizer, new_tokenizer, &options,
                           tmp_path(dir, "to"), NULL, &report, err);
}

static void test_out_of_memory(void **state)
{
    char *dir = tmp_new();
    int threads = hm_threads();

    (void)state;
    hm_threads_set(1);
    folder_make(tmp_path(dir, "from"), plain);
    assert_true(oom_sweep(oom_attempt, dir) >= 50);
    hm_threads_set(threads);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_padding_and_zero),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_threads_and_seed),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_padded_before),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_tokenizer_files),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
