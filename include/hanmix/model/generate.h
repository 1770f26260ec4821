/* SPDX-License-Identifier: MIT */
/*
 * Continuing a prompt token by token with a key/value cache: greedy, or sampling with
 * temperature, top_k and top_p (counter-based, by seed).
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_MODEL_GENERATE_H
#define HANMIX_MODEL_GENERATE_H

#include "hanmix/model/model.h"

struct hm_generate_options {
    uint32_t max_tokens;
    double temperature; /* 0 = greedy (lowest id on a tie) */
    uint32_t top_k;     /* the most likely ones, before top_p; 0 = all */
    double top_p;       /* the fewest that hold this much; 1 = all */
    uint64_t seed;
    int32_t eos_id; /* -1: never stop early */
};
/* token(context, id, logprob) is called for each new id, eos_id included, after which it ends;
   non-zero stops. logprob is that of the plain distribution (temperature 1, all tokens). */
int hm_generate(struct hm_model *model, const int32_t *prompt, size_t n_prompt,
                const struct hm_generate_options *options,
                int (*token)(void *context, int32_t id, double logprob), void *context,
                const struct hm_ctl *ctl, struct hm_error *err);

#endif
