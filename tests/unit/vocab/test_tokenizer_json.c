/* SPDX-License-Identifier: MIT */
/*
 * vocab/merge_pairs.c, tokenizer_json.c, tokenizer_config.c: the merges of a model in order, files
 * made from nothing and files of a base folder extended, and every base folder that does not fit
 * refused.
 */
#include "tiny_model.h"

#include "../../../vocab/merge_pairs.h"
#include "hanmix/base/json.h"
#include "hanmix/vocab/piece_merge.h"

static const char *const base_pieces[] = { "a", "b", "ab", "ba", "aba", HM_SPM_SPACE, NULL };
static const char *const all_pieces[] = { "a",          "b",  "ab",   "ba",   "aba",
                                          HM_SPM_SPACE, "中", "中中", "\"\\", NULL };

static void load(const char *const *pieces, const char *tail, size_t tail_len,
                 struct hm_spm_model *model)
{
    struct hm_buf buf = tiny_model(pieces, true);
    struct hm_error err = { 0 };

    assert_ok(hm_buf_append(&buf, tail, tail_len, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&buf), "tiny", model, &err), err);
    hm_buf_release(&buf);
}

#define ADD_PREFIX "\x1a\x02\x18\x01"

static json_t *read_json(const char *dir, const char *name)
{
    struct hm_error err = { 0 };
    json_t *root = NULL;

    assert_ok(hm_json_load(tmp_path(dir, "%s", name), 1 << 20, &root, &err), err);
    return root;
}

static void test_pairs(void **state)
{
    static const char *const expected[] = { "a b", "b a", "ab a", "a ba", "中 中" };
    struct hm_spm_model model = { 0 };
    struct hm_merge_pairs pairs = { 0 };
    struct hm_error err = { 0 };
    char text[64];

    (void)state;
    load(all_pieces, "", 0, &model);
    assert_ok(hm_merge_pairs_make(&model, 0, &pairs, &err), err);
    assert_int_equal(pairs.count, 5);
    for (size_t i = 0; i < pairs.count; i++) {
        struct hm_str left = model.piece[pairs.pair[i].left].text;
        struct hm_str right = model.piece[pairs.pair[i].right].text;
        snprintf(text, sizeof(text), "%.*s %.*s", (int)left.len, left.ptr, (int)right.len,
                 right.ptr);
        assert_string_equal(text, expected[i]);
        assert_int_equal(pairs.pair[i].left_chars, hm_utf8_count(left));
        assert_int_equal(pairs.pair[i].right_chars, hm_utf8_count(right));
    }
    hm_merge_pairs_release(&pairs);
    assert_ok(hm_merge_pairs_make(&model, TINY_META + 6, &pairs, &err), err);
    assert_int_equal(pairs.count, 1);
    hm_merge_pairs_release(&pairs);
    hm_spm_model_release(&model);
}

static void test_from_nothing(void **state)
{
    char *dir = tmp_new();
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(all_pieces, ADD_PREFIX, 4, &model);
    assert_ok(hm_tokenizer_json_write(&model, NULL, dir, &err), err);
    json_t *root = read_json(dir, "tokenizer.json");
    json_t *part = json_object_get(root, "model");
    json_t *vocab = json_object_get(part, "vocab");
    assert_int_equal(json_object_size(vocab), model.count);
    assert_int_equal(json_integer_value(json_object_get(vocab, "中中")), TINY_META + 7);
    assert_int_equal(json_integer_value(json_object_get(vocab, "\"\\")), TINY_META + 8);
    assert_int_equal(json_array_size(json_object_get(part, "merges")), 5);
    assert_string_equal(json_string_value(json_array_get(json_object_get(part, "merges"), 0)),
                        "a b");
    assert_true(json_is_true(json_object_get(part, "byte_fallback")));
    assert_int_equal(json_array_size(json_object_get(root, "added_tokens")), 3);
    json_t *normalizers = json_object_get(json_object_get(root, "normalizer"), "normalizers");
    assert_int_equal(json_array_size(normalizers), 2);
    json_decref(root);

    root = read_json(dir, "special_tokens_map.json");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(root, "eos_token"), "content")), "</s>");
    assert_null(json_object_get(root, "pad_token"));
    json_decref(root);
    size_t len;
    char *config = file_get(tmp_path(dir, "tokenizer_config.json"), &len);
    assert_non_null(strstr(config, "\"bos_token\": \"<s>\",\n"));
    assert_non_null(strstr(config, "\"pad_token\": null,\n"));
    assert_non_null(strstr(config, "\"model_max_length\": 1000000000000000019884624838656,\n"));
    hm_free(config);
    hm_spm_model_release(&model);
    tmp_release(dir);
}

/* Without a dummy prefix nothing is put before the text, nor taken off. */
static void test_no_prefix(void **state)
{
    char *dir = tmp_new();
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(all_pieces, "", 0, &model);
    assert_ok(hm_tokenizer_json_write(&model, NULL, dir, &err), err);
    json_t *root = read_json(dir, "tokenizer.json");
    json_t *normalizers = json_object_get(json_object_get(root, "normalizer"), "normalizers");
    json_t *decoders = json_object_get(json_object_get(root, "decoder"), "decoders");
    assert_int_equal(json_array_size(normalizers), 1);
    assert_int_equal(json_array_size(decoders), 3);
    json_decref(root);
    hm_spm_model_release(&model);
    tmp_release(dir);
}

/* remove_extra_whitespaces: three replacements before the prefix. interop_merge.py runs them. */
static void test_trimmed_spaces(void **state)
{
    static const char *const patterns[] = { "\\A +", "[ " HM_SPM_SPACE "]+\\z", " {2,}" };
    char *dir = tmp_new();
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(all_pieces, "\x1a\x04\x18\x01\x20\x01", 6, &model);
    assert_ok(hm_tokenizer_json_write(&model, NULL, dir, &err), err);
    json_t *root = read_json(dir, "tokenizer.json");
    json_t *normalizers = json_object_get(json_object_get(root, "normalizer"), "normalizers");
    assert_int_equal(json_array_size(normalizers), 5);
    for (size_t i = 0; i < 3; i++) {
        json_t *pattern = json_object_get(json_array_get(normalizers, i), "pattern");
        assert_string_equal(json_string_value(json_object_get(pattern, "Regex")), patterns[i]);
    }
    json_decref(root);
    hm_spm_model_release(&model);
    tmp_release(dir);
}

static void put(const char *dir, const char *name, const char *text)
{
    file_put(tmp_path(dir, "%s", name), text, strlen(text));
}

static void test_extend(void **state)
{
    char *base_dir = tmp_new();
    char *out = tmp_new();
    struct hm_spm_model base = { 0 };
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };
    static const char config[] =
        "{\"model_max_length\": 1000000000000000019884624838656, "
        "\"chat_template\": \"kept \\\\ \\\" 1234567890123\",   \"added_tokens_decoder\": "
        "{\"1\": {\"content\": \"<s>\"}}}";

    (void)state;
    load(base_pieces, ADD_PREFIX, 4, &base);
    load(all_pieces, ADD_PREFIX, 4, &model);
    assert_ok(hm_tokenizer_json_write(&base, NULL, base_dir, &err), err);
    json_t *root = read_json(base_dir, "tokenizer.json");
    json_t *part = json_object_get(root, "model");
    json_object_set_new(root, "pre_tokenizer", json_pack("{s:s}", "type", "kept"));
    /* An order of its own, which must stay, and the form of arrays. */
    json_object_set_new(part, "merges", json_pack("[[ss][ss]]", "b", "a", "a", "b"));
    assert_ok(hm_json_save(tmp_path(base_dir, "tokenizer.json"), root, &err), err);
    json_decref(root);
    put(base_dir, "tokenizer_config.json", config);

    assert_ok(hm_tokenizer_json_write(&model, base_dir, out, &err), err);
    root = read_json(out, "tokenizer.json");
    part = json_object_get(root, "model");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(root, "pre_tokenizer"), "type")), "kept");
    assert_int_equal(json_object_size(json_object_get(part, "vocab")), model.count);
    json_t *merges = json_object_get(part, "merges");
    assert_int_equal(json_array_size(merges), 3);
    assert_string_equal(json_string_value(json_array_get(json_array_get(merges, 0), 0)), "b");
    assert_string_equal(json_string_value(json_array_get(json_array_get(merges, 2), 1)), "中");
    json_decref(root);
    size_t len;
    char *copy = file_get(tmp_path(out, "tokenizer_config.json"), &len);
    assert_string_equal(copy, config);
    hm_free(copy);
    hm_spm_model_release(&base);
    hm_spm_model_release(&model);
    tmp_release(base_dir);
    tmp_release(out);
}

/* New pieces that outrank old ones cannot stand at the end: all merges are written anew. */
static void test_outranking(void **state)
{
    static const char *const zero[] = { "a", NULL };
    struct hm_piece better[] = { { hm_str_of("中"), 5, HM_PIECE_NORMAL },
                                 { hm_str_of("aa"), 0, HM_PIECE_NORMAL },
                                 { hm_str_of("中中"), 9, HM_PIECE_NORMAL } };
    char *dir = tmp_new();
    char *out = tmp_new();
    struct hm_spm_model base = { 0 };
    struct hm_spm_model model = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(zero, "", 0, &base);
    assert_ok(hm_tokenizer_json_write(&base, NULL, dir, &err), err);
    assert_ok(hm_spm_model_append(&base, better, 3, &bytes, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "better", &model, &err), err);
    assert_ok(hm_tokenizer_json_write(&model, dir, out, &err), err);
    json_t *root = read_json(out, "tokenizer.json");
    json_t *merges = json_object_get(json_object_get(root, "model"), "merges");
    assert_int_equal(json_array_size(merges), 2);
    assert_string_equal(json_string_value(json_array_get(merges, 0)), "中 中");
    json_decref(root);
    hm_buf_release(&bytes);
    hm_spm_model_release(&base);
    hm_spm_model_release(&model);
    tmp_release(dir);
    tmp_release(out);
}

#define BPE_WITH(merges)                                                                 \
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 259, \"b\": 260, \"ab\": 261}, " \
    "\"merges\": [" merges "]}}"

static void test_refusals(void **state)
{
    static const struct {
        const char *name, *text, *part;
    } bad[] = {
        { "tokenizer.json", "[1]", "expected an object" },
        { "tokenizer.json", "{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}, \"merges\": []}}",
          "no tokenizer.json" },
        { "tokenizer.json", "{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}",
          "no tokenizer.json" },
        { "tokenizer.json", "{\"model\": {\"type\": 7}}", "type" },
        { "tokenizer.json",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"x\": 0}, \"merges\": []}}",
          "'x' has id 0 there" },
        { "tokenizer.json",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"x\": 99999999999}, \"merges\": []}}",
          "99999999999" },
        { "tokenizer.json",
          "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"x\": \"y\"}, \"merges\": []}}", "-1" },
        { "tokenizer.json", BPE_WITH("7"), "merge 0 is not two pieces" },
        { "tokenizer.json", BPE_WITH("\"ab\""), "merge 0 is not two pieces" },
        { "tokenizer.json", BPE_WITH("\"a b\", \"b a\""), "merge 1 is not two pieces" },
        { "tokenizer.json", BPE_WITH("[\"a\", \"b\", \"a\"]"), "merge 0 is not two pieces" },
        { "tokenizer.json", BPE_WITH("[\"a\"]"), "merge 0 is not two pieces" },
        { "tokenizer.json", BPE_WITH("\"a ab\""), "merge 0 is not two pieces" },
        { "tokenizer.json", BPE_WITH("\"a b\""), "byte_fallback is off there" },
        { "tokenizer.json",
          "{\"added_tokens\": [{\"id\": 7000, \"content\": \"<pad>\"}], \"model\": "
          "{\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {}, \"merges\": []}}",
          "outside the vocabulary" },
        { "tokenizer.json",
          "{\"added_tokens\": [{\"id\": 5, \"content\": \"<pad>\"}], \"model\": "
          "{\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": {}, \"merges\": []}}",
          "another piece" },
        { "tokenizer.json",
          "{\"added_tokens\": [{}], \"model\": {\"type\": \"BPE\", \"byte_fallback\": true, "
          "\"vocab\": {}, \"merges\": []}}",
          "lacks its id" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\": {\"7000\": {\"content\": \"x\"}}}",
          "outside the vocabulary" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\": {\"x\": {\"content\": \"x\"}}}",
          "no id with a content" },
        { "tokenizer_config.json", "{\"added_tokens_decoder\": {\"1\": 7}}",
          "no id with a content" },
        { "special_tokens_map.json", "{", "not JSON" },
    };
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    load(all_pieces, ADD_PREFIX, 4, &model);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *dir = tmp_new();
        char *out = tmp_new();
        put(dir, bad[i].name, bad[i].text);
        assert_fails(hm_tokenizer_json_write(&model, dir, out, &err), HM_ERR_FORMAT, bad[i].part,
                     err);
        tmp_release(dir);
        tmp_release(out);
    }
    hm_spm_model_release(&model);
    struct {
        const char *tail;
        size_t len;
        const char *part;
    } kinds[] = { { "\x12\x02\x18\x01", 4, "not BPE" },
                  { "\x1a\x02\x28\x00", 4, "leaves spaces" },
                  { "\x0a\x06\x0a\x02xx\x18\x05", 8, "unused pieces" } };
    for (size_t i = 0; i < 3; i++) {
        load(all_pieces, kinds[i].tail, kinds[i].len, &model);
        assert_fails(hm_tokenizer_json_write(&model, NULL, "/nonexistent", &err), HM_ERR_FORMAT,
                     kinds[i].part, err);
        hm_spm_model_release(&model);
    }
}

struct job {
    struct hm_spm_model model;
    const char *base, *out;
};

static int attempt(void *context, struct hm_error *err)
{
    struct job *job = context;

    return hm_tokenizer_json_write(&job->model, job->base, job->out, err);
}

static void test_no_memory(void **state)
{
    struct hm_piece few[] = { { hm_str_of("<unk>"), 0, HM_PIECE_UNKNOWN },
                              { hm_str_of("<s>"), 0, HM_PIECE_CONTROL },
                              { hm_str_of("a"), 0, HM_PIECE_NORMAL },
                              { hm_str_of("aa"), -1, HM_PIECE_NORMAL } };
    struct job job = { { 0 }, NULL, NULL };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };
    char *base = tmp_new();
    char *out = tmp_new();

    (void)state;
    assert_ok(hm_spm_model_build(few, 4, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "few", &job.model, &err), err);
    job.out = out;
    assert_true(oom_sweep(attempt, &job) > 50);
    assert_ok(hm_tokenizer_json_write(&job.model, NULL, base, &err), err);
    job.base = base;
    assert_true(oom_sweep(attempt, &job) > 50);
    hm_buf_release(&bytes);
    hm_spm_model_release(&job.model);
    tmp_release(base);
    tmp_release(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs),     cmocka_unit_test(test_from_nothing),
        cmocka_unit_test(test_no_prefix), cmocka_unit_test(test_trimmed_spaces),
        cmocka_unit_test(test_extend),    cmocka_unit_test(test_outranking),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
