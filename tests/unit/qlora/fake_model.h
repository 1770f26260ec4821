/* SPDX-License-Identifier: MIT */
/*
 * A model of one number per token id for tests of the loop: the loss of a target y after id x is
 * (v[y] - x/8)^2 / 2, times a dropout-like factor drawn from the step's key. It stands in for
 * model/model.c, whose functions it defines.
 */
#ifndef HANMIX_TESTS_FAKE_MODEL_H
#define HANMIX_TESTS_FAKE_MODEL_H

#include "hanmix/model/model.h"

#define FAKE_VOCAB 16

struct hm_model {
    struct hm_arch arch;
    struct hm_adapter adapter; /* two parameters: v as a lora_A, and one that only aux moves */
    struct hm_param param[2];
    float v[FAKE_VOCAB], v_grad[FAKE_VOCAB], w[2], w_grad[2];
    uint64_t calls;                            /* of hm_model_step with backward */
    uint64_t nan_at, inf_gradient_at, stop_at; /* calls; 0 never */
    sig_atomic_t stop;
};

void fake_model_init(struct hm_model *model);

/* What one micro-batch is by its formulas, in double; g (may be NULL) receives d(loss sum)/dv. */
double fake_loss(const double *v, const struct hm_batch *batch, double factor,
                 uint64_t *ret_targets, double *g);
double fake_factor(const struct hm_step_options *options);

#endif
