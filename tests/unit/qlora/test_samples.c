/* SPDX-License-Identifier: MIT */
/*
 * qlora/samples.c: packed windows in shuffled order, rows of ids files of both ranks, labels and
 * masks, hostile files.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include "hanmix/checkpoint/safetensors.h"
#include "hanmix/corpus/packed.h"
#include "hanmix/qlora/trainer.h"

static int setup(void **state)
{
    const char *const texts[] = { "a text that is long enough for several windows of ten", "more",
                                  "and still more of it" };
    struct fixture_texts all = { texts, NULL, 3, 0, 0 };
    struct hm_text_source source = fixture_source(&all);
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_pack_options options = { .seq_len = 10, .bos = true, .eos = true };
    struct hm_pack_report report;
    struct hm_error err = { 0 };

    *state = tmp_new();
    assert_ok(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err), err);
    assert_int_equal(report.windows, 8);
    return 0;
}

static int teardown(void **state)
{
    tmp_release(*state);
    return 0;
}

static void test_packed(void **state)
{
    struct hm_sample_source *source = NULL;
    struct hm_packed packed;
    struct hm_error err = { 0 };
    struct hm_sample sample;
    int32_t ids[10];
    uint8_t starts[10];
    struct hm_window window;
    unsigned in_place = 0;

    assert_ok(hm_packed_open(*state, &packed, &err), err);
    assert_ok(hm_samples_open_packed(*state, true, 11, true, &source, &err), err);
    assert_int_equal(hm_samples_count(source), 8);
    assert_int_equal(hm_samples_seq_len(source), 10);
    assert_int_equal(hm_samples_micro_rows(source), 0);
    for (uint64_t position = 0; position < 24; position++) {
        uint64_t index = hm_sample_index(8, 11, true, position);
        assert_ok(hm_packed_window(&packed, index, ids, starts, &window, &err), err);
        assert_ok(hm_samples_get(source, position, position % 3, &sample, &err), err);
        assert_memory_equal(sample.ids, ids, sizeof(ids));
        assert_memory_equal(sample.doc_start, starts, sizeof(starts));
        assert_null(sample.labels);
        assert_null(sample.mask);
        assert_int_equal(sample.utf8_bytes, window.utf8_bytes);
        assert_int_equal(sample.chars, window.chars);
        in_place += index == position % 8;
    }
    assert_true(in_place < 12);
    hm_samples_close(source);
    assert_ok(hm_samples_open_packed(*state, false, 11, false, &source, &err), err);
    struct hm_sample other;
    assert_ok(hm_samples_get(source, 3, 0, &sample, &err), err);
    assert_ok(hm_samples_get(source, 4, 1, &other, &err), err);
    assert_null(sample.doc_start);
    assert_ok(hm_packed_window(&packed, 3, ids, NULL, &window, &err), err);
    assert_memory_equal(sample.ids, ids, sizeof(ids)); /* the other slot did not touch it */
    hm_samples_close(source);
    hm_packed_close(&packed);
}

/* A file of up to three I64 tensors of one shape; data NULL leaves one out. */
static const char *ids_file(const char *dir, const char *ids_name, uint32_t n_dims,
                            const uint64_t *shape, const int64_t *ids, const int64_t *labels,
                            const int64_t *mask)
{
    const char *const names[] = { ids_name, "labels", "attention_mask" };
    const int64_t *const data[] = { ids, labels, mask };
    const char *path = tmp_path(dir, "ids.safetensors");
    struct hm_tensor tensor[3];
    struct hm_error err = { 0 };
    size_t n = 0;

    for (size_t i = 0; i < 3; i++) {
        if (!data[i])
            continue;
        tensor[n] = (struct hm_tensor){ .name = names[i],
                                        .dtype = HM_DTYPE_I64,
                                        .n_dims = n_dims,
                                        .count = 1,
                                        .data = (const uint8_t *)data[i] };
        for (uint32_t d = 0; d < n_dims; d++)
            tensor[n].count *= tensor[n].shape[d] = shape[d];
        tensor[n].size_bytes = 8 * tensor[n].count;
        n++;
    }
    assert_ok(hm_safetensors_write(path, tensor, n, NULL, &err), err);
    return path;
}

static const int64_t twelve[] = { 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
static const int64_t padding[] = { 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1 };

static void test_ids(void **state)
{
    static const int64_t labels[] = { -100, 6, 7, -100, 9, 10, 11, 12, 13, 14, 15, 16 };
    const uint64_t flat[] = { 4, 3 }, micro[] = { 2, 2, 3 };
    struct hm_sample_source *source = NULL;
    struct hm_sample sample;
    struct hm_error err = { 0 };

    for (uint32_t n_dims = 2; n_dims <= 3; n_dims++) {
        const char *path = ids_file(*state, n_dims == 2 ? "ids" : "input_ids", n_dims,
                                    n_dims == 2 ? flat : micro, twelve, labels, padding);
        assert_ok(hm_samples_open_ids(path, &source, &err), err);
        assert_int_equal(hm_samples_count(source), 4);
        assert_int_equal(hm_samples_seq_len(source), 3);
        assert_int_equal(hm_samples_micro_rows(source), n_dims == 2 ? 0 : 2);
        for (uint64_t position = 0; position < 9; position++) { /* file order, epoch after epoch */
            assert_ok(hm_samples_get(source, position, 0, &sample, &err), err);
            for (uint32_t t = 0; t < 3; t++) {
                uint64_t at = position % 4 * 3 + t;
                assert_int_equal(sample.ids[t], twelve[at]);
                assert_int_equal(sample.labels[t], labels[at]);
                assert_int_equal(sample.mask[t], padding[at]);
            }
            assert_null(sample.doc_start);
        }
        hm_samples_close(source);
    }
}

static void test_padding_is_no_target(void **state)
{
    const uint64_t flat[] = { 4, 3 };
    struct hm_sample_source *source = NULL;
    struct hm_sample sample;
    struct hm_error err = { 0 };

    assert_ok(
        hm_samples_open_ids(ids_file(*state, "ids", 2, flat, twelve, NULL, padding), &source, &err),
        err);
    assert_ok(hm_samples_get(source, 0, 0, &sample, &err), err);
    assert_int_equal(sample.labels[1], 6);
    assert_int_equal(sample.labels[2], HM_LABEL_IGNORE);
    hm_samples_close(source);
    assert_ok(
        hm_samples_open_ids(ids_file(*state, "ids", 2, flat, twelve, NULL, NULL), &source, &err),
        err);
    assert_ok(hm_samples_get(source, 0, 0, &sample, &err), err);
    assert_null(sample.labels);
    assert_null(sample.mask);
    hm_samples_close(source);
}

static void test_refusals(void **state)
{
    static const int64_t negative[] = { 5, -1, 7, 8 }, far[] = { 5, 6, 7, 1ll << 40 };
    static const int64_t odd_mask[] = { 1, 2, 1, 1 }, bad_label[] = { 5, -1, 7, 8 };
    const uint64_t one[] = { 12 }, narrow[] = { 12, 1 }, flat[] = { 2, 2 }, none[] = { 0, 4 };
    struct hm_sample_source *source = NULL;
    struct hm_sample sample;
    struct hm_error err = { 0 };
    char *dir = *state;

    assert_fails(
        hm_samples_open_ids(ids_file(dir, "x", 2, flat, twelve, NULL, NULL), &source, &err),
        HM_ERR_FORMAT, "neither", err);
    assert_fails(
        hm_samples_open_ids(ids_file(dir, "ids", 1, one, twelve, NULL, NULL), &source, &err),
        HM_ERR_FORMAT, "[12]", err);
    assert_fails(
        hm_samples_open_ids(ids_file(dir, "ids", 2, narrow, twelve, NULL, NULL), &source, &err),
        HM_ERR_FORMAT, "[12, 1]", err);
    assert_fails(
        hm_samples_open_ids(ids_file(dir, "ids", 2, none, twelve, NULL, NULL), &source, &err),
        HM_ERR_FORMAT, "[0, 4]", err);
    assert_ok(
        hm_samples_open_ids(ids_file(dir, "ids", 2, flat, negative, NULL, NULL), &source, &err),
        err);
    assert_fails(hm_samples_get(source, 0, 0, &sample, &err), HM_ERR_FORMAT,
                 "ids holds -1 in row 0", err);
    hm_samples_close(source);
    assert_ok(hm_samples_open_ids(ids_file(dir, "ids", 2, flat, far, NULL, NULL), &source, &err),
              err);
    assert_fails(hm_samples_get(source, 1, 0, &sample, &err), HM_ERR_FORMAT, "in row 1", err);
    hm_samples_close(source);
    assert_ok(
        hm_samples_open_ids(ids_file(dir, "ids", 2, flat, twelve, NULL, odd_mask), &source, &err),
        err);
    assert_fails(hm_samples_get(source, 0, 0, &sample, &err), HM_ERR_FORMAT, "attention_mask", err);
    hm_samples_close(source);
    assert_ok(
        hm_samples_open_ids(ids_file(dir, "ids", 2, flat, twelve, bad_label, NULL), &source, &err),
        err);
    assert_fails(hm_samples_get(source, 0, 0, &sample, &err), HM_ERR_FORMAT, "labels", err);
    hm_samples_close(source);
    assert_fails(hm_samples_open_packed(tmp_path(dir, "none"), true, 1, false, &source, &err),
                 HM_ERR_USAGE, "does not exist", err);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_sample_source *source = NULL;
    struct hm_sample sample;

    HM_TRY(hm_samples_open_packed(context, true, 1, false, &source, err));
    int status = hm_samples_get(source, 0, 1, &sample, err);
    hm_samples_close(source);
    return status;
}

static void test_out_of_memory(void **state)
{
    assert_true(oom_sweep(oom_attempt, *state) >= 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_packed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(test_padding_is_no_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
