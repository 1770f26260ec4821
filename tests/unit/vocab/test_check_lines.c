/* SPDX-License-Identifier: MIT */
/*
 * vocab/check_lines.c: what is counted, which lines are kept, the same result for any number of
 * threads, and failures of the source.
 */
#include "tiny_model.h"

#include "hanmix/base/parallel.h"
#include "hanmix/vocab/vocab_check.h"

struct list_source {
    const char *const *text; /* ends with NULL */
    uint64_t next, fail_at;  /* fail_at 0: never */
    struct hm_buf big;       /* handed out as document 0 when not empty */
};

static int list_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    struct list_source *list = context;

    if (list->fail_at && list->next == list->fail_at)
        return hm_fail(err, HM_ERR_IO, "the source failed");
    if (list->big.len > 0 && list->next == 0) {
        *ret_doc = (struct hm_doc){ buf_str(&list->big), "all", 0, list->next++ };
        return 1;
    }
    if (!list->text || !list->text[list->next])
        return 0;
    *ret_doc = (struct hm_doc){ hm_str_of(list->text[list->next]), "all", 0, list->next };
    list->next++;
    return 1;
}

static struct hm_tokenizer *old_tokenizer;
static struct hm_tokenizer *new_tokenizer;
static uint64_t verify; /* for run */

static struct hm_tokenizer *open_pieces(const char *const *pieces)
{
    struct hm_buf bytes = tiny_model(pieces, true);
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "tiny", &tokenizer, &err), err);
    hm_buf_release(&bytes);
    return tokenizer;
}

/* The new vocabulary joins b and a, and 中 and 国. */
static int open_both(void **state)
{
    static const char *const old_pieces[] = { "a", "b", "ab", "中", "国", NULL };
    static const char *const new_pieces[] = { "a", "b", "ab", "中", "国", "中国", "ba", NULL };

    (void)state;
    old_tokenizer = open_pieces(old_pieces);
    new_tokenizer = open_pieces(new_pieces);
    return 0;
}

static int close_both(void **state)
{
    (void)state;
    hm_tokenizer_free(old_tokenizer);
    hm_tokenizer_free(new_tokenizer);
    return 0;
}

static int run(struct list_source *list, const struct hm_ctl *ctl, struct hm_line_check *check,
               struct hm_error *err)
{
    struct hm_text_source source = { .context = list, .next = list_next };

    return hm_vocab_check_lines(&source, old_tokenizer, new_tokenizer, verify, ctl, check, err);
}

static void test_counts(void **state)
{
    static const char *const text[] = {
        "ab\nba\n\n中国\nb", "", "\xff\xfe ba\r\n", "\n\n", "bba", NULL
    };
    struct list_source list = { .text = text };
    struct hm_line_check check = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(run(&list, NULL, &check, &err), err);
    assert_int_equal(check.documents, 5);
    assert_int_equal(check.lines, 6);
    assert_int_equal(check.han_lines, 1);
    assert_int_equal(check.differing, 3);
    assert_int_equal(check.n_first, 3);
    assert_int_equal(check.first[0].document, 0);
    assert_int_equal(check.first[0].line, 1);
    assert_string_equal(check.first[0].text, "ba");
    assert_int_equal(check.first[0].old_ids, 2);
    assert_int_equal(check.first[0].new_ids, 1);
    assert_int_equal(check.first[0].first_difference, 0);
    assert_int_equal(check.first[1].document, 2);
    assert_string_equal(check.first[1].text, "\xff\xfe ba\r");
    assert_int_equal(check.first[2].document, 4);
    assert_int_equal(check.first[2].first_difference, 1);
    hm_line_check_release(&check);
    hm_line_check_release(&check);
}

/* Documents 0, 2 and 4, of which 2 has no line; counts are as without. */
static void test_verify(void **state)
{
    static const char *const text[] = { "ab\nba\n中国", "a", "", "b", "国ba中\nba", NULL };
    struct list_source list = { .text = text };
    struct hm_line_check check = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    verify = 2;
    assert_ok(run(&list, NULL, &check, &err), err);
    assert_int_equal(check.verified, 2);
    assert_int_equal(check.lines, 7);
    assert_int_equal(check.han_lines, 2);
    assert_int_equal(check.differing, 2);
    hm_line_check_release(&check);
    verify = 0;
}

static void check_big(int threads, struct hm_line_check *check)
{
    struct list_source list = { .text = NULL };
    struct hm_error err = { 0 };
    char line[64];

    for (unsigned i = 0; list.big.len < 1u << 20; i++) {
        snprintf(line, sizeof(line), "%s line %u %s\n", i % 7 == 0 ? "中国" : "ab", i,
                 i % 200 == 1 ? "ba" : "");
        assert_ok(hm_buf_text(&list.big, line, &err), err);
    }
    hm_threads_set(threads);
    assert_ok(run(&list, NULL, check, &err), err);
    hm_threads_set(0);
    hm_buf_release(&list.big);
}

static void test_threads(void **state)
{
    struct hm_line_check one = { 0 };
    struct hm_line_check three = { 0 };

    (void)state;
    check_big(1, &one);
    check_big(3, &three);
    assert_true(one.lines > 50000 && one.differing > 200);
    assert_int_equal(one.n_first, HM_CHECK_FIRST_LINES);
    assert_int_equal(one.lines, three.lines);
    assert_int_equal(one.han_lines, three.han_lines);
    assert_int_equal(one.differing, three.differing);
    assert_int_equal(one.n_first, three.n_first);
    uint64_t number = 1;
    for (size_t i = 0; i < one.n_first; i++, number += 200) {
        while (number % 7 == 0)
            number += 200;
        assert_int_equal(one.first[i].line, number);
        assert_int_equal(three.first[i].line, number);
        assert_string_equal(one.first[i].text, three.first[i].text);
    }
    hm_line_check_release(&one);
    hm_line_check_release(&three);
}

/* A kept line is cut at a character. */
static void test_long_line(void **state)
{
    struct list_source list = { .text = NULL };
    struct hm_line_check check = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_buf_text(&list.big, "ba", &err), err);
    while (list.big.len < 100000)
        assert_ok(hm_buf_text(&list.big, "\xe2\x82\xac", &err), err);
    assert_ok(run(&list, NULL, &check, &err), err);
    assert_int_equal(check.differing, 1);
    assert_int_equal(strlen(check.first[0].text), 398);
    hm_line_check_release(&check);
    hm_buf_release(&list.big);
}

static void test_failures(void **state)
{
    static const char *const text[] = { "ba", "ba", "ba", NULL };
    struct list_source list = { .text = text, .fail_at = 2 };
    struct hm_line_check check = { 0 };
    struct hm_error err = { 0 };
    volatile sig_atomic_t stop = 1;

    (void)state;
    assert_fails(run(&list, NULL, &check, &err), HM_ERR_IO, "the source failed", err);
    list.fail_at = 0;
    list.next = 0;
    assert_fails(run(&list, &(struct hm_ctl){ .stop = &stop }, &check, &err), HM_ERR_STOPPED,
                 "stopped after 0 documents", err);
    assert_null(check.first);
}

static int attempt(void *context, struct hm_error *err)
{
    static const char *const text[] = { "ba\nab", "ba", NULL };
    struct list_source list = { .text = text };
    struct hm_line_check check = { 0 };
    int status = run(&list, context, &check, err);

    hm_line_check_release(&check);
    return status;
}

static void test_no_memory(void **state)
{
    (void)state;
    hm_threads_set(1);
    assert_true(oom_sweep(attempt, NULL) > 8);
    hm_threads_set(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),    cmocka_unit_test(test_threads),
        cmocka_unit_test(test_long_line), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_no_memory), cmocka_unit_test(test_verify),
    };

    return cmocka_run_group_tests(tests, open_both, close_both);
}
