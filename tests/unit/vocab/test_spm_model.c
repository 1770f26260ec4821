/* SPDX-License-Identifier: MIT */
/*
 * vocab/spm_model.c, spm_write.c, spm_charsmap.c: real models, what is written reads back,
 * appending keeps the prefix, and every broken model is refused with its reason.
 */
#include "tiny_model.h"

#include <math.h>

static const char *const small[] = { "a", "b", "ab", "\xe4\xb8\xad", NULL };

static void test_real_models(void **state)
{
    static const struct {
        const char *name;
        size_t count;
        enum hm_spm_kind kind;
        bool bytes, dummy, extra, charsmap;
    } models[] = {
        { "mistral-v1-32000", 32000, HM_SPM_BPE, true, true, false, false },
        { "mistral-v3-32768", 32768, HM_SPM_BPE, true, true, false, false },
        { "chinese-llama-chinese_sp-20000", 20000, HM_SPM_UNIGRAM, false, true, true, true },
    };
    struct hm_error err = { 0 };
    char path[128];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct hm_spm_model model = { 0 };
        snprintf(path, sizeof(path), "tokenizers/models/%s.model", models[i].name);
        assert_ok(hm_spm_model_load(golden_path(path), &model, &err), err);
        assert_int_equal(model.count, models[i].count);
        assert_int_equal(model.kind, models[i].kind);
        assert_int_equal(model.byte_fallback, models[i].bytes);
        assert_int_equal(model.add_dummy_prefix, models[i].dummy);
        assert_int_equal(model.remove_extra_whitespaces, models[i].extra);
        assert_int_equal(model.has_charsmap, models[i].charsmap);
        assert_int_equal(model.unk_id, 0);
        assert_int_equal(model.bos_id, 1);
        assert_int_equal(model.eos_id, 2);
        assert_int_equal(model.pad_id, -1);
        for (size_t id = 0; id < model.count; id++)
            assert_int_equal(hm_spm_model_find(&model, model.piece[id].text), id);
        assert_int_equal(hm_spm_model_find(&model, hm_str_of("no such piece")), -1);
        hm_spm_model_release(&model);
    }
}

static void test_known_pieces(void **state)
{
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &model, &err),
        err);
    assert_string_equal(model.sha256,
                        "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055");
    assert_true(hm_str_is(model.piece[259].text, HM_SPM_SPACE HM_SPM_SPACE));
    assert_true(model.piece[259].score == -1e9f);
    assert_true(hm_str_is(model.piece[31999].text, "\xe6\xa2\xa6"));
    assert_int_equal(hm_spm_byte_of(model.piece[3].text), 0);
    assert_int_equal(hm_spm_byte_of(model.piece[258].text), 255);
    assert_int_equal(hm_spm_byte_of(hm_str_of("<0xab>")), -1);
    assert_int_equal(hm_spm_byte_of(hm_str_of("<0xA")), -1);
    hm_spm_model_release(&model);
    hm_spm_model_release(NULL);
}

static void test_build_and_append(void **state)
{
    struct hm_buf bytes = tiny_model(small, true);
    struct hm_buf longer = { 0 };
    struct hm_spm_model model = { 0 };
    struct hm_spm_model grown = { 0 };
    struct hm_error err = { 0 };
    struct hm_piece more[2] = { { hm_str_of("\xe5\x9b\xbd"), -7.5f, HM_PIECE_NORMAL },
                                { hm_str_of("<x>"), 0, HM_PIECE_CONTROL } };

    (void)state;
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "made", &model, &err), err);
    assert_int_equal(model.count, TINY_META + 4);
    assert_int_equal(model.kind, HM_SPM_BPE);
    assert_true(model.byte_fallback && !model.add_dummy_prefix && !model.remove_extra_whitespaces);
    assert_int_equal(hm_spm_model_find(&model, hm_str_of("ab")), TINY_META + 2);
    assert_true(model.piece[TINY_META + 2].score == -2.0f);

    assert_ok(hm_spm_model_append(&model, more, 2, &longer, &err), err);
    assert_true(longer.len > bytes.len);
    assert_memory_equal(longer.ptr, bytes.ptr, bytes.len);
    assert_ok(hm_spm_model_parse(buf_str(&longer), "grown", &grown, &err), err);
    assert_int_equal(grown.count, model.count + 2);
    assert_true(hm_str_equal(grown.piece[model.count].text, more[0].text));
    assert_true(grown.piece[model.count].score == -7.5f);
    assert_int_equal(grown.piece[model.count + 1].type, HM_PIECE_CONTROL);

    /* A later scalar of the same sub-message wins, the others stay. */
    assert_ok(hm_buf_append(&longer, "\x1a\x02\x18\x01", 4, &err), err);
    hm_spm_model_release(&grown);
    assert_ok(hm_spm_model_parse(buf_str(&longer), "grown", &grown, &err), err);
    assert_true(grown.add_dummy_prefix && !grown.remove_extra_whitespaces);
    hm_spm_model_release(&grown);
    hm_spm_model_release(&model);
    hm_buf_release(&longer);
    hm_buf_release(&bytes);
}

static void test_write_refuses(void **state)
{
    struct hm_piece bad[] = { { hm_str_of(""), 0, HM_PIECE_NORMAL },
                              { hm_str_of("\xff"), 0, HM_PIECE_NORMAL },
                              { { "a\0b", 3 }, 0, HM_PIECE_NORMAL },
                              { hm_str_of("a"), NAN, HM_PIECE_NORMAL } };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_fails(hm_spm_model_build(&bad[i], 1, false, &bytes, &err), HM_ERR_FORMAT, "piece 0",
                     err);
        assert_null(bytes.ptr);
    }
}

static void test_load_paths(void **state)
{
    char *dir = tmp_new();
    struct hm_buf bytes = tiny_model(small, true);
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_spm_model_load(dir, &model, &err), HM_ERR_USAGE, "tokenizer.model", err);
    file_put(tmp_path(dir, "tokenizer.model"), bytes.ptr, bytes.len);
    assert_ok(hm_spm_model_load(dir, &model, &err), err);
    assert_string_equal(model.path, tmp_path(dir, "tokenizer.model"));
    hm_spm_model_release(&model);
    file_put(tmp_path(dir, "empty.model"), "", 0);
    assert_fails(hm_spm_model_load(tmp_path(dir, "empty.model"), &model, &err), HM_ERR_FORMAT,
                 "holds no pieces", err);
    hm_buf_release(&bytes);
    tmp_release(dir);
}

/* Bytes on the wire: one piece record per text, then what `tail` says. */
static struct hm_buf wire(const char *const *records, size_t n, const char *tail, size_t tail_len)
{
    struct hm_buf buf = { 0 };

    for (size_t i = 0; i < n; i++) {
        char head[4] = { 0x0a, (char)(strlen(records[i]) + 2), 0x0a, (char)strlen(records[i]) };
        assert_int_equal(hm_buf_append(&buf, head, 4, NULL), HM_OK);
        assert_int_equal(hm_buf_text(&buf, records[i], NULL), HM_OK);
    }
    assert_int_equal(hm_buf_append(&buf, tail, tail_len, NULL), HM_OK);
    return buf;
}

static void test_hostile(void **state)
{
    /* A record of an unknown piece: 0a 05 0a 01 'u' 18 02 */
#define UNK "\x0a\x05\x0a\x01u\x18\x02"
    static const struct {
        const char *bytes;
        size_t len;
        const char *part;
    } bad[] = {
        { "\xff\xff\xff", 3, "do not parse" },
        { "\x0a\x7f", 2, "do not parse" },
        { "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, "do not parse" },
        { "plain text, no model", 20, "" },
        { UNK UNK, 14, "pieces 0 and 1 are the same text 'u'" },
        { UNK "\x0a\x02\x0a\x00", 11, "piece 1 is empty" },
        { UNK "\x0a\x03\x0a\x01\xc3", 12, "piece 1 is not UTF-8" },
        { UNK "\x0a\x03\x0a\x01\x00", 12, "piece 1 holds a NUL" },
        { UNK "\x0a\x08\x0a\x01"
              "a"
              "\x15\x00\x00\xc0\x7f",
          17, "not finite" },
        { UNK "\x0a\x05\x0a\x01"
              "a"
              "\x18\x07",
          14, "type 7" },
        { UNK "\x0a\x05\x0a\x01"
              "a"
              "\x18\x06",
          14, "not written <0xNN>" },
        { "\x0a\x03\x0a\x01"
          "a",
          5, "0 unknown pieces" },
        { UNK "\x0a\x05\x0a\x01"
              "v"
              "\x18\x02",
          14, "2 unknown pieces" },
        { UNK "\x12\x02\x18\x09", 11, "model type 9" },
        { UNK "\x12\x03\x98\x02\x01", 12, "256 are needed" },
        { UNK "\x0a\x0a\x0a\x06<0x41>\x18\x06", 19, "1 byte pieces" },
        { UNK "\x1a\x05\x12\x03"
              "abc",
          14, "has 3 bytes" },
        { UNK "\x1a\x07\x12\x05\xff\xff\xff\x7f"
              "a",
          16, "claims a trie" },
    };
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct hm_str text = { bad[i].bytes, bad[i].len };
        assert_fails(hm_spm_model_parse(text, "bad", &model, &err), HM_ERR_FORMAT, bad[i].part,
                     err);
        assert_null(model.piece);
    }
    /* A NUL-free duplicate far from its twin. */
    static const char *const twice[] = { "x", "y", "z", "x" };
    struct hm_buf buf = wire(twice, 4, UNK, 7);
    assert_fails(hm_spm_model_parse(buf_str(&buf), "bad", &model, &err), HM_ERR_FORMAT,
                 "pieces 0 and 3", err);
    hm_buf_release(&buf);
}

/* Two bytes a record would make a parser take 64 times the file. */
static void test_flood(void **state)
{
    size_t len = 2 * (2 * (size_t)HM_SPM_MAX_PIECES + 100);
    char *bytes = hm_calloc(HM_MEM_TEXT, len, 1);
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < len; i += 2)
        bytes[i] = 0x0a;
    assert_fails(hm_spm_model_parse((struct hm_str){ bytes, len }, "flood", &model, &err),
                 HM_ERR_FORMAT, "more records than", err);
    hm_free(bytes);
}

/* A character map with `units` units of `unit` and the texts "x". */
static struct hm_buf model_with_map(size_t units, uint32_t unit, const char *texts, size_t len)
{
    struct hm_buf buf = { 0 };
    size_t map = 4 + 4 * units + len;
    unsigned char head[64];
    size_t n = 0;

    assert_int_equal(hm_buf_append(&buf, UNK, 7, NULL), HM_OK);
    head[n++] = 0x1a;
    for (size_t v = map + 1 + (map < 128 ? 1 : map < 16384 ? 2 : 3); v || n == 1; v >>= 7)
        head[n++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
    head[n++] = 0x12;
    for (size_t v = map; v; v >>= 7)
        head[n++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
    for (unsigned i = 0; i < 4; i++)
        head[n++] = (unsigned char)((4 * units) >> 8 * i);
    assert_int_equal(hm_buf_append(&buf, head, n, NULL), HM_OK);
    for (size_t i = 0; i < units; i++)
        for (unsigned k = 0; k < 4; k++)
            assert_int_equal(hm_buf_append(&buf, &(char){ (char)(unit >> 8 * k) }, 1, NULL), HM_OK);
    assert_int_equal(hm_buf_append(&buf, texts, len, NULL), HM_OK);
    return buf;
}

static void test_charsmap(void **state)
{
    static const struct {
        size_t units;
        uint32_t unit;
        const char *texts;
        size_t len;
        const char *part; /* NULL: sound */
    } maps[] = {
        { 256, 0x80000000u, "x\0", 2, NULL },
        { 256, 0x00000000u, "x\0", 2, NULL },
        { 255, 0x80000000u, "x\0", 2, "claims a trie" },
        { 256, 0x80000000u, "x", 1, "do not end in a NUL" },
        { 256, 0x00040000u, "x\0", 2, "leads outside" },
        { 256, 0x00000200u | 1u << 10, "x\0", 2, "leads outside" },
        { 256, 0x00000102u, "x\0", 2, "points behind" },
        { 256, 0x00000101u, "xyzzyxyzzyxyzzy\0", 16, "points behind" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++) {
        struct hm_spm_model model = { 0 };
        struct hm_buf buf = model_with_map(maps[i].units, maps[i].unit, maps[i].texts, maps[i].len);
        if (maps[i].part) {
            assert_fails(hm_spm_model_parse(buf_str(&buf), "map", &model, &err), HM_ERR_FORMAT,
                         maps[i].part, err);
        } else {
            assert_ok(hm_spm_model_parse(buf_str(&buf), "map", &model, &err), err);
            assert_true(model.has_charsmap);
        }
        hm_spm_model_release(&model);
        hm_buf_release(&buf);
    }
}

static int attempt_parse(void *context, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    struct hm_buf longer = { 0 };
    struct hm_piece more = { hm_str_of("more"), -9, HM_PIECE_NORMAL };
    const struct hm_buf *bytes = context;
    int status = hm_spm_model_parse(buf_str(bytes), "made", &model, err);

    if (status == HM_OK)
        status = hm_spm_model_append(&model, &more, 1, &longer, err);
    hm_buf_release(&longer);
    hm_spm_model_release(&model);
    return status;
}

static int attempt_load(void *context, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    int status = hm_spm_model_load(context, &model, err);

    hm_spm_model_release(&model);
    return status;
}

static void test_no_memory(void **state)
{
    char *dir = tmp_new();
    struct hm_buf bytes = tiny_model(small, false);

    (void)state;
    file_put(tmp_path(dir, "tokenizer.model"), bytes.ptr, bytes.len);
    assert_true(oom_sweep(attempt_parse, &bytes) > 10);
    assert_true(oom_sweep(attempt_load, dir) > 10);
    hm_buf_release(&bytes);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_models),
        cmocka_unit_test(test_known_pieces),
        cmocka_unit_test(test_build_and_append),
        cmocka_unit_test(test_write_refuses),
        cmocka_unit_test(test_load_paths),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_charsmap),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
