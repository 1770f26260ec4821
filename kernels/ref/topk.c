/* SPDX-License-Identifier: MIT */
/*
 * The router of Mixtral: softmax over all experts, the k most likely, their weights made to sum to
 * one. Whatever the logits hold (NaN too), the k ids of a row are distinct and in range.
 */
#include <math.h>

#include "ref.h"

static bool taken(const int32_t *ids, size_t count, size_t expert)
{
    for (size_t i = 0; i < count; i++)
        if ((size_t)ids[i] == expert)
            return true;
    return false;
}

/* The likeliest expert not yet among ids[0..count). Strict comparison: the lowest wins a tie. */
static size_t best_free(const float *prob, size_t experts, const int32_t *ids, size_t count)
{
    size_t best = experts;

    for (size_t e = 0; e < experts; e++)
        if (!taken(ids, count, e) && (best == experts || prob[e] > prob[best]))
            best = e;
    return best;
}

static void row_softmax(const float *logits, size_t experts, float *prob)
{
    float largest = logits[0], sum = 0.0f;

    for (size_t e = 1; e < experts; e++)
        largest = logits[e] > largest ? logits[e] : largest;
    for (size_t e = 0; e < experts; e++) {
        prob[e] = expf(logits[e] - largest);
        sum += prob[e];
    }
    for (size_t e = 0; e < experts; e++)
        prob[e] /= sum;
}

void hm_route_ref(const float *logits, size_t n, size_t experts, size_t k, float *prob,
                  int32_t *ids, float *weight)
{
    for (size_t t = 0; t < n; t++, logits += experts, prob += experts, ids += k, weight += k) {
        float sum = 0.0f;

        row_softmax(logits, experts, prob);
        for (size_t i = 0; i < k; i++) {
            ids[i] = (int32_t)best_free(prob, experts, ids, i);
            sum += prob[ids[i]];
        }
        for (size_t i = 0; i < k; i++)
            weight[i] = prob[ids[i]] / sum;
    }
}
