/* SPDX-License-Identifier: MIT */
/*
 * vocab/span_cut.c: pairs inside pieces join, all else may be cut, and a cut never falls inside a
 * character, whatever the bytes. vocab/span_filter.c: it never denies a pair that joins, and seldom
 * takes another for one.
 */
#include "tiny_model.h"

#include "../../../vocab/span_filter.h"
#include "hanmix/base/rng.h"

static const char *const pieces[] = { "ab", "b" HM_SPM_SPACE, "\xe4\xb8\xad\xe5\x9b\xbd", NULL };

static void make(struct hm_span_cuts *cuts)
{
    struct hm_buf bytes = tiny_model(pieces, false);
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_parse(buf_str(&bytes), "tiny", &model, &err), err);
    assert_ok(hm_span_cuts_make(&model, cuts, &err), err);
    hm_spm_model_release(&model);
    hm_buf_release(&bytes);
}

static void test_pairs(void **state)
{
    struct hm_span_cuts cuts;

    (void)state;
    make(&cuts);
    assert_true(hm_span_joins(&cuts, 'a', 'b'));
    assert_true(hm_span_joins(&cuts, 'b', ' '));
    assert_true(hm_span_joins(&cuts, 'b', HM_SPM_SPACE_CODE));
    assert_true(hm_span_joins(&cuts, 0x4e2d, 0x56fd));
    assert_false(hm_span_joins(&cuts, 'b', 'a'));
    assert_false(hm_span_joins(&cuts, 0x56fd, 0x4e2d));
    assert_false(hm_span_joins(&cuts, 0, 'a'));
    hm_span_cuts_release(&cuts);
    hm_span_cuts_release(&cuts);
}

static void test_places(void **state)
{
    static const struct {
        const char *text;
        size_t from, cut;
    } places[] = {
        { "aaaa", 1, 1 },
        { "abab", 1, 2 },
        { "abab", 2, 2 },
        { "ab b", 1, 3 }, /* a b, b space join; space b does not */
        { "abb", 1, 2 },
        { "\xe4\xb8\xad\xe5\x9b\xbd!", 1, 6 }, /* from inside a character, joined to the next */
        { "\xe4\xb8\xad\xe4\xb8\xad", 1, 3 },
        { "\xe4\xb8\xad\xe4\xb8\xad", 2, 3 },
        { "\xe4\xb8\xad\xe4\xb8\xad", 3, 3 },
        { "\x80\x80\x80\x80\x80\x80", 5, 5 }, /* malformed bytes stand alone */
        { "a", 1, 1 },
        { "a", 9, 1 },
    };
    struct hm_span_cuts cuts;

    (void)state;
    make(&cuts);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        assert_int_equal(hm_span_cut_find(&cuts, hm_str_of(places[i].text), places[i].from),
                         places[i].cut);
    hm_span_cuts_release(&cuts);
}

/* Where a reader that goes through the text from its start sees a character begin. */
static bool is_boundary(struct hm_str text, size_t at)
{
    size_t pos = 0;
    uint32_t code;

    while (pos < at) {
        unsigned len = hm_utf8_decode(text.ptr + pos, text.len - pos, &code);
        pos += len ? len : 1;
    }
    return pos == at;
}

static void test_boundaries_of_noise(void **state)
{
    static const unsigned char bytes[] = { 0xe4, 0xb8, 0xad, 0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xa9,
                                           'a',  'b',  ' ',  0xff, 0x80, 0xed, 0xa0, 0xf4, 0x90 };
    struct hm_rng_key key = { 11, 0 };
    struct hm_span_cuts cuts;
    char text[40];

    (void)state;
    make(&cuts);
    for (uint64_t round = 0; round < 3000; round++) {
        struct hm_str str = { text, 1 + round % sizeof(text) };
        for (size_t i = 0; i < str.len; i++)
            text[i] = (char)bytes[hm_rng_below(key, round * 64 + i, sizeof(bytes))];
        for (size_t from = 1; from <= str.len; from++) {
            size_t cut = hm_span_cut_find(&cuts, str, from);
            assert_true(cut >= from && cut <= str.len);
            assert_true(is_boundary(str, cut));
        }
    }
    hm_span_cuts_release(&cuts);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_span_filter filter;

    HM_TRY(hm_span_filter_make(context, &filter, err));
    hm_span_filter_release(&filter);
    return HM_OK;
}

static void test_filter(void **state)
{
    struct hm_rng_key key = { 12, 0 };
    struct hm_spm_model model = { 0 };
    struct hm_span_cuts cuts = { 0 };
    struct hm_span_filter filter;
    struct hm_error err = { 0 };
    unsigned apart = 0, taken = 0;

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &model, &err),
        err);
    assert_ok(hm_span_cuts_make(&model, &cuts, &err), err);
    assert_ok(hm_span_filter_make(&cuts, &filter, &err), err);
    for (size_t i = 0; i <= cuts.mask; i++)
        if (cuts.slot[i] != 0)
            assert_true(hm_span_filter_joins(&filter, (uint32_t)(cuts.slot[i] >> 32) & INT32_MAX,
                                             (uint32_t)cuts.slot[i]));
    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t a = (uint32_t)hm_rng_below(key, 2 * i, i % 2 ? 0x9fa6 : 0x180);
        uint32_t b = (uint32_t)hm_rng_below(key, 2 * i + 1, i % 2 ? 0x9fa6 : 0x180);
        if (a == ' ' || b == ' ' || hm_span_joins(&cuts, a, b))
            continue;
        apart++;
        taken += hm_span_filter_joins(&filter, a, b);
    }
    assert_true(apart > 150000);
    assert_true(taken > 0 && taken < apart / 100);
    assert_true(oom_sweep(attempt, &cuts) > 0);
    hm_span_filter_release(&filter);
    hm_span_cuts_release(&cuts);
    hm_spm_model_release(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_pairs), cmocka_unit_test(test_places),
                                        cmocka_unit_test(test_boundaries_of_noise),
                                        cmocka_unit_test(test_filter) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
