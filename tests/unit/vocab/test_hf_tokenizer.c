/* SPDX-License-Identifier: MIT */
/*
 * vocab/hf_tokenizer.c and what it stands on: patterns, pre-tokenizers, added tokens, merging, what
 * is refused by name, allocation failures. Ids of whole files against the library: tests/interop.
 */
#include "support/support.h"

#include "../../../vocab/hf_tokenizer.h"

#define ALPHABET                                                                                \
    "\"a\": 0, \"b\": 1, \"c\": 2, \"\\u0120\": 3, \"ab\": 4, \"\\u0120ab\": 5, \"bc\": 6, "    \
    "\"\\u010a\": 7, \"1\": 8, \"2\": 9, \"aa\": 10, \"12\": 11, \"<\": 12, \"s\": 13, \"'\": " \
    "14, "                                                                                      \
    "\"\\u00c3\": 15, \"\\u00a9\": 16"
#define MERGES                    "[\"b c\", [\"a\", \"b\"], \"\\u0120 ab\", \"a a\", \"1 2\"]"
#define FILE_OF(pre, added, more) FILE_NORMAL("null", pre, added, more)
#define FILE_NORMAL(normalizer, pre, added, more)                                             \
    "{\"added_tokens\": [" added "], \"normalizer\": " normalizer ", \"pre_tokenizer\": " pre \
    ", \"model\": {\"type\": \"BPE\", \"vocab\": {" ALPHABET "}, \"merges\": " MERGES more "}}"
#define OPEN_SEQUENCE       "{\"type\": \"Sequence\", \"normalizers\": ["
#define CLOSE_SEQUENCE      "]}"
#define NORMALIZERS(inside) OPEN_SEQUENCE inside CLOSE_SEQUENCE
#define FOUR(text)          text text text text
#define EIGHT(open, close)  FOUR(open) FOUR(open) FOUR(close) FOUR(close)
#define BYTES               "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}"
#define SEQUENCE(step)      "{\"type\": \"Sequence\", \"pretokenizers\": [" step ", " BYTES "]}"
#define SPLIT(regex, behavior)                                         \
    SEQUENCE("{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex \
             "\"}, \"behavior\": \"" behavior "\", \"invert\": false}")

static void check_ids(const char *file, const char *text, const char *expected)
{
    struct hm_hf_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };
    struct hm_ids ids = { 0 };
    struct hm_buf found = { 0 };

    assert_ok(hm_hf_tokenizer_parse(hm_str_of(file), "t", &tokenizer, &err), err);
    assert_ok(hm_hf_tokenizer_encode(tokenizer, hm_str_of(text), &ids, &err), err);
    assert_ok(hm_buf_text(&found, "", &err), err);
    for (size_t i = 0; i < ids.count; i++)
        assert_ok(hm_buf_printf(&found, &err, i ? " %d" : "%d", (int)ids.id[i]), err);
    assert_string_equal(found.ptr, expected);
    hm_buf_release(&found);
    hm_ids_release(&ids);
    hm_hf_tokenizer_free(tokenizer);
}

static void check_refused(const char *file, const char *word)
{
    struct hm_hf_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    assert_fails(hm_hf_tokenizer_parse(hm_str_of(file), "t", &tokenizer, &err), HM_ERR_FORMAT, word,
                 err);
    assert_null(tokenizer);
}

static void test_merging(void **state)
{
    (void)state;
    check_ids(FILE_OF(BYTES, "", ""), "abc", "0 6"); /* b c has the lower rank */
    check_ids(FILE_OF(BYTES, "", ""), "ab ab", "4 5");
    check_ids(FILE_OF(BYTES, "", ""), "aaa", "10 0");  /* leftmost */
    check_ids(FILE_OF(BYTES, "", ""), "xay\xff", "0"); /* bytes without a token are lost */
    check_ids(FILE_OF(BYTES, "", ""), "", "");
    check_ids(FILE_OF("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "", ""), "ab ab",
              "5 5");
    check_ids(FILE_OF("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "", ""), "a's b",
              "0 14 13 3 1");
}

static void test_patterns(void **state)
{
    (void)state;
    check_ids(FILE_OF(SPLIT("b", "Isolated"), "", ""), "abc", "0 1 2");
    check_ids(FILE_OF(SPLIT("b", "Removed"), "", ""), "abc", "0 2");
    check_ids(FILE_OF(SPLIT("b", "MergedWithPrevious"), "", ""), "abc", "4 2");
    check_ids(FILE_OF(SPLIT("b", "MergedWithNext"), "", ""), "abc", "0 6");
    check_ids(FILE_OF(SPLIT("a", "Contiguous"), "", ""), "aab", "10 1");
    check_ids(FILE_OF(SPLIT("\\\\p{N}{1,2}", "Isolated"), "", ""), "1212a", "11 11 0");
    check_ids(FILE_OF(SPLIT("\\\\s+(?!\\\\S)|(?i:B)", "Isolated"), "", ""), "  abc", "3 3 0 1 2");
    check_ids(FILE_OF(SPLIT("(?:a|b)?c|[^\\\\S\\\\n]", "Isolated"), "", ""), "aabc", "10 6");
    check_ids(FILE_OF(SPLIT("\\\\s+$", "Isolated"), "", ""), "ab \n", "4 3 7");
    check_ids(FILE_OF(SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}"), "", ""),
              "12", "8 9");
}

static void test_added_tokens(void **state)
{
    static const char file[] =
        FILE_OF(BYTES,
                "{\"id\": 20, \"content\": \"<s>\", \"special\": true, \"normalized\": false}, "
                "{\"id\": 21, \"content\": \"<s>a\", \"special\": true, \"normalized\": false}, "
                "{\"id\": 22, \"content\": \"bb\", \"lstrip\": true, \"rstrip\": true}",
                "");

    (void)state;
    check_ids(file, "a<s>b", "0 20 1");
    check_ids(file, "a<s>aa", "0 21 0"); /* the longest */
    check_ids(file, "a  bb \n c", "0 22 2");
    check_ids(file, "a<s", "0 12 13");
}

static void test_ignored_merges(void **state)
{
    static const char model[] =
        "{\"pre_tokenizer\": " BYTES ", \"model\": {\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, "
        "\"merges\": [], \"ignore_merges\": true}}";

    (void)state;
    check_ids(model, "ab", "2");
    check_ids(model, "aba", "0 1 0");
}

static void test_normalizers(void **state)
{
    (void)state;
    check_ids(FILE_OF(BYTES, "", ""), "e\xcc\x81", "");
    check_ids(FILE_NORMAL("{\"type\": \"NFC\"}", BYTES, "", ""), "e\xcc\x81", "15 16");
    check_ids(FILE_NORMAL(NORMALIZERS(""), BYTES, "", ""), "e\xcc\x81", "");
    check_ids(FILE_NORMAL(NORMALIZERS(NORMALIZERS("{\"type\": \"NFC\"}")), BYTES, "", ""),
              "e\xcc\x81", "15 16");
    check_refused(FILE_NORMAL(NORMALIZERS("{\"type\": \"NFD\"}"), BYTES, "", ""), "other than NFC");
    check_refused(FILE_NORMAL("{\"type\": \"Sequence\"}", BYTES, "", ""), "other than NFC");
    check_refused(FILE_NORMAL(NORMALIZERS(EIGHT(OPEN_SEQUENCE, CLOSE_SEQUENCE)), BYTES, "", ""),
                  "other than NFC");
}

static void test_refused(void **state)
{
    (void)state;
    check_refused("{}", "no model");
    check_refused("[", "not JSON");
    check_refused("{\"model\": {\"type\": \"WordPiece\"}}", "another type");
    check_refused("{\"model\": {\"type\": \"BPE\"}}", "without pre_tokenizer");
    check_refused("{\"normalizer\": {\"type\": \"NFKC\"}, \"model\": {\"type\": \"BPE\"}}",
                  "other than NFC");
    check_refused(FILE_OF(BYTES, "", ", \"dropout\": 0.1"), "dropout");
    check_refused(FILE_OF(BYTES, "", ", \"unk_token\": \"a\""), "alphabet");
    check_refused(FILE_OF(SEQUENCE("{\"type\": \"Whitespace\"}"), "", ""), "Whitespace");
    check_refused(FILE_OF(SEQUENCE(BYTES), "", ""), "before other steps");
    check_refused(FILE_OF(SPLIT("a*", "Isolated"), "", ""), "match nothing");
    check_refused(FILE_OF(SPLIT("(?:ab)+", "Isolated"), "", ""), "repeats");
    check_refused(FILE_OF(SPLIT("\\\\w", "Isolated"), "", ""), "escape");
    check_refused(FILE_OF(SPLIT("\\\\p{Greek}", "Isolated"), "", ""), "property");
    check_refused(FILE_OF(SPLIT("(?<=a)b", "Isolated"), "", ""), "group");
    check_refused(FILE_OF(SPLIT("(?i:ss)", "Isolated"), "", ""), "folds");
    check_refused(FILE_OF(SPLIT("(a", "Isolated"), "", ""), "without )");
    check_refused(FILE_OF(SPLIT("[b-a]", "Isolated"), "", ""), "order");
    check_refused(FILE_OF(SPLIT("[a", "Isolated"), "", ""), "too early");
    check_refused(FILE_OF(BYTES, "{\"id\": 1}", ""), "lacks");
    check_refused(FILE_OF(BYTES, "{\"id\": 1, \"content\": \"q\", \"single_word\": true}", ""),
                  "single_word");
    check_refused("{\"pre_tokenizer\": " BYTES
                  ", \"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}",
                  "as another token has");
    check_refused("{\"pre_tokenizer\": " BYTES
                  ", \"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}",
                  "no id");
    check_refused("{\"pre_tokenizer\": " BYTES
                  ", \"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}}",
                  "which is no token");
    check_refused("{\"pre_tokenizer\": " BYTES
                  ", \"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}",
                  "is neither");
}

/* A pattern whose loops would try a cube of places ends with an error. */
static void test_hostile_pattern(void **state)
{
    struct hm_split_pattern *pattern = NULL;
    struct hm_error err = { 0 };
    struct hm_match match;
    struct hm_buf text = { 0 };

    (void)state;
    assert_ok(hm_split_pattern_make(hm_str_of("a+a+a+a+b|c"), "t", &pattern, &err), err);
    for (size_t i = 0; i < 2000; i++)
        assert_ok(hm_buf_text(&text, "a", &err), err);
    assert_fails(
        hm_split_pattern_find(pattern, (struct hm_str){ text.ptr, text.len }, 0, &match, &err),
        HM_ERR_FORMAT, "too many steps", err);
    hm_split_pattern_free(pattern);
    hm_buf_release(&text);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_hf_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    int status = hm_hf_tokenizer_parse(
        hm_str_of(FILE_OF(SPLIT("\\\\p{L}+|[ab]", "Isolated"),
                          "{\"id\": 20, \"content\": \"<s>\", \"special\": true}", "")),
        "t", &tokenizer, err);

    (void)context;
    if (status == HM_OK)
        status = hm_hf_tokenizer_encode(tokenizer, hm_str_of("ab\xff<s> 12"), &ids, err);
    hm_ids_release(&ids);
    hm_hf_tokenizer_free(tokenizer);
    return status;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    assert_true(oom_sweep(oom_attempt, NULL) >= 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging),         cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_added_tokens),    cmocka_unit_test(test_ignored_merges),
        cmocka_unit_test(test_normalizers),     cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile_pattern), cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
