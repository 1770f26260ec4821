/* SPDX-License-Identifier: MIT */
/*
 * vocab/vocab_lint.c: a ranked merge has no findings and is proved; each rule finds its fault,
 * names the piece and says what to do.
 */
#include "tiny_model.h"

#include "hanmix/vocab/piece_merge.h"
#include "hanmix/vocab/vocab_check.h"

static const char *const old_pieces[] = { "a", "b", "ab", "中", HM_SPM_SPACE, NULL };

struct pair {
    struct hm_tokenizer *old, *grown;
};

static struct hm_tokenizer *open_model(const struct hm_buf *bytes, const char *what)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_tokenizer_open_bytes(buf_str(bytes), what, &tokenizer, &err), err);
    return tokenizer;
}

/* A model of old_pieces, and the same with pieces and some bytes behind it. */
static struct pair grow(const char *const *texts, const struct hm_piece *pieces, size_t n,
                        const char *tail, size_t tail_len)
{
    struct hm_buf old_bytes = tiny_model(texts, true);
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };
    struct pair pair = { open_model(&old_bytes, "old"), NULL };

    assert_ok(hm_spm_model_append(&pair.old->model, pieces, n, &bytes, &err), err);
    assert_ok(hm_buf_append(&bytes, tail, tail_len, &err), err);
    pair.grown = open_model(&bytes, "new");
    hm_buf_release(&old_bytes);
    hm_buf_release(&bytes);
    return pair;
}

static void pair_free(struct pair *pair)
{
    hm_tokenizer_free(pair->old);
    hm_tokenizer_free(pair->grown);
}

static void lint_pair(struct pair pair, struct hm_lints *lints)
{
    struct hm_error err = { 0 };
    size_t errors = 0;

    assert_ok(hm_vocab_lint(pair.old, pair.grown, NULL, lints, &err), err);
    for (size_t i = 0; i < lints->count; i++) {
        const struct hm_lint *lint = &lints->item[i];
        errors += hm_lint_rule_info[lint->rule].error;
        assert_true(lint->detail[0] != '\0' && hm_lint_rule_info[lint->rule].remedy[0] != '\0');
        assert_true(lint->id < (int32_t)pair.grown->model.count);
        assert_int_equal(lint->id < 0, lint->piece[0] == '\0');
    }
    assert_int_equal(errors, lints->errors);
    pair_free(&pair);
}

static void lint_with(const struct hm_piece *pieces, size_t n, const char *tail, size_t tail_len,
                      struct hm_lints *lints)
{
    lint_pair(grow(old_pieces, pieces, n, tail, tail_len), lints);
}

/* The number of findings of a rule; all of them must be about piece and hold part. */
static size_t findings(const struct hm_lints *lints, const char *rule, const char *piece,
                       const char *part)
{
    size_t n = 0;

    for (size_t i = 0; i < lints->count; i++) {
        const struct hm_lint_rule_info *info = &hm_lint_rule_info[lints->item[i].rule];
        if (strcmp(info->name, rule) != 0)
            continue;
        n++;
        assert_string_equal(lints->item[i].piece, piece);
        if (!strstr(lints->item[i].detail, part) && !strstr(info->remedy, part))
            fail_msg("'%s' is not in: %s; %s", part, lints->item[i].detail, info->remedy);
    }
    return n;
}

static void test_sound(void **state)
{
    struct hm_piece good[] = { { hm_str_of("人中"), -5, HM_PIECE_NORMAL },
                               { hm_str_of("人"), -6, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };

    (void)state;
    for (size_t n = 0; n <= 2; n += 2) {
        lint_with(good, n, "", 0, &lints);
        assert_int_equal(lints.count, 0);
        assert_true(lints.proved && lints.every_new_piece_has_han);
    }
    hm_lints_release(&lints);
}

static void test_rules(void **state)
{
    const struct {
        struct hm_piece piece;
        const char *rule, *part;
        bool proved;
    } bad[] = {
        { { hm_str_of("人"), -5, HM_PIECE_USER }, "type", "before any merge", true },
        { { hm_str_of("人"), -5, HM_PIECE_CONTROL }, "type", "make it a normal piece", true },
        { { hm_str_of("中中"), -5, HM_PIECE_UNUSED }, "type", "make it a normal piece", true },
        { { hm_str_of("<0x0a>"), -5, HM_PIECE_NORMAL }, "byte", "written like a byte", false },
        { { hm_str_of("<pad>"), -5, HM_PIECE_NORMAL }, "control", "added tokens", false },
        { { hm_str_of("<|im_end|>"), -5, HM_PIECE_NORMAL }, "control", "normal one", false },
        { { hm_str_of("[PAD]"), -5, HM_PIECE_NORMAL }, "control", "normal one", false },
        { { hm_str_of(HM_SPM_SPACE "中"), -5, HM_PIECE_NORMAL }, "space", "without spaces", true },
        { { hm_str_of(HM_SPM_SPACE "中"), -5, HM_PIECE_NORMAL }, "variant", "is id 262", true },
        { { hm_str_of("ba"), -5, HM_PIECE_NORMAL }, "han", "drop it", false },
        { { hm_str_of("の"), -5, HM_PIECE_NORMAL }, "han", "no Han character", false },
        { { hm_str_of("中a"), -5, HM_PIECE_NORMAL }, "mixed", "mixes Han and Latin", true },
        { { hm_str_of("中，"), -5, HM_PIECE_NORMAL }, "mixed", "of no script and Han", true },
        { { hm_str_of("aб"), -5, HM_PIECE_NORMAL }, "mixed", "Latin and Cyrillic", false },
        { { hm_str_of("中人"), -5, HM_PIECE_NORMAL }, "character", "holds '人'", true },
        { { hm_str_of("中人"), -5, HM_PIECE_NORMAL }, "split", "add its halves", true },
        { { hm_str_of("人"), 0, HM_PIECE_NORMAL }, "order", "ranked scores", true },
    };
    struct hm_lints lints = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        lint_with(&bad[i].piece, 1, "", 0, &lints);
        if (findings(&lints, bad[i].rule, bad[i].piece.text.ptr, bad[i].part) != 1)
            fail_msg("rule %s of case %zu is silent", bad[i].rule, i);
        assert_int_equal(lints.proved, bad[i].proved);
        hm_lints_release(&lints);
    }
    struct hm_piece fine[] = { { hm_str_of("中中"), -5, HM_PIECE_NORMAL },
                               { hm_str_of("の中"), -6, HM_PIECE_NORMAL },
                               { hm_str_of("の"), -7, HM_PIECE_NORMAL } };
    lint_with(fine, 3, "", 0, &lints);
    assert_int_equal(lints.count, 1); /* の alone holds no Han character */
    assert_int_equal(lints.of_rule[HM_LINT_HAN], 1);
    hm_lints_release(&lints);
}

/* Scores: equal ones of merged pieces, a piece above its half, an old merge that is overlapped. */
static void test_scores(void **state)
{
    static const char *const old[] = { "中", "人", "中人", "大", NULL };
    struct hm_piece bad[] = { { hm_str_of("人大"), 3, HM_PIECE_NORMAL },
                              { hm_str_of("大大"), -5, HM_PIECE_NORMAL },
                              { hm_str_of("大中"), -5, HM_PIECE_NORMAL },
                              { hm_str_of("中中人大"), -4.5f, HM_PIECE_NORMAL },
                              { hm_str_of("中中"), -7, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };

    (void)state;
    lint_pair(grow(old, bad, 5, "", 0), &lints);
    assert_int_equal(findings(&lints, "shadow", "中人", "'人大' (id 263)"), 1);
    assert_int_equal(findings(&lints, "tie", "大大", "2 new pieces have the score -5, '大中'"), 1);
    assert_int_equal(findings(&lints, "inversion", "中中人大", "scores -4.5, but"), 1);
    assert_true(lints.proved);
    hm_lints_release(&lints);
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

    (void)state;
    lint_with(bad, 8, "", 0, &lints);
    assert_int_equal(findings(&lints, "self", "人民甲乙", "cut into 3 ids (人 民甲 乙)"), 1);
    assert_int_equal(findings(&lints, "order", "民甲", "1 new pieces"), 1);
    assert_int_equal(lints.count, 2);
    hm_lints_release(&lints);
}

/* The library refuses text with a character that is a control piece: a finding, not a failure. */
static void test_control_character(void **state)
{
    struct hm_piece bad[] = { { hm_str_of("人"), -5, HM_PIECE_CONTROL },
                              { hm_str_of("人民民"), -6, HM_PIECE_NORMAL } };
    struct hm_lints lints = { 0 };

    (void)state;
    lint_with(bad, 2, "", 0, &lints);
    assert_int_equal(findings(&lints, "type", "人", "type 3"), 1);
    assert_int_equal(findings(&lints, "self", "人民民", "cut into 0 ids"), 1);
    hm_lints_release(&lints);
}

static void test_settings(void **state)
{
    struct hm_lints lints = { 0 };

    (void)state;
    lint_with(NULL, 0, "\x1a\x02\x18\x01", 4, &lints);
    assert_int_equal(findings(&lints, "settings", "", "the dummy prefix"), 1);
    hm_lints_release(&lints);
    lint_with(NULL, 0, "\x1a\x02\x20\x01", 4, &lints);
    assert_int_equal(findings(&lints, "settings", "", "the treatment of spaces"), 1);
    hm_lints_release(&lints);
    lint_with(NULL, 0, "\x12\x02\x18\x04", 4, &lints);
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
    struct hm_buf old_bytes = tiny_model(old_pieces, true);
    struct hm_buf bytes = tiny_model(other, true);
    struct hm_lints lints = { 0 };

    (void)state;
    lint_pair((struct pair){ open_model(&old_bytes, "old"), open_model(&bytes, "new") }, &lints);
    assert_int_equal(lints.count, 3);
    assert_int_equal(lints.of_rule[HM_LINT_PREFIX], 3);
    assert_non_null(strstr(lints.item[0].detail, "the old one 264"));
    assert_string_equal(lints.item[1].piece, "b");
    assert_non_null(strstr(lints.item[1].detail, "id 260 is 'ab'"));
    assert_false(lints.proved);
    hm_lints_release(&lints);
    hm_buf_release(&bytes);
    hm_buf_release(&old_bytes);

    lint_pair(grow(twice, &apart, 1, "", 0), &lints);
    assert_int_equal(findings(&lints, "old", "abab", "below all old ones"), 1);
    hm_lints_release(&lints);
}

/* Chinese-LLaMA's vocabulary is unigram with NFKC: a model that took its pieces is warned of it. */
static void test_normalisers(void **state)
{
    struct pair pair = grow(old_pieces, NULL, 0, "", 0);
    struct hm_spm_model source = { 0 };
    struct hm_lints lints = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &source, &err),
        err);
    assert_ok(hm_vocab_lint(pair.old, pair.grown, &source, &lints, &err), err);
    assert_int_equal(findings(&lints, "normaliser", "", "full-width"), 1);
    assert_int_equal(lints.count, 1);
    assert_true(lints.proved);
    hm_lints_release(&lints);
    assert_ok(hm_vocab_lint(pair.old, pair.grown, &pair.old->model, &lints, &err), err);
    assert_int_equal(lints.count, 0);
    hm_lints_release(&lints);
    pair.old->model.normalizer_hash++;
    pair.old->model.has_charsmap = true;
    assert_ok(hm_vocab_lint(pair.old, pair.grown, NULL, &lints, &err), err);
    assert_int_equal(findings(&lints, "normaliser", "", "the normaliser changed"), 1);
    assert_false(lints.proved);
    hm_lints_release(&lints);
    hm_spm_model_release(&source);
    pair_free(&pair);
}

static void test_duplicates(void **state)
{
    struct hm_buf bytes = tiny_model(old_pieces, true);
    struct hm_lints lints = { 0 };
    struct hm_error err = { 0 };
    char *dir = tmp_new();
    const char *path = tmp_path(dir, "twice.model");

    (void)state;
    file_put(path, bytes.ptr, bytes.len);
    assert_ok(hm_vocab_lint_duplicates(path, &lints, &err), err);
    assert_int_equal(lints.count, 0);
    assert_ok(hm_buf_append(&bytes,
                            "\x0a\x04\x0a\x02"
                            "ab"
                            "\x0a\x03\x0a\x01"
                            "a",
                            11, &err),
              err);
    file_put(path, bytes.ptr, bytes.len);
    assert_ok(hm_vocab_lint_duplicates(path, &lints, &err), err);
    assert_int_equal(lints.count, 2);
    assert_int_equal(lints.errors, 2);
    assert_string_equal(lints.item[0].piece, "ab");
    assert_string_equal(lints.item[0].detail,
                        "ids 261 and 264 are the same text: loaders refuse the file");
    assert_string_equal(lints.item[1].piece, "a");
    assert_int_equal(lints.item[1].id, 265);
    hm_lints_release(&lints);
    assert_ok(hm_buf_append(&bytes, "\x0a\x02\x0a\x00", 4, &err), err);
    file_put(path, bytes.ptr, bytes.len);
    assert_fails(hm_vocab_lint_duplicates(path, &lints, &err), HM_ERR_FORMAT, "266 is empty", err);
    hm_buf_release(&bytes);
    tmp_release(dir);
}

/* Pieces that Chinese-LLaMA's merge script would put on Mistral's model; what sentencepiece 0.2.3
 * finds of them is counted by tests/interop. */
static void test_published_recipe(void **state)
{
    struct hm_spm_model extra = { 0 };
    struct hm_merge_result result = { 0 };
    struct hm_lints lints = { 0 };
    struct pair pair = { NULL, NULL };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(
        hm_tokenizer_open(golden_path("tokenizers/models/mistral-v1-32000.model"), &pair.old, &err),
        err);
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &extra, &err),
        err);
    for (int zero = 1; zero >= 0; zero--) {
        struct hm_merge_options options = { .score_zero = zero };
        assert_ok(hm_piece_merge(&pair.old->model, &extra, &options, &result, &err), err);
        pair.grown = open_model(&result.model_bytes, "merged");
        assert_ok(hm_vocab_lint(pair.old, pair.grown, NULL, &lints, &err), err);
        assert_int_equal(lints.of_rule[HM_LINT_TIE], zero);
        assert_int_equal(lints.of_rule[HM_LINT_SELF] > 100, zero);
        assert_int_equal(lints.of_rule[HM_LINT_SPLIT] > 100, zero);
        if (!zero && lints.errors > 0)
            fail_msg("'%s': %s", lints.item[0].piece, lints.item[0].detail);
        hm_lints_release(&lints);
        hm_tokenizer_free(pair.grown);
        hm_merge_result_release(&result);
    }
    hm_spm_model_release(&extra);
    hm_tokenizer_free(pair.old);
}

static int attempt(void *context, struct hm_error *err)
{
    struct pair *pair = context;
    struct hm_lints lints = { 0 };
    int status = hm_vocab_lint(pair->old, pair->grown, &pair->old->model, &lints, err);

    hm_lints_release(&lints);
    return status;
}

static void test_no_memory(void **state)
{
    struct hm_piece bad = { hm_str_of("xy"), 3, HM_PIECE_NORMAL };
    struct pair pair = grow(old_pieces, &bad, 1, "", 0);

    (void)state;
    assert_true(oom_sweep(attempt, &pair) > 10);
    pair_free(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_scores),
        cmocka_unit_test(test_normalisers),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_published_recipe),
        cmocka_unit_test(test_self_and_rising),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_control_character),
        cmocka_unit_test(test_old_pieces),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
