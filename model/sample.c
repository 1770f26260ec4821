/* SPDX-License-Identifier: MIT */
/*
 * Choosing the next token; see sample.h. The vocabulary is passed over in plain loops and sorted
 * only as far as top_k and top_p reach: candidates are those above a threshold that falls until
 * enough of them are there.
 */
#include "sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/rng.h"

#define LANES           16u
#define LEAST_HEAT      1e-6   /* a temperature below it is none */
#define THRESHOLD_FALLS 0.125f /* of probabilities relative to the largest */
#define THRESHOLD_LEAST 1e-30f

int hm_sampler_init(const struct hm_kernels *kernels, const struct hm_generate_options *options,
                    uint32_t vocab, struct hm_sampler *ret_sampler, struct hm_error *err)
{
    struct hm_sampler sampler = { kernels, options, vocab, NULL, NULL };

    sampler.p = hm_alloc_array(HM_MEM_SCRATCH, vocab, sizeof(*sampler.p));
    sampler.candidate = hm_alloc_array(HM_MEM_SCRATCH, vocab, sizeof(*sampler.candidate));
    if (!sampler.p || !sampler.candidate) {
        hm_sampler_release(&sampler);
        return hm_fail_nomem(err, "for the probabilities of %u tokens", vocab);
    }
    *ret_sampler = sampler;
    return HM_OK;
}

void hm_sampler_release(struct hm_sampler *sampler)
{
    hm_free(sampler->p);
    hm_free(sampler->candidate);
    sampler->p = NULL;
    sampler->candidate = NULL;
}

static bool all_finite(const float *logits, uint32_t vocab)
{
    uint32_t broken = 0;

    for (uint32_t v = 0; v < vocab; v++) {
        uint32_t bits;
        memcpy(&bits, logits + v, sizeof(bits));
        broken |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !broken;
}

/* The lowest id of the largest logit. */
static uint32_t most_likely(const float *logits, uint32_t vocab)
{
    float most[LANES], largest = logits[0];
    uint32_t v = 0, best = 0;

    for (size_t i = 0; i < LANES; i++)
        most[i] = logits[0];
    for (; v + LANES <= vocab; v += LANES)
        for (size_t i = 0; i < LANES; i++)
            most[i] = logits[v + i] > most[i] ? logits[v + i] : most[i];
    for (; v < vocab; v++)
        largest = logits[v] > largest ? logits[v] : largest;
    for (size_t i = 0; i < LANES; i++)
        largest = most[i] > largest ? most[i] : largest;
    while (logits[best] != largest)
        best++;
    return best;
}

static int candidate_order(const void *left, const void *right)
{
    const struct hm_candidate *a = left, *b = right;

    if (a->p != b->p)
        return a->p < b->p ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* How many of p reach the threshold, and what they hold. */
static uint32_t reach(const struct hm_sampler *sampler, float threshold, double *ret_mass)
{
    double mass = 0;
    uint32_t n = 0;

    for (uint32_t v = 0; v < sampler->vocab; v++)
        if (sampler->p[v] >= threshold) {
            mass += (double)sampler->p[v];
            n++;
        }
    *ret_mass = mass;
    return n;
}

/* The tokens that top_k and top_p leave, the most likely first; returns how many. */
static uint32_t candidates(struct hm_sampler *sampler, double total)
{
    const uint32_t top_k = sampler->options->top_k;
    double wanted = top_k > 0 ? INFINITY : sampler->options->top_p * total, mass = 0, kept = 0;
    float threshold = 1;
    uint32_t n = 0, keep = 0;

    do {
        threshold *= THRESHOLD_FALLS;
        if (threshold < THRESHOLD_LEAST)
            threshold = 0;
        n = reach(sampler, threshold, &mass);
    } while (threshold > 0 && mass < wanted && (top_k == 0 || n < top_k));
    n = 0;
    for (uint32_t v = 0; v < sampler->vocab; v++)
        if (sampler->p[v] >= threshold)
            sampler->candidate[n++] = (struct hm_candidate){ (int32_t)v, sampler->p[v] };
    qsort(sampler->candidate, n, sizeof(*sampler->candidate), candidate_order);
    if (top_k > 0) {
        n = top_k < n ? top_k : n;
        total = 0;
        for (uint32_t i = 0; i < n; i++)
            total += (double)sampler->candidate[i].p;
    }
    while (keep < n && (keep == 0 || kept < sampler->options->top_p * total))
        kept += (double)sampler->candidate[keep++].p;
    return keep;
}

/* p = softmax(logits / temperature), the largest is 1; returns their sum. */
static double heat(struct hm_sampler *sampler, const float *logits)
{
    const int32_t first = 0, end = (int32_t)sampler->vocab;
    float row_max = -INFINITY, row_sum = 0, alpha;
    double total = 0;

    memcpy(sampler->p, logits, sampler->vocab * sizeof(*logits));
    sampler->kernels->softmax_tile(sampler->p, 1, sampler->vocab, sampler->vocab, &first, &end,
                                   (float)(1 / sampler->options->temperature), &row_max, &row_sum,
                                   &alpha);
    for (uint32_t v = 0; v < sampler->vocab; v++)
        total += (double)sampler->p[v];
    return total;
}

static int32_t draw(struct hm_sampler *sampler, const float *logits, uint32_t pos)
{
    const struct hm_generate_options *options = sampler->options;
    const struct hm_rng_key key = { options->seed, 0 };
    double total = heat(sampler, logits), sum = 0;
    double point = hm_rng_uniform(key, pos);

    if (options->top_p >= 1 && (options->top_k == 0 || options->top_k >= sampler->vocab)) {
        int32_t last = 0;
        for (uint32_t v = 0; v < sampler->vocab; v++) {
            if (sampler->p[v] > 0)
                last = (int32_t)v;
            sum += (double)sampler->p[v];
            if (sum > point * total)
                break;
        }
        return last;
    }
    uint32_t n = candidates(sampler, total);
    for (uint32_t i = 0; i < n; i++)
        sum += (double)sampler->candidate[i].p;
    point *= sum;
    for (uint32_t i = 0; i < n; i++) {
        point -= (double)sampler->candidate[i].p;
        if (point < 0)
            return sampler->candidate[i].id;
    }
    return sampler->candidate[n - 1].id;
}

int hm_sampler_next(struct hm_sampler *sampler, const float *logits, uint32_t pos, int32_t *ret_id,
                    double *ret_logprob, struct hm_error *err)
{
    const float one = 1;
    double loss = 0;

    if (!all_finite(logits, sampler->vocab)) {
        uint32_t v = 0;
        while (isfinite(logits[v]))
            v++;
        return hm_fail(err, HM_ERR_NUMERIC,
                       "the logit of token %u at position %u is not finite; the model or the "
                       "adapter is damaged",
                       v, pos);
    }
    int32_t id = sampler->options->temperature < LEAST_HEAT
                     ? (int32_t)most_likely(logits, sampler->vocab)
                     : draw(sampler, logits, pos);
    memcpy(sampler->p, logits, sampler->vocab * sizeof(*logits));
    sampler->kernels->xent(sampler->p, 1, sampler->vocab, sampler->vocab, &id, &one, false, &loss);
    *ret_id = id;
    *ret_logprob = -loss;
    return HM_OK;
}
