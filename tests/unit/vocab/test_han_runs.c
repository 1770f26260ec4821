/* SPDX-License-Identifier: MIT */
/*
 * vocab/han_table.c and vocab/han_runs.c: the script table, and documents cut into counted runs.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include <signal.h>

#include "../../../vocab/bpe_internal.h"
#include "../../../vocab/han_store.h"
#include "hanmix/base/parallel.h"

static void test_table(void **state)
{
    unsigned han = 0;
    unsigned ideographs = 0;

    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        han += hm_is_han_class(code);
        ideographs += hm_is_ideograph(code);
        if (hm_is_ideograph(code))
            assert_true(hm_is_han_class(code));
    }
    /* Sums of the ranges of the specification. */
    assert_int_equal(ideographs, 6582 + 20950 + 366 + 106 + 42711 + 4149 + 222 + 5762 + 542 + 13);
    assert_int_equal(han, ideographs + 26 + 89 + 214 + 1 + 1 + 86 + 3 + 90 + 4 + 16 + 47 + 88 + 10 +
                              45 + 2 + 1);
    assert_true(hm_is_han_class(0x30fc) && !hm_is_ideograph(0x30fc));
    assert_true(hm_is_han_class(0x3005) && !hm_is_ideograph(0x3005));
    assert_true(hm_is_ideograph(0x3007));
    assert_false(hm_is_han_class(0x30fb) || hm_is_han_class(0x3099) || hm_is_han_class(0xff70));
    assert_false(hm_is_han_class(0x9fd6) || hm_is_han_class(0x3002) || hm_is_han_class(0x4dc0));
}

static uint64_t count_of(const struct hm_han_counts *counts, const char *text)
{
    uint64_t cursor = 0, sum = 0;
    struct hm_run run;

    while (hm_han_counts_next(counts, &cursor, &run)) {
        char utf8[256];
        size_t len = 0;
        for (uint32_t i = 0; i < run.n_units;)
            len += hm_utf8_encode(hm_run_code(run.unit, &i), utf8 + len);
        utf8[len] = '\0';
        sum += strcmp(utf8, text) == 0 ? run.count : 0;
    }
    return sum;
}

/* Chinese punctuation joins runs where it is asked for; quotes and dashes, which other text has, do
 * not. */
static void test_marks(void **state)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    hm_han_counts_take_marks(counts);
    assert_ok(hm_han_counts_add(counts, hm_str_of("中国，（人）abc。\"国“人”"), &err), err);
    assert_ok(hm_han_counts_add_run(counts, hm_str_of("《中》"), 2, &err), err);
    assert_fails(hm_han_counts_add_run(counts, hm_str_of("中“"), 2, &err), HM_ERR_FORMAT,
                 "byte 3 begins no character", err);
    assert_int_equal(count_of(counts, "中国，（人）"), 1);
    assert_int_equal(count_of(counts, "。"), 1);
    assert_int_equal(count_of(counts, "国"), 1);
    assert_int_equal(count_of(counts, "人"), 1);
    assert_int_equal(count_of(counts, "《中》"), 2);
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    assert_int_equal(totals.han_characters, 3 + 2 + 2);
    assert_int_equal(totals.characters, 6 + 3 + 1 + 1 + 1 + 3 + 6);
    hm_han_counts_free(counts);
}

/* Every character of runs has an index of its own, dense from 1, and comes back from it. */
static void test_indices(void **state)
{
    uint32_t n = 0, index = 0;

    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        bool is = hm_is_han_class(code) || hm_is_han_mark(code);
        index = hm_han_index(code);
        assert_int_equal(index != 0, is);
        if (is)
            assert_int_equal(hm_han_code(index), code);
        n += is;
    }
    for (index = 1; index <= n; index++)
        assert_int_equal(hm_han_index(hm_han_code(index)), index);
    assert_int_equal(hm_han_code(0), 0);
    assert_int_equal(hm_han_code(n + 1), 0);
    assert_true(n < HM_HAN_INDICES);
    assert_false(hm_is_han_class(0xff0c));
    assert_true(hm_is_han_mark(0xff0c));
    assert_false(hm_is_han_mark(0x201c));
}

static void test_cutting(void **state)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_ok(
        hm_han_counts_add(counts, hm_str_of("中国，中国abc中國々カー·人\xe4\xb8人𠀀中\xff"), &err),
        err);
    assert_ok(hm_han_counts_add(counts, hm_str_of("中国"), &err), err);
    assert_ok(hm_han_counts_add(counts, hm_str_of("no such thing"), &err), err);
    assert_int_equal(count_of(counts, "中国"), 3);
    assert_int_equal(count_of(counts, "中國々カー"), 1);
    assert_int_equal(count_of(counts, "人"), 1);
    assert_int_equal(count_of(counts, "人𠀀中"), 1);
    assert_int_equal(count_of(counts, "abc"), 0);
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    assert_int_equal(totals.documents, 3);
    assert_int_equal(totals.runs, 6);
    assert_int_equal(totals.han_characters, 2 + 2 + 5 + 1 + 3 + 2);
    assert_int_equal(totals.characters, 2 + 1 + 2 + 3 + 5 + 1 + 1 + 2 + 3 + 1 + 2 + 13);
    assert_int_equal(totals.distinct_characters, 8);
    assert_fails(hm_han_counts_add_run(counts, hm_str_of("中a"), 1, &err), HM_ERR_FORMAT, "byte 3",
                 err);
    assert_ok(hm_han_counts_add_run(counts, hm_str_of("中国"), (uint64_t)1 << 40, &err), err);
    assert_int_equal(count_of(counts, "中国"), ((uint64_t)1 << 40) + 3);
    hm_han_counts_free(counts);
    hm_han_counts_free(NULL);
}

/* Many runs, one far longer than a block. */
static void test_growth(void **state)
{
    struct hm_han_counts *all = NULL;
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };
    uint64_t cursor = 0;
    struct hm_run run;
    uint32_t longest = 0;
    size_t seen = 0;

    (void)state;
    assert_ok(hm_han_counts_new(&all, &err), err);
    for (uint32_t i = 0; i < 300000; i++) {
        hm_buf_clear(&text);
        for (uint32_t value = i * 7919u % 200000; value > 0; value /= 1000) {
            char utf8[4];
            assert_ok(hm_buf_append(&text, utf8, hm_utf8_encode(0x4e00 + value % 1000, utf8), &err),
                      err);
        }
        for (int n = i == 150000 ? 3000000 : 0; n > 0; n--)
            assert_ok(hm_buf_text(&text, "一", &err), err);
        struct hm_str doc = { text.ptr, text.len };
        assert_ok(hm_han_counts_add(all, doc, &err), err);
    }
    struct hm_han_totals a = hm_han_counts_totals(all);
    assert_int_equal(a.runs, 299998); /* the empty one is none, twice */
    assert_true(hm_han_counts_bytes(all) > 2 * 3000000);
    while (hm_han_counts_next(all, &cursor, &run)) {
        assert_true(run.count == 1 && (run.n_units < 4 || run.n_units > 3000000));
        longest = run.n_units > longest ? run.n_units : longest;
        seen++;
    }
    assert_int_equal(seen, a.runs);
    assert_in_range(longest, 3000001, 3000003);
    hm_han_counts_free(all);
    hm_buf_release(&text);
}

/* A source read in parallel gives what its documents give one by one; a big one makes many batches.
 */
static void test_read(void **state)
{
    enum { DOCUMENTS = 3000 };
    static const char *text[DOCUMENTS];
    struct fixture_texts fixture = { .text = text, .count = DOCUMENTS };
    struct hm_text_source source = fixture_source(&fixture);
    struct hm_han_counts *one = NULL;
    struct hm_error err = { 0 };
    int threads = hm_threads();

    (void)state;
    assert_ok(hm_han_counts_new(&one, &err), err);
    for (uint32_t d = 0; d < DOCUMENTS; d++) {
        struct hm_buf buf = { 0 };
        assert_ok(hm_buf_text(&buf, d % 3 ? "中国\xff，" : "", &err), err);
        for (uint32_t i = 0; i < (d == 7 ? 900000 : d % 50); i++) {
            char utf8[4];
            uint32_t code = i % 9 == 8 ? 'a' + i % 26 : 0x4e00 + (i * d) % 3001;
            assert_ok(hm_buf_append(&buf, utf8, hm_utf8_encode(code, utf8), &err), err);
        }
        text[d] = buf.ptr;
        assert_ok(hm_han_counts_add(one, (struct hm_str){ buf.ptr, buf.len }, &err), err);
    }
    for (int t = 1; t <= 3; t += 2) {
        struct hm_han_counts *all = NULL;
        uint64_t cursor[2] = { 0 };
        struct hm_run run[2];
        size_t n = 0;
        hm_threads_set(t);
        assert_ok(hm_han_counts_new(&all, &err), err);
        fixture.at = 0; /* from the start */
        assert_ok(hm_han_counts_read(all, &source, NULL, &err), err);
        struct hm_han_totals a = hm_han_counts_totals(one);
        struct hm_han_totals b = hm_han_counts_totals(all);
        assert_memory_equal(&a, &b, sizeof(a));
        while (hm_han_counts_next(one, &cursor[0], &run[0])) { /* even in the same order */
            assert_true(hm_han_counts_next(all, &cursor[1], &run[1]));
            assert_int_equal(run[0].n_units, run[1].n_units);
            assert_int_equal(run[0].count, run[1].count);
            assert_memory_equal(run[0].unit, run[1].unit, run[0].n_units * sizeof(uint16_t));
            n++;
        }
        assert_int_equal(n, a.runs);
        hm_han_counts_free(all);
    }
    hm_threads_set(threads);
    hm_han_counts_free(one);
    for (uint32_t d = 0; d < DOCUMENTS; d++)
        hm_free((void *)(uintptr_t)text[d]);
}

static void test_read_failures(void **state)
{
    static const char *const text[] = { "中国", "人", "民" };
    struct fixture_texts fixture = { .text = text, .count = 3, .fail_at = 2 };
    struct hm_text_source source = fixture_source(&fixture);
    volatile sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_fails(hm_han_counts_read(counts, &source, NULL, &err), HM_ERR_FORMAT,
                 "document 2 is broken", err);
    fixture = (struct fixture_texts){ .text = text, .count = 3 };
    assert_fails(hm_han_counts_read(counts, &source, &ctl, &err), HM_ERR_STOPPED, "stopped", err);
    hm_han_counts_free(counts);
}

static void test_limit(void **state)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    int status = HM_OK;

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    hm_han_counts_limit(counts, 5 << 20);
    for (uint32_t i = 0; status == HM_OK && i < 1 << 20; i++) {
        char run[12];
        size_t len = hm_utf8_encode(0x4e00 + i % 1024, run);
        len += hm_utf8_encode(0x5e00 + i / 1024, run + len);
        status = hm_han_counts_add(counts, (struct hm_str){ run, len }, &err);
    }
    assert_int_equal(status, HM_ERR_NOFIT);
    assert_non_null(strstr(err.text, "raise the memory limit"));
    assert_true(hm_han_counts_bytes(counts) <= 5 << 20);
    hm_han_counts_free(counts);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_han_counts *counts = NULL;
    const struct hm_buf *text = context;
    const char *const texts[] = { text->ptr };
    struct fixture_texts fixture = { .text = texts, .count = 1 };
    struct hm_text_source source = fixture_source(&fixture);
    int status = hm_han_counts_new(&counts, err);

    if (status == HM_OK)
        status = hm_han_counts_read(counts, &source, NULL, err);
    if (status == HM_OK)
        status = hm_han_counts_add(counts, (struct hm_str){ text->ptr, text->len }, err);
    hm_han_counts_free(counts);
    return status;
}

static void test_out_of_memory(void **state)
{
    struct hm_buf text = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        char utf8[4];
        assert_ok(hm_buf_append(&text, utf8, hm_utf8_encode(0x4e00 + i % 5000, utf8), &err), err);
        if (i > 9000 && i % 2)
            assert_ok(hm_buf_text(&text, " ", &err), err);
    }
    assert_true(oom_sweep(oom_attempt, &text) >= 6);
    hm_buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),         cmocka_unit_test(test_marks),
        cmocka_unit_test(test_indices),       cmocka_unit_test(test_cutting),
        cmocka_unit_test(test_growth),        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_failures), cmocka_unit_test(test_limit),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
