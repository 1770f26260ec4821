/* SPDX-License-Identifier: MIT */
/*
 * vocab/piece_merge.c: which pieces are kept and why others are dropped, ids, scores, the base as a
 * prefix, and that every added piece encodes to itself.
 */
#include "tiny_model.h"

#include "hanmix/vocab/piece_merge.h"

static const char *const base_pieces[] = { "a",  "b",    "ab", HM_SPM_SPACE, "中",
                                           "国", "中国", "，", NULL };

static void load(const char *const *pieces, bool bytes, struct hm_spm_model *model)
{
    struct hm_buf buf = tiny_model(pieces, bytes);
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_parse(buf_str(&buf), "tiny", model, &err), err);
    hm_buf_release(&buf);
}

static void merge(const char *const *extra_pieces, const struct hm_merge_options *options,
                  struct hm_merge_result *result)
{
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_error err = { 0 };

    load(base_pieces, true, &base);
    load(extra_pieces, false, &extra);
    assert_ok(hm_piece_merge(&base, &extra, options, result, &err), err);
    assert_true(result->model_bytes.len >= base.bytes.len);
    assert_memory_equal(result->model_bytes.ptr, base.bytes.ptr, base.bytes.len);
    hm_spm_model_release(&base);
    hm_spm_model_release(&extra);
}

static const char *reason_of(const struct hm_merge_result *result, const char *piece)
{
    for (size_t i = 0; i < result->n_dropped; i++)
        if (strcmp(result->dropped[i].piece, piece) == 0)
            return result->dropped[i].reason;
    return "kept";
}

static void assert_added(const struct hm_merge_result *result, const char *const *pieces)
{
    size_t n = 0;

    for (; pieces[n]; n++) {
        assert_true(n < result->n_added);
        if (!hm_str_is(result->added[n].text, pieces[n]))
            fail_msg("added piece %zu is '%.*s', expected '%s'", n, (int)result->added[n].text.len,
                     result->added[n].text.ptr, pieces[n]);
        assert_int_equal(result->added[n].type, HM_PIECE_NORMAL);
    }
    assert_int_equal(result->n_added, n);
}

static void test_filter(void **state)
{
    static const char *const extra[] = { "人",   "民",       "中", "人民", "ab",
                                         "人a",  "の人",     "の", "々",   HM_SPM_SPACE "人",
                                         "人，", "中国人民", "，", "国人", NULL };
    static const char *const added[] = { "人民", "中国人民", "国人", "人", "民", NULL };
    struct hm_merge_result result = { 0 };

    (void)state;
    merge(extra, &(struct hm_merge_options){ .max_piece_chars = 4 }, &result);
    assert_added(&result, added);
    for (size_t i = 0; i < result.n_added; i++) /* base scores end at -7 */
        assert_true(result.added[i].score == -8.0f - (float)i);
    assert_string_equal(reason_of(&result, "中"), "in the base vocabulary");
    assert_string_equal(reason_of(&result, "ab"), "in the base vocabulary");
    assert_string_equal(reason_of(&result, "人a"), "holds a character outside the Han script");
    assert_string_equal(reason_of(&result, "人，"), "holds a character outside the Han script");
    assert_string_equal(reason_of(&result, HM_SPM_SPACE "人"), "holds a space");
    assert_string_equal(reason_of(&result, "の"), "holds no ideograph");
    assert_string_equal(reason_of(&result, "々"), "holds no ideograph");
    assert_string_equal(reason_of(&result, "の人"), "holds a character that is no piece");
    assert_string_equal(reason_of(&result, "<s>"), "kept"); /* meta pieces: not a word */
    hm_merge_result_release(&result);
    hm_merge_result_release(NULL);
}

static void test_punctuation(void **state)
{
    static const char *const extra[] = { "人民", "。”", "民，", "人民，", "，人", "人、",
                                         "民”",  "人",  "民",   "，",     "、",   NULL };
    static const char *const added[] = { "人民", "民，", "人民，", "，人", "人", "民", NULL };
    struct hm_merge_result result = { 0 };

    (void)state;
    merge(extra, &(struct hm_merge_options){ .han_marks = true }, &result);
    assert_added(&result, added);
    assert_string_equal(reason_of(&result, "。”"), "holds a character outside the Han script");
    assert_string_equal(reason_of(&result, "民”"), "holds a character outside the Han script");
    assert_string_equal(reason_of(&result, "、"), "holds no ideograph");
    assert_string_equal(reason_of(&result, "人、"), "holds a character that is no piece");
    hm_merge_result_release(&result);
}

static void test_limits_of_length(void **state)
{
    static const char *const extra[] = { "人人", "人人人", "人人人人", "人", NULL };
    static const char *const short_ones[] = { "人人", "人", NULL };
    static const char *const all[] = { "人人", "人人人", "人人人人", "人", NULL };
    struct hm_merge_result result = { 0 };

    (void)state;
    merge(extra, &(struct hm_merge_options){ .max_piece_chars = 2 }, &result);
    assert_added(&result, short_ones);
    assert_string_equal(reason_of(&result, "人人人"), "longer than the limit of characters");
    hm_merge_result_release(&result);
    merge(extra, NULL, &result);
    assert_added(&result, all);
    hm_merge_result_release(&result);
}

/* 乙丙 comes first and takes 甲乙丙丁 apart, and then 甲乙丙丁戊 has no two halves any more. */
static void test_unreachable(void **state)
{
    static const char *const extra[] = { "乙丙", "甲乙", "丙丁", "甲乙丙丁", "甲乙丙丁戊", "甲",
                                         "乙",   "丙",   "丁",   "戊",       NULL };
    static const char *const added[] = {
        "乙丙", "甲乙", "丙丁", "甲", "乙", "丙", "丁", "戊", NULL
    };
    static const char *const zero[] = { "乙丙", "甲乙", "丙丁", "甲乙丙丁", "甲乙丙丁戊", "甲",
                                        "乙",   "丙",   "丁",   "戊",       NULL };
    struct hm_merge_result result = { 0 };

    (void)state;
    merge(extra, NULL, &result);
    assert_added(&result, added);
    assert_string_equal(reason_of(&result, "甲乙丙丁"), "does not encode to itself");
    assert_false(strcmp(reason_of(&result, "甲乙丙丁戊"), "kept") == 0);
    hm_merge_result_release(&result);

    merge(extra, &(struct hm_merge_options){ .score_zero = true }, &result);
    assert_added(&result, zero);
    for (size_t i = 0; i < result.n_added; i++)
        assert_true(result.added[i].score == 0);
    hm_merge_result_release(&result);
}

/* Ids that do not follow the scores: BPE merges by score, so ranks do too; ties keep the ids'
 * order. */
static void test_order_of_scores(void **state)
{
    static struct hm_piece list[] = {
        { { "<unk>", 5 }, 0, HM_PIECE_UNKNOWN },    { { "人", 3 }, -11, HM_PIECE_NORMAL },
        { { "民", 3 }, -12, HM_PIECE_NORMAL },      { { "人民", 6 }, -3, HM_PIECE_NORMAL },
        { { "民人", 6 }, -1, HM_PIECE_NORMAL },     { { "人民人", 9 }, -2, HM_PIECE_NORMAL },
        { { "民人民人", 12 }, -2, HM_PIECE_NORMAL }
    };
    static const char *const ranked[] = { "民人", "人民人", "民人民人", "人民", "人", "民", NULL };
    static const char *const zero[] = { "人", "民", "人民", "民人", "人民人", "民人民人", NULL };
    const struct hm_merge_options as_given = { .score_zero = true };
    struct hm_spm_model base = { 0 }, extra = { 0 };
    struct hm_merge_result result = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(base_pieces, true, &base);
    assert_ok(hm_spm_model_build(list, 7, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "list", &extra, &err), err);
    assert_ok(hm_piece_merge(&base, &extra, NULL, &result, &err), err);
    assert_added(&result, ranked);
    hm_merge_result_release(&result);
    assert_ok(hm_piece_merge(&base, &extra, &as_given, &result, &err), err);
    assert_added(&result, zero);
    hm_merge_result_release(&result);
    hm_buf_release(&bytes);
    hm_spm_model_release(&base);
    hm_spm_model_release(&extra);
}

/* What the published scripts do: `if piece not in base: append(piece, score 0)`, nothing else. */
static void assert_as_published(const struct hm_spm_model *base, const struct hm_spm_model *extra,
                                const struct hm_merge_result *result)
{
    size_t n = 0;

    for (size_t i = 0; i < extra->count; i++) {
        if (hm_spm_model_find(base, extra->piece[i].text) >= 0)
            continue;
        assert_true(n < result->n_added);
        assert_true(hm_str_equal(result->added[n].text, extra->piece[i].text));
        assert_true(result->added[n].score == 0 && result->added[n].type == HM_PIECE_NORMAL);
        n++;
    }
    assert_int_equal(result->n_added, n);
}

static void test_published_recipe(void **state)
{
    static const struct hm_merge_options options = { .score_zero = true, .any_script = true };
    struct hm_piece odd[] = { { hm_str_of("<none>"), 0, HM_PIECE_UNKNOWN },
                              { hm_str_of("[PAD]"), 0, HM_PIECE_CONTROL },
                              { hm_str_of("人"), -1, HM_PIECE_NORMAL },
                              { hm_str_of("a"), -2, HM_PIECE_NORMAL },
                              { hm_str_of(HM_SPM_SPACE "人a1"), -3, HM_PIECE_USER },
                              { hm_str_of("人民人民人民人民人民人民人民人民人"), -4,
                                HM_PIECE_NORMAL } };
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_merge_result result = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(base_pieces, true, &base);
    assert_ok(hm_spm_model_build(odd, 6, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "odd", &extra, &err), err);
    assert_ok(hm_piece_merge(&base, &extra, &options, &result, &err), err);
    assert_int_equal(result.n_added, 5);
    assert_as_published(&base, &extra, &result);
    assert_int_equal(result.n_dropped, 1);
    hm_merge_result_release(&result);
    hm_buf_release(&bytes);
    hm_spm_model_release(&extra);
    hm_spm_model_release(&base);

    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &base, &err),
        err);
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &extra, &err),
        err);
    assert_ok(hm_piece_merge(&base, &extra, &options, &result, &err), err);
    assert_as_published(&base, &extra, &result);
    assert_memory_equal(result.model_bytes.ptr, base.bytes.ptr, base.bytes.len);
    hm_merge_result_release(&result);
    hm_spm_model_release(&extra);
    hm_spm_model_release(&base);
}

static void test_nothing_to_add(void **state)
{
    static const char *const extra[] = { "a", "中国", NULL };
    struct hm_merge_result result = { 0 };

    (void)state;
    merge(extra, NULL, &result);
    assert_int_equal(result.n_added, 0);
    assert_int_equal(result.n_dropped, 2);
    hm_merge_result_release(&result);
}

static void test_refusals(void **state)
{
    static const char *const extra_pieces[] = { "人", NULL };
    struct hm_piece low[] = { { hm_str_of("<unk>"), 0, HM_PIECE_UNKNOWN },
                              { hm_str_of("a"), -20000000.0f, HM_PIECE_NORMAL } };
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_merge_result result = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(extra_pieces, true, &extra);
    assert_ok(hm_spm_model_build(low, 2, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "low", &base, &err), err);
    assert_fails(hm_piece_merge(&base, &extra, NULL, &result, &err), HM_ERR_FORMAT, "2^24", err);
    hm_spm_model_release(&base);
    assert_ok(hm_buf_append(&bytes, "\x12\x02\x18\x01", 4, &err), err); /* unigram */
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "low", &base, &err), err);
    assert_fails(hm_piece_merge(&base, &extra, NULL, &result, &err), HM_ERR_FORMAT, "no BPE", err);
    assert_null(result.added);
    base.kind = HM_SPM_BPE;
    base.has_charsmap = true;
    assert_fails(hm_piece_merge(&base, &extra, NULL, &result, &err), HM_ERR_FORMAT, "normaliser",
                 err);
    hm_spm_model_release(&base);
    hm_spm_model_release(&extra);
    hm_buf_release(&bytes);
}

/* A unigram vocabulary on Mistral's: what is kept must encode to itself, and the base is untouched.
 */
static void test_real_base(void **state)
{
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_merge_result result = { 0 };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };
    size_t unreachable = 0;

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &base, &err),
        err);
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &extra, &err),
        err);
    assert_ok(hm_piece_merge(&base, &extra, NULL, &result, &err), err);
    assert_true(result.n_added > 15000);
    for (size_t i = 0; i < result.n_dropped; i++)
        unreachable += strcmp(result.dropped[i].reason, "does not encode to itself") == 0;
    assert_true(unreachable > 0); /* unigram pieces are not closed under BPE */
    assert_ok(hm_tokenizer_open_bytes(buf_str(&result.model_bytes), "merged", &tokenizer, &err),
              err);
    assert_int_equal(tokenizer->model.count, base.count + result.n_added);
    for (size_t i = 0; i < result.n_added; i++) {
        hm_ids_clear(&ids);
        assert_ok(hm_tokenizer_encode_bare(tokenizer, result.added[i].text, &ids, &err), err);
        assert_int_equal(ids.count, 1);
        assert_int_equal(ids.id[0], base.count + i);
        assert_true(result.added[i].score == -31741.0f - (float)i);
    }
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    hm_merge_result_release(&result);
    hm_spm_model_release(&base);
    hm_spm_model_release(&extra);
}

struct both {
    struct hm_spm_model base, extra;
};

static int attempt(void *context, struct hm_error *err)
{
    struct both *both = context;
    struct hm_merge_result result = { 0 };
    int status = hm_piece_merge(&both->base, &both->extra, NULL, &result, err);

    hm_merge_result_release(&result);
    return status;
}

static void test_no_memory(void **state)
{
    static const char *const small_base[] = { "中", NULL };
    static const char *const extra[] = { "人中", "人", "x", NULL };
    struct both both = { { 0 }, { 0 } };

    (void)state;
    load(small_base, false, &both.base);
    load(extra, false, &both.extra);
    assert_true(oom_sweep(attempt, &both) > 20);
    hm_spm_model_release(&both.base);
    hm_spm_model_release(&both.extra);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter),           cmocka_unit_test(test_punctuation),
        cmocka_unit_test(test_limits_of_length), cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_order_of_scores),  cmocka_unit_test(test_published_recipe),
        cmocka_unit_test(test_nothing_to_add),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_real_base),        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
