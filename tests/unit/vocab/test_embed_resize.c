/* SPDX-License-Identifier: MIT */
/*
 * vocab/embed_resize.c on small folders made here: shards, files that travel, refusals, allocation
 * failures. Rows are test_embed_rows.c.
 */
#include <math.h>
#include <sys/stat.h>

#include "grown_folder.h"
#include "hanmix/base/parallel.h"

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
    assert_int_equal(report.files_copied, 0);
    assert_int_equal(a.st_size, b.st_size);
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

/* A model whose only file is a shard of an index; totals of both kinds. */
static void test_one_shard(void **state)
{
    static const char index[] =
        "{\"metadata\": {\"total_size\": 1, \"total_parameters\": 1}, \"weight_map\": {"
        "\"model.embed_tokens.weight\": \"a.safetensors\", \"lm_head.weight\": \"a.safetensors\","
        "\"model.norm.weight\": \"a.safetensors\"}}";
    struct hm_resize_options options = { .init = HM_RESIZE_ZERO, .pad_to = 1 };
    char *dir = tmp_new();
    const char *from = tmp_path(dir, "from");
    const char *to = tmp_path(dir, "to");
    struct hm_error err = { 0 };
    char total[64];

    (void)state;
    folder_make(from, plain);
    assert_ok(hm_path_rename(tmp_path(dir, "from/model.safetensors"),
                             tmp_path(dir, "from/a.safetensors"), &err),
              err);
    file_put(tmp_path(dir, "from/model.safetensors.index.json"), index, strlen(index));
    grow(from, to, options);
    free(matrix(to, "lm_head.weight", ROWS + N_PIECES));
    char *text = file_get(tmp_path(to, "model.safetensors.index.json"), NULL);
    snprintf(total, sizeof(total), "\"total_parameters\": %zu",
             (2 * (ROWS + N_PIECES) + 1) * (size_t)DIM);
    assert_non_null(strstr(text, total));
    hm_free(text);
    tmp_release(dir);
}

static void said(void *context, const char *sentence)
{
    strncat(context, sentence, 800 - strlen(context) - 1);
}

/* Rows beyond the old pieces that new pieces take. */
static void test_added_tokens(void **state)
{
    struct hm_resize_options options = { .init = HM_RESIZE_ZERO, .pad_to = 1 };
    struct hm_resize_report report = { 0 };
    char *dir = tmp_new();
    char text[800] = "";
    struct hm_ctl ctl = { .message = said, .context = text };
    struct hm_error err = { 0 };
    struct shape shape = plain;

    (void)state;
    shape.rows = ROWS + 2;
    folder_make(tmp_path(dir, "from"), shape);
    file_put(tmp_path(dir, "from/added_tokens.json"), "{\"<z>\": 9999, \"<im>\": 513}", 26);
    assert_ok(hm_embed_resize(tmp_path(dir, "from"), old_tokenizer, new_tokenizer, &options,
                              tmp_path(dir, "to"), &ctl, &report, &err),
              err);
    assert_int_equal(report.replaced_rows, 2);
    assert_non_null(strstr(text, "rows 512 to 513"));
    assert_non_null(strstr(text, "'<im>'"));
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
    shape.rows = 2 * ROWS + 2;
    folder_make(tmp_path(dir, "long"), shape);
    refuse(tmp_path(dir, "long"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT,
           "more than twice the 512 pieces");
    shape = plain;
    shape.spoil = NAN;
    folder_make(tmp_path(dir, "nan"), shape);
    refuse(tmp_path(dir, "nan"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT, "column 2");
    shape = plain;
    shape.dtype = HM_DTYPE_F16;
    shape.spoil = 65000;
    folder_make(tmp_path(dir, "large"), shape);
    options.noise = 100;
    assert_fails(hm_embed_resize(tmp_path(dir, "large"), old_tokenizer, new_tokenizer, &options,
                                 tmp_path(dir, "over"), NULL, &report, &err),
                 HM_ERR_FORMAT, "beyond the range of F16", err);
    shape = plain;
    shape.head_stored = false;
    folder_make(tmp_path(dir, "headless"), shape);
    refuse(tmp_path(dir, "headless"), to, old_tokenizer, new_tokenizer, HM_ERR_FORMAT, "lm_head");
    assert_fails(hm_embed_resize(tmp_path(dir, "good"), old_tokenizer, new_tokenizer, &options, to,
                                 &ctl, &report, &err),
                 HM_ERR_STOPPED, "stopped", err);
    tmp_release(dir);
}

static enum hm_resize_init oom_init;

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_resize_options options = { .init = oom_init, .noise = 0.1, .scale = 1, .pad_to = 3 };
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
    for (oom_init = HM_RESIZE_MEAN; oom_init <= HM_RESIZE_COPY; oom_init++)
        assert_true(oom_sweep(oom_attempt, dir) >= 50);
    hm_threads_set(threads);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards),       cmocka_unit_test(test_one_shard),
        cmocka_unit_test(test_added_tokens), cmocka_unit_test(test_tokenizer_files),
        cmocka_unit_test(test_refusals),     cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
