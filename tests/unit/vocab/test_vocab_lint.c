/* SPDX-License-Identifier: MIT */
/*
 * vocab/vocab_lint.c: a ranked merge has no findings and is proved; each rule finds its fault,
 * names the piece and says what to do.
 */
#include "tiny_model.h"

#include "hanmix/vocab/piece_merge.h"
#include "hanmix/vocab/vocab_check.h"

static const char *const old_pieces[] = { "a", "b", "ab", "中", HM_SPM_SPACE, NULL };

static void load_old(struct hm_spm_model *model)
{
    struct hm_buf buf = tiny_model(old_pieces, true);
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_parse(buf_str(&buf), "old", model, &err), err);
    hm_buf_release(&buf);
}

/* The old model with pieces behind it. */
static void lint_with(const struct hm_piece *pieces, size_t n, const char *tail, size_t tail_len,
                      struct hm_lints *lints, bool *han)
{
    struct hm_spm_model old = { 0 };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    load_old(&old);
    assert_ok(hm_spm_model_append(&old, pieces, n, &bytes, &err), err);
    assert_ok(hm_buf_append(&bytes, tail, tail_len, &err), err);
    assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "new", &tokenizer, &err), err);
    assert_ok(hm_vocab_lint(&old, tokenizer, lints, han, &err), err);
    hm_tokenizer_free(tokenizer);
    hm_buf_release(&bytes);
    hm_spm_model_release(&old);
}

/* The number of findings of a rule; the last of them must hold part. */
static size_t findings(const struct hm_lints *lints, const char *rule, const char *piece,
                       const char *part)
{
    size_t n = 0;

    for (size_t i = 0; i < lints->count; i++) {
        if (strcmp(lints->item[i].rule, rule) != 0)
            continue;
        n++;
        assert_string_equal(lints->item[i].piece, piece);
        if (!strstr(lints->item[i].detail, part))
            fail_msg("'%s' is not in: %s", part, lints->item[i].detail);
    }
    return n;
}

static void test_sound(void **state)
{
    struct hm_piece good[] = { { hm_str_of("人中"), -5, HM_PIECE_NORMAL },
                               { hm_str_of("人"), -6, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };
    bool han = false;

    (void)state;
    lint_with(good, 2, "", 0, &lints, &han);
    assert_int_equal(lints.count, 0);
    assert_true(han);
    lint_with(good, 0, "", 0, &lints, &han);
    assert_int_equal(lints.count, 0);
    assert_true(han);
    hm_lints_release(&lints);
}

static void test_rules(void **state)
{
    const struct {
        struct hm_piece piece;
        const char *rule, *part;
        bool han;
    } bad[] = {
        { { hm_str_of("人"), -5, HM_PIECE_USER }, "type", "before any merge", true },
        { { hm_str_of("人"), -5, HM_PIECE_CONTROL }, "type", "make it a normal piece", true },
        { { hm_str_of("中中"), -5, HM_PIECE_UNUSED }, "type", "make it a normal piece", true },
        { { hm_str_of(HM_SPM_SPACE "中"), -5, HM_PIECE_NORMAL }, "space", "without spaces", true },
        { { hm_str_of("ba"), -5, HM_PIECE_NORMAL }, "han", "drop it", false },
        { { hm_str_of("の"), -5, HM_PIECE_NORMAL }, "han", "no Han character", false },
        { { hm_str_of("中人"), -5, HM_PIECE_NORMAL }, "split", "add its halves", true },
        { { hm_str_of("人"), 0, HM_PIECE_NORMAL }, "order", "ranked scores", true },
    };
    struct hm_lints lints = { 0 };
    bool han;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        lint_with(&bad[i].piece, 1, "", 0, &lints, &han);
        const char *named = strcmp(bad[i].rule, "order") == 0 ? "" : bad[i].piece.text.ptr;
        assert_int_equal(findings(&lints, bad[i].rule, named, bad[i].part), 1);
        assert_int_equal(han, bad[i].han);
        hm_lints_release(&lints);
    }
}

/* 民甲 is formed first, which puts 人民甲乙 out of reach; scores rise once. */
static void test_self_and_rising(void **state)
{
    struct hm_piece bad[] = { { hm_str_of("人民"), -5, HM_PIECE_NORMAL },
                              { hm_str_of("甲乙"), -6, HM_PIECE_NORMAL },
                              { hm_str_of("民甲"), -4.5f, HM_PIECE_NORMAL },
                              { hm_str_of("人民甲乙"), -8, HM_PIECE_NORMAL },
                              { hm_str_of("人"), -9, HM_PIECE_NORMAL },
                              { hm_str_of("民"), -10, HM_PIECE_NORMAL },
                              { hm_str_of("甲"), -11, HM_PIECE_NORMAL },
                              { hm_str_of("乙"), -12, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };
    bool han;

    (void)state;
    lint_with(bad, 8, "", 0, &lints, &han);
    assert_int_equal(findings(&lints, "self", "人民甲乙", "cut into 3 ids"), 1);
    assert_int_equal(findings(&lints, "order", "", "1 new pieces"), 1);
    assert_int_equal(lints.count, 2);
    hm_lints_release(&lints);
}

/* The library refuses text with a character that is a control piece: a finding, not a failure. */
static void test_control_character(void **state)
{
    struct hm_piece bad[] = { { hm_str_of("人"), -5, HM_PIECE_CONTROL },
                              { hm_str_of("人民民"), -6, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };
    bool han;

    (void)state;
    lint_with(bad, 2, "", 0, &lints, &han);
    assert_int_equal(findings(&lints, "type", "人", "type 3"), 1);
    assert_int_equal(findings(&lints, "self", "人民民", "cut into 0 ids"), 1);
    hm_lints_release(&lints);
}

static void test_settings(void **state)
{
    struct hm_lints lints = { 0 };
    bool han;

    (void)state;
    lint_with(NULL, 0, "\x1a\x02\x18\x01", 4, &lints, &han);
    assert_int_equal(findings(&lints, "settings", "", "the dummy prefix"), 1);
    hm_lints_release(&lints);
    lint_with(NULL, 0, "\x1a\x02\x20\x01", 4, &lints, &han);
    assert_int_equal(findings(&lints, "settings", "", "the treatment of spaces"), 1);
    hm_lints_release(&lints);
    lint_with(NULL, 0, "\x12\x02\x18\x04", 4, &lints, &han);
    assert_int_equal(findings(&lints, "settings", "", "the kind of model"), 1);
    hm_lints_release(&lints);
}

/* Another order and other scores than the old model's; then a new piece that takes an old one
 * apart. */
static void test_old_pieces(void **state)
{
    static const char *const other[] = { "a", "ab", "b", "中", NULL };
    struct hm_piece apart = { hm_str_of("ba"), 3, HM_PIECE_NORMAL };
    static const char *const twice[] = { "a", "b", "ab", "abab", NULL };
    struct hm_spm_model old = { 0 };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_buf bytes = tiny_model(other, true);
    struct hm_lints lints = { 0 };
    struct hm_error err = { 0 };
    bool han;

    (void)state;
    load_old(&old);
    assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "new", &tokenizer, &err), err);
    assert_ok(hm_vocab_lint(&old, tokenizer, &lints, &han, &err), err);
    assert_int_equal(lints.count, 3);
    assert_string_equal(lints.item[0].rule, "prefix");
    assert_non_null(strstr(lints.item[0].detail, "start from the old model"));
    assert_string_equal(lints.item[1].piece, "b");
    assert_non_null(strstr(lints.item[1].detail, "id 260 is 'ab'"));
    hm_lints_release(&lints);
    hm_tokenizer_free(tokenizer);
    hm_spm_model_release(&old);
    hm_buf_release(&bytes);

    bytes = tiny_model(twice, true);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "old", &old, &err), err);
    hm_buf_release(&bytes);
    assert_ok(hm_spm_model_append(&old, &apart, 1, &bytes, &err), err);
    assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "new", &tokenizer, &err), err);
    assert_ok(hm_vocab_lint(&old, tokenizer, &lints, &han, &err), err);
    assert_int_equal(findings(&lints, "old", "abab", "below all old ones"), 1);
    hm_lints_release(&lints);
    hm_tokenizer_free(tokenizer);
    hm_spm_model_release(&old);
    hm_buf_release(&bytes);
}

struct pair {
    struct hm_spm_model old;
    struct hm_tokenizer *tokenizer;
};

static int attempt(void *context, struct hm_error *err)
{
    struct pair *pair = context;
    struct hm_lints lints = { 0 };
    bool han;
    int status = hm_vocab_lint(&pair->old, pair->tokenizer, &lints, &han, err);

    hm_lints_release(&lints);
    return status;
}

static void test_no_memory(void **state)
{
    struct hm_piece bad = { hm_str_of("xy"), 3, HM_PIECE_NORMAL };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };
    struct pair pair = { { 0 }, NULL };

    (void)state;
    load_old(&pair.old);
    assert_ok(hm_spm_model_append(&pair.old, &bad, 1, &bytes, &err), err);
    assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "new", &pair.tokenizer, &err), err);
    assert_true(oom_sweep(attempt, &pair) > 10);
    hm_tokenizer_free(pair.tokenizer);
    hm_spm_model_release(&pair.old);
    hm_buf_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_self_and_rising),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_control_character),
        cmocka_unit_test(test_old_pieces),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
