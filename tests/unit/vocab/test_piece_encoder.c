/* SPDX-License-Identifier: MIT */
/*
 * vocab/piece_table.c, piece_encoder.c, user_pieces.c: on random vocabularies (equal scores, pieces
 * of characters that are no pieces, new pieces that outrank old ones) and random texts, short and
 * with long runs, the ids are those of libsentencepiece.
 */
#include "tiny_model.h"

#include "../../../vocab/piece_encoder.h"
#include "../../../vocab/piece_table.h"
#include "../../../vocab/spm_shim.h"
#include "hanmix/base/rng.h"

static const char *const letters[] = { "a",  "b", "=", HM_SPM_SPACE,  "中",
                                       "国", "é", "😀", "\xef\xbf\xbd" };
#define N_LETTERS (sizeof(letters) / sizeof(letters[0]))

struct draws {
    struct hm_rng_key key;
    uint64_t counter;
};

static uint64_t draw(struct draws *draws, uint64_t bound)
{
    return hm_rng_below(draws->key, draws->counter++, bound);
}

/* Pieces of 1 to 6 letters of a small alphabet, scores drawn from few or many values; some are
 * user-defined in every other model. */
static struct hm_buf random_model(struct draws *draws, bool bytes)
{
    struct hm_buf base = tiny_model((const char *const[]){ NULL }, bytes);
    struct hm_spm_model model = { 0 };
    struct hm_spm_model grown = { 0 };
    struct hm_buf out = { 0 };
    struct hm_error err = { 0 };
    uint64_t alphabet = 2 + draw(draws, N_LETTERS - 1);
    uint64_t scores = 1 + draw(draws, 60);
    bool user = draw(draws, 2);
    char text[64];

    assert_ok(hm_spm_model_parse(buf_str(&base), "base", &model, &err), err);
    for (unsigned i = 0; i < 40; i++) {
        text[0] = '\0';
        for (uint64_t k = 1 + draw(draws, 6); k > 0; k--)
            strcat(text, letters[draw(draws, alphabet)]);
        struct hm_piece piece = { hm_str_of(text), -(float)draw(draws, scores), HM_PIECE_NORMAL };
        if (user && !strstr(text, HM_SPM_SPACE) && !strstr(text, "\xef\xbf\xbd"))
            piece.type = draw(draws, 4) ? HM_PIECE_NORMAL : HM_PIECE_USER;
        if (hm_spm_model_find(&model, piece.text) >= 0)
            continue;
        assert_ok(hm_spm_model_append(&model, &piece, 1, &out, &err), err);
        assert_ok(hm_spm_model_parse(buf_str(&out), "grown", &grown, &err), err);
        hm_buf_release(&out);
        hm_spm_model_release(&model);
        model = grown;
        grown = (struct hm_spm_model){ 0 };
    }
    hm_buf_release(&base);
    assert_ok(hm_buf_append(&base, model.bytes.ptr, model.bytes.len, &err), err);
    hm_spm_model_release(&model);
    if (draw(draws, 2)) /* the dummy prefix */
        assert_ok(hm_buf_append(&base, "\x1a\x02\x18\x01", 4, &err), err);
    return base;
}

static void random_text(struct draws *draws, struct hm_buf *text)
{
    static const char *const rare[] = { " ", "x", "\n", "\xff", "\xe4\xb8", "\0", "好" };
    struct hm_error err = { 0 };
    uint64_t alphabet = 1 + draw(draws, N_LETTERS);
    uint64_t rarity = 2 + draw(draws, 300);

    hm_buf_clear(text);
    for (uint64_t n = draw(draws, draw(draws, 4) ? 60 : 1500); n > 0; n--) {
        if (draw(draws, rarity) == 0) {
            const char *odd = rare[draw(draws, 7)];
            assert_ok(hm_buf_append(text, odd, *odd ? strlen(odd) : 1, &err), err);
        } else {
            assert_ok(hm_buf_text(text, letters[draw(draws, alphabet)], &err), err);
        }
    }
}

static void check_model(struct draws *draws, bool bytes)
{
    struct hm_buf model_bytes = random_model(draws, bytes);
    struct hm_spm_model model = { 0 };
    struct hm_span_cuts cuts = { 0 };
    struct hm_piece_encoder *encoder = NULL;
    void *library = NULL;
    struct hm_ids ours = { 0 };
    struct hm_ids theirs = { 0 };
    struct hm_buf text = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_parse(buf_str(&model_bytes), "random", &model, &err), err);
    assert_ok(hm_spm_shim_open(buf_str(&model_bytes), "random", &library, &err), err);
    assert_null(hm_piece_encoder_obstacle(&model));
    assert_ok(hm_span_cuts_make(&model, &cuts, &err), err);
    assert_ok(hm_piece_encoder_make(&model, &cuts, &encoder, &err), err);
    for (unsigned i = 0; i < 30; i++) {
        random_text(draws, &text);
        hm_ids_clear(&ours);
        hm_ids_clear(&theirs);
        assert_ok(
            hm_piece_encoder_encode(encoder, model.add_dummy_prefix, buf_str(&text), &ours, &err),
            err);
        assert_ok(hm_spm_shim_encode(library, buf_str(&text), &theirs, &err), err);
        assert_int_equal(ours.count, theirs.count);
        if (ours.count > 0)
            assert_memory_equal(ours.id, theirs.id, ours.count * sizeof(*ours.id));
    }
    hm_ids_release(&ours);
    hm_ids_release(&theirs);
    hm_buf_release(&text);
    hm_piece_encoder_free(encoder);
    hm_span_cuts_release(&cuts);
    hm_spm_shim_close(library);
    hm_spm_model_release(&model);
    hm_buf_release(&model_bytes);
}

static void test_against_library(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 160; seed++) {
        struct draws draws = { { seed, 3 }, 0 };
        check_model(&draws, seed % 2);
    }
}

static void test_tables(void **state)
{
    static const char *const pieces[] = { "a", "ab", "abc", "中", NULL };
    struct hm_buf bytes = tiny_model(pieces, false);
    struct hm_spm_model model = { 0 };
    struct hm_piece_table table = { 0 };
    struct hm_error err = { 0 };
    int32_t result = -1;

    (void)state;
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "tiny", &model, &err), err);
    assert_ok(hm_piece_table_make(&model, &table, &err), err);
    assert_int_equal(hm_piece_table_symbol(&table, 'a'), 3);
    assert_int_equal(hm_piece_table_symbol(&table, 0x4e2d), 6);
    assert_int_equal(hm_piece_table_symbol(&table, 'x'), -1);
    int32_t b = hm_piece_table_symbol(&table, 'b'); /* in pieces, but none itself */
    int32_t c = hm_piece_table_symbol(&table, 'c');
    assert_true(b >= 7 && c >= 7 && b != c);
    assert_int_equal(table.n_extra, 2);
    assert_int_equal(table.extra[b - 7], 'b');
    uint32_t early = hm_piece_table_merge(&table, 3, b, &result);
    assert_int_equal(result, 4);
    uint32_t late = hm_piece_table_merge(&table, 4, c, &result);
    assert_int_equal(result, 5);
    assert_true(early < late && late != HM_NO_RANK);
    assert_int_equal(hm_piece_table_merge(&table, c, 4, &result), HM_NO_RANK);
    assert_int_equal(hm_piece_table_merge(&table, b, c, &result), HM_NO_RANK);
    hm_piece_table_release(&table);
    hm_spm_model_release(&model);
    hm_buf_release(&bytes);
}

static void test_fits(void **state)
{
    static const char *const pieces[] = { "a", NULL };
    static const struct {
        const char *tail;
        size_t len;
        const char *obstacle; /* NULL: none */
    } others[] = { { "\x12\x02\x18\x01", 4, "not BPE" },
                   { "\x1a\x02\x20\x01", 4, "treats spaces" },
                   { "\x0a\x05\x0a\x01x\x18\x04", 7, NULL }, /* user-defined */
                   { "\x0a\x06\x0a\x02x \x18\x04", 8, "user-defined piece holds a space" },
                   { "\x0a\x05\x0a\x01x\x18\x05", 7, "unused" },
                   { "\x0a\x05\x0a\x01x\x18\x03", 7, "single character" } };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        struct hm_buf bytes = tiny_model(pieces, true);
        struct hm_spm_model model = { 0 };
        assert_ok(hm_buf_append(&bytes, others[i].tail, others[i].len, &err), err);
        assert_ok(hm_spm_model_parse(buf_str(&bytes), "other", &model, &err), err);
        const char *obstacle = hm_piece_encoder_obstacle(&model);
        assert_true(others[i].obstacle ? obstacle && strstr(obstacle, others[i].obstacle)
                                       : !obstacle);
        hm_spm_model_release(&model);
        hm_buf_release(&bytes);
    }
}

static int attempt(void *context, struct hm_error *err)
{
    const struct hm_spm_model *model = context;
    struct hm_span_cuts cuts = { 0 };
    struct hm_piece_encoder *encoder = NULL;
    struct hm_ids ids = { 0 };
    char text[600];
    int status = hm_span_cuts_make(model, &cuts, err);

    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = "ab"[i % 2];
    if (status == HM_OK)
        status = hm_piece_encoder_make(model, &cuts, &encoder, err);
    if (status == HM_OK)
        status = hm_piece_encoder_encode(encoder, true, (struct hm_str){ text, sizeof(text) }, &ids,
                                         err);
    if (status < 0)
        assert_int_equal(ids.count, 0);
    hm_ids_release(&ids);
    hm_piece_encoder_free(encoder);
    hm_span_cuts_release(&cuts);
    return status;
}

static void test_no_memory(void **state)
{
    static const char *const pieces[] = { "a", "ab", "abab", "ba", NULL };
    struct hm_buf bytes = tiny_model(pieces, true);
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "tiny", &model, &err), err);
    assert_true(oom_sweep(attempt, &model) > 10);
    hm_spm_model_release(&model);
    hm_buf_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_against_library),
                                        cmocka_unit_test(test_tables), cmocka_unit_test(test_fits),
                                        cmocka_unit_test(test_no_memory) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
