/* SPDX-License-Identifier: MIT */
/*
 * The objective of a step in double precision, by plain loops straight from the formulas: what
 * central differences are taken of. It shares with the library only the table of weights and the
 * random bits of dropout.
 */
#ifndef HANMIX_TESTS_GRAD_REFERENCE_H
#define HANMIX_TESTS_GRAD_REFERENCE_H

#include "support/support.h"

#include "hanmix/model/model.h"

struct reference_lora {
    double *a, *b; /* NULL: not adapted */
    double scale;
    uint32_t rank;
};

struct reference {
    struct hm_arch arch;
    size_t slots;
    struct hm_weight_slot *slot; /* [slots] */
    double **weight;             /* [slots], row-major */
    struct reference_lora *lora;
    const struct hm_batch *batch;
    double loss_weight, aux_weight;
    double dropout; /* 0: none */
    uint64_t dropout_seed, step, sample;
    double margin; /* smallest gap between a chosen expert and the next, after a run */
};

/* Weights of an open model and what its adapter replaces or adds. */
void reference_init(struct reference *reference, const struct hm_model *model,
                    const struct hm_adapter *adapter);
void reference_release(struct reference *reference);
/* loss_weight * sum of losses + aux_weight * auxiliary loss. */
double reference_objective(struct reference *reference);
/* Where value i of a parameter lives; d objective / d that value by central differences. */
double *reference_value(struct reference *reference, const struct hm_adapter *adapter, size_t param,
                        size_t i);
double reference_gradient(struct reference *reference, double *value);

#endif
