/* SPDX-License-Identifier: MIT */
/*
 * hm_piece_encoder_dropout: the distribution of segmentations of short texts is the one that
 * follows from the rule (worked out exactly over all draws), long segments agree with a slow
 * simulation, rate 0 is plain encoding, rate 1 single characters, and the key alone decides.
 */
#include <math.h>

#include "tiny_model.h"

#include "../../../vocab/piece_encoder.h"
#include "../../../vocab/piece_table.h"

#define MAX_SYMBOLS  64u
#define MAX_OUTCOMES 4096u
#define SAMPLES      20000u

static const char *const pieces[] = { "a",  "b",    "c",    "ab",     "bc",  "abc",
                                      "ca", "bca",  "abab", "aa",     "aaa", "aaaa",
                                      "中", "中国", "国中", "中国中", "国",  NULL };

struct fixture {
    struct hm_buf bytes;
    struct hm_spm_model model;
    struct hm_span_cuts cuts;
    struct hm_piece_encoder *encoder;
    struct hm_piece_table table;
    struct hm_ids ids;
};

static void fixture_open(struct fixture *f)
{
    struct hm_error err = { 0 };

    *f = (struct fixture){ .bytes = tiny_model(pieces, true) };
    assert_ok(hm_spm_model_parse(buf_str(&f->bytes), "tiny", &f->model, &err), err);
    assert_ok(hm_span_cuts_make(&f->model, &f->cuts, &err), err);
    assert_ok(hm_piece_encoder_make(&f->model, &f->cuts, &f->encoder, &err), err);
    assert_ok(hm_piece_table_make(&f->model, &f->table, &err), err);
}

static void fixture_close(struct fixture *f)
{
    hm_ids_release(&f->ids);
    hm_piece_table_release(&f->table);
    hm_piece_encoder_free(f->encoder);
    hm_span_cuts_release(&f->cuts);
    hm_spm_model_release(&f->model);
    hm_buf_release(&f->bytes);
}

static void sample(struct fixture *f, const char *text, double rate, uint64_t number)
{
    struct hm_rng_key key = { 11, number };
    struct hm_error err = { 0 };

    hm_ids_clear(&f->ids);
    assert_ok(
        hm_piece_encoder_dropout(f->encoder, false, hm_str_of(text), rate, key, &f->ids, &err),
        err);
}

struct state { /* of merging: symbols, and the merges that were left out */
    int32_t symbol[MAX_SYMBOLS];
    bool dead[MAX_SYMBOLS];
    size_t n;
};

static void state_begin(const struct fixture *f, const char *text, struct state *state)
{
    uint32_t code = 0;

    *state = (struct state){ .n = 0 };
    for (size_t at = 0; text[at]; state->n++) {
        at += hm_utf8_decode(text + at, strlen(text) - at, &code);
        state->symbol[state->n] = hm_piece_table_symbol(&f->table, code);
    }
}

/* The place of the merge that is due, or n. */
static size_t due(const struct fixture *f, const struct state *state)
{
    uint32_t best = HM_NO_RANK;
    size_t place = state->n;
    int32_t result;

    for (size_t i = 0; i + 1 < state->n; i++) {
        uint32_t rank =
            hm_piece_table_merge(&f->table, state->symbol[i], state->symbol[i + 1], &result);
        if (!state->dead[i] && rank < best) {
            best = rank;
            place = i;
        }
    }
    return place;
}

static void take(const struct fixture *f, struct state *state, size_t place)
{
    hm_piece_table_merge(&f->table, state->symbol[place], state->symbol[place + 1],
                         &state->symbol[place]);
    for (size_t i = place + 1; i + 1 < state->n; i++) {
        state->symbol[i] = state->symbol[i + 1];
        state->dead[i] = state->dead[i + 1];
    }
    state->dead[place] = false;
    if (place > 0)
        state->dead[place - 1] = false;
    state->n--;
}

struct outcomes {
    struct state state[MAX_OUTCOMES];
    double probability[MAX_OUTCOMES];
    unsigned seen[MAX_OUTCOMES];
    size_t count;
};

static size_t outcome_find(const struct outcomes *all, const int32_t *symbol, size_t n)
{
    for (size_t i = 0; i < all->count; i++)
        if (all->state[i].n == n && memcmp(all->state[i].symbol, symbol, n * sizeof(*symbol)) == 0)
            return i;
    return all->count;
}

static void enumerate(const struct fixture *f, struct state state, double rate, double probability,
                      struct outcomes *all)
{
    size_t place = due(f, &state);

    if (place < state.n) {
        struct state merged = state;
        take(f, &merged, place);
        enumerate(f, merged, rate, probability * (1 - rate), all);
        state.dead[place] = true;
        enumerate(f, state, rate, probability * rate, all);
        return;
    }
    size_t at = outcome_find(all, state.symbol, state.n);
    if (at == all->count) {
        assert_true(all->count < MAX_OUTCOMES);
        all->state[all->count++] = state;
    }
    all->probability[at] += probability;
}

/* Chi-square over outcomes that are expected at least 5 times, the others in one class. */
static void check_distribution(struct fixture *f, const char *text, double rate)
{
    struct outcomes *all = hm_calloc(HM_MEM_OTHER, 1, sizeof(*all));
    struct state begin;
    double chi = 0, rare_expected = 0, rare_seen = 0;
    unsigned classes = 0;

    state_begin(f, text, &begin);
    enumerate(f, begin, rate, 1, all);
    for (uint64_t i = 0; i < SAMPLES; i++) {
        sample(f, text, rate, i);
        size_t at = outcome_find(all, f->ids.id, f->ids.count);
        assert_true(at < all->count); /* what the rule cannot give is not given */
        all->seen[at]++;
    }
    for (size_t i = 0; i < all->count; i++) {
        double expected = SAMPLES * all->probability[i], seen = all->seen[i];
        if (expected < 5) {
            rare_expected += expected;
            rare_seen += seen;
            continue;
        }
        chi += (seen - expected) * (seen - expected) / expected;
        classes++;
    }
    if (rare_expected > 1) {
        chi += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
        classes++;
    }
    double freedom = classes - 1;
    if (chi > freedom + 4 * sqrt(2 * freedom) + 4)
        fail_msg("'%s' at %g: chi-square %.1f over %u classes", text, rate, chi, classes);
    hm_free(all);
}

static void test_distribution(void **state)
{
    static const char *const texts[] = { "abc", "abab", "aaaa", "aaaaaa", "abcabca", "中国中国中" };
    static const double rates[] = { 0.05, 0.1, 0.3, 0.5, 0.9 };
    struct fixture f;

    (void)state;
    fixture_open(&f);
    for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++)
        for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++)
            check_distribution(&f, texts[t], rates[r]);
    fixture_close(&f);
}

/* Long enough for the tree of segment_merge.h; mean token counts within four standard errors. */
static void test_long_segments(void **state)
{
    static const char text[] = "abcabcaaaabababcaaaaaabcabcaaaabcbcabcaabababcabcaaaaaaabcca";
    const unsigned samples = 4000;
    struct hm_rng_key key = { 12, 0 };
    struct fixture f;
    uint64_t drawn = 0;

    (void)state;
    fixture_open(&f);
    for (double rate = 0.05; rate < 1; rate *= 2) {
        double ours[2] = { 0 }, slow[2] = { 0 };
        for (unsigned i = 0; i < samples; i++) {
            struct state run;
            sample(&f, text, rate, i);
            ours[0] += (double)f.ids.count;
            ours[1] += (double)(f.ids.count * f.ids.count);
            state_begin(&f, text, &run);
            for (size_t place; (place = due(&f, &run)) < run.n;) {
                if (hm_rng_uniform(key, drawn++) < rate)
                    run.dead[place] = true;
                else
                    take(&f, &run, place);
            }
            slow[0] += (double)run.n;
            slow[1] += (double)(run.n * run.n);
        }
        double mean = ours[0] / samples, other = slow[0] / samples;
        double variance = ours[1] / samples - mean * mean + slow[1] / samples - other * other;
        if (fabs(mean - other) > 4 * sqrt(variance / samples))
            fail_msg("rate %g: %g tokens, %g expected", rate, mean, other);
    }
    fixture_close(&f);
}

static void test_ends_of_the_range(void **state)
{
    static const char text[] =
        "abcabcaaaabababcaaaaaabcabc中国中xaaaabcbcabcaabab ababcabcaaaaaaabcca";
    struct hm_ids plain = { 0 };
    struct hm_error err = { 0 };
    struct fixture f;

    (void)state;
    fixture_open(&f);
    assert_ok(hm_piece_encoder_encode(f.encoder, false, hm_str_of(text), &plain, &err), err);
    for (uint64_t i = 0; i < 5; i++) {
        sample(&f, text, 0, i);
        assert_int_equal(f.ids.count, plain.count);
        assert_memory_equal(f.ids.id, plain.id, plain.count * sizeof(*plain.id));
        sample(&f, text, 1, i); /* ' ' is no piece: the three bytes of U+2581 */
        assert_int_equal(f.ids.count, hm_utf8_count(hm_str_of(text)) + 2);
    }
    hm_ids_clear(&plain);
    sample(&f, text, 0.5, 9);
    assert_ok(hm_ids_append(&plain, f.ids.id, f.ids.count, &err), err);
    sample(&f, text, 0.5, 9);
    assert_int_equal(f.ids.count, plain.count);
    assert_memory_equal(f.ids.id, plain.id, plain.count * sizeof(*plain.id));
    sample(&f, text, 0.5, 10);
    assert_true(f.ids.count != plain.count ||
                memcmp(f.ids.id, plain.id, plain.count * sizeof(*plain.id)) != 0);
    hm_ids_release(&plain);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_distribution),
                                        cmocka_unit_test(test_long_segments),
                                        cmocka_unit_test(test_ends_of_the_range) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
