/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer.c against libsentencepiece on whole texts, for real vocabularies and for ones
 * grown from them (ranked scores, and equal ones as published vocabularies have): every piece,
 * every code point, mixtures, malformed UTF-8, NUL, spaces, names of meta pieces. Any difference
 * fails, and with byte fallback any text that is not decoded to what it was. HANMIX_TOKENIZERS may
 * name a folder whose *.model files are tried too.
 */
#include <dirent.h>

#include "support/support.h"

#include "../../../vocab/spm_shim.h"
#include "hanmix/base/rng.h"
#include "hanmix/vocab/tokenizer.h"

#define N_GROWN  6000u /* pieces added to a real vocabulary */
#define N_MIXED  6000u /* texts */
#define MAX_CODE 0x10ffffu

struct draws {
    struct hm_rng_key key;
    uint64_t counter;
};

struct pair { /* a vocabulary in both encoders */
    const char *name;
    struct hm_tokenizer *tokenizer;
    void *library;
    struct hm_buf text, kept, back;
    struct hm_ids ours, theirs;
};

static uint64_t draw(struct draws *draws, uint64_t bound)
{
    return hm_rng_below(draws->key, draws->counter++, bound);
}

static void pair_open(struct hm_str model, const char *name, struct pair *pair)
{
    struct hm_error err = { 0 };

    *pair = (struct pair){ .name = name };
    assert_ok(hm_tokenizer_open_bytes(model, name, &pair->tokenizer, &err), err);
    assert_ok(hm_spm_shim_open(model, name, &pair->library, &err), err);
}

static void pair_close(struct pair *pair)
{
    hm_tokenizer_free(pair->tokenizer);
    hm_spm_shim_close(pair->library);
    hm_buf_release(&pair->text);
    hm_buf_release(&pair->kept);
    hm_buf_release(&pair->back);
    hm_ids_release(&pair->ours);
    hm_ids_release(&pair->theirs);
}

static void hex_print(struct hm_str text)
{
    for (size_t i = 0; i < text.len && i < 200; i++)
        print_error("%02x", (unsigned char)text.ptr[i]);
    print_error("\n");
}

/* What an encoding keeps of a text: all but malformed bytes, and U+2581 is a space. */
static void kept(struct hm_str text, struct hm_buf *ret_kept)
{
    struct hm_error err = { 0 };
    char bytes[4];

    hm_buf_clear(ret_kept);
    for (size_t at = 0; at < text.len;) {
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        code = len == 0 ? 0xfffd : code == HM_SPM_SPACE_CODE ? ' ' : code;
        assert_ok(hm_buf_append(ret_kept, bytes, hm_utf8_encode(code, bytes), &err), err);
        at += len ? len : 1;
    }
}

static void round_trip(struct pair *pair, struct hm_str text)
{
    struct hm_error err = { 0 };

    kept(text, &pair->kept);
    hm_buf_clear(&pair->back);
    assert_ok(
        hm_tokenizer_decode(pair->tokenizer, pair->ours.id, pair->ours.count, &pair->back, &err),
        err);
    if (!hm_str_equal((struct hm_str){ pair->back.ptr, pair->back.len },
                      (struct hm_str){ pair->kept.ptr, pair->kept.len })) {
        hex_print(text);
        fail_msg("%s: it is not decoded to what it was", pair->name);
    }
}

/* Both encoders on pair->text, which is emptied; byte fallback loses nothing. */
static void same(struct pair *pair)
{
    struct hm_str text = { pair->text.ptr ? pair->text.ptr : "", pair->text.len };
    struct hm_error err = { 0 };

    hm_ids_clear(&pair->ours);
    hm_ids_clear(&pair->theirs);
    assert_ok(hm_tokenizer_encode(pair->tokenizer, text, &pair->ours, &err), err);
    assert_ok(hm_spm_shim_encode(pair->library, text, &pair->theirs, &err), err);
    size_t n = pair->ours.count, bytes = n * sizeof(*pair->ours.id);
    if (n != pair->theirs.count || (n > 0 && memcmp(pair->ours.id, pair->theirs.id, bytes) != 0)) {
        hex_print(text);
        fail_msg("%s: %zu ids, by the library %zu or others", pair->name, n, pair->theirs.count);
    }
    if (pair->tokenizer->model.byte_fallback)
        round_trip(pair, text);
    hm_buf_clear(&pair->text);
}

static void put(struct pair *pair, const char *bytes, size_t len)
{
    struct hm_error err = { 0 };

    assert_ok(hm_buf_append(&pair->text, bytes, len, &err), err);
}

static void put_code(struct pair *pair, uint32_t code)
{
    char bytes[4];

    put(pair, bytes, hm_utf8_encode(code, bytes));
}

static void put_piece(struct pair *pair, size_t id)
{
    const struct hm_piece *piece = &pair->tokenizer->model.piece[id];

    put(pair, piece->text.ptr, piece->text.len);
}

/* Alone, behind a space, twice, and without its first and last character. */
static void check_pieces(struct pair *pair)
{
    for (size_t i = 0; i < pair->tokenizer->model.count; i++) {
        struct hm_str piece = pair->tokenizer->model.piece[i].text;
        put_piece(pair, i);
        same(pair);
        put(pair, " ", 1);
        put_piece(pair, i);
        put_piece(pair, i);
        same(pair);
        uint32_t code;
        size_t first = hm_utf8_decode(piece.ptr, piece.len, &code);
        put(pair, piece.ptr + first, piece.len - first);
        same(pair);
    }
}

static bool is_code(uint32_t code)
{
    return code <= MAX_CODE && (code < 0xd800 || code > 0xdfff);
}

/* Each alone, of a real vocabulary, up to the last plane with Han characters; sixteen in a row. */
static void check_code_points(struct pair *pair, bool real)
{
    for (uint32_t code = 0; real && code < 0x32000; code++)
        if (is_code(code)) {
            put_code(pair, code);
            same(pair);
        }
    for (uint32_t code = 0; code <= MAX_CODE; code++) {
        if (is_code(code))
            put_code(pair, code);
        if (code % 16 == 15)
            same(pair);
    }
}

static const char *const odd[] = { " ",
                                   "  ",
                                   "▁",
                                   "▁▁",
                                   "\n",
                                   "\r\n",
                                   "\t",
                                   "<s>",
                                   "</s>",
                                   "<unk>",
                                   "<0x0A>",
                                   "<0xE4>",
                                   "[INST]",
                                   "哈哈哈",
                                   "========",
                                   "\xef\xbf\xbd",
                                   "[REFERENCE_DOC_1]",
                                   "[REFERENCE_DOC_",
                                   "　",
                                   "\xff",
                                   "\xe4\xb8",
                                   "\xed\xa0\x80",
                                   "\xc0\x80",
                                   "\xf4\x90\x80\x80",
                                   "\x80",
                                   "\xf0\x9f",
                                   "       ",
                                   "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                   "的的的的的的" };

/* Of pieces, code points, bytes and what is odd, in shares that the text draws first. */
static void put_mixture(struct pair *pair, struct draws *draws)
{
    uint64_t kinds = 1 + draw(draws, 15), length = 1 + draw(draws, 40);

    if (draw(draws, 30) == 0)
        length *= 40;
    for (uint64_t i = 0; i < length; i++) {
        uint64_t kind = draw(draws, 5);
        if (kind == 0 && kinds & 1) {
            const char *text = odd[draw(draws, sizeof(odd) / sizeof(odd[0]))];
            put(pair, text, strlen(text));
        } else if (kind == 1 && kinds & 2) {
            uint32_t code = (uint32_t)draw(draws, draw(draws, 2) ? 0x3000 : MAX_CODE + 1);
            put_code(pair, is_code(code) ? code : 'x');
        } else if (kind == 2 && kinds & 4) {
            put(pair, &(char){ (char)draw(draws, 256) }, 1);
        } else if (kind == 3 && kinds & 8) {
            put_code(pair, 0x4e00 + (uint32_t)draw(draws, 0x51a6));
        } else {
            put_piece(pair, (size_t)draw(draws, pair->tokenizer->model.count));
        }
    }
}

static void check_mixtures(struct pair *pair)
{
    struct draws draws = { { 41, 7 }, 0 };

    same(pair); /* empty */
    put(pair, "", 1);
    same(pair);
    for (unsigned i = 0; i < N_MIXED; i++) {
        put_mixture(pair, &draws);
        same(pair);
    }
    for (size_t n = 1; n < 3000; n = n * 5 / 3 + 1)
        for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
            for (size_t k = 0; k < n; k++)
                put(pair, odd[i], strlen(odd[i]));
            same(pair);
        }
}

static void check_model(struct hm_str model, const char *name, bool real)
{
    struct pair pair;

    pair_open(model, name, &pair);
    check_pieces(&pair);
    check_mixtures(&pair);
    check_code_points(&pair, real);
    pair_close(&pair);
}

static void check_file(const char *path, const char *name)
{
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_load(path, &model, &err), err);
    check_model((struct hm_str){ model.bytes.ptr, model.bytes.len }, name, true);
    hm_spm_model_release(&model);
}

static void test_mistral_v1(void **state)
{
    (void)state;
    check_file(golden_path("tokenizers/models/mistral-v1-32000.model"), "mistral-v1");
}

static void test_mistral_v3(void **state)
{
    (void)state;
    check_file(golden_path("tokenizers/models/mistral-v3-32768.model"), "mistral-v3");
}

/* Pieces of 2 to 6 Han characters of a few hundred, so that they chain. */
static void check_grown(bool ranked)
{
    static char text[N_GROWN][32];
    static struct hm_piece piece[N_GROWN];
    struct hm_spm_model base = { 0 };
    struct hm_buf grown = { 0 };
    struct hm_error err = { 0 };
    struct draws draws = { { 5, ranked }, 0 };
    size_t n = 0;

    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &base, &err),
        err);
    while (n < N_GROWN) {
        size_t len = 0;
        for (uint64_t k = 1 + draw(&draws, 6); k > 0; k--)
            len += hm_utf8_encode(0x4e00 + (uint32_t)draw(&draws, draw(&draws, 2) ? 40 : 900),
                                  text[n] + len);
        piece[n] =
            (struct hm_piece){ { text[n], len }, ranked ? -40000 - (float)n : 0, HM_PIECE_NORMAL };
        bool known = hm_spm_model_find(&base, piece[n].text) >= 0;
        for (size_t i = 0; i < n && !known; i++)
            known = hm_str_equal(piece[i].text, piece[n].text);
        n += !known;
    }
    assert_ok(hm_spm_model_append(&base, piece, n, &grown, &err), err);
    check_model((struct hm_str){ grown.ptr, grown.len }, ranked ? "ranked" : "equal scores", false);
    hm_buf_release(&grown);
    hm_spm_model_release(&base);
}

static void test_ranked(void **state)
{
    (void)state;
    check_grown(true);
}

static void test_equal_scores(void **state)
{
    (void)state;
    check_grown(false);
}

static void test_folder(void **state)
{
    const char *folder = getenv("HANMIX_TOKENIZERS");
    DIR *dir = folder ? opendir(folder) : NULL;
    struct dirent *entry;

    (void)state;
    if (!folder)
        skip();
    assert_non_null(dir);
    while ((entry = readdir(dir)))
        if (strstr(entry->d_name, ".model"))
            check_file(tmp_path(folder, "%s", entry->d_name), entry->d_name);
    closedir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_mistral_v1),
                                        cmocka_unit_test(test_mistral_v3),
                                        cmocka_unit_test(test_ranked),
                                        cmocka_unit_test(test_equal_scores),
                                        cmocka_unit_test(test_folder) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
