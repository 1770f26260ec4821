/* SPDX-License-Identifier: MIT */
/*
 * vocab/bpe_*.c against the merge lists of sentencepiece 0.2.3 in data/bpe: the same pieces in the
 * same order, from the quickstart texts and from counted runs made for ties and repeated
 * characters.
 */
#include "support/support.h"

#include "hanmix/corpus/text_files.h"
#include "hanmix/vocab/bpe_train.h"

static void compare(struct hm_han_counts *counts, const char *name)
{
    struct hm_bpe_options options = { .max_piece_chars = 8 };
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };
    size_t len = 0;
    char *expected = file_get(golden_path(tmp_path("bpe", "%s.merges.txt", name)), &len);
    const char *line = expected;

    for (size_t i = 0; i < len; i++)
        options.merges += expected[i] == '\n';
    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    assert_int_equal(result.n_merges, options.merges);
    for (size_t i = 0; i < result.n_merges; i++) {
        size_t n = strcspn(line, "\n");
        struct hm_str text = result.merge[i].text;
        if (!hm_str_equal(text, (struct hm_str){ line, n }))
            fail_msg("%s: merge %zu is %.*s, sentencepiece's is %.*s", name, i, (int)text.len,
                     text.ptr, (int)n, line);
        assert_false(result.merge[i].single);
        assert_true(i == 0 || result.merge[i].count <= result.merge[i - 1].count);
        line += n + 1;
    }
    for (size_t i = 0; i < result.n_singles; i++) {
        assert_int_equal(hm_utf8_count(result.single[i].text), 1);
        assert_true(i == 0 || result.single[i].count <= result.single[i - 1].count);
    }
    assert_int_equal(result.n_singles, hm_han_counts_totals(counts).distinct_characters);
    hm_bpe_result_release(&result);
    hm_free(expected);
}

static void from_text(const char *file, const char *name, uint64_t runs, uint64_t distinct_runs,
                      uint64_t characters, uint64_t distinct_characters)
{
    char *files[] = { (char *)(uintptr_t)tmp_path(QUICKSTART_TEXT, "%s", file) };
    struct hm_text_set set = {
        .name = (char *)(uintptr_t) "text", .file = files, .n_files = 1, .epochs = 1
    };
    struct hm_text_options options = { .field = "text" };
    struct hm_text_source source = { 0 };
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    struct hm_doc doc;
    int more;

    assert_ok(hm_text_files_open(&set, 1, &options, &source, &err), err);
    assert_ok(hm_han_counts_new(&counts, &err), err);
    while ((more = source.next(source.context, &doc, &err)) > 0)
        assert_ok(hm_han_counts_add(counts, doc.text, &err), err);
    assert_ok(more, err);
    source.close(source.context);
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    assert_int_equal(totals.runs, runs);
    assert_int_equal(totals.distinct_runs, distinct_runs);
    assert_int_equal(totals.han_characters, characters);
    assert_int_equal(totals.distinct_characters, distinct_characters);
    compare(counts, name);
    hm_han_counts_free(counts);
}

static void from_runs(const char *name)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    char *text = file_get(golden_path(tmp_path("bpe", "%s.tsv", name)), NULL);

    assert_ok(hm_han_counts_new(&counts, &err), err);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        size_t n = strcspn(line, "\t");
        assert_ok(hm_han_counts_add_run(counts, (struct hm_str){ line, n },
                                        strtoull(line + n + 1, NULL, 10), &err),
                  err);
    }
    hm_free(text);
    compare(counts, name);
    hm_han_counts_free(counts);
}

/* The numbers are those of data/bpe/results.json. */
static void test_quickstart(void **state)
{
    (void)state;
    from_text("zh.jsonl.zst", "quickstart", 166203, 126533, 1145811, 6137);
}

static void test_held_out(void **state)
{
    (void)state;
    from_text("zh.valid.jsonl.zst", "held_out", 8153, 6744, 56107, 2687);
}

static void test_ties(void **state)
{
    (void)state;
    from_runs("ties");
}

static void test_repeats(void **state)
{
    (void)state;
    from_runs("repeats");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quickstart),
        cmocka_unit_test(test_held_out),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_repeats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
