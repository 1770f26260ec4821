/* SPDX-License-Identifier: MIT */
/*
 * The training loop under the clock; see train_probe.h. The loop itself is qlora/trainer.c: here
 * are its callbacks, which note when each step and evaluation ends, and drawn data where there are
 * none yet.
 */
#include "train_probe.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/synthetic.h"
#include "stage_util.h"
#include "train_log.h"

#define DRAWN_BATCHES 4u /* micro-batches of drawn ids, so that steps differ */
#define EVAL_EVERY    4u /* steps, where there are many */

struct watch { /* callbacks around those of the log */
    struct hm_train_callbacks inner;
    double begun, mark; /* when the first step began, when the last event ended */
    double micro[TRAIN_PROBE_STEPS], head[TRAIN_PROBE_STEPS], optimizer[TRAIN_PROBE_STEPS];
    double evaluation[TRAIN_PROBE_STEPS + 1];
    size_t n_steps, n_evals;
    uint64_t most, least, eval_every;   /* steps; eval_every 0: no evaluation */
    double ends;                        /* on the clock */
    bool save;                          /* ends as a run that is stopped: with a state */
    const volatile sig_atomic_t *asked; /* whoever waits for the prediction wants no more of it */
    volatile sig_atomic_t stop;
};

struct session { /* everything that is open */
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_scratch *store; /* of the adapter and its moments; NULL: memory */
    struct hm_adapter *adapter;
    struct hm_sample_source *data;
    struct hm_eval_set eval;
    struct expert_load load;
    struct train_log log;
    struct watch watch;
};

/* --- the clock --- */

/* Ends the loop when it has run long enough: with a state as if it were stopped, or at once by a
 * code that the caller knows. */
static int end_if_enough(struct watch *watch, struct hm_error *err)
{
    bool asked = watch->asked && *watch->asked;
    bool enough = watch->n_steps >= watch->most ||
                  (watch->n_steps >= watch->least && hm_clock_seconds() >= watch->ends);

    if (watch->save)
        watch->stop = asked || enough;
    return enough && !watch->save ? hm_fail(err, HM_ERR_CHECK, "timed enough") : HM_OK;
}

static int on_step(void *context, const struct hm_train_metrics *metrics, struct hm_error *err)
{
    struct watch *watch = context;
    size_t i = watch->n_steps++;
    double sum = 0;

    HM_TRY(watch->inner.on_step(watch->inner.context, metrics, err));
    double now = hm_clock_seconds();
    watch->optimizer[i] = metrics->phase_seconds[HM_PHASE_COUNT];
    watch->micro[i] = now - watch->mark - watch->optimizer[i];
    for (size_t phase = 0; phase < HM_PHASE_COUNT; phase++)
        sum += metrics->phase_seconds[phase];
    if (sum > 0)
        watch->head[i] = watch->micro[i] * metrics->phase_seconds[HM_PHASE_HEAD] / sum;
    watch->mark = now;
    bool evaluates = watch->eval_every > 0 && watch->n_steps % watch->eval_every == 0;
    return evaluates ? HM_OK : end_if_enough(watch, err);
}

static int on_eval(void *context, uint64_t step, const struct hm_eval_metrics *sets, size_t n,
                   struct hm_error *err)
{
    struct watch *watch = context;

    HM_TRY(watch->inner.on_eval(watch->inner.context, step, sets, n, err));
    double now = hm_clock_seconds();
    watch->evaluation[watch->n_evals++] = now - watch->mark;
    watch->mark = now;
    return watch->n_steps > 0 ? end_if_enough(watch, err) : HM_OK;
}

static int on_resume(void *context, uint64_t step, struct hm_error *err)
{
    struct watch *watch = context;

    HM_TRY(watch->inner.on_resume(watch->inner.context, step, err));
    watch->begun = watch->mark = hm_clock_seconds();
    return HM_OK;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Of the later half: memory is touched and the processor's clock has settled. Sorts. */
static double median(double *value, size_t n)
{
    size_t skip = n / 2;

    if (n == 0)
        return 0;
    qsort(value + skip, n - skip, sizeof(*value), compare_doubles);
    return value[skip + (n - skip - 1) / 2];
}

/* --- data --- */

/* A safetensors file of drawn ids, `rows` times seq_len. */
static int ids_write(const char *path, uint32_t vocab, uint32_t rows, uint32_t seq_len,
                     uint64_t seed, struct hm_error *err)
{
    char name[] = "input_ids";
    struct hm_tensor_spec spec = { name, HM_DTYPE_I64, 2, { rows, seq_len } };
    size_t count = (size_t)rows * seq_len, order = 0;
    int32_t *draw = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*draw));
    int64_t *ids = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*ids));
    struct hm_st_writer *writer = NULL;
    int r = draw && ids ? HM_OK : hm_fail_nomem(err, "for token ids");

    if (r == HM_OK) {
        hm_synthetic_ids(vocab, seed, count, draw);
        for (size_t i = 0; i < count; i++)
            ids[i] = draw[i];
        r = hm_st_writer_open(path, &spec, 1, NULL, &writer, &order, err);
    }
    if (r == HM_OK)
        r = hm_st_writer_data(writer, ids, count * sizeof(*ids), err);
    if (r == HM_OK)
        r = hm_st_writer_commit(writer, err);
    else
        hm_st_writer_abort(writer);
    hm_free(draw);
    hm_free(ids);
    return r;
}

static int drawn_open(const struct train_probe *probe, const char *dir, const char *name,
                      uint32_t rows, uint32_t seq_len, struct hm_sample_source **ret_source,
                      struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, name, err));
    int r = ids_write(path, probe->forecast->model.arch.vocab_size, rows, seq_len, rows, err);
    if (r == HM_OK)
        r = hm_samples_open_ids(path, ret_source, err);
    hm_free(path);
    return r;
}

static int data_open(const struct hm_stage_run *run, const struct train_probe *probe,
                     const char *dir, struct session *s, struct hm_error *err)
{
    if (probe->own_data) {
        HM_TRY(hm_train_data_open(run, &s->data, err));
        HM_TRY(hm_samples_check(s->data, hm_model_arch(s->model), err));
    } else {
        HM_TRY(drawn_open(probe, dir, "ids.safetensors", DRAWN_BATCHES * probe->rows,
                          probe->seq_len, &s->data, err));
    }
    if (probe->eval_seq_len == 0)
        return HM_OK;
    s->eval.name = (char *)(uintptr_t) "valid";
    return drawn_open(probe, dir, "valid.safetensors", probe->rows, probe->eval_seq_len,
                      &s->eval.source, err);
}

/* --- the session --- */

/* The file that set.state asks for, of the size that these layers need. */
static int store_open(const struct hm_stage_run *run, const struct train_probe *probe,
                      const struct hm_adapter_config *config, const char *dir, struct session *s,
                      struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    struct hm_adapter *layout = NULL;

    if (settings->state == 0)
        return HM_OK;
    HM_TRY(hm_adapter_plan(hm_model_arch(s->model), config, probe->forecast->model.old_vocab_size,
                           &layout, err));
    int r =
        hm_scratch_new(dir, hm_train_store_bytes(layout, settings->optimizer == 1), &s->store, err);
    hm_adapter_free(layout);
    return r;
}

/* Patterns may name layers that are not there; without them all modules have the same rank. */
static int adapter_open(const struct hm_stage_run *run, const struct train_probe *probe,
                        const char *dir, struct session *s, struct hm_error *err)
{
    struct hm_adapter_config config = probe->forecast->adapter;
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(s->model);

    if (hm_adapter_config_check(&ckpt->arch, &config, probe->forecast->model.old_vocab_size, NULL) <
        0)
        config.n_rank_pattern = config.n_alpha_pattern = 0;
    HM_TRY(store_open(run, probe, &config, dir, s, err));
    config.store = s->store;
    return hm_adapter_new(ckpt, &config, true, &s->adapter, err);
}

static int session_open(const struct hm_stage_run *run, const struct train_probe *probe,
                        const char *dir, struct session *s, struct hm_error *err)
{
    const struct train_settings *settings = run->config;

    HM_TRY(hm_stage_kernels(run, &s->kernels, err));
    const struct hm_model_options options = { .kernels = &s->kernels,
                                              .round = (enum hm_round)settings->compute,
                                              .check_finite = true };
    HM_TRY(hm_model_open_first(probe->model_dir, &options, probe->layers, &s->model, err));
    HM_TRY(adapter_open(run, probe, dir, s, err));
    hm_model_attach(s->model, s->adapter);
    HM_TRY(data_open(run, probe, dir, s, err));
    HM_TRY(hm_expert_load_open(s->model, &s->load, err));
    HM_TRY(hm_train_log_open(dir, probe->steps, &s->load, NULL, &s->log, err));
    s->watch.inner = hm_train_log_callbacks(&s->log);
    return HM_OK;
}

static void session_release(struct session *s)
{
    hm_train_log_close(&s->log);
    hm_expert_load_release(&s->load);
    hm_samples_close(s->eval.source);
    hm_samples_close(s->data);
    if (s->model)
        hm_model_attach(s->model, NULL);
    hm_adapter_free(s->adapter);
    hm_scratch_free(s->store);
    hm_model_free(s->model);
}

static int steps_run(const struct hm_stage_run *run, const struct train_probe *probe,
                     const char *dir, struct session *s, struct hm_error *err)
{
    const volatile sig_atomic_t *asked = run->ctl ? run->ctl->stop : NULL;
    struct watch *watch = &s->watch;
    const struct hm_ctl quiet = { .stop = probe->save ? &watch->stop : asked };
    struct hm_train_config config = probe->forecast->config;
    struct hm_train_report report = { 0 };

    watch->most = probe->steps;
    watch->least = probe->least;
    watch->ends = probe->ends;
    watch->save = probe->save;
    watch->asked = asked;
    if (probe->eval_seq_len > 0) /* steps mostly follow steps, as in a run */
        watch->eval_every = probe->steps >= 2 * EVAL_EVERY ? EVAL_EVERY : 1;
    config.micro_batch = probe->rows;
    config.accumulate = 1;
    config.steps = probe->save ? probe->steps : probe->steps + 1;
    config.eval_every = watch->eval_every;
    config.save_every = 0;
    config.keep = 1;
    config.dump_gradients = 0;
    config.time_limit_seconds = 0;
    const struct hm_train_job job = { .model = s->model,
                                      .kernels = &s->kernels,
                                      .adapter = s->adapter,
                                      .data = s->data,
                                      .eval = &s->eval,
                                      .n_eval = probe->eval_seq_len > 0,
                                      .config = config,
                                      .state_dir = dir,
                                      .config_digest = "",
                                      .callbacks = { .context = watch,
                                                     .on_step = on_step,
                                                     .on_eval = on_eval,
                                                     .on_resume = on_resume } };
    int r = hm_train(&job, &quiet, &report, err);
    bool ended = r == HM_ERR_STOPPED ? !(asked && *asked) : r == HM_ERR_CHECK && !probe->save;
    return ended ? HM_OK : r;
}

int hm_train_probe(const struct hm_stage_run *run, struct train_probe *probe, const char *dir,
                   struct hm_error *err)
{
    struct session s = { 0 };
    double start = hm_clock_seconds();

    HM_BUG(probe->steps == 0 || probe->steps > TRAIN_PROBE_STEPS || probe->least > probe->steps);
    HM_TRY(hm_dir_make(dir, err));
    int r = session_open(run, probe, dir, &s, err);
    if (r == HM_OK)
        r = steps_run(run, probe, dir, &s, err);
    if (r == HM_OK) {
        probe->open = s.watch.begun - start;
        probe->saving = hm_clock_seconds() - s.watch.mark;
        probe->steps = s.watch.n_steps;
        probe->micro = median(s.watch.micro, s.watch.n_steps);
        probe->head = median(s.watch.head, s.watch.n_steps);
        probe->optimizer = median(s.watch.optimizer, s.watch.n_steps);
        probe->evaluation = median(s.watch.evaluation, s.watch.n_evals);
        probe->parameters = hm_adapter_param_count(s.adapter);
    }
    session_release(&s);
    (void)hm_dir_remove(dir, NULL);
    return r;
}
