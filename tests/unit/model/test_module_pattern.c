/* SPDX-License-Identifier: MIT */
/*
 * model/module_pattern.c: what Python's re.fullmatch says of names, what is refused, bounded time.
 */
#include "support/support.h"

#include "model/module_pattern.h"

static int matches(const char *pattern, const char *name)
{
    struct hm_pattern_program *program = NULL;
    struct hm_error err = { 0 };
    int answer;

    assert_ok(hm_pattern_compile(pattern, &program, &err), err);
    answer = hm_pattern_matches(program, name, &err);
    assert_in_range(answer, 0, 1);
    hm_pattern_free(program);
    return answer;
}

static void test_matches(void **state)
{
    static const struct {
        const char *pattern, *name;
        int expected;
    } cases[] = {
        { "q_proj", "q_proj", 1 },
        { "q_proj", "xq_proj", 0 },
        { "(.*\\.)?(q_proj|v_proj)", "model.layers.0.self_attn.v_proj", 1 },
        { "(.*\\.)?(q_proj|v_proj)", "model.layers.0.self_attn.xv_proj", 0 },
        { ".*layers\\.(0|1[0-9])\\..*w[123]", "model.layers.12.block_sparse_moe.experts.3.w2", 1 },
        { ".*layers\\.(0|1[0-9])\\..*w[123]", "model.layers.2.block_sparse_moe.experts.3.w2", 0 },
        { "model.layers.\\d+.self_attn.[qkv]_proj", "model.layers.31.self_attn.k_proj", 1 },
        { "(?:a|b|c|d)+", "abcdabcd", 1 },
        { "(?P<leaf>a)b", "ab", 1 },
        { "a{2,3}", "a", 0 },
        { "a{2,3}", "aa", 1 },
        { "a{2,3}", "aaa", 1 },
        { "a{2,3}", "aaaa", 0 },
        { "a{2}", "aa", 1 },
        { "a{2,}", "aaaaa", 1 },
        { "a{2,}", "a", 0 },
        { "a{,2}", "", 1 },
        { "a{,2}", "aaa", 0 },
        { "a{0}b", "b", 1 },
        { "a{x}", "a{x}", 1 },
        { "(ab|c)*?d", "ababcd", 1 },
        { "(a*)*b", "aaab", 1 },
        { "[^a-c]", "d", 1 },
        { "[^a-c]", "b", 0 },
        { "[]x]+", "]x", 1 },
        { "[\\w.]+", "model.norm", 1 },
        { "[a\\-z]", "-", 1 },
        { "\\W\\S\\D", ".ab", 1 },
        { "^a$", "a", 1 },
        { "a^b", "ab", 0 },
        { "", "", 1 },
        { "a|", "", 1 },
        { "a||b", "b", 1 },
        { "()", "", 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (matches(cases[i].pattern, cases[i].name) != cases[i].expected)
            fail_msg("'%s' on '%s': expected %d", cases[i].pattern, cases[i].name,
                     cases[i].expected);
    }
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "(",        "a)",    "[a",    "*a",     "a**",   "a{2}{3}",       "a*+",
        "(?=a)",    "(?!a)", "(?i)a", "\\1",    "\\b",   "[z-a]",         "a{3,2}",
        "a{1001}",  "\\",    "[\\",   "(?P=x)", "(?P<x", "((a{99}){99})", "(a{1000}){1000}",
        "a+b{5}++",
    };
    struct hm_pattern_program *program = NULL;
    struct hm_error err = { 0 };
    char nested[200];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(hm_pattern_compile(bad[i], &program, &err), HM_ERR_FORMAT, "pattern '", err);
    memset(nested, '(', 199);
    nested[199] = '\0';
    assert_fails(hm_pattern_compile(nested, &program, &err), HM_ERR_FORMAT, "nested too deeply",
                 err);
    assert_null(program);
}

/* The classic blow-up of a backtracking matcher. */
static void test_bounded(void **state)
{
    char name[160];

    (void)state;
    memset(name, 'a', sizeof name);
    name[159] = '\0';
    assert_int_equal(matches("(a|a|aa|a*)*(a|a|aa|a*)*b", name), 0);
    assert_int_equal(matches("(((a*)*)*)*", name), 1);
}

static int compile_and_match(void *context, struct hm_error *err)
{
    struct hm_pattern_program *program = NULL;

    (void)context;
    HM_TRY(hm_pattern_compile("(.*\\.)?(a{40}|[b-d]+)", &program, err));
    int status = hm_pattern_matches(program, "model.dcb", err);
    hm_pattern_free(program);
    if (status < 0)
        return status;
    assert_int_equal(status, 1);
    return HM_OK;
}

static void test_oom(void **state)
{
    (void)state;
    assert_true(oom_sweep(compile_and_match, NULL) >= 3);
}

static void test_is_expression(void **state)
{
    (void)state;
    assert_false(hm_pattern_is_expression("self_attn.q_proj"));
    assert_true(hm_pattern_is_expression(".*q_proj"));
    assert_true(hm_pattern_is_expression("q_proj|v_proj"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches),       cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bounded),       cmocka_unit_test(test_oom),
        cmocka_unit_test(test_is_expression),
    };
    return cmocka_run_group_tests_name("module_pattern", tests, NULL, NULL);
}
