/* SPDX-License-Identifier: MIT */
/*
 * Accumulation: the weights of a step's micro-batches follow from their numbers of targets, which
 * are counted before the first backward pass. The objective of a step with A micro-batches of n_i
 * targets (n together) and loss sums s_i is
 *
 *   tokens: sum_i s_i / n + coef * sum_i aux_i / A
 *   micro:  sum_i (s_i / n_i + coef * aux_i) / A
 *
 * where a micro-batch without targets adds nothing to the loss.
 */
#include "train_step.h"

#include <inttypes.h>
#include <math.h>

static int targets_count(const struct hm_train_job *job, struct hm_train_batch *batch,
                         uint64_t step, uint64_t position, struct hm_train_step *sums,
                         struct hm_error *err)
{
    const struct hm_train_config *config = &job->config;

    for (uint32_t i = 0; i < config->accumulate; i++) {
        HM_TRY(hm_train_batch_fill(batch, job->data, position + (uint64_t)i * config->micro_batch,
                                   config->micro_batch, err));
        sums->tokens += batch->tokens;
        sums->targets += batch->targets;
    }
    if (sums->targets == 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "step %" PRIu64
                       " has no target: all its labels are -100 (samples from %" PRIu64 " on)",
                       step, position);
    return HM_OK;
}

static int micro_run(const struct hm_train_job *job, struct hm_workspace *workspace,
                     const struct hm_train_batch *batch, uint64_t step, uint64_t sample,
                     struct hm_train_step *sums, struct hm_error *err)
{
    const struct hm_train_config *config = &job->config;
    bool micro = config->loss_norm == HM_LOSS_MICRO;
    double share = 1.0 / config->accumulate;
    double per_target = 1.0 / (double)sums->targets;
    struct hm_step_result result = { 0 };

    if (micro)
        per_target = batch->targets > 0 ? share / (double)batch->targets : 0;
    struct hm_step_options options = { .backward = true,
                                       .recompute = config->recompute,
                                       .loss_weight = per_target,
                                       .aux_weight = config->aux_coef * share,
                                       .want_aux = hm_model_arch(job->model)->experts > 1,
                                       .train = true,
                                       .dropout_seed = config->seed,
                                       .step = step,
                                       .sample = sample };
    HM_TRY(hm_model_step(job->model, workspace, &batch->view, &options, &result, err));
    HM_BUG(result.targets != batch->targets);
    if (!isfinite(result.loss_sum) || !isfinite(result.aux))
        return hm_fail(err, HM_ERR_NUMERIC, "the loss is not finite");
    sums->loss += result.loss_sum * per_target;
    sums->aux += result.aux * share;
    for (size_t i = 0; i < HM_PHASE_COUNT; i++)
        sums->phase_seconds[i] += result.phase_seconds[i];
    return HM_OK;
}

int hm_train_step_run(const struct hm_train_job *job, struct hm_workspace *workspace,
                      struct hm_train_batch *batch, uint64_t step, uint64_t position,
                      const struct hm_ctl *ctl, struct hm_train_step *ret, struct hm_error *err)
{
    const struct hm_train_config *config = &job->config;
    struct hm_train_step sums = { 0 };

    HM_TRY(targets_count(job, batch, step, position, &sums, err));
    hm_adapter_zero_grad(job->adapter);
    for (uint32_t i = 0; i < config->accumulate; i++) {
        uint64_t sample = position + (uint64_t)i * config->micro_batch;
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped in step %" PRIu64, step);
        HM_TRY(hm_train_batch_fill(batch, job->data, sample, config->micro_batch, err));
        int status = micro_run(job, workspace, batch, step, sample, &sums, err);
        if (status < 0) {
            hm_error_prefix(err,
                            "step %" PRIu64 ", micro-batch %u of %u (samples from %" PRIu64 " on)",
                            step, i + 1, config->accumulate, sample);
            return status;
        }
    }
    *ret = sums;
    return HM_OK;
}

int hm_train_eval_run(const struct hm_train_job *job, struct hm_workspace *workspace,
                      struct hm_train_batch *batch, const struct hm_eval_set *set,
                      const struct hm_ctl *ctl, struct hm_eval_metrics *ret, struct hm_error *err)
{
    struct hm_step_options options = { .loss_weight = 1 };
    struct hm_eval_metrics metrics = { .set = set->name };
    uint64_t count = hm_samples_count(set->source);
    double loss = 0;

    for (uint64_t at = 0; at < count; at += batch->view.rows) {
        struct hm_step_result result = { 0 };
        uint64_t rows = count - at < batch->rows_max ? count - at : batch->rows_max;
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped while evaluating '%s'", set->name);
        HM_TRY(hm_train_batch_fill(batch, set->source, at, (uint32_t)rows, err));
        int status = hm_model_step(job->model, workspace, &batch->view, &options, &result, err);
        if (status < 0) {
            hm_error_prefix(err, "evaluation of '%s', samples from %" PRIu64 " on", set->name, at);
            return status;
        }
        loss += result.loss_sum;
        metrics.tokens += result.targets;
        metrics.bytes += batch->utf8_bytes;
    }
    if (metrics.tokens == 0)
        return hm_fail(err, HM_ERR_FORMAT, "evaluation set '%s' has no target", set->name);
    metrics.nats_per_token = loss / (double)metrics.tokens;
    metrics.bits_per_byte = metrics.bytes > 0 ? loss / M_LN2 / (double)metrics.bytes : NAN;
    *ret = metrics;
    return HM_OK;
}
