/* SPDX-License-Identifier: MIT */
/*
 * One token from a row of logits: the most likely, or drawn from softmax(logits / temperature) cut
 * to the top_k most likely and then to the fewest that hold top_p of those (Holtzman et al. 2020).
 * Private to model/. The draw depends on seed and position only; equal probabilities go to the
 * lower id.
 */
#ifndef HANMIX_MODEL_SAMPLE_H
#define HANMIX_MODEL_SAMPLE_H

#include "hanmix/model/generate.h"

struct hm_candidate {
    int32_t id;
    float p;
};

struct hm_sampler {
    const struct hm_kernels *kernels; /* borrowed */
    const struct hm_generate_options *options;
    uint32_t vocab;
    float *p;                       /* [V] */
    struct hm_candidate *candidate; /* [V] */
};

int hm_sampler_init(const struct hm_kernels *kernels, const struct hm_generate_options *options,
                    uint32_t vocab, struct hm_sampler *ret_sampler, struct hm_error *err);
void hm_sampler_release(struct hm_sampler *sampler);
/* The next token after the logits [V] of a position, and its plain log-probability (temperature 1,
 * all tokens). A logit that is no number is HM_ERR_NUMERIC. */
int hm_sampler_next(struct hm_sampler *sampler, const float *logits, uint32_t pos, int32_t *ret_id,
                    double *ret_logprob, struct hm_error *err);

#endif
