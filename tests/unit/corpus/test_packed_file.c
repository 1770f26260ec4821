/* SPDX-License-Identifier: MIT */
/*
 * corpus/packed_file.c against damaged and hostile files, and both token widths.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include "hanmix/corpus/packed.h"

#define HEADER_BYTES 192

static char *good; /* a small file */
static size_t good_len;

static void pack_small(const char *dir, uint32_t vocab_size)
{
    const char *const texts[] = { "one text of some length", "\xe4\xb8\xad\xe6\x96\x87", "three" };
    struct fixture_texts all = { texts, NULL, 3, 0, 0 };
    struct hm_text_source source = fixture_source(&all);
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_pack_options options = { .seq_len = 10, .bos = true };
    struct hm_pack_report report;
    struct hm_error err = { 0 };

    encoder.vocab_size = vocab_size;
    assert_ok(hm_pack(&source, &encoder, &options, "", dir, NULL, &report, &err), err);
    assert_int_equal(report.windows, 4);
}

static int setup(void **state)
{
    *state = tmp_new();
    pack_small(*state, FIXTURE_VOCAB);
    good = file_get(tmp_path(*state, "train.hmp"), &good_len);
    return 0;
}

static int teardown(void **state)
{
    hm_free(good);
    tmp_release(*state);
    return 0;
}

/* Open the good file with `len` bytes replaced at `at` (from the end when negative). */
static int open_changed(const char *dir, ptrdiff_t at, const void *bytes, size_t len,
                        struct hm_packed *ret_packed, struct hm_error *err)
{
    const char *path = tmp_path(dir, "changed.hmp");
    char *copy = hm_alloc(HM_MEM_OTHER, good_len);

    memcpy(copy, good, good_len);
    memcpy(copy + (at < 0 ? (ptrdiff_t)good_len + at : at), bytes, len);
    file_put(path, copy, good_len);
    hm_free(copy);
    return hm_packed_open(path, ret_packed, err);
}

static void test_header_and_footer_are_checked(void **state)
{
    static const struct {
        ptrdiff_t at;
        const char *bytes;
        size_t len;
        const char *says;
    } cases[] = {
        { 0, "X", 1, "does not begin with HMPACK" },
        { 8, "\2", 1, "version 2" },
        { 12, "\1", 1, "header out of range" },
        { 16, "\1\0\0\0", 4, "header out of range" },
        { 16, "\0\0\0\0", 4, "header out of range" },
        { 16, "\xff\xff\xff\xff", 4, "header out of range" },
        { 20, "\3", 1, "header out of range" },
        { 20, "\4", 1, "header out of range" },
        { 24, "\0\0\0\0", 4, "header out of range" },
        { 24, "\xff\xff\xff\xff", 4, "header out of range" },
        { 28, "\0", 1, "header out of range" },
        { 32, "G", 1, "tokenizer in its header" },
        { 40, "\0", 1, "tokenizer in its header" },
        { 100, "a", 1, "text in its header" },
        { 170, "\1", 1, "header out of range" },
        { -1, "X", 1, "footer" },
        { -64, "\5", 1, "counts 5 windows" },
        { -64, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "windows" },
        { -56, "\1", 1, "footer" },
    };
    struct hm_packed packed = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        assert_fails(open_changed(*state, cases[i].at, cases[i].bytes, cases[i].len, &packed, &err),
                     HM_ERR_FORMAT, cases[i].says, err);
}

static void test_cut_files(void **state)
{
    const char *path = tmp_path(*state, "cut.hmp");
    struct hm_packed packed = { 0 };
    struct hm_error err = { 0 };

    for (size_t len = 0; len < good_len; len++) {
        file_put(path, good, len);
        assert_int_equal(hm_packed_open(path, &packed, &err), HM_ERR_FORMAT);
    }
}

/* A flipped bit anywhere in a record is seen when its window is read, and by the digest. */
static void test_damaged_windows(void **state)
{
    size_t record = (good_len - HEADER_BYTES - 64) / 4;
    int32_t ids[10];
    uint8_t starts[10];
    struct hm_window window;
    struct hm_error err = { 0 };

    for (size_t i = 0; i < 4 * record; i++) {
        struct hm_packed packed = { 0 };
        char byte = (char)(good[HEADER_BYTES + i] ^ 16);
        assert_ok(open_changed(*state, (ptrdiff_t)(HEADER_BYTES + i), &byte, 1, &packed, &err),
                  err);
        for (uint64_t w = 0; w < 4; w++) {
            int status = hm_packed_window(&packed, w, ids, starts, &window, &err);
            assert_int_equal(status, w == i / record ? HM_ERR_FORMAT : HM_OK);
        }
        assert_fails(hm_packed_verify(&packed, &err), HM_ERR_FORMAT, "not those that were written",
                     err);
        hm_packed_close(&packed);
    }
}

/* The check fits, the token is beyond the vocabulary. */
static void test_token_beyond_vocabulary(void **state)
{
    struct hm_packed packed = { 0 };
    struct hm_error err = { 0 };
    int32_t ids[10];
    struct hm_window window;

    assert_ok(open_changed(*state, 24, "\x06\0", 2, &packed, &err), err);
    assert_fails(hm_packed_window(&packed, 0, ids, NULL, &window, &err), HM_ERR_FORMAT,
                 "the vocabulary has 6", err);
    assert_fails(hm_packed_window(&packed, 4, ids, NULL, &window, &err), HM_ERR_USAGE,
                 "window 4 of 4", err);
    hm_packed_close(&packed);
}

static void test_wide_tokens(void **state)
{
    struct hm_packed narrow, wide;
    struct hm_error err = { 0 };
    int32_t a[10], b[10];
    struct hm_window window[2];
    const char *dir = tmp_path(*state, "wide");

    pack_small(dir, 65537);
    assert_ok(hm_packed_open(*state, &narrow, &err), err);
    assert_ok(hm_packed_open(dir, &wide, &err), err);
    assert_int_equal(narrow.token_bytes, 2);
    assert_int_equal(wide.token_bytes, 4);
    for (uint64_t i = 0; i < 4; i++) {
        assert_ok(hm_packed_window(&narrow, i, a, NULL, &window[0], &err), err);
        assert_ok(hm_packed_window(&wide, i, b, NULL, &window[1], &err), err);
        assert_memory_equal(a, b, sizeof(a));
        assert_int_equal(window[0].utf8_bytes, window[1].utf8_bytes);
        assert_int_equal(window[0].chars, window[1].chars);
    }
    hm_packed_close(&narrow);
    hm_packed_close(&wide);
}

static void test_folders(void **state)
{
    const char *dir = tmp_path(*state, "folder");
    struct hm_packed packed;
    struct hm_error err = { 0 };

    assert_ok(hm_dir_make(dir, &err), err);
    assert_fails(hm_packed_open(dir, &packed, &err), HM_ERR_USAGE, "holds no packed token file",
                 err);
    file_put(tmp_path(dir, "b.hmp"), good, good_len);
    assert_ok(hm_packed_open(dir, &packed, &err), err);
    hm_packed_close(&packed);
    file_put(tmp_path(dir, "a.hmp"), good, good_len);
    assert_fails(hm_packed_open(dir, &packed, &err), HM_ERR_USAGE, "name one", err);
    file_put(tmp_path(dir, "train.hmp"), good, good_len);
    assert_ok(hm_packed_open(dir, &packed, &err), err);
    assert_true(hm_text_ends(packed.path, "train.hmp"));
    hm_packed_close(&packed);
    assert_fails(hm_packed_open(tmp_path(dir, "none"), &packed, &err), HM_ERR_USAGE,
                 "does not exist", err);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_packed packed;

    HM_TRY(hm_packed_open(context, &packed, err));
    hm_packed_close(&packed);
    return HM_OK;
}

static void test_out_of_memory(void **state)
{
    assert_true(oom_sweep(oom_attempt, *state) > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_header_and_footer_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_windows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_token_beyond_vocabulary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wide_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
