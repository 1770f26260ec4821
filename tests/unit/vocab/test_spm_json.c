/* SPDX-License-Identifier: MIT */
/*
 * vocab/spm_json.c and text_before.c: a small tokenizer.json read by hand, the order of its merges,
 * what stands before text, added tokens, and every component that must be refused. Ids of published
 * models are compared with the tokenizers library by tests/interop.
 */
#include "tiny_model.h"

#include "hanmix/base/file.h"
#include "hanmix/vocab/tokenizer.h"

#define SPACE "\xe2\x96\x81"
#define LEGACY                                                                                \
    "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "     \
    "\"prepend\": \"" SPACE "\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, " \
    "\"content\": \"" SPACE "\"}]}, \"pre_tokenizer\": null"
#define METASPACE(scheme)                                                                  \
    "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": " \
    "\"" SPACE "\", \"prepend_scheme\": \"" scheme "\", \"split\": false}"
#define ADDED                                                                                      \
    "[{\"id\": 0, \"content\": \"<unk>\", \"special\": true, \"normalized\": false}, {\"id\": 1, " \
    "\"content\": \"<s>\", \"special\": true, \"normalized\": true}, {\"id\": 9, \"content\": "    \
    "\"<t>\", \"special\": false, \"normalized\": false}]"
#define VOCAB                                                                                 \
    "{\"<unk>\": 0, \"<s>\": 1, \"" SPACE "\": 2, \"a\": 3, \"b\": 4, \"ab\": 5, \"ba\": 6, " \
    "\"aba\": 7, \"" SPACE "a\": 8}"
#define MERGES "[\"b a\", [\"a\", \"b\"], \"a ba\", \"" SPACE " a\"]"
#define MODEL(settings, vocab, merges)                                                       \
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"fuse_unk\": true, " settings \
    "\"vocab\": " vocab ", \"merges\": " merges "}"
#define FILE_OF(before, added, model) "{" before ", \"added_tokens\": " added ", " model "}"

static int open_text(const char *text, struct hm_tokenizer **ret_tokenizer, struct hm_error *err)
{
    const char *path = tmp_path(test_dir, "tokenizer.json");
    int status = hm_file_write(path, text, strlen(text), err);

    return status == HM_OK ? hm_tokenizer_open(path, ret_tokenizer, err) : status;
}

static void check_ids(const struct hm_tokenizer *tokenizer, const char *text, const char *expected)
{
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };
    char found[128] = "";

    assert_ok(hm_tokenizer_encode(tokenizer, hm_str_of(text), &ids, &err), err);
    for (size_t i = 0; i < ids.count; i++)
        snprintf(found + strlen(found), sizeof(found) - strlen(found), "%s%d", i ? " " : "",
                 (int)ids.id[i]);
    assert_string_equal(found, expected);
    hm_ids_release(&ids);
}

/* "b a" is the first of the merges, whatever ids and the library's scores would say. */
static void test_legacy(void **state)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(open_text(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, MERGES)), &tokenizer, &err), err);
    assert_true(tokenizer->model.by_merges);
    assert_int_equal(tokenizer->model.count, 10);
    assert_int_equal(tokenizer->model.bos_id, 1);
    assert_int_equal(tokenizer->model.unk_id, 0);
    check_ids(tokenizer, "aba", "2 7");
    check_ids(tokenizer, "ab", "2 5");
    check_ids(tokenizer, " a", "2 8");
    check_ids(tokenizer, "", "");
    check_ids(tokenizer, "xyb", "2 0 4");         /* unknown characters in a row are one id */
    check_ids(tokenizer, "b<t>b", "2 4 9 2 4");   /* text begins anew behind an added token */
    check_ids(tokenizer, "<s>b <s>b", "1 4 1 4"); /* a normalized one is " <s>" */
    check_ids(tokenizer, "b<s>", "2 4 0");
    assert_fails(hm_tokenizer_verify(tokenizer, hm_str_of("a"), NULL, 0, &err), HM_ERR_USAGE,
                 "which libsentencepiece does not read", err);
    hm_tokenizer_free(tokenizer);
}

static void test_metaspace(void **state)
{
    static const struct {
        const char *before, *plain, *spaced, *token, *after;
    } cases[] = {
        { METASPACE("first"), "2 4", "2 4", "9 4", "2 4 9 4" },
        { METASPACE("always"), "2 4", "2 4", "9 2 4", "2 4 9 2 4" },
        { METASPACE("never"), "4", "2 4", "9 4", "4 9 4" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct hm_tokenizer *tokenizer = NULL;
        struct hm_buf file = { 0 };
        struct hm_error err = { 0 };
        assert_ok(hm_buf_printf(&file, &err, "{%s, \"added_tokens\": " ADDED ", %s}",
                                cases[i].before, MODEL("", VOCAB, MERGES)),
                  err);
        assert_ok(open_text(file.ptr, &tokenizer, &err), err);
        check_ids(tokenizer, "b", cases[i].plain);
        check_ids(tokenizer, " b", cases[i].spaced);
        check_ids(tokenizer, SPACE "b", cases[i].spaced);
        check_ids(tokenizer, "<t>b", cases[i].token);
        check_ids(tokenizer, "b<t>b", cases[i].after);
        hm_tokenizer_free(tokenizer);
        hm_buf_release(&file);
    }
}

/* Of a pair that stands twice the later rank counts: "a b" then comes before "b a". */
static void test_repeated_merge(void **state)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(open_text(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"b a\", \"a b\", \"b a\"]")),
                        &tokenizer, &err),
              err);
    check_ids(tokenizer, "aba", "2 5 3");
    hm_tokenizer_free(tokenizer);
}

static void refuse(const char *file, const char *words)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    assert_fails(open_text(file, &tokenizer, &err), HM_ERR_FORMAT, words, err);
    assert_null(tokenizer);
}

static void test_refused_components(void **state)
{
    (void)state;
    refuse("[]", "no tokenizer.json of a BPE model");
    refuse("{\"model\": {\"vocab\": [], \"merges\": []}}", "no tokenizer.json of a BPE model");
    refuse(FILE_OF("\"pre_tokenizer\": {\"type\": \"ByteLevel\"}", ADDED, MODEL("", VOCAB, MERGES)),
           "a pre_tokenizer that cuts text into words cannot be read exactly");
    refuse(FILE_OF("\"normalizer\": null", ADDED, MODEL("", VOCAB, MERGES)),
           "a model that leaves spaces as they are");
    refuse(FILE_OF("\"normalizer\": {\"type\": \"Sequence\"}", ADDED, MODEL("", VOCAB, MERGES)),
           "has no list");
    refuse(FILE_OF("\"normalizer\": {\"type\": \"NFKC\"}", ADDED, MODEL("", VOCAB, MERGES)),
           "Prepend and Replace with U+2581 alone");
    refuse(FILE_OF("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \" \"}, "
                   "\"content\": \"" SPACE "\"}",
                   ADDED, MODEL("", VOCAB, MERGES)),
           "Prepend and Replace with U+2581 alone");
    refuse(FILE_OF(METASPACE("last"), ADDED, MODEL("", VOCAB, MERGES)), "Metaspace");
    refuse(FILE_OF("\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\"}",
                   ADDED, MODEL("", VOCAB, MERGES)),
           "Metaspace with split: false");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("\"ignore_merges\": true, ", VOCAB, MERGES)),
           "ignore_merges");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("\"dropout\": 0.1, ", VOCAB, MERGES)), "dropout");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("\"end_of_word_suffix\": \"</w>\", ", VOCAB, MERGES)),
           "end_of_word_suffix");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("\"byte_fallback\": true, ", VOCAB, MERGES)),
           "0 byte pieces, and byte fallback is on");
    refuse(FILE_OF(LEGACY, ADDED, "\"model\": {\"vocab\": " VOCAB ", \"merges\": " MERGES "}"),
           "a model without unk_token");
    refuse(FILE_OF(LEGACY, ADDED,
                   "\"model\": {\"unk_token\": \"<unk>\", \"vocab\": " VOCAB ", \"merges\": [] }"),
           "without fuse_unk and byte_fallback");
}

static void test_refused_pieces(void **state)
{
    static const char merge[] = "merge 0 needs '";

    (void)state;
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{\"<unk>\": 0, \"a\": 2}", "[]")),
           "'a' has no id from 0 to 1");
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{\"<unk>\": 0, \"a\": \"1\"}", "[]")), "no id from 0");
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{\"<unk>\": 0, \"a\": 1, \"b\": 1}", "[]")),
           "has id 1, as '");
    refuse(FILE_OF(LEGACY, "[{\"id\": 0, \"content\": \"<s>\"}]",
                   MODEL("", "{\"<unk>\": 0, \"<s>\": 1}", "[]")),
           "'<s>' has id 0, as '<unk>' has");
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{\"a\": 0}", "[]")), "0 unknown pieces instead of 1");
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{}", "[]")), "has 0 pieces");
    refuse(FILE_OF(LEGACY, "[]", MODEL("", "{\"<unk>\": 0, \"\": 1}", "[]")), "piece 1");
    refuse(FILE_OF(LEGACY, "[{\"id\": 1, \"content\": \"a\\u0000\"}]",
                   MODEL("", "{\"<unk>\": 0}", "[]")),
           "piece 1");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"a c\"]")), merge);
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"b b\"]")), merge);
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"<unk> a\"]")), merge);
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"a b a\"]")), "merge 0 is neither");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[[\"a\", \"b\", \"a\"]]")),
           "merge 0 is neither");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[\"ab\"]")), "merge 0 is neither");
    refuse(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, "[7]")), "merge 0 is neither");
}

/* A folder: tokenizer.model comes first, and without either it is what is missing. */
static void test_folders(void **state)
{
    static const char *const pieces[] = { "a", NULL };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };
    struct hm_buf bytes = tiny_model(pieces, false);

    (void)state;
    remove(tmp_path(test_dir, "tokenizer.json"));
    assert_fails(hm_tokenizer_open(test_dir, &tokenizer, &err), HM_ERR_USAGE, "tokenizer.model",
                 err);
    assert_ok(open_text(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, MERGES)), &tokenizer, &err), err);
    hm_tokenizer_free(tokenizer);
    assert_ok(hm_tokenizer_open(test_dir, &tokenizer, &err), err);
    assert_true(tokenizer->model.by_merges);
    hm_tokenizer_free(tokenizer);
    assert_ok(hm_file_write(tmp_path(test_dir, "tokenizer.model"), bytes.ptr, bytes.len, &err),
              err);
    assert_ok(hm_tokenizer_open(test_dir, &tokenizer, &err), err);
    assert_false(tokenizer->model.by_merges);
    hm_tokenizer_free(tokenizer);
    hm_buf_release(&bytes);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    int status = hm_tokenizer_open(context, &tokenizer, err);

    if (status == HM_OK)
        status = hm_tokenizer_encode(tokenizer, hm_str_of("b <s>b<t> ab"), &ids, err);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    return status;
}

static void test_no_memory(void **state)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(open_text(FILE_OF(LEGACY, ADDED, MODEL("", VOCAB, MERGES)), &tokenizer, &err), err);
    hm_tokenizer_free(tokenizer);
    assert_true(oom_sweep(attempt, (void *)(uintptr_t)tmp_path(test_dir, "tokenizer.json")) > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy),         cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_repeated_merge), cmocka_unit_test(test_refused_components),
        cmocka_unit_test(test_refused_pieces), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_folders), /* last: it leaves a tokenizer.model */
    };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
