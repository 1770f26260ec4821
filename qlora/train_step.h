/* SPDX-License-Identifier: MIT */
/*
 * The work of one optimiser step up to the gradients, and of one evaluation. Private to qlora/;
 * trainer.c drives it.
 */
#ifndef HANMIX_QLORA_TRAIN_STEP_H
#define HANMIX_QLORA_TRAIN_STEP_H

#include "train_batch.h"

struct hm_train_step { /* one step's micro-batches together */
    uint64_t tokens, targets;
    double loss; /* as loss_norm says, without aux */
    double aux;  /* mean over the micro-batches */
    double phase_seconds[HM_PHASE_COUNT + 1];
};

/*
 * Zero the gradients and accumulate those of step number `step` (from 1) out of samples from
 * `position` on. Stop request: HM_ERR_STOPPED within one micro-batch. Non-finite: HM_ERR_NUMERIC
 * naming step and micro-batch.
 */
int hm_train_step_run(const struct hm_train_job *job, struct hm_workspace *workspace,
                      struct hm_train_batch *batch, uint64_t step, uint64_t position,
                      const struct hm_ctl *ctl, struct hm_train_step *ret, struct hm_error *err);

/* Loss of every sample of one set, in file order. */
int hm_train_eval_run(const struct hm_train_job *job, struct hm_workspace *workspace,
                      struct hm_train_batch *batch, const struct hm_eval_set *set,
                      const struct hm_ctl *ctl, struct hm_eval_metrics *ret, struct hm_error *err);

#endif
