/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer.c against recorded ids of sentencepiece 0.2.3 (tests/golden/data/tokenizers): no
 * tolerance, malformed UTF-8 included. What is decoded must be the text, but for U+2581. The
 * unigram model has one rule of its own: versions of the library break ties between segmentations
 * of equal score differently (a run of one character), so there a tie is accepted as a tie.
 */
#include "lines.h"

#include <math.h>

#include "hanmix/vocab/tokenizer.h"

static const char *const names[] = { "mistral-v1-32000", "mistral-v3-32768",
                                     "chinese-llama-chinese_sp-20000" };
#define N_MODELS (sizeof(names) / sizeof(names[0]))

static struct hm_tokenizer *tokenizers[N_MODELS];

static int open_all(void **state)
{
    struct hm_error err = { 0 };
    char path[128];

    (void)state;
    for (size_t i = 0; i < N_MODELS; i++) {
        snprintf(path, sizeof(path), "tokenizers/models/%s.model", names[i]);
        assert_ok(hm_tokenizer_open(golden_path(path), &tokenizers[i], &err), err);
    }
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_MODELS; i++)
        hm_tokenizer_free(tokenizers[i]);
    return 0;
}

/* Two segmentations of one text whose scores add up to the same, as floats can tell. */
static bool unigram_tie(size_t model, const struct hm_ids *found, const json_t *expected)
{
    const struct hm_spm_model *spm = &tokenizers[model]->model;
    double sum = 0;
    double difference = 0;

    if (spm->kind != HM_SPM_UNIGRAM || found->count != json_array_size(expected))
        return false;
    for (size_t i = 0; i < found->count; i++) {
        json_int_t id = json_integer_value(json_array_get(expected, i));
        sum += (double)spm->piece[id].score;
        difference += (double)spm->piece[id].score - (double)spm->piece[found->id[i]].score;
    }
    return fabs(difference) <= 1e-6 * fabs(sum);
}

static void check_ids(size_t line, size_t model, const struct hm_ids *found, const json_t *expected)
{
    long at = ids_differ(found->id, found->count, expected);

    if (at >= 0 && !unigram_tie(model, found, expected))
        fail_msg("line %zu, %s: id %ld differs (%zu ids, recorded %zu)", line, names[model], at,
                 found->count, json_array_size(expected));
}

/* What the model's normaliser leaves alone comes back whole: dummy prefix, bytes and all. */
static void check_text(size_t line, size_t model, const struct hm_ids *ids, struct hm_str text)
{
    struct hm_buf back = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_tokenizer_decode(tokenizers[model], ids->id, ids->count, &back, &err), err);
    if (!hm_str_equal((struct hm_str){ back.ptr, back.len }, text))
        fail_msg("line %zu, %s: decodes to '%s'", line, names[model], back.ptr);
    hm_buf_release(&back);
}

/* Bytes and characters of the ids sum to those of the text and of the dummy prefix. */
static void check_sizes(size_t line, size_t model, const struct hm_ids *ids, struct hm_str text)
{
    struct hm_text_encoder encoder = hm_tokenizer_encoder(tokenizers[model]);
    size_t bytes = 0;
    size_t chars = 0;
    uint32_t add_bytes;
    uint32_t add_chars;

    for (size_t i = 0; i < ids->count; i++) {
        encoder.token_size(encoder.context, ids->id[i], &add_bytes, &add_chars);
        bytes += add_bytes;
        chars += add_chars;
    }
    size_t dummy = text.len > 0;
    if (bytes != text.len + dummy || chars != hm_utf8_count(text) + dummy)
        fail_msg("line %zu, %s: tokens stand for %zu bytes and %zu characters", line, names[model],
                 bytes, chars);
}

static void check_line(size_t line, const json_t *value)
{
    const json_t *ids = json_object_get(value, "ids");
    const json_t *node = json_object_get(value, "text");
    struct hm_str text = { json_string_value(node), json_string_length(node) };
    struct hm_error err = { 0 };

    assert_non_null(text.ptr);
    for (size_t m = 0; m < N_MODELS; m++) {
        struct hm_ids found = { 0 };
        assert_ok(hm_tokenizer_encode(tokenizers[m], text, &found, &err), err);
        check_ids(line, m, &found, json_object_get(ids, names[m]));
        if (m < 2 && !strstr(text.ptr, HM_SPM_SPACE)) {
            check_text(line, m, &found, text);
            check_sizes(line, m, &found, text);
        }
        hm_ids_release(&found);
    }
}

static void check_bytes(size_t line, const json_t *value)
{
    const json_t *ids = json_object_get(value, "ids");
    const char *hex = json_string_value(json_object_get(value, "hex"));
    struct hm_buf text = { 0 };
    struct hm_error err = { 0 };
    unsigned byte;

    assert_non_null(hex);
    for (size_t i = 0; hex[i]; i += 2) {
        assert_int_equal(sscanf(hex + i, "%2x", &byte), 1);
        assert_ok(hm_buf_append(&text, &(char){ (char)byte }, 1, &err), err);
    }
    for (size_t m = 0; m < N_MODELS; m++) {
        struct hm_ids found = { 0 };
        assert_ok(
            hm_tokenizer_encode(tokenizers[m], (struct hm_str){ text.ptr, text.len }, &found, &err),
            err);
        check_ids(line, m, &found, json_object_get(ids, names[m]));
        hm_ids_release(&found);
    }
    hm_buf_release(&text);
}

static void test_text(void **state)
{
    (void)state;
    assert_true(each_line("tokenizers/cases.jsonl", check_line) > 1000);
}

static void test_malformed(void **state)
{
    (void)state;
    assert_true(each_line("tokenizers/invalid_utf8.jsonl", check_bytes) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_text),
                                        cmocka_unit_test(test_malformed) };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
