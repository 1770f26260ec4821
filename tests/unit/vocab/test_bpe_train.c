/* SPDX-License-Identifier: MIT */
/*
 * vocab/bpe_*.c: against a trainer that recounts all pairs after every merge, and its limits:
 * memory, stopping, too few pairs, no text.
 */
#include "support/support.h"

#include <signal.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/vocab/bpe_train.h"

#define NAIVE_RUNS  400
#define NAIVE_CHARS 24

/* --- the trainer by definition: symbols are strings of letters, every step counts everything -- */

struct naive {
    char run[NAIVE_RUNS][NAIVE_CHARS][NAIVE_CHARS]; /* symbols of every run */
    size_t n[NAIVE_RUNS];
    uint64_t weight[NAIVE_RUNS];
    size_t runs;
};

static struct hm_rng_key key = { 3, 4 };

/* A run of a few different letters, many of them repeated. */
static void naive_fill(struct naive *naive, size_t runs, unsigned letters, uint64_t seed)
{
    key.seed = seed;
    naive->runs = runs;
    for (size_t r = 0; r < runs; r++) {
        naive->n[r] = 1 + hm_rng_below(key, 1000 * r, NAIVE_CHARS - 1);
        naive->weight[r] = 1 + hm_rng_below(key, 1000 * r + 1, 3) * hm_rng_below(key, 1000 * r, 9);
        for (size_t i = 0; i < naive->n[r]; i++) {
            unsigned letter = (unsigned)hm_rng_below(key, 1000 * r + 2 + i, letters);
            snprintf(naive->run[r][i], NAIVE_CHARS, "%c", 'a' + (int)letter);
        }
    }
}

static struct hm_han_counts *naive_counts(const struct naive *naive)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_han_counts_new(&counts, &err), err);
    for (size_t r = 0; r < naive->runs; r++) {
        char utf8[4 * NAIVE_CHARS];
        size_t len = 0;
        for (size_t i = 0; i < naive->n[r]; i++)
            len += hm_utf8_encode(0x4e00u + (uint32_t)naive->run[r][i][0], utf8 + len);
        assert_ok(
            hm_han_counts_add_run(counts, (struct hm_str){ utf8, len }, naive->weight[r], &err),
            err);
    }
    return counts;
}

struct naive_pair {
    char text[2 * NAIVE_CHARS];
    size_t left; /* letters of the left half */
    uint64_t count;
};

static int naive_before(const struct naive_pair *a, const struct naive_pair *b)
{
    if (a->count != b->count)
        return a->count > b->count;
    if (strlen(a->text) != strlen(b->text))
        return strlen(a->text) < strlen(b->text);
    if (strcmp(a->text, b->text) != 0)
        return strcmp(a->text, b->text) < 0;
    return a->left < b->left;
}

/* The best pair whose text is not among the `n` made; false when there is none. */
static bool naive_best(const struct naive *naive, char made[][2 * NAIVE_CHARS], size_t n,
                       size_t longest, struct naive_pair *ret_best)
{
    static struct naive_pair pair[20000];
    size_t n_pairs = 0;
    bool found = false;

    for (size_t r = 0; r < naive->runs; r++) {
        for (size_t i = 0; i + 1 < naive->n[r]; i++) {
            struct naive_pair one = { .left = strlen(naive->run[r][i]) };
            snprintf(one.text, sizeof(one.text), "%s%s", naive->run[r][i], naive->run[r][i + 1]);
            bool old = strlen(one.text) > longest;
            for (size_t k = 0; k < n && !old; k++)
                old = strcmp(made[k], one.text) == 0;
            if (old)
                continue;
            size_t at = 0;
            while (at < n_pairs &&
                   (pair[at].left != one.left || strcmp(pair[at].text, one.text) != 0))
                at++;
            if (at == n_pairs)
                pair[n_pairs++] = one;
            pair[at].count += naive->weight[r];
        }
    }
    for (size_t i = 0; i < n_pairs; i++)
        if (!found || naive_before(&pair[i], ret_best)) {
            *ret_best = pair[i];
            found = true;
        }
    return found;
}

static void naive_apply(struct naive *naive, const struct naive_pair *best)
{
    for (size_t r = 0; r < naive->runs; r++) {
        size_t out = 0;
        for (size_t i = 0; i < naive->n[r]; i++, out++) {
            char joined[2 * NAIVE_CHARS] = "";
            if (i + 1 < naive->n[r])
                snprintf(joined, sizeof(joined), "%s%s", naive->run[r][i], naive->run[r][i + 1]);
            bool here = strlen(naive->run[r][i]) == best->left && strcmp(joined, best->text) == 0;
            memmove(naive->run[r][out], here ? joined : naive->run[r][i], NAIVE_CHARS);
            i += here;
        }
        naive->n[r] = out;
    }
}

static void compare_naive(size_t runs, unsigned letters, size_t merges, uint32_t longest,
                          uint64_t seed)
{
    static struct naive naive;
    static char made[400][2 * NAIVE_CHARS];
    struct hm_bpe_options options = { .merges = merges, .max_piece_chars = longest };
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };
    struct naive_pair best;

    naive_fill(&naive, runs, letters, seed);
    struct hm_han_counts *counts = naive_counts(&naive);
    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    assert_int_equal(result.n_merges, merges);
    for (size_t m = 0; m < merges; m++) {
        char utf8[8 * NAIVE_CHARS];
        size_t len = 0;
        assert_true(naive_best(&naive, made, m, longest, &best));
        for (size_t i = 0; best.text[i]; i++)
            len += hm_utf8_encode(0x4e00u + (uint32_t)best.text[i], utf8 + len);
        if (!hm_str_equal(result.merge[m].text, (struct hm_str){ utf8, len }))
            fail_msg("seed %d merge %zu: expected %.*s, found %.*s", (int)seed, m, (int)len, utf8,
                     (int)result.merge[m].text.len, result.merge[m].text.ptr);
        assert_int_equal(result.merge[m].count, best.count);
        snprintf(made[m], sizeof(made[m]), "%s", best.text);
        naive_apply(&naive, &best);
    }
    hm_bpe_result_release(&result);
    hm_han_counts_free(counts);
}

static void test_against_definition(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        compare_naive(200, 2, 60, 23, seed);  /* long runs of one letter */
        compare_naive(200, 3, 60, 4, seed);   /* the length cap */
        compare_naive(300, 12, 120, 8, seed); /* many ties */
    }
}

/* --- limits ----------------------------------------------------------------------------------- */

static struct hm_han_counts *counts_of(size_t runs, uint64_t letters)
{
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    struct hm_rng_key some = { 1, 1 };

    assert_ok(hm_han_counts_new(&counts, &err), err);
    for (size_t r = 0; r < runs; r++) {
        char utf8[64];
        size_t len = 0;
        for (size_t i = 0; i < 2 + r % 12; i++) {
            uint64_t a = hm_rng_below(some, 20 * r + i, letters);
            len += hm_utf8_encode(0x4e00 + (uint32_t)(a * a / 100), utf8 + len);
        }
        assert_ok(hm_han_counts_add(counts, (struct hm_str){ utf8, len }, &err), err);
    }
    return counts;
}

static struct hm_han_counts *some_counts(size_t runs)
{
    return counts_of(runs, 200);
}

static void test_too_few(void **state)
{
    struct hm_han_counts *counts = NULL;
    struct hm_bpe_options options = { .merges = 5, .max_piece_chars = 8 };
    struct hm_bpe_result result = { .n_merges = 77 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    assert_ok(hm_han_counts_add(counts, hm_str_of("no Chinese here"), &err), err);
    assert_fails(hm_bpe_train(counts, &options, NULL, &result, &err), HM_ERR_FORMAT,
                 "no Han characters in 1 documents", err);
    assert_ok(hm_han_counts_add(counts, hm_str_of("中国，人"), &err), err);
    assert_fails(hm_bpe_train(counts, &options, NULL, &result, &err), HM_ERR_FORMAT,
                 "only 1 distinct pairs to merge and 5 merges", err);
    assert_int_equal(result.n_merges, 77);
    options.max_piece_chars = 1;
    assert_fails(hm_bpe_train(counts, &options, NULL, &result, &err), HM_ERR_USAGE,
                 "max_piece_chars", err);
    options = (struct hm_bpe_options){ .merges = 0, .max_piece_chars = 8 };
    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    assert_int_equal(result.n_merges, 0);
    assert_int_equal(result.n_singles, 3);
    assert_true(hm_str_is(result.single[0].text, "中")); /* ties by code point */
    assert_true(hm_str_is(result.single[1].text, "人"));
    hm_bpe_result_release(&result);
    hm_bpe_result_release(&result);
    hm_han_counts_free(counts);
}

static void test_memory_limit(void **state)
{
    struct hm_han_counts *counts = some_counts(20000);
    struct hm_bpe_options options = { .merges = 3000, .max_piece_chars = 8 };
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };
    uint64_t low = hm_han_counts_bytes(counts);
    uint64_t high = low + (64u << 20);

    (void)state;
    /* about the least that suffices: what threads hold at one moment differs from run to run */
    while (high - low > 65536) {
        options.memory_bytes = low + (high - low) / 2;
        hm_mem_peak_reset();
        int status = hm_bpe_train(counts, &options, NULL, &result, &err);
        assert_true(status == HM_OK || status == HM_ERR_NOFIT);
        assert_true(hm_mem_peak_bytes(HM_MEM_VOCAB) <= options.memory_bytes + (2u << 20));
        if (status == HM_OK)
            high = options.memory_bytes;
        else
            low = options.memory_bytes;
        hm_bpe_result_release(&result);
    }
    assert_true(high < hm_han_counts_bytes(counts) + (40u << 20));
    options.memory_bytes = hm_han_counts_bytes(counts);
    assert_fails(hm_bpe_train(counts, &options, NULL, &result, &err), HM_ERR_NOFIT,
                 "raise the memory limit", err);
    const char *named = strstr(err.text, " bytes, "); /* an amount that will do */
    assert_non_null(named);
    options.memory_bytes = strtoull(named + strlen(" bytes, "), NULL, 10);
    assert_ok(hm_bpe_train(counts, &options, NULL, &result, &err), err);
    hm_bpe_result_release(&result);
    hm_han_counts_free(counts);
}

/* --- lists of places within a limit ------------------------------------------------------------
 */

static void lists_counted(void *context, const struct hm_progress *progress)
{
    size_t *n = context;

    *n += progress->detail != NULL; /* the text is looked through */
}

static void same_merges(const struct hm_bpe_result *a, const struct hm_bpe_result *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(hm_str_equal(a->merge[i].text, b->merge[i].text));
        assert_int_equal(a->merge[i].count, b->merge[i].count);
    }
}

/* Less and less for lists, until it does not suffice: the same merges each time. Returns how often
 * the text was looked through at most. */
static size_t squeeze(const struct hm_han_counts *counts, struct hm_bpe_options options,
                      const struct hm_bpe_result *expected)
{
    size_t most = 0;

    options.list_bytes = 4u << 20;
    for (int status = HM_OK; status == HM_OK; options.list_bytes /= 2) {
        struct hm_bpe_result result = { 0 };
        struct hm_error err = { 0 };
        size_t n = 0;
        struct hm_ctl ctl = { .progress = lists_counted, .context = &n };
        status = hm_bpe_train(counts, &options, &ctl, &result, &err);
        if (status == HM_OK) {
            assert_int_equal(result.n_merges, expected->n_merges);
            same_merges(&result, expected, expected->n_merges);
            most = n > most ? n : most;
        } else {
            assert_int_equal(status, HM_ERR_NOFIT);
        }
        hm_bpe_result_release(&result);
    }
    return most;
}

static void test_few_lists(void **state)
{
    /* few letters: fewer pairs of them than merges, so no text is cut away and lists are long */
    struct hm_han_counts *counts = counts_of(20000, 30);
    struct hm_bpe_options options = { .merges = 1000, .max_piece_chars = 8 };
    struct hm_bpe_result all = { 0 };
    struct hm_bpe_result wide = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_bpe_train(counts, &options, NULL, &all, &err), err);
    for (int threads = 1; threads <= 2; threads++) {
        hm_threads_set(threads);
        assert_true(squeeze(counts, options, &all) >= 8);
    }
    /* more merges than 16 bits can number */
    options = (struct hm_bpe_options){ .merges = 70000, .max_piece_chars = 8, .allow_fewer = true };
    assert_ok(hm_bpe_train(counts, &options, NULL, &wide, &err), err);
    assert_true(wide.n_merges > all.n_merges);
    same_merges(&wide, &all, all.n_merges);
    hm_bpe_result_release(&wide);
    hm_bpe_result_release(&all);
    hm_han_counts_free(counts);
}

struct listener {
    volatile sig_atomic_t stop;
    uint64_t stop_at, last, calls;
};

static void listen(void *context, const struct hm_progress *progress)
{
    struct listener *listener = context;

    assert_string_equal(progress->unit, "merges");
    assert_true(progress->done >= listener->last && progress->done <= progress->total);
    listener->last = progress->done;
    listener->calls++;
    if (progress->done >= listener->stop_at)
        listener->stop = 1;
}

static void test_stop_and_progress(void **state)
{
    struct hm_han_counts *counts = some_counts(5000);
    struct hm_bpe_options options = { .merges = 2000, .max_piece_chars = 8 };
    struct listener listener = { .stop_at = 1000 };
    struct hm_ctl ctl = { .stop = &listener.stop, .progress = listen, .context = &listener };
    struct hm_bpe_result result = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_bpe_train(counts, &options, &ctl, &result, &err), HM_ERR_STOPPED, "stopped",
                 err);
    assert_true(listener.last >= 1000 && listener.last < 1500);
    listener = (struct listener){ .stop_at = UINT64_MAX };
    assert_ok(hm_bpe_train(counts, &options, &ctl, &result, &err), err);
    assert_true(listener.calls >= 5);
    assert_int_equal(listener.last, 2000);
    hm_bpe_result_release(&result);
    hm_han_counts_free(counts);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_bpe_options options = { .merges = 300, .max_piece_chars = 4 };
    struct hm_bpe_result result = { 0 };
    int status = hm_bpe_train(context, &options, NULL, &result, err);

    hm_bpe_result_release(&result);
    return status;
}

static void test_out_of_memory(void **state)
{
    struct hm_han_counts *counts = some_counts(3000);

    (void)state;
    assert_true(oom_sweep(oom_attempt, counts) >= 50);
    hm_han_counts_free(counts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition), cmocka_unit_test(test_too_few),
        cmocka_unit_test(test_memory_limit),       cmocka_unit_test(test_stop_and_progress),
        cmocka_unit_test(test_out_of_memory),      cmocka_unit_test(test_few_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
