/* SPDX-License-Identifier: MIT */
/*
 * A tokenizer.model by the loop of loaders that know pieces and scores alone (score_loop.c): the
 * ids that sentencepiece gave for the base, and those of our encoder for the base grown by a
 * ranked merge and by the score-0 recipe.
 */
#include "lines.h"

#include "hanmix/vocab/piece_merge.h"
#include "support/score_loop.h"

static struct hm_tokenizer *tokenizer;
static size_t checked;

/* Texts that hold a control piece: that loop knows no types. */
static bool holds_control(const char *text)
{
    return strstr(text, "<s>") || strstr(text, "</s>") || strstr(text, "<unk>");
}

static void check_recorded(size_t line, const json_t *value)
{
    const json_t *node = json_object_get(value, "text");
    struct hm_str text = { json_string_value(node), json_string_length(node) };
    struct hm_ids ids = { 0 };

    if (holds_control(text.ptr))
        return;
    score_loop_encode(&tokenizer->model, text, &ids);
    if (ids_differ(ids.id, ids.count,
                   json_object_get(json_object_get(value, "ids"), "mistral-v1-32000")) >= 0)
        fail_msg("line %zu: '%.200s' has other ids by the loop over scores", line, text.ptr);
    hm_ids_release(&ids);
    checked++;
}

static void check_ours(size_t line, const json_t *value)
{
    const json_t *node = json_object_get(value, "text");
    struct hm_str text = { json_string_value(node), json_string_length(node) };
    struct hm_ids loop = { 0 };
    struct hm_ids ours = { 0 };
    struct hm_error err = { 0 };

    if (holds_control(text.ptr))
        return;
    score_loop_encode(&tokenizer->model, text, &loop);
    assert_ok(hm_tokenizer_encode(tokenizer, text, &ours, &err), err);
    if (loop.count != ours.count ||
        (loop.count > 0 && memcmp(loop.id, ours.id, loop.count * sizeof(*loop.id)) != 0))
        fail_msg("line %zu: '%.200s' has other ids by the loop over scores", line, text.ptr);
    hm_ids_release(&loop);
    hm_ids_release(&ours);
    checked++;
}

static void test_base(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_tokenizer_open(golden_path("tokenizers/models/mistral-v1-32000.model"), &tokenizer,
                                &err),
              err);
    checked = 0;
    each_line("tokenizers/cases.jsonl", check_recorded);
    assert_true(checked > 1200);
    hm_tokenizer_free(tokenizer);
}

static void test_grown(void **state)
{
    struct hm_merge_result result = { 0 };
    struct hm_spm_model base = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &base, &err),
        err);
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &extra, &err),
        err);
    for (int zero = 0; zero < 2; zero++) {
        struct hm_merge_options options = { .score_zero = zero, .any_script = zero };
        assert_ok(hm_piece_merge(&base, &extra, &options, &result, &err), err);
        struct hm_str bytes = { result.model_bytes.ptr, result.model_bytes.len };
        assert_ok(hm_tokenizer_open_bytes(bytes, "merged", &tokenizer, &err), err);
        checked = 0;
        each_line("tokenizers/cases.jsonl", check_ours);
        assert_true(checked > 1200);
        hm_tokenizer_free(tokenizer);
        hm_merge_result_release(&result);
    }
    hm_spm_model_release(&base);
    hm_spm_model_release(&extra);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_base), cmocka_unit_test(test_grown) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
