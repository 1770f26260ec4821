/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer_json.c: a reader that knows nothing but tokenizer.json (vocabulary, ranks of
 * merges, byte fallback) must give the ids that LlamaTokenizerFast and sentencepiece gave.
 */
#include "lines.h"

#include "hanmix/vocab/piece_merge.h"

#define MAX_TEXT_BYTES 200u /* the reader below is quadratic on purpose: it is simple */

static json_t *vocab;
static json_t *ranks; /* "left right" -> place in the list */
static size_t checked;

static int write_and_read(void **state)
{
    char *dir = tmp_new();
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };
    json_t *root = NULL;

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &model, &err),
        err);
    assert_ok(hm_tokenizer_json_write(&model, NULL, dir, &err), err);
    assert_ok(hm_json_load(tmp_path(dir, "tokenizer.json"), 64 << 20, &root, &err), err);
    json_t *part = json_object_get(root, "model");
    json_t *merges = json_object_get(part, "merges");
    vocab = json_incref(json_object_get(part, "vocab"));
    ranks = json_object();
    for (size_t i = 0; i < json_array_size(merges); i++)
        json_object_set_new(ranks, json_string_value(json_array_get(merges, i)),
                            json_integer((json_int_t)i));
    assert_int_equal(json_object_size(vocab), 32000);
    assert_int_equal(json_object_size(ranks), 58980); /* as in the published file */
    json_decref(root);
    hm_spm_model_release(&model);
    tmp_release(dir);
    return 0;
}

static int forget(void **state)
{
    (void)state;
    json_decref(vocab);
    json_decref(ranks);
    return 0;
}

/* One character as a symbol, or its bytes when the vocabulary has no such piece. */
static size_t put_character(const char *text, size_t len, char (*symbol)[64])
{
    snprintf(symbol[0], 64, "%.*s", (int)len, text);
    if (json_object_get(vocab, symbol[0]))
        return 1;
    for (size_t i = 0; i < len; i++)
        snprintf(symbol[i], 64, "<0x%02X>", (unsigned char)text[i]);
    return len;
}

static size_t split(const char *text, size_t len, char (*symbol)[64])
{
    size_t n = len > 0 ? put_character(HM_SPM_SPACE, 3, symbol) : 0;
    uint32_t code;

    for (size_t at = 0; at < len;) {
        unsigned bytes = hm_utf8_decode(text + at, len - at, &code);
        if (code == ' ')
            n += put_character(HM_SPM_SPACE, 3, symbol + n);
        else
            n += put_character(text + at, bytes, symbol + n);
        at += bytes;
    }
    return n;
}

/* Merge the best pair, the leftmost among equals, until none is left. */
static size_t merge_all(char (*symbol)[64], size_t n)
{
    for (;;) {
        json_int_t best = -1;
        size_t place = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char pair[130];
            snprintf(pair, sizeof(pair), "%.63s %.63s", symbol[i], symbol[i + 1]);
            const json_t *rank = json_object_get(ranks, pair);
            if (rank && (best < 0 || json_integer_value(rank) < best)) {
                best = json_integer_value(rank);
                place = i;
            }
        }
        if (best < 0)
            return n;
        char joined[128];
        int len = snprintf(joined, sizeof(joined), "%.63s%.63s", symbol[place], symbol[place + 1]);
        assert_true(len < (int)sizeof(*symbol));
        memcpy(symbol[place], joined, sizeof(*symbol));
        memmove(symbol[place + 1], symbol[place + 2], (n - place - 2) * sizeof(*symbol));
        n--;
    }
}

static void check_line(size_t line, const json_t *value)
{
    static char symbol[MAX_TEXT_BYTES + 2][64];
    int32_t ids[MAX_TEXT_BYTES + 2];
    const json_t *node = json_object_get(value, "text");
    const char *text = json_string_value(node);
    size_t len = json_string_length(node);

    /* transformers cuts special tokens out first; a NUL cannot be looked up here */
    if (len > MAX_TEXT_BYTES || strlen(text) != len || strstr(text, "<s>") ||
        strstr(text, "</s>") || strstr(text, "<unk>"))
        return;
    size_t n = merge_all(symbol, split(text, len, symbol));
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_object_get(vocab, symbol[i]));
    const json_t *recorded = json_object_get(value, "ids");
    if (ids_differ(ids, n, json_object_get(recorded, "hf_fast")) >= 0 ||
        ids_differ(ids, n, json_object_get(recorded, "mistral-v1-32000")) >= 0)
        fail_msg("line %zu: '%s' has other ids by tokenizer.json", line, text);
    checked++;
}

static void test_ids(void **state)
{
    (void)state;
    each_line("tokenizers/cases.jsonl", check_line);
    assert_true(checked > 800);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_ids) };

    return cmocka_run_group_tests(tests, write_and_read, forget);
}
