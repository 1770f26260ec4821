/* SPDX-License-Identifier: MIT */
/*
 * vocab/efficiency.c: sums against encoding every document by hand, intervals against the delta
 * method, the same bytes for any number of threads, broken sources, allocation failures.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include <math.h>

#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/vocab/efficiency.h"

#define DOCUMENTS 600u

static const char *const names[] = { "mistral-v1-32000", "chinese-llama-chinese_sp-20000" };
static struct hm_any_tokenizer *tokenizers[2];
static const struct hm_efficiency_options usual = { .confidence = 0.95 };
static char *texts[DOCUMENTS];
static const char *sets[DOCUMENTS];

static int set_up(void **state)
{
    static const char *const part[] = { "中国人民", "的", "经济发展", "，", "龘", "hello world ",
                                        "数据",     "\n", "一个",     "。", "𠀀", "the " };
    struct hm_error err = { 0 };
    struct hm_rng_key key = { 5, 6 };
    char path[128];

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "tokenizers/models/%s.model", names[i]);
        assert_ok(hm_any_tokenizer_open(golden_path(path), &tokenizers[i], &err), err);
    }
    for (uint32_t d = 0; d < DOCUMENTS; d++) {
        struct hm_buf buf = { 0 };
        assert_ok(hm_buf_text(&buf, "", &err), err);
        for (uint64_t i = 0, n = hm_rng_below(key, 100 * d, 60); i < n; i++)
            assert_ok(
                hm_buf_text(&buf, part[hm_rng_below(key, 100 * d + 1 + i, d < 200 ? 5 : 12)], &err),
                err);
        texts[d] = buf.ptr;
        sets[d] = d < 200 ? "han" : "mixed";
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++)
        hm_any_tokenizer_free(tokenizers[i]);
    for (size_t d = 0; d < DOCUMENTS; d++)
        hm_free(texts[d]);
    return 0;
}

static int measure(size_t documents, uint64_t seed, struct hm_efficiency *ret, struct hm_error *err)
{
    struct fixture_texts fixture = { .text = (const char *const *)texts,
                                     .set = sets,
                                     .count = documents };
    struct hm_text_source source = fixture_source(&fixture);

    const struct hm_efficiency_options options = { .confidence = 0.95, .seed = seed };

    return hm_efficiency_measure(&source, (const struct hm_any_tokenizer *const *)tokenizers, 2,
                                 &options, NULL, ret, err);
}

/* Tokens of one document; byte tokens and unknowns are added up. */
static double tokens_of(size_t which, size_t d, struct hm_set_efficiency *sum)
{
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_any_tokenizer_encode(tokenizers[which], hm_str_of(texts[d]), &ids, &err), err);
    size_t count = ids.count;
    for (size_t i = 0; i < count; i++) {
        sum->sums.byte_fallback_tokens +=
            tokenizers[which]->spm->model.piece[ids.id[i]].type == HM_PIECE_BYTE;
        sum->sums.unk_tokens += ids.id[i] == tokenizers[which]->spm->model.unk_id;
    }
    sum->sums.tokens += count;
    hm_ids_release(&ids);
    return (double)count;
}

static void check_cell(const struct hm_efficiency *result, size_t which, size_t set, size_t first,
                       size_t after)
{
    const struct hm_set_efficiency *cell = &result->cell[which * result->n_sets + set];
    struct hm_set_efficiency base = { 0 };
    struct hm_set_efficiency sum = { 0 };
    size_t n = after - first;
    double variance = 0;

    for (size_t d = first; d < after; d++) {
        tokens_of(0, d, &base);
        tokens_of(which, d, &sum);
        sum.bytes += strlen(texts[d]);
        sum.chars += hm_utf8_count(hm_str_of(texts[d]));
    }
    assert_int_equal(cell->documents, n);
    assert_int_equal(cell->sums.tokens, sum.sums.tokens);
    assert_int_equal(cell->sums.byte_fallback_tokens, sum.sums.byte_fallback_tokens);
    assert_int_equal(cell->sums.unk_tokens, sum.sums.unk_tokens);
    assert_int_equal(cell->bytes, sum.bytes);
    assert_int_equal(cell->chars, sum.chars);
    double ratio = (double)sum.sums.tokens / (double)base.sums.tokens;
    assert_float_equal(cell->reduction, 1 - ratio, 1e-12);
    if (which == 0) {
        assert_true(cell->reduction_low == 0 && cell->reduction_high == 0);
        return;
    }
    for (size_t d = first; d < after; d++) { /* standard error of a ratio of sums */
        struct hm_set_efficiency unused = { 0 };
        double residual = tokens_of(which, d, &unused) - ratio * tokens_of(0, d, &unused);
        variance += residual * residual;
    }
    double error = sqrt(variance) / (double)base.sums.tokens;
    assert_float_equal(cell->reduction_low, cell->reduction - 1.96 * error, 0.5 * error);
    assert_float_equal(cell->reduction_high, cell->reduction + 1.96 * error, 0.5 * error);
}

static void test_sums_and_intervals(void **state)
{
    struct hm_efficiency result = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(measure(DOCUMENTS, 1, &result, &err), err);
    assert_int_equal(result.n_sets, 2);
    assert_int_equal(result.n_tokenizers, 2);
    for (size_t which = 0; which < 2; which++) {
        assert_string_equal(result.cell[which * 2].name, "han");
        assert_string_equal(result.cell[which * 2 + 1].name, "mixed");
        check_cell(&result, which, 0, 0, 200);
        check_cell(&result, which, 1, 200, DOCUMENTS);
    }
    assert_true(result.cell[0].sums.byte_fallback_tokens > 0); /* Mixtral has no 龘 */
    assert_true(result.cell[3].sums.unk_tokens > 0); /* the other has no 𠀀 and no bytes */
    hm_efficiency_release(&result);
    hm_efficiency_release(&result);
}

static void test_han_characters(void **state)
{
    static const char *const text[] = { "中国，カ一𠀀〇々 abc" };
    struct fixture_texts fixture = { .text = text, .count = 1 };
    struct hm_text_source source = fixture_source(&fixture);
    struct hm_efficiency result = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_efficiency_measure(&source, (const struct hm_any_tokenizer *const *)tokenizers, 1,
                                    &usual, NULL, &result, &err),
              err);
    assert_int_equal(result.cell[0].han_chars, 5);
    assert_int_equal(result.cell[0].chars, 12);
    assert_string_equal(result.cell[0].name, "text");
    hm_efficiency_release(&result);
}

/* Two sets of the same texts: what they share, what they cover, which lines change. */
static void test_measures(void **state)
{
    static const char *const text[] = { "中国龘\nabc\n\ndef",
                                        "abc",
                                        "\xff"
                                        "é\n一二",
                                        "中国龘\nabc\n\ndef",
                                        "abc",
                                        "\xff"
                                        "é\n一二" };
    static const char *const set[] = { "b", "b", "b", "a", "a", "a" };
    static const struct hm_parity_pair pair[] = { { "a", "b" } };
    const struct hm_efficiency_options options = {
        .confidence = 0.9, .parity = pair, .n_parity = 1, .sorted = true
    };
    struct fixture_texts fixture = { .text = text, .set = set, .count = 6 };
    struct hm_text_source source = fixture_source(&fixture);
    const struct hm_any_tokenizer *const same[] = { tokenizers[0], tokenizers[0], tokenizers[1] };
    struct hm_efficiency result = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_efficiency_measure(&source, same, 3, &options, NULL, &result, &err), err);
    assert_string_equal(result.cell[0].name, "a");
    assert_string_equal(result.cell[1].name, "b");
    assert_string_equal(result.total[0].name, "total");
    assert_int_equal(result.total[1].documents, 6);
    assert_int_equal(result.total[1].sums.tokens, 2 * result.cell[2].sums.tokens);
    assert_int_equal(result.total[1].pieces_used, result.cell[2].pieces_used);
    for (size_t t = 0; t < 2; t++) {
        const struct hm_set_efficiency *cell = &result.cell[2 * t];
        assert_int_equal(cell->plain_lines, 4);
        assert_int_equal(cell->sums.changed_lines, 0);
        assert_int_equal(cell->chars, 12 + 3 + 5);
        /* all but a byte-fallback 龘, the newlines and the malformed byte, which has a piece */
        assert_int_equal(cell->sums.own_chars, 20 - 1 - 4);
        assert_int_equal(cell->han_chars, 5);
        assert_int_equal(cell->sums.own_han_chars, 4);
    }
    assert_true(result.usage[1].extends && !result.usage[2].extends);
    assert_int_equal(result.usage[1].first_new, 32000);
    for (size_t t = 0; t < 3; t++)
        assert_true(result.parity[t].ratio == 1 && result.parity[t].low == 1 &&
                    result.parity[t].high == 1); /* pairs are drawn together */
    hm_efficiency_release(&result);
}

static void test_pairs_refused(void **state)
{
    static const char *const set[] = { "a", "a", "b" };
    static const struct hm_parity_pair pair[] = { { "a", "b" }, { "a", "c" } };
    struct hm_efficiency_options options = { .confidence = 0.9, .parity = pair, .n_parity = 1 };
    struct fixture_texts fixture = { .text = (const char *const *)texts, .set = set, .count = 3 };
    struct hm_text_source source = fixture_source(&fixture);
    const struct hm_any_tokenizer *const *list = (const struct hm_any_tokenizer *const *)tokenizers;
    struct hm_efficiency result = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_efficiency_measure(&source, list, 1, &options, NULL, &result, &err),
                 HM_ERR_USAGE, "found 2 and 1", err);
    fixture = (struct fixture_texts){ .text = (const char *const *)texts, .set = set, .count = 3 };
    options.parity = pair + 1;
    assert_fails(hm_efficiency_measure(&source, list, 1, &options, NULL, &result, &err),
                 HM_ERR_USAGE, "no document is of a set 'c'", err);
}

/* A vocabulary that has an English piece more: lines with it change. */
static void test_changed_lines(void **state)
{
    static const char *const text[] = { "中国\nthe zqxj\nplain", "the zqxj", "plain\nthe zqxj\n" };
    const struct hm_spm_model *base = &tokenizers[0]->spm->model;
    struct hm_piece more = { .text = hm_str_of("qx"), .score = -1, .type = HM_PIECE_NORMAL };
    struct fixture_texts fixture = { .text = text, .count = 3 };
    struct hm_text_source source = fixture_source(&fixture);
    struct hm_any_tokenizer *longer = NULL;
    struct hm_efficiency result = { 0 };
    struct hm_error err = { 0 };
    struct hm_buf bytes = { 0 };
    const char *path = tmp_path(test_dir, "longer.model");

    (void)state;
    assert_ok(hm_spm_model_append(base, &more, 1, &bytes, &err), err);
    assert_ok(hm_file_write(path, bytes.ptr, bytes.len, &err), err);
    assert_ok(hm_any_tokenizer_open(path, &longer, &err), err);
    const struct hm_any_tokenizer *const list[] = { tokenizers[0], longer };
    assert_ok(hm_efficiency_measure(&source, list, 2, &usual, NULL, &result, &err), err);
    assert_int_equal(result.cell[1].plain_lines, 5);
    assert_int_equal(result.cell[1].sums.changed_lines, 3);
    assert_int_equal(result.cell[1].new_pieces_used, 1);
    assert_int_equal(result.usage[1].pieces, 1);
    assert_int_equal(result.usage[1].count_p50, 3);
    hm_efficiency_release(&result);
    hm_any_tokenizer_free(longer);
    hm_buf_release(&bytes);
}

static void test_threads_and_seed(void **state)
{
    struct hm_efficiency result[3] = { { 0 } };
    struct hm_error err = { 0 };
    int threads = hm_threads();

    (void)state;
    hm_threads_set(1);
    assert_ok(measure(DOCUMENTS, 1, &result[0], &err), err);
    hm_threads_set(3);
    assert_ok(measure(DOCUMENTS, 1, &result[1], &err), err);
    assert_ok(measure(DOCUMENTS, 2, &result[2], &err), err);
    hm_threads_set(threads);
    for (size_t i = 0; i < 4; i++) {
        assert_true(result[0].cell[i].reduction_low == result[1].cell[i].reduction_low);
        assert_true(result[0].cell[i].reduction_high == result[1].cell[i].reduction_high);
    }
    assert_true(result[0].cell[3].reduction_low != result[2].cell[3].reduction_low);
    for (size_t i = 0; i < 3; i++)
        hm_efficiency_release(&result[i]);
}

static void test_failures(void **state)
{
    struct fixture_texts fixture = { .text = (const char *const *)texts,
                                     .count = DOCUMENTS,
                                     .fail_at = 7 };
    struct hm_text_source source = fixture_source(&fixture);
    const struct hm_any_tokenizer *const *list = (const struct hm_any_tokenizer *const *)tokenizers;
    const struct hm_efficiency_options certain = { .confidence = 1.0 };
    struct hm_efficiency result = { .n_sets = 9 };
    struct hm_error err = { 0 };
    volatile sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };

    (void)state;
    assert_fails(hm_efficiency_measure(&source, list, 2, &usual, NULL, &result, &err),
                 HM_ERR_FORMAT, "document 7 is broken", err);
    assert_fails(hm_efficiency_measure(&source, list, 0, &usual, NULL, &result, &err), HM_ERR_USAGE,
                 "at least one tokenizer", err);
    assert_fails(hm_efficiency_measure(&source, list, 2, &certain, NULL, &result, &err),
                 HM_ERR_USAGE, "confidence", err);
    fixture = (struct fixture_texts){ .text = (const char *const *)texts };
    assert_fails(hm_efficiency_measure(&source, list, 2, &usual, NULL, &result, &err),
                 HM_ERR_FORMAT, "no document", err);
    fixture.count = 5;
    assert_fails(hm_efficiency_measure(&source, list, 2, &usual, &ctl, &result, &err),
                 HM_ERR_STOPPED, "stopped", err);
    assert_int_equal(result.n_sets, 9);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_efficiency result = { 0 };
    int status = measure(*(size_t *)context, 1, &result, err);

    hm_efficiency_release(&result);
    return status;
}

static void test_out_of_memory(void **state)
{
    size_t documents = 20;

    (void)state;
    assert_true(oom_sweep(oom_attempt, &documents) >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_and_intervals),
        cmocka_unit_test(test_han_characters),
        cmocka_unit_test(test_measures),
        cmocka_unit_test(test_pairs_refused),
        cmocka_unit_test_setup_teardown(test_changed_lines, test_dir_setup, test_dir_teardown),
        cmocka_unit_test(test_threads_and_seed),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
