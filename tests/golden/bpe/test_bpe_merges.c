/* SPDX-License-Identifier: MIT */
/*
 * vocab/bpe_*.c against the merge lists of sentencepiece 0.2.3 in data/bpe: the same pieces in the
 * same order with the same counts, from text and from counted runs; for any number of threads, cut
 * of the input, memory limit, with the runs in memory or on the disk, and also when no rare pair is
 * left out (more merges asked for than there are pairs).
 */
#include "support/support.h"

#include <inttypes.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/corpus/text_files.h"
#include "hanmix/vocab/bpe_train.h"

struct list { /* piece, tab, count a line */
    struct hm_bpe_piece *piece;
    size_t n, cap;
};

struct variant {
    const char *what;
    int threads;
    size_t shards;
    bool uncut;          /* ask for all merges there are: the floor is 1 */
    uint64_t hold_bytes; /* of runs in memory, then on the disk */
};
static const struct variant variants[] = {
    { "1 thread", 1, 1, false, UINT64_MAX },
    { "2 threads, 3 shards", 2, 3, false, UINT64_MAX },
    { "2 threads, 7 shards", 2, 7, false, UINT64_MAX },
    { "no rare pair left out", 2, 1, true, UINT64_MAX },
    { "on the disk", 2, 3, false, 0 },
    { "on the disk, 1 thread", 1, 1, false, 0 },
    { "on the disk midway", 2, 1, false, 4 << 20 },
    { "on the disk, no rare pair left out", 2, 1, true, 0 },
};

static void source_open(const char *path, struct hm_text_source *source)
{
    char *file = (char *)(uintptr_t)path;
    struct hm_text_set set = {
        .name = (char *)(uintptr_t) "text", .file = &file, .n_files = 1, .epochs = 1
    };
    struct hm_text_options options = { .field = "text" };
    struct hm_error err = { 0 };

    assert_ok(hm_text_files_open(&set, 1, &options, source, &err), err);
}

/* data/bpe/NAME.ENDING, or that compressed. */
static const char *data_path(const char *name, const char *ending)
{
    const char *plain = golden_path(tmp_path("bpe", "%s.%s", name, ending));

    return hm_path_exists(plain) ? plain : golden_path(tmp_path("bpe", "%s.%s.zst", name, ending));
}

static uint64_t line_split(struct hm_str *line)
{
    const char *tab = memchr(line->ptr, '\t', line->len);
    uint64_t count = 0;

    assert_non_null(tab);
    for (const char *digit = tab + 1; digit < line->ptr + line->len; digit++)
        count = 10 * count + (uint64_t)(*digit - '0');
    line->len = (size_t)(tab - line->ptr);
    return count;
}

static struct list list_load(const char *name)
{
    struct hm_text_source source = { 0 };
    struct hm_error err = { 0 };
    struct list list = { 0 };
    struct hm_doc doc;

    source_open(data_path(name, "merges.tsv"), &source);
    while (source.next(source.context, &doc, &err) > 0) {
        if (list.n == list.cap) {
            list.cap = list.cap ? 2 * list.cap : 1024;
            list.piece = hm_realloc(HM_MEM_OTHER, list.piece, list.cap * sizeof(*list.piece));
        }
        uint64_t count = line_split(&doc.text);
        char *text = hm_alloc(HM_MEM_OTHER, doc.text.len);
        memcpy(text, doc.text.ptr, doc.text.len);
        list.piece[list.n++] = (struct hm_bpe_piece){ { text, doc.text.len }, count, false };
    }
    source.close(source.context);
    return list;
}

static void list_release(struct list *list)
{
    for (size_t i = 0; i < list->n; i++)
        hm_free((void *)(uintptr_t)list->piece[i].text.ptr);
    hm_free(list->piece);
}

/* The documents, or the counted runs, of one shard after the other. */
static struct hm_han_counts *counts_make(const char *path, bool counted,
                                         const struct variant *variant)
{
    struct hm_han_spill_options options = { .dir = test_dir,
                                            .key = "",
                                            .hold_bytes = variant->hold_bytes };
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    size_t shards = variant->shards;

    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_ok(hm_han_counts_spill(counts, &options, &err), err);
    for (size_t shard = 0; shard < shards; shard++) {
        struct hm_text_source source = { 0 };
        struct hm_doc doc;
        source_open(path, &source);
        while (source.next(source.context, &doc, &err) > 0) {
            if (doc.number % shards != shard)
                continue;
            uint64_t count = counted ? line_split(&doc.text) : 1;
            assert_ok(counted ? hm_han_counts_add_run(counts, doc.text, count, &err)
                              : hm_han_counts_add(counts, doc.text, &err),
                      err);
        }
        source.close(source.context);
    }
    assert_ok(hm_han_counts_end(counts, NULL, &err), err);
    return counts;
}

static void same_list(const struct hm_bpe_result *result, const struct list *list, const char *name,
                      const char *what)
{
    assert_true(result->n_merges >= list->n);
    for (size_t i = 0; i < list->n; i++) {
        const struct hm_bpe_piece *ours = &result->merge[i];
        const struct hm_bpe_piece *theirs = &list->piece[i];
        if (!hm_str_equal(ours->text, theirs->text) || ours->count != theirs->count)
            fail_msg("%s, %s: merge %zu is %.*s with %" PRIu64
                     ", sentencepiece's is %.*s with %" PRIu64,
                     name, what, i, (int)ours->text.len, ours->text.ptr, ours->count,
                     (int)theirs->text.len, theirs->text.ptr, theirs->count);
        assert_false(ours->single);
    }
}

static void train(const struct hm_han_counts *counts, const struct list *list,
                  struct hm_bpe_options options, const char *name, const char *what)
{
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    same_list(&result, list, name, what);
    if (!options.allow_fewer)
        assert_int_equal(result.n_merges, list->n);
    for (size_t i = 0; i < result.n_singles; i++) {
        assert_int_equal(hm_utf8_count(result.single[i].text), 1);
        assert_true(i == 0 || result.single[i].count <= result.single[i - 1].count);
    }
    assert_int_equal(result.n_singles, hm_han_counts_totals(counts).distinct_characters);
    hm_bpe_result_release(&result);
}

/* Any limit gives the list or is told to be too small. */
static void train_within(const struct hm_han_counts *counts, const struct list *list,
                         struct hm_bpe_options options, const char *name)
{
    uint64_t peak = hm_mem_peak_bytes(HM_MEM_VOCAB);
    char what[64];

    for (uint64_t part = 1; part <= 4; part++) {
        struct hm_bpe_result result = { 0 };
        struct hm_error err = { 0 };
        options.memory_bytes = peak * part / 4;
        snprintf(what, sizeof(what), "%" PRIu64 " bytes", options.memory_bytes);
        int status = hm_bpe_train(counts, &options, NULL, &result, &err);
        if (status == HM_OK)
            same_list(&result, list, name, what);
        else
            assert_int_equal(status, HM_ERR_NOFIT);
        hm_bpe_result_release(&result);
    }
}

static void compare(const char *name, const char *path, bool counted, uint32_t max_piece_chars,
                    struct hm_han_totals expected)
{
    struct list list = list_load(name);

    for (size_t v = 0; v < sizeof(variants) / sizeof(variants[0]); v++) {
        const struct variant *variant = &variants[v];
        struct hm_bpe_options options = { .merges = list.n, .max_piece_chars = max_piece_chars };
        hm_threads_set(variant->threads);
        hm_mem_peak_reset();
        struct hm_han_counts *counts = counts_make(path, counted, variant);
        struct hm_han_totals totals = hm_han_counts_totals(counts);
        assert_int_equal(totals.runs, expected.runs);
        bool on_disk = hm_han_counts_spilled(counts).passes > 0;
        assert_true(variant->hold_bytes > 0 || on_disk);
        assert_int_equal(totals.han_characters, expected.han_characters);
        assert_int_equal(totals.distinct_characters, expected.distinct_characters);
        if (variant->uncut) {
            options.merges = 1000000;
            options.allow_fewer = true;
        }
        train(counts, &list, options, name, variant->what);
        if (!variant->uncut)
            train_within(counts, &list, options, name);
        hm_han_counts_free(counts);
    }
    hm_threads_set(0);
    list_release(&list);
}

/* The numbers here and below are those of data/bpe/results.json. */
static void test_quickstart(void **state)
{
    (void)state;
    compare("quickstart", QUICKSTART_TEXT "/zh.jsonl.zst", false, 8,
            (struct hm_han_totals){
                .runs = 166203, .han_characters = 1145811, .distinct_characters = 6137 });
}

static void test_held_out(void **state)
{
    (void)state;
    compare("held_out", QUICKSTART_TEXT "/zh.valid.jsonl.zst", false, 8,
            (struct hm_han_totals){
                .runs = 8153, .han_characters = 56107, .distinct_characters = 2687 });
}

static void test_mixed(void **state)
{
    (void)state;
    compare("mixed", data_path("mixed", "txt"), false, 8,
            (struct hm_han_totals){
                .runs = 11552, .han_characters = 87909, .distinct_characters = 2748 });
}

static void test_ties(void **state)
{
    (void)state;
    compare(
        "ties", data_path("ties", "tsv"), true, 8,
        (struct hm_han_totals){ .runs = 299, .han_characters = 1671, .distinct_characters = 24 });
    compare(
        "long_ties", data_path("long_ties", "tsv"), true, 16,
        (struct hm_han_totals){ .runs = 1813, .han_characters = 38473, .distinct_characters = 4 });
}

static void test_repeats(void **state)
{
    (void)state;
    compare(
        "repeats", data_path("repeats", "tsv"), true, 8,
        (struct hm_han_totals){ .runs = 1191, .han_characters = 10738, .distinct_characters = 7 });
    compare("laughter", data_path("laughter", "tsv"), true, 16,
            (struct hm_han_totals){
                .runs = 23011, .han_characters = 1575488, .distinct_characters = 9 });
}

static void test_counted(void **state)
{
    (void)state;
    compare("counted", data_path("counted", "tsv"), true, 8,
            (struct hm_han_totals){
                .runs = 67906259236, .han_characters = 285518001051, .distinct_characters = 2687 });
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quickstart), cmocka_unit_test(test_held_out),
        cmocka_unit_test(test_mixed),      cmocka_unit_test(test_ties),
        cmocka_unit_test(test_repeats),    cmocka_unit_test(test_counted),
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
