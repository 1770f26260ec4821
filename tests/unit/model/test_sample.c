/* SPDX-License-Identifier: MIT */
/*
 * model/sample.c: how often each token is drawn against its probability, for temperature, top_k and
 * top_p together and alone; ties, greedy choice, log-probabilities; logits that are no numbers.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "model/sample.h"

#define V     600u
#define DRAWS 40000u

static struct hm_kernels kernels;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    return 0;
}

/* Between -6 and 6, each value twice: ties go to the lower id. */
static void logits_fill(float *logits)
{
    const struct hm_rng_key key = { 11, 0 };

    for (uint32_t v = 0; v < V; v++)
        logits[v] = (float)(12 * hm_rng_uniform(key, v / 2) - 6);
}

/* Probabilities by definition: sorted, cut to top_k, then to the fewest that hold top_p. */
static void probabilities(const float *logits, const struct hm_generate_options *options, double *p)
{
    uint32_t order[V];
    double sum = 0, kept = 0;
    uint32_t keep = 0, n = options->top_k > 0 && options->top_k < V ? options->top_k : V;

    for (uint32_t v = 0; v < V; v++) {
        uint32_t at = v;
        for (; at > 0 && logits[order[at - 1]] < logits[v]; at--)
            order[at] = order[at - 1];
        order[at] = v;
        p[v] = 0;
    }
    for (uint32_t i = 0; i < n; i++)
        sum += exp(logits[order[i]] / options->temperature);
    for (; keep < n && (keep == 0 || kept < options->top_p * sum * (1 - 1e-9)); keep++)
        kept += exp(logits[order[keep]] / options->temperature);
    for (uint32_t i = 0; i < keep; i++)
        p[order[i]] = exp(logits[order[i]] / options->temperature) / kept;
}

static void check_counts(const struct hm_generate_options *options)
{
    float logits[V];
    double p[V], logprob = 0, all = 0;
    uint32_t count[V] = { 0 }, seen = 0, possible = 0;
    struct hm_sampler sampler;
    struct hm_error err = { 0 };

    logits_fill(logits);
    probabilities(logits, options, p);
    for (uint32_t v = 0; v < V; v++)
        all += exp((double)logits[v]);
    assert_ok(hm_sampler_init(&kernels, options, V, &sampler, &err), err);
    for (uint32_t pos = 0; pos < DRAWS; pos++) {
        int32_t id = -1;
        assert_ok(hm_sampler_next(&sampler, logits, pos, &id, &logprob, &err), err);
        assert_true(id >= 0 && (uint32_t)id < V);
        assert_true(fabs(logprob - ((double)logits[id] - log(all))) < 1e-4);
        count[id]++;
    }
    hm_sampler_release(&sampler);
    for (uint32_t v = 0; v < V; v++) {
        double wanted = p[v] * DRAWS, noise = 5 * sqrt(wanted) + 3;
        if (p[v] == 0 ? count[v] > 0 : fabs(count[v] - wanted) > noise)
            fail_msg("token %u: drawn %u times, expected %.1f", v, count[v], wanted);
        seen += count[v] > 0;
        possible += p[v] > 0;
    }
    assert_true(seen <= possible && (possible > 20 || seen == possible));
}

static void test_distribution(void **state)
{
    const struct hm_generate_options cases[] = {
        { .temperature = 1, .top_p = 1, .seed = 1 },
        { .temperature = 0.5, .top_p = 1, .seed = 2 },
        { .temperature = 3, .top_p = 1, .seed = 3 },
        { .temperature = 1, .top_p = 1, .top_k = 7, .seed = 4 }, /* cuts a pair of equals */
        { .temperature = 1, .top_p = 0.5, .seed = 5 },
        { .temperature = 3, .top_p = 0.99, .seed = 6 },
        { .temperature = 1, .top_p = 0.6, .top_k = 12, .seed = 7 },
        { .temperature = 1, .top_p = 1, .top_k = V + 5, .seed = 8 },
        { .temperature = 100, .top_p = 0.3, .top_k = V - 1, .seed = 9 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_counts(&cases[i]);
}

static int32_t chosen(const struct hm_generate_options *options, const float *logits)
{
    struct hm_sampler sampler;
    struct hm_error err = { 0 };
    double logprob;
    int32_t id = -1;

    assert_ok(hm_sampler_init(&kernels, options, V, &sampler, &err), err);
    assert_ok(hm_sampler_next(&sampler, logits, 3, &id, &logprob, &err), err);
    hm_sampler_release(&sampler);
    return id;
}

static void test_most_likely(void **state)
{
    const struct hm_generate_options greedy = { .top_p = 1 },
                                     one = { .temperature = 2, .top_k = 1, .top_p = 1 },
                                     narrow = { .temperature = 2, .top_p = 1e-12 };
    float logits[V];

    (void)state;
    for (uint32_t best = 0; best + 1 < V; best += 37) {
        logits_fill(logits);
        logits[best] = logits[best + 1] = 6.5f; /* the lower one */
        assert_int_equal(chosen(&greedy, logits), best);
        assert_int_equal(chosen(&one, logits), best);
        assert_int_equal(chosen(&narrow, logits), best);
    }
    for (uint32_t v = 0; v < V; v++) /* all that exp can tell apart is one token */
        logits[v] = v == 5 ? 0 : -1e30f;
    assert_int_equal(chosen(&(struct hm_generate_options){ .temperature = 1, .top_p = 1 }, logits),
                     5);
    assert_int_equal(
        chosen(&(struct hm_generate_options){ .temperature = 1, .top_k = 9, .top_p = 1 }, logits),
        5);
}

static void test_not_a_number(void **state)
{
    const struct hm_generate_options options = { .temperature = 1, .top_p = 1 };
    struct hm_sampler sampler;
    struct hm_error err = { 0 };
    float logits[V];
    double logprob;
    int32_t id;

    (void)state;
    logits_fill(logits);
    assert_ok(hm_sampler_init(&kernels, &options, V, &sampler, &err), err);
    logits[V - 1] = NAN;
    assert_fails(hm_sampler_next(&sampler, logits, 9, &id, &logprob, &err), HM_ERR_NUMERIC,
                 "the logit of token 599 at position 9 is not finite", err);
    logits[0] = -INFINITY;
    assert_fails(hm_sampler_next(&sampler, logits, 9, &id, &logprob, &err), HM_ERR_NUMERIC,
                 "the logit of token 0 at", err);
    hm_sampler_release(&sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_most_likely),
        cmocka_unit_test(test_not_a_number),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
