/* SPDX-License-Identifier: MIT */
/*
 * The loop: resume, evaluate, steps, checkpoints, safe stops. The order after an update is fixed
 * (report, evaluate, save), so that a state never claims what was not reported. A step is done or
 * not: a stop or failure inside it leaves the weights of the step before, which are saved.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "gradient_dump.h"
#include "train_state.h"
#include "train_step.h"

struct trainer {
    const struct hm_train_job *job;
    const struct hm_ctl *ctl; /* the caller's, with the time limit */
    struct hm_train_identity identity;
    struct hm_optimizer *optimizer;
    struct hm_workspace *workspace;
    struct hm_train_batch batch;
    struct hm_eval_metrics *eval; /* [n_eval] */
    struct hm_train_cursor cursor;
    uint64_t saved_step, warmup_steps;
    double step_seconds, tokens_run;
    struct hm_train_report report;
};

static int job_check(const struct hm_train_job *job, struct hm_error *err)
{
    const struct hm_train_config *config = &job->config;
    uint32_t rows = hm_samples_micro_rows(job->data);

    if (config->steps == 0 || config->micro_batch == 0 || config->accumulate == 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "steps, micro_batch and accumulate must be at least 1 (they are %" PRIu64
                       ", %u, %u)",
                       config->steps, config->micro_batch, config->accumulate);
    if (rows > 0 && rows != config->micro_batch)
        return hm_fail(err, HM_ERR_USAGE,
                       "micro_batch is %u, the micro-batches of the ids file have %u rows",
                       config->micro_batch, rows);
    return HM_OK;
}

static int trainer_new(struct trainer *trainer, struct hm_error *err)
{
    const struct hm_train_job *job = trainer->job;
    const struct hm_train_config *config = &job->config;
    uint32_t seq_len = hm_samples_seq_len(job->data);
    struct hm_optimizer_config optimizer = { config->beta1,        config->beta2, config->eps,
                                             config->weight_decay, config->clip,  config->decay_all,
                                             config->coded_moments };

    for (size_t i = 0; i < job->n_eval; i++)
        if (hm_samples_seq_len(job->eval[i].source) > seq_len)
            seq_len = hm_samples_seq_len(job->eval[i].source);
    trainer->identity = (struct hm_train_identity){ job->config_digest, job->kernels->name,
                                                    config->allow_kernel_change };
    trainer->eval = hm_calloc(HM_MEM_OTHER, job->n_eval + 1, sizeof(*trainer->eval));
    if (!trainer->eval)
        return hm_fail_nomem(err, "for %zu evaluation sets", job->n_eval);
    HM_TRY(hm_train_batch_new(config->micro_batch, seq_len, &trainer->batch, err));
    HM_TRY(hm_optimizer_new(job->adapter, job->kernels, &optimizer, &trainer->optimizer, err));
    return hm_workspace_new(job->model, config->micro_batch, seq_len, true, config->recompute,
                            &trainer->workspace, err);
}

static void trainer_release(struct trainer *trainer)
{
    hm_workspace_free(trainer->workspace);
    hm_optimizer_free(trainer->optimizer);
    hm_train_batch_release(&trainer->batch);
    hm_free(trainer->eval);
}

static int state_save(struct trainer *trainer, uint64_t keep, bool last, struct hm_error *err)
{
    if (trainer->cursor.step == trainer->saved_step)
        return HM_OK;
    HM_TRY(hm_train_state_save(trainer->job->state_dir, trainer->optimizer, &trainer->cursor,
                               &trainer->identity, keep, last, err));
    trainer->saved_step = trainer->cursor.step;
    return HM_OK;
}

static bool is_due(uint64_t step, uint64_t every, uint64_t steps)
{
    return step == steps || (every > 0 && step % every == 0);
}

/* Evaluate if it is due after the cursor's step and not done. */
static int evaluate(struct trainer *trainer, struct hm_error *err)
{
    const struct hm_train_job *job = trainer->job;
    uint64_t step = trainer->cursor.step;

    if (trainer->cursor.evaluated || job->n_eval == 0 ||
        !(step == 0 || is_due(step, job->config.eval_every, job->config.steps)))
        return HM_OK;
    for (size_t i = 0; i < job->n_eval; i++)
        HM_TRY(hm_train_eval_run(job, trainer->workspace, &trainer->batch, &job->eval[i],
                                 trainer->ctl, &trainer->eval[i], err));
    if (job->callbacks.on_eval)
        HM_TRY(
            job->callbacks.on_eval(job->callbacks.context, step, trainer->eval, job->n_eval, err));
    trainer->cursor.evaluated = true;
    return HM_OK;
}

static int gradients_dump(const struct trainer *trainer, uint64_t step, double loss,
                          struct hm_error *err)
{
    const struct hm_train_job *job = trainer->job;
    char *path = NULL;

    if (job->config.dump_gradients != step)
        return HM_OK;
    if (job->gradients_dir)
        HM_TRY(hm_format(&path, err, "%s/gradients-%" PRIu64 ".safetensors", job->gradients_dir,
                         step));
    else
        HM_TRY(
            hm_format(&path, err, "%s/../gradients-%" PRIu64 ".safetensors", job->state_dir, step));
    int status = hm_gradient_dump(path, job->adapter, loss, err);
    hm_free(path);
    return status;
}

static void report_add(struct trainer *trainer, const struct hm_train_step *sums, double seconds)
{
    const struct hm_arch *arch = hm_model_arch(trainer->job->model);
    struct hm_train_report *report = &trainer->report;

    trainer->step_seconds += seconds;
    trainer->tokens_run += (double)sums->tokens;
    report->flops += hm_model_step_flops(arch, sums->tokens, true, trainer->job->config.recompute);
    for (size_t i = 0; i <= HM_PHASE_COUNT; i++)
        report->phase_seconds[i] += sums->phase_seconds[i];
}

/* One optimiser step; the cursor moves on only after the update. */
static int step_run(struct trainer *trainer, struct hm_error *err)
{
    const struct hm_train_job *job = trainer->job;
    const struct hm_train_config *config = &job->config;
    uint64_t step = trainer->cursor.step + 1;
    double started = hm_clock_seconds();
    struct hm_train_step sums = { 0 };
    double norm = 0;

    HM_TRY(hm_train_step_run(job, trainer->workspace, &trainer->batch, step,
                             trainer->cursor.position, trainer->ctl, &sums, err));
    HM_TRY(gradients_dump(trainer, step, sums.loss, err));
    double update_started = hm_clock_seconds();
    int status = hm_optimizer_norm(trainer->optimizer, &norm, err);
    if (status < 0) {
        hm_error_prefix(err, "step %" PRIu64, step);
        return status;
    }
    double lr = hm_lr_at(config->lr_schedule, config->lr, config->min_lr, trainer->warmup_steps,
                         config->steps, step - 1);
    hm_optimizer_update(trainer->optimizer, lr, norm);
    double now = hm_clock_seconds();
    sums.phase_seconds[HM_PHASE_COUNT] = now - update_started;

    trainer->cursor = (struct hm_train_cursor){
        .step = step,
        .tokens = trainer->cursor.tokens + sums.tokens,
        .position = trainer->cursor.position + (uint64_t)config->micro_batch * config->accumulate,
        .loss = sums.loss,
    };
    report_add(trainer, &sums, now - started);
    struct hm_train_metrics metrics = { .step = step,
                                        .tokens = trainer->cursor.tokens,
                                        .targets = sums.targets,
                                        .loss = sums.loss,
                                        .aux = sums.aux,
                                        .grad_norm = norm,
                                        .lr = lr,
                                        .tokens_per_s = (double)sums.tokens / (now - started),
                                        .step_seconds = now - started,
                                        .rss_bytes = hm_rss_bytes() };
    memcpy(metrics.phase_seconds, sums.phase_seconds, sizeof(metrics.phase_seconds));
    return job->callbacks.on_step ? job->callbacks.on_step(job->callbacks.context, &metrics, err)
                                  : HM_OK;
}

static int steps_run(struct trainer *trainer, struct hm_error *err)
{
    const struct hm_train_config *config = &trainer->job->config;

    HM_TRY(evaluate(trainer, err));
    while (trainer->cursor.step < config->steps) {
        HM_TRY(step_run(trainer, err));
        HM_TRY(evaluate(trainer, err));
        if (is_due(trainer->cursor.step, config->save_every, config->steps))
            HM_TRY(state_save(trainer, config->keep, trainer->cursor.step == config->steps, err));
    }
    return HM_OK;
}

/* What is kept when a run ends before its last step. */
static int save_and_fail(struct trainer *trainer, int status, struct hm_error *err)
{
    struct hm_error save_error = { 0 };

    if (status != HM_ERR_STOPPED && status != HM_ERR_NUMERIC)
        return status;
    /* a numeric failure removes nothing: an older state may be the better one to go on from */
    uint64_t keep = status == HM_ERR_STOPPED ? trainer->job->config.keep : 0;
    int saved = state_save(trainer, keep, true, &save_error);
    if (saved < 0)
        return hm_error_pass(err, &save_error);
    if (status == HM_ERR_STOPPED)
        return hm_fail(err, status,
                       "stopped after step %" PRIu64 " of %" PRIu64 "; the same command continues",
                       trainer->cursor.step, trainer->job->config.steps);
    return status;
}

static int train(struct trainer *trainer, struct hm_error *err)
{
    const struct hm_train_job *job = trainer->job;

    HM_TRY(trainer_new(trainer, err));
    HM_TRY(hm_dir_make(job->state_dir, err));
    HM_TRY(hm_train_state_load(job->state_dir, trainer->optimizer, &trainer->identity, trainer->ctl,
                               &trainer->cursor, err));
    trainer->saved_step = trainer->report.resumed_from = trainer->cursor.step;
    if (trainer->cursor.step > job->config.steps)
        return hm_fail(err, HM_ERR_USAGE,
                       "'%s' holds a state of step %" PRIu64 ", this run has %" PRIu64 " steps",
                       job->state_dir, trainer->cursor.step, job->config.steps);
    if (job->callbacks.on_resume)
        HM_TRY(job->callbacks.on_resume(job->callbacks.context, trainer->cursor.step, err));
    int status = steps_run(trainer, err);
    return status < 0 ? save_and_fail(trainer, status, err) : HM_OK;
}

static uint64_t warmup_steps(const struct hm_train_config *config)
{
    return (uint64_t)ceil(config->warmup < 1 ? config->warmup * (double)config->steps
                                             : config->warmup);
}

int hm_train(const struct hm_train_job *job, const struct hm_ctl *ctl,
             struct hm_train_report *ret_report, struct hm_error *err)
{
    struct hm_ctl limited = ctl ? *ctl : (struct hm_ctl){ 0 };
    struct trainer trainer = { .job = job, .ctl = &limited };
    double started = hm_clock_seconds();
    double limit = started + job->config.time_limit_seconds;

    HM_TRY(job_check(job, err));
    if (job->config.time_limit_seconds > 0 &&
        (limited.deadline_seconds <= 0 || limit < limited.deadline_seconds))
        limited.deadline_seconds = limit;
    trainer.warmup_steps = warmup_steps(&job->config);
    int status = train(&trainer, err);
    if (status == HM_OK) {
        trainer.report.steps = trainer.cursor.step;
        trainer.report.tokens = trainer.cursor.tokens;
        trainer.report.final_loss = trainer.cursor.loss;
        trainer.report.seconds = hm_clock_seconds() - started;
        if (trainer.step_seconds > 0)
            trainer.report.tokens_per_s = trainer.tokens_run / trainer.step_seconds;
        *ret_report = trainer.report;
    }
    trainer_release(&trainer);
    return status;
}
