/* SPDX-License-Identifier: MIT */
/*
 * vocab/embed_rows.c, row_plan.c and row_covariance.c on small folders made here: padding, noise,
 * draws, rows that move, tied heads, threads. The rules of the means are tests/golden/resize.
 */
#include <math.h>

#include "grown_folder.h"
#include "hanmix/base/parallel.h"

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
    grow(
        from, to,
        (struct hm_resize_options){ .init = HM_RESIZE_NORMAL, .scale = 1, .pad_to = 1, .seed = 1 });
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

/* Lower triangle [DIM][DIM] of the factor of the covariance of rows, by the plain recurrence. */
static void factor_make(const float *value, size_t rows, const double mean[DIM],
                        double factor[DIM][DIM])
{
    for (size_t i = 0; i < DIM; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t r = 0; r < rows; r++)
                sum +=
                    ((double)value[r * DIM + i] - mean[i]) * ((double)value[r * DIM + j] - mean[j]);
            sum /= (double)rows;
            for (size_t p = 0; p < j; p++)
                sum -= factor[i][p] * factor[j][p];
            factor[i][j] = i == j ? sqrt(sum) : sum / factor[j][j];
        }
}

/* mean + sqrt(scale) L z with the z of the counter-based generator; columns depend on each other.
 */
static void test_normal_draws(void **state)
{
    struct shape shape = {
        .rows = ROWS, .head_stored = true, .mixed = true, .dtype = HM_DTYPE_F32
    };
    struct hm_rng_key key = { 4, hm_hash64("vocab.resize embed", 18, 0) };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    double mean[DIM];
    double deviation[DIM];
    double factor[DIM][DIM] = { 0 };

    (void)state;
    folder_make(from, shape);
    struct hm_resize_report report =
        grow(from, to,
             (struct hm_resize_options){
                 .init = HM_RESIZE_NORMAL, .scale = 0.25, .pad_to = 1, .seed = 4 });
    assert_false(report.not_definite);
    float *before = matrix(from, "model.embed_tokens.weight", ROWS);
    float *after = matrix(to, "model.embed_tokens.weight", ROWS + N_PIECES);
    column_stats(before, ROWS, mean, deviation);
    factor_make(before, ROWS, mean, factor);
    assert_true(fabs(factor[1][0]) > 0.1 * factor[1][1]);
    for (size_t r = ROWS; r < ROWS + N_PIECES; r++)
        for (size_t i = 0; i < DIM; i++) {
            double want = mean[i];
            for (size_t j = 0; j <= i; j++)
                want += 0.5 * factor[i][j] * hm_rng_normal(key, r * DIM + j);
            assert_float_equal(after[r * DIM + i], want, 1e-5 * deviation[i]);
        }
    free(before);
    free(after);
    tmp_release(dir);
}

/* A column that is the same in every row: no distribution, all means, and the report tells. */
static void test_normal_without_spread(void **state)
{
    struct shape shape = { .rows = ROWS, .head_stored = true, .flat = true, .dtype = HM_DTYPE_F32 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    double mean[DIM];
    double deviation[DIM];

    (void)state;
    folder_make(from, shape);
    struct hm_resize_report report =
        grow(from, to, (struct hm_resize_options){ .init = HM_RESIZE_NORMAL, .scale = 1 });
    assert_true(report.not_definite);
    assert_int_equal(report.duplicate_rows, N_PIECES - 1);
    float *before = matrix(from, "lm_head.weight", ROWS);
    float *after = matrix(to, "lm_head.weight", ROWS + N_PIECES);
    column_stats(before, ROWS, mean, deviation);
    for (size_t i = ROWS * DIM; i < (ROWS + N_PIECES) * DIM; i++)
        assert_float_equal(after[i], mean[i % DIM], 1e-7);
    free(before);
    free(after);
    tmp_release(dir);
}

/* From one extension of a vocabulary to another: rows follow their pieces. */
static void test_copy(void **state)
{
    static const char *const others[] = { "民人", "人民", "天", "中国", "中人民" };
    size_t n = sizeof(others) / sizeof(others[0]);
    struct hm_resize_options options = { .init = HM_RESIZE_COPY, .pad_to = 1 };
    struct shape shape = plain;
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    struct hm_tokenizer *other = tokenizer_make(others, n);
    struct hm_resize_report report = { 0 };
    struct hm_vocab_record record = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    shape.rows = ROWS + N_PIECES + 3; /* padded before: the padding does not travel */
    folder_make(from, shape);
    assert_ok(hm_embed_resize(from, new_tokenizer, other, &options, to, NULL, &report, &err), err);
    assert_int_equal(report.new_rows, ROWS + n);
    assert_int_equal(report.kept_rows, ROWS);
    assert_int_equal(report.moved_rows, 3);
    assert_ok(hm_vocab_record_read(to, ROWS + n, &record, &err), err);
    assert_int_equal(record.old_vocab_size, ROWS);
    float *before = matrix(from, "lm_head.weight", shape.rows);
    float *after = matrix(to, "lm_head.weight", ROWS + n);
    assert_memory_equal(after, before, ROWS * DIM * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        size_t old = 0;
        while (old < N_PIECES && strcmp(pieces[old], others[i]) != 0)
            old++;
        if (old < N_PIECES)
            assert_memory_equal(after + (ROWS + i) * DIM, before + (ROWS + old) * DIM,
                                DIM * sizeof(float));
    }
    /* 中 and 人民 are pieces of the old vocabulary */
    const float *middle = before + (ROWS + 3) * DIM;
    const float *people = before + (ROWS + 4) * DIM;
    for (size_t d = 0; d < DIM; d++)
        assert_float_equal(after[(ROWS + 4) * DIM + d],
                           0.5 * ((double)middle[d] + (double)people[d]),
                           0.004 * fabs((double)middle[d] + (double)people[d]) + 1e-6);
    free(before);
    free(after);
    /* back to the vocabulary without any of them; the other rules refuse both */
    assert_ok(hm_embed_resize(from, new_tokenizer, old_tokenizer, &options, tmp_path(dir, "back"),
                              NULL, &report, &err),
              err);
    assert_int_equal(report.new_rows, ROWS);
    options.init = HM_RESIZE_MEAN;
    assert_fails(hm_embed_resize(from, new_tokenizer, other, &options, to, NULL, &report, &err),
                 HM_ERR_FORMAT, "init=copy", err);
    assert_fails(
        hm_embed_resize(from, new_tokenizer, old_tokenizer, &options, to, NULL, &report, &err),
        HM_ERR_FORMAT, "init=copy", err);
    hm_tokenizer_free(other);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_padding_and_zero),
        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_normal_draws),
        cmocka_unit_test(test_normal_without_spread),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_threads_and_seed),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_padded_before),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
