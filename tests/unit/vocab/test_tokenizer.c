/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer.c: long texts cut into parts give the ids of the library on the whole text, bare
 * encoding, decoding, sizes of tokens, and refusals. Recorded ids are in tests/golden/vocab.
 */
#include "tiny_model.h"

#include "../../../vocab/spm_shim.h"
#include "hanmix/base/rng.h"
#include "hanmix/vocab/tokenizer.h"

static const char *const pieces[] = { HM_SPM_SPACE, "a",  "b",  "ab",   "aab", "abab", "=", "==",
                                      "====",       "中", "国", "中国", "哈",  "哈哈", "é", NULL };

enum kind { BYTES, NO_BYTES, UNUSED /* encoded by the library, in parts */ };

static struct hm_tokenizer *open_tiny(enum kind kind)
{
    struct hm_buf model = tiny_model(pieces, kind == BYTES);
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };

    /* The model adds the dummy prefix. */
    assert_ok(hm_buf_append(&model, "\x1a\x02\x18\x01", 4, &err), err);
    if (kind == UNUSED)
        assert_ok(hm_buf_append(&model,
                                "\x0a\x06\x0a\x02"
                                "a="
                                "\x18\x05",
                                8, &err),
                  err);
    assert_ok(hm_tokenizer_open_bytes(buf_str(&model), "tiny", &tokenizer, &err), err);
    hm_buf_release(&model);
    return tokenizer;
}

static void assert_ids(const struct hm_ids *a, const struct hm_ids *b)
{
    assert_int_equal(a->count, b->count);
    if (a->count > 0)
        assert_memory_equal(a->id, b->id, a->count * sizeof(*a->id));
}

/* Random text of words that make cuts rare or frequent, malformed bytes among them. */
static void random_text(struct hm_buf *text, size_t len, uint64_t seed)
{
    static const char *const words[] = { "a",    "b",  "ab", " ",    "=",   "====",
                                         "中",   "国", "哈", "中国", "é",   "\xe4",
                                         "\xff", "x",  "\n", "哈哈", "\x80" };
    struct hm_rng_key key = { seed, 0 };
    uint64_t kinds = 1 + hm_rng_below(key, 0, sizeof(words) / sizeof(words[0]));
    struct hm_error err = { 0 };

    hm_buf_clear(text);
    for (uint64_t i = 1; text->len < len; i++)
        assert_ok(hm_buf_text(text, words[hm_rng_below(key, i, kinds)], &err), err);
}

static void check_parts(enum kind kind)
{
    struct hm_tokenizer *tokenizer = open_tiny(kind);
    struct hm_buf text = { 0 };
    struct hm_ids cut = { 0 };
    struct hm_ids whole = { 0 };
    struct hm_error err = { 0 };
    void *library = NULL;

    assert_ok(hm_spm_shim_open(buf_str(&tokenizer->model.bytes), "tiny", &library, &err), err);
    for (uint64_t seed = 0; seed < 60; seed++) {
        random_text(&text, 200 * seed, seed);
        hm_ids_clear(&cut);
        hm_ids_clear(&whole);
        assert_ok(hm_tokenizer_encode(tokenizer, buf_str(&text), &cut, &err), err);
        assert_ok(hm_spm_shim_encode(library, buf_str(&text), &whole, &err), err);
        assert_ids(&cut, &whole);
    }
    hm_spm_shim_close(library);
    hm_ids_release(&cut);
    hm_ids_release(&whole);
    hm_buf_release(&text);
    hm_tokenizer_free(tokenizer);
}

static void test_parts(void **state)
{
    (void)state;
    check_parts(BYTES);
    check_parts(NO_BYTES);
    check_parts(UNUSED);
}

static void test_bare(void **state)
{
    struct hm_tokenizer *tokenizer = open_tiny(BYTES);
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_tokenizer_encode_bare(tokenizer, hm_str_of("中国ab"), &ids, &err), err);
    assert_int_equal(ids.count, 2);
    assert_int_equal(ids.id[0], hm_spm_model_find(&tokenizer->model, hm_str_of("中国")));
    assert_ok(hm_tokenizer_encode(tokenizer, hm_str_of("中国ab"), &ids, &err), err);
    assert_int_equal(ids.count, 5); /* appended, with the dummy prefix */
    assert_int_equal(ids.id[2], hm_spm_model_find(&tokenizer->model, hm_str_of(HM_SPM_SPACE)));
    hm_ids_clear(&ids);
    assert_ok(hm_tokenizer_encode(tokenizer, (struct hm_str){ NULL, 0 }, &ids, &err), err);
    assert_int_equal(ids.count, 0);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    hm_tokenizer_free(NULL);
}

static void test_nul_and_back(void **state)
{
    static const char raw[] = "a\0b  \n中é";
    struct hm_tokenizer *tokenizer = open_tiny(BYTES);
    struct hm_str text = { raw, sizeof(raw) - 1 };
    struct hm_ids ids = { 0 };
    struct hm_buf back = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_tokenizer_encode(tokenizer, text, &ids, &err), err);
    assert_int_equal(ids.id[2], 3); /* <0x00> */
    assert_ok(hm_tokenizer_decode(tokenizer, ids.id, ids.count, &back, &err), err);
    assert_true(hm_str_equal(buf_str(&back), text));
    hm_buf_clear(&back);
    ids.id[0] = (int32_t)tokenizer->model.count;
    assert_fails(hm_tokenizer_decode(tokenizer, ids.id, ids.count, &back, &err), HM_ERR_FORMAT,
                 "outside the vocabulary", err);
    ids.id[0] = -1;
    assert_fails(hm_tokenizer_decode(tokenizer, ids.id, ids.count, &back, &err), HM_ERR_FORMAT,
                 "id -1 at place 0", err);
    assert_int_equal(back.len, 0);
    hm_ids_release(&ids);
    hm_buf_release(&back);
    hm_tokenizer_free(tokenizer);
}

static void test_verify(void **state)
{
    struct hm_tokenizer *tokenizer = open_tiny(BYTES);
    struct hm_text_encoder encoder = hm_tokenizer_encoder(tokenizer);
    struct hm_buf text = { 0 };
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t len = 40; len < 10u << 20; len *= 50) { /* the longest is verified in part */
        hm_buf_clear(&text);
        hm_ids_clear(&ids);
        while (text.len < len)
            assert_ok(hm_buf_text(&text, "中国 ab 哈哈哈 x\n", &err), err);
        assert_ok(hm_tokenizer_encode(tokenizer, buf_str(&text), &ids, &err), err);
        assert_ok(encoder.verify(encoder.context, buf_str(&text), ids.id, ids.count, &err), err);
        assert_fails(hm_tokenizer_verify(tokenizer, buf_str(&text), ids.id, 7, &err), HM_ERR_CHECK,
                     "token 7, at byte 19 of the text, is id -1, libsentencepiece gives", err);
        ids.id[3]++;
        assert_fails(hm_tokenizer_verify(tokenizer, buf_str(&text), ids.id, ids.count, &err),
                     HM_ERR_CHECK, "token 3, at byte 7 of the text, is id 26", err);
        ids.id[3]--;
        int32_t again = ids.id[0];
        assert_ok(hm_ids_append(&ids, &again, 1, &err), err);
        if (len < 4u << 20)
            assert_fails(hm_tokenizer_verify(tokenizer, buf_str(&text), ids.id, ids.count, &err),
                         HM_ERR_CHECK, "libsentencepiece gives -1", err);
    }
    hm_buf_release(&text);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
}

static void test_encoder(void **state)
{
    struct hm_tokenizer *tokenizer = open_tiny(BYTES);
    struct hm_text_encoder encoder = hm_tokenizer_encoder(tokenizer);
    const struct {
        const char *piece;
        uint32_t bytes, chars;
    } sizes[] = {
        { "<unk>", 0, 0 },  { "<s>", 0, 0 },    { "</s>", 0, 0 },   { "<0x41>", 1, 1 },
        { "<0xE4>", 1, 1 }, { "<0x80>", 1, 0 }, { "<0xBF>", 1, 0 }, { HM_SPM_SPACE, 1, 1 },
        { "中国", 6, 2 },   { "é", 2, 1 },      { "====", 4, 4 },
    };
    struct hm_ids ids = { 0 };
    struct hm_error err = { 0 };
    uint32_t bytes;
    uint32_t chars;

    (void)state;
    assert_int_equal(encoder.vocab_size, tokenizer->model.count);
    assert_int_equal(encoder.bos_id, 1);
    assert_int_equal(encoder.eos_id, 2);
    assert_int_equal(encoder.unk_id, 0);
    assert_string_equal(encoder.fingerprint, tokenizer->model.sha256);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        int32_t id = hm_spm_model_find(&tokenizer->model, hm_str_of(sizes[i].piece));
        assert_true(id >= 0);
        encoder.token_size(encoder.context, id, &bytes, &chars);
        assert_int_equal(bytes, sizes[i].bytes);
        assert_int_equal(chars, sizes[i].chars);
    }
    encoder.token_size(encoder.context, -5, &bytes, &chars);
    assert_int_equal(bytes + chars, 0);
    assert_ok(encoder.encode(encoder.context, hm_str_of("ab"), &ids, &err), err);
    assert_int_equal(ids.count, 2);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
}

/* A text far longer than a part, one line: time and memory stay those of its parts. */
static void test_long_line(void **state)
{
    struct hm_tokenizer *tokenizer = open_tiny(BYTES);
    struct hm_buf text = { 0 };
    struct hm_ids ids = { 0 };
    struct hm_buf back = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    while (text.len < 4u << 20)
        assert_ok(hm_buf_text(&text, "ab 中国 ====哈哈哈", &err), err);
    assert_ok(hm_tokenizer_encode(tokenizer, buf_str(&text), &ids, &err), err);
    assert_ok(hm_tokenizer_decode(tokenizer, ids.id, ids.count, &back, &err), err);
    assert_true(hm_str_equal(buf_str(&back), buf_str(&text)));
    hm_buf_release(&text);
    hm_buf_release(&back);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
}

static void test_limits(void **state)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };
    struct hm_ids ids = { 0 };
    size_t len = (64u << 20) + 1;
    char *text = hm_calloc(HM_MEM_TEXT, len, 1);

    (void)state;
    assert_ok(
        hm_tokenizer_open(golden_path("tokenizers/models/chinese-llama-chinese_sp-20000.model"),
                          &tokenizer, &err),
        err);
    assert_fails(hm_tokenizer_encode(tokenizer, (struct hm_str){ text, len }, &ids, &err),
                 HM_ERR_FORMAT, "cut the text into documents", err);
    assert_int_equal(ids.count, 0);
    hm_tokenizer_free(tokenizer);
    hm_free(text);
    assert_fails(hm_tokenizer_open("/nonexistent.model", &tokenizer, &err), HM_ERR_USAGE,
                 "does not exist", err);
    assert_fails(hm_tokenizer_open_bytes(hm_str_of("no"), "text", &tokenizer, &err), HM_ERR_FORMAT,
                 "'text'", err);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    struct hm_buf text = { 0 };
    int status = hm_tokenizer_open_bytes(buf_str(context), "tiny", &tokenizer, err);

    if (status == HM_OK)
        status = hm_tokenizer_encode(tokenizer, hm_str_of("中国 ab"), &ids, err);
    if (status == HM_OK)
        status = hm_tokenizer_decode(tokenizer, ids.id, ids.count, &text, err);
    hm_buf_release(&text);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    return status;
}

static void test_no_memory(void **state)
{
    struct hm_buf model = tiny_model(pieces, false);

    (void)state;
    assert_ok(hm_buf_append(&model, "\x1a\x02\x18\x01", 4, NULL), (struct hm_error){ 0 });
    assert_true(oom_sweep(attempt, &model) > 20);
    hm_buf_release(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),        cmocka_unit_test(test_bare),
        cmocka_unit_test(test_nul_and_back), cmocka_unit_test(test_encoder),
        cmocka_unit_test(test_verify),       cmocka_unit_test(test_long_line),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
