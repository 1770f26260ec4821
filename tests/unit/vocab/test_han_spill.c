/* SPDX-License-Identifier: MIT */
/*
 * vocab/han_spill.c, cut_parts.c, run_blocks.c: runs that leave memory, at once or midway, parts
 * that are parted again, and what becomes of full memory and damaged files. The trainer's result is
 * that of runs in memory, to the last count.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include <unistd.h>

#include "../../../vocab/bpe_cut.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"

enum { DOCUMENTS = 1500, MERGES = 900, LONG = 24 };

static char *document[DOCUMENTS];

/* Characters of very unequal frequency; long runs of one, rare ones of two units, one very long. */
static int text_setup(void **state)
{
    struct hm_rng_key key = { 5, 6 };
    struct hm_error err = { 0 };

    for (uint32_t d = 0; d < DOCUMENTS; d++) {
        struct hm_buf buf = { 0 };
        uint32_t n = d == 77 ? 5000 : 20 + d % 200;
        for (uint32_t i = 0; i < n; i++) {
            char utf8[4];
            uint64_t a = hm_rng_below(key, 10000 * d + i, 300);
            uint32_t code = 0x4e00 + (uint32_t)(a * a * a / 30000);
            if (d != 77 && a % 19 == 0)
                code = a % 2 ? 0x3042 + a % 5 : 0x20000 + (uint32_t)a % 7;
            if (d != 77 && a % 7 == 6)
                code = 0xff0c;
            if (d % 40 == 3 && i > 10)
                code = 0x54c8;
            assert_ok(hm_buf_append(&buf, utf8, hm_utf8_encode(code, utf8), &err), err);
        }
        document[d] = buf.ptr;
    }
    return test_dir_setup(state);
}

static int text_teardown(void **state)
{
    for (uint32_t d = 0; d < DOCUMENTS; d++)
        hm_free(document[d]);
    return test_dir_teardown(state);
}

static struct hm_han_counts *counts_of(const struct hm_han_spill_options *options)
{
    struct fixture_texts fixture = { .text = (const char *const *)document, .count = DOCUMENTS };
    struct hm_text_source source = fixture_source(&fixture);
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    struct hm_str run = hm_str_of("中国人");

    assert_ok(hm_han_counts_new(&counts, &err), err);
    if (options)
        assert_ok(hm_han_counts_spill(counts, options, &err), err);
    assert_ok(hm_han_counts_add(counts, hm_str_of("一二三，四五"), &err), err);
    assert_ok(hm_han_counts_add_run(counts, run, (uint64_t)1 << 40, &err), err);
    assert_ok(hm_han_counts_read(counts, &source, NULL, &err), err);
    assert_ok(hm_han_counts_add_run(counts, run, (uint64_t)1 << 31, &err), err);
    assert_ok(hm_han_counts_end(counts, NULL, &err), err);
    return counts;
}

static struct hm_bpe_result train(const struct hm_han_counts *counts)
{
    struct hm_bpe_options options = { .merges = MERGES, .max_piece_chars = 8 };
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    return result;
}

static void pieces_equal(const struct hm_bpe_piece *a, const struct hm_bpe_piece *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!hm_str_equal(a[i].text, b[i].text))
            fail_msg("piece %zu: %.*s and %.*s", i, (int)a[i].text.len, a[i].text.ptr,
                     (int)b[i].text.len, b[i].text.ptr);
        assert_int_equal(a[i].count, b[i].count);
    }
}

/* Runs that go to the disk beyond hold_bytes: the same result, with one thread and with three. */
static struct hm_han_spilled compare(uint64_t hold_bytes)
{
    struct hm_han_spill_options options = { .dir = test_dir, .key = "", .hold_bytes = hold_bytes };
    struct hm_han_counts *held = counts_of(NULL);
    struct hm_bpe_result expected = train(held);
    struct hm_han_totals totals = hm_han_counts_totals(held);
    struct hm_han_spilled spilled = { 0 };
    int threads = hm_threads();

    for (int t = 1; t <= 3; t += 2) {
        hm_threads_set(t);
        struct hm_han_counts *counts = counts_of(&options);
        struct hm_bpe_result found = train(counts);
        struct hm_han_totals now = hm_han_counts_totals(counts);
        assert_int_equal(found.n_merges, expected.n_merges);
        assert_int_equal(found.n_singles, expected.n_singles);
        pieces_equal(found.merge, expected.merge, found.n_merges);
        pieces_equal(found.single, expected.single, found.n_singles);
        assert_int_equal(now.runs, totals.runs);
        assert_int_equal(now.documents, totals.documents);
        assert_int_equal(now.bytes, totals.bytes);
        assert_int_equal(now.characters, totals.characters);
        assert_int_equal(now.han_characters, totals.han_characters);
        assert_int_equal(now.distinct_characters, totals.distinct_characters);
        spilled = hm_han_counts_spilled(counts);
        hm_bpe_result_release(&found);
        hm_han_counts_free(counts);
    }
    hm_threads_set(threads);
    hm_bpe_result_release(&expected);
    hm_han_counts_free(held);
    return spilled;
}

static void test_at_once(void **state)
{
    struct hm_han_spilled spilled = compare(0);

    (void)state;
    assert_true(spilled.spilled_bytes > 200000);
    assert_int_equal(spilled.partitions, 16);
}

/* Runs so long that few of them fill a part. */
static void test_parted_again(void **state)
{
    char *kept[LONG];
    struct hm_error err = { 0 };
    struct hm_rng_key key = { 8, 9 };

    (void)state;
    for (uint32_t d = 0; d < LONG; d++) {
        struct hm_buf buf = { 0 };
        for (uint32_t i = 0; i < 70000; i++) {
            char utf8[4];
            uint32_t code = 0x4e00 + (uint32_t)hm_rng_below(key, 70000 * d + i, 24);
            assert_ok(hm_buf_append(&buf, utf8, hm_utf8_encode(code, utf8), &err), err);
        }
        kept[d] = document[d];
        document[d] = buf.ptr;
    }
    struct hm_han_spilled spilled = compare(0);
    assert_true(spilled.splits > 0);
    for (uint32_t d = 0; d < LONG; d++) {
        hm_free(document[d]);
        document[d] = kept[d];
    }
}

static void test_midway(void **state)
{
    struct hm_han_spilled spilled = compare(5 << 18);

    (void)state;
    assert_true(spilled.spilled_bytes > 200000);
    assert_int_equal(spilled.splits, 0);
}

/* A later process trains from what is whole on the disk; of another key, or damaged, it is not. */
static void test_resumed(void **state)
{
    struct hm_han_spill_options options = { .dir = test_dir, .key = "one" };
    struct hm_han_counts *counts = counts_of(&options);
    struct hm_bpe_result expected = train(counts);
    struct hm_error err = { 0 };
    bool resumed = false;

    (void)state;
    hm_han_counts_free(counts);
    for (int i = 0; i < 2; i++) {
        assert_ok(hm_han_counts_new(&counts, &err), err);
        assert_ok(hm_han_counts_spill(counts, &options, &err), err);
        assert_ok(hm_han_counts_resume(counts, &resumed, NULL, &err), err);
        assert_true(resumed);
        struct hm_bpe_result found = train(counts);
        pieces_equal(found.merge, expected.merge, expected.n_merges);
        pieces_equal(found.single, expected.single, expected.n_singles);
        assert_int_equal(hm_han_counts_totals(counts).documents, DOCUMENTS + 1);
        hm_bpe_result_release(&found);
        hm_han_counts_free(counts);
        /* without the second pass */
        assert_int_equal(unlink(tmp_path(test_dir, "counting.cut.json")), 0);
    }
    hm_bpe_result_release(&expected);
    size_t len = 0;
    char *runs = file_get(tmp_path(test_dir, "counting.runs"), &len);
    runs[len / 2] ^= 1;
    file_put(tmp_path(test_dir, "counting.runs"), runs, len);
    hm_free(runs);
    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_ok(hm_han_counts_spill(counts, &options, &err), err);
    assert_ok(hm_han_counts_resume(counts, &resumed, NULL, &err), err);
    struct hm_bpe_options merges = { .merges = MERGES, .max_piece_chars = 8 };
    struct hm_bpe_result none = { 0 };
    assert_fails(hm_bpe_train(counts, &merges, NULL, &none, &err), HM_ERR_FORMAT,
                 "scratch file is damaged", err);
    hm_han_counts_free(counts);
    options.key = "two";
    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_ok(hm_han_counts_spill(counts, &options, &err), err);
    assert_ok(hm_han_counts_resume(counts, &resumed, NULL, &err), err);
    assert_false(resumed);
    assert_false(hm_path_exists(tmp_path(test_dir, "counting.runs")));
    hm_han_counts_free(counts);
}

static void test_not_at_all(void **state)
{
    struct hm_han_spilled spilled = compare(1 << 30);

    (void)state;
    assert_int_equal(spilled.spilled_bytes, 0);
    assert_int_equal(spilled.passes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once),    cmocka_unit_test(test_parted_again),
        cmocka_unit_test(test_midway),     cmocka_unit_test(test_resumed),
        cmocka_unit_test(test_not_at_all),
    };

    return cmocka_run_group_tests(tests, text_setup, text_teardown);
}
