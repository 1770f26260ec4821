/* SPDX-License-Identifier: MIT */
/*
 * qlora/trainer.c over a model of one number per id: objective, accumulation and schedule against
 * doubles, stops and failures at every micro-batch, evaluation, checkpoints, limits.
 */
#include "support/support.h"

#include <math.h>

#include "fake_model.h"
#include "hanmix/checkpoint/safetensors.h"
#include "hanmix/qlora/trainer.h"

#define ROWS    14 /* samples in the file */
#define SEQ_LEN 5
#define STEPS   6
#define LOG_MAX 64

struct fixture {
    char *dir;
    struct hm_model model;
    struct hm_kernels kernels;
    struct hm_sample_source *data, *valid;
    struct hm_eval_set eval;
    struct hm_train_job job;
    struct hm_ctl ctl;
    struct hm_train_metrics log[LOG_MAX];
    size_t n_log;
    uint64_t eval_step[LOG_MAX];
    struct hm_eval_metrics eval_log[LOG_MAX];
    size_t n_eval;
    uint64_t resumed_at;
    uint64_t fail_step; /* on_step fails here */
};

static int on_step(void *context, const struct hm_train_metrics *metrics, struct hm_error *err)
{
    struct fixture *f = context;

    f->log[f->n_log++] = *metrics;
    if (f->fail_step == metrics->step)
        return hm_fail(err, HM_ERR_IO, "the disk is full");
    return HM_OK;
}

static int on_eval(void *context, uint64_t step, const struct hm_eval_metrics *sets, size_t n,
                   struct hm_error *err)
{
    struct fixture *f = context;

    (void)err;
    assert_int_equal(n, 1);
    f->eval_step[f->n_eval] = step;
    f->eval_log[f->n_eval++] = sets[0];
    return HM_OK;
}

/* Cut the logs as a stage cuts its metrics file. */
static int on_resume(void *context, uint64_t step, struct hm_error *err)
{
    struct fixture *f = context;

    (void)err;
    while (f->n_log > 0 && (step == 0 || f->log[f->n_log - 1].step > step))
        f->n_log--;
    while (f->n_eval > 0 && (step == 0 || f->eval_step[f->n_eval - 1] > step))
        f->n_eval--;
    f->resumed_at = step;
    return HM_OK;
}

/* Labels ignore more and more, so that micro-batches differ in targets; one has none. */
static void data_write(const char *path)
{
    int64_t ids[ROWS][SEQ_LEN], labels[ROWS][SEQ_LEN];
    struct hm_error err = { 0 };

    for (int64_t r = 0; r < ROWS; r++)
        for (int64_t t = 0; t < SEQ_LEN; t++) {
            ids[r][t] = (r * 7 + t * 3) % FAKE_VOCAB;
            labels[r][t] = t < r % 4 || r == 6 || r == 7 ? HM_LABEL_IGNORE : ids[r][t];
        }
    struct hm_tensor tensor[2] = {
        { .name = "ids", .n_dims = 2, .shape = { ROWS, SEQ_LEN }, .data = (uint8_t *)ids },
        { .name = "labels", .n_dims = 2, .shape = { ROWS, SEQ_LEN }, .data = (uint8_t *)labels },
    };
    tensor[0].dtype = tensor[1].dtype = HM_DTYPE_I64;
    assert_ok(hm_safetensors_write(path, tensor, 2, NULL, &err), err);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    static char set_name[] = "valid";
    struct hm_error err = { 0 };

    f->dir = tmp_new();
    const char *path = tmp_path(f->dir, "data.safetensors");
    data_write(path);
    fake_model_init(&f->model);
    hm_kernels_reference(&f->kernels);
    assert_ok(hm_samples_open_ids(path, &f->data, &err), err);
    assert_ok(hm_samples_open_ids(path, &f->valid, &err), err);
    f->eval = (struct hm_eval_set){ set_name, f->valid };
    f->ctl.stop = &f->model.stop;
    f->job = (struct hm_train_job){
        .model = &f->model,
        .kernels = &f->kernels,
        .adapter = &f->model.adapter,
        .data = f->data,
        .eval = &f->eval,
        .n_eval = 1,
        .config = { .lr = 0.05,
                    .min_lr = 0.01,
                    .beta1 = 0.9,
                    .beta2 = 0.95,
                    .eps = 1e-8,
                    .weight_decay = 0.1,
                    .clip = 1,
                    .lr_schedule = HM_LR_COSINE,
                    .warmup = 2,
                    .micro_batch = 2,
                    .accumulate = 2,
                    .loss_norm = HM_LOSS_TOKENS,
                    .aux_coef = 0.02,
                    .steps = STEPS,
                    .eval_every = 2,
                    .save_every = 1,
                    .keep = 2,
                    .seed = 3 },
        .state_dir = strdup(tmp_path(f->dir, "states")),
        .config_digest = "digest",
        .callbacks = { f, on_step, on_eval, on_resume },
    };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hm_samples_close(f->data);
    hm_samples_close(f->valid);
    free((char *)(uintptr_t)f->job.state_dir);
    tmp_release(f->dir);
    free(f);
    return 0;
}

static int run(struct fixture *f, struct hm_train_report *report, struct hm_error *err)
{
    return hm_train(&f->job, &f->ctl, report, err);
}

/* --- the whole trajectory in double ----------------------------------------------------------- */

struct truth {
    double p[FAKE_VOCAB + 2], m[FAKE_VOCAB + 2], v[FAKE_VOCAB + 2];
    double loss, norm, lr;
};

static void truth_gradients(struct fixture *f, struct truth *truth, uint64_t step, double *g)
{
    const struct hm_train_config *config = &f->job.config;
    int32_t ids[2][2 * SEQ_LEN], labels[2][2 * SEQ_LEN];
    struct hm_batch batch[2];
    uint64_t targets[2];
    struct hm_error err = { 0 };

    for (uint64_t k = 0; k < 2; k++) {
        for (uint64_t r = 0; r < 2; r++) {
            struct hm_sample sample;
            assert_ok(hm_samples_get(f->valid, (step - 1) * 4 + k * 2 + r, 0, &sample, &err), err);
            memcpy(&ids[k][r * SEQ_LEN], sample.ids, SEQ_LEN * sizeof(int32_t));
            memcpy(&labels[k][r * SEQ_LEN], sample.labels, SEQ_LEN * sizeof(int32_t));
        }
        batch[k] = (struct hm_batch){ 2, SEQ_LEN, ids[k], labels[k], NULL, NULL };
        fake_loss(truth->p, &batch[k], 1, &targets[k], NULL);
    }
    truth->loss = 0;
    for (uint64_t k = 0; k < 2; k++) {
        double part[FAKE_VOCAB] = { 0 };
        struct hm_step_options options = {
            .train = true, .dropout_seed = 3, .step = step, .sample = (step - 1) * 4 + k * 2
        };
        double sum = fake_loss(truth->p, &batch[k], fake_factor(&options), &targets[k], part);
        double weight = config->loss_norm == HM_LOSS_TOKENS
                            ? 1.0 / (double)(targets[0] + targets[1])
                        : targets[k] > 0 ? 0.5 / (double)targets[k]
                                         : 0;
        truth->loss += sum * weight;
        for (size_t i = 0; i < FAKE_VOCAB; i++)
            g[i] += weight * part[i];
        g[FAKE_VOCAB] += 0.5 * config->aux_coef * 2 * truth->p[FAKE_VOCAB];
        g[FAKE_VOCAB + 1] += 0.5 * config->aux_coef;
    }
}

static void truth_step(struct fixture *f, struct truth *truth, uint64_t step)
{
    const struct hm_train_config *config = &f->job.config;
    double g[FAKE_VOCAB + 2] = { 0 }, sum = 0, t = (double)step;

    truth_gradients(f, truth, step, g);
    for (size_t i = 0; i < FAKE_VOCAB + 2; i++)
        sum += g[i] * g[i];
    truth->norm = sqrt(sum);
    truth->lr = hm_lr_at(HM_LR_COSINE, config->lr, config->min_lr, 2, STEPS, step - 1);
    double factor = fmin(1, config->clip / (truth->norm + 1e-6));
    for (size_t i = 0; i < FAKE_VOCAB + 2; i++) {
        double decay = i < FAKE_VOCAB ? config->weight_decay : 0;
        truth->p[i] -= truth->lr * decay * truth->p[i];
        truth->m[i] = 0.9 * truth->m[i] + 0.1 * g[i] * factor;
        truth->v[i] = 0.95 * truth->v[i] + 0.05 * g[i] * factor * g[i] * factor;
        truth->p[i] -= truth->lr / (1 - pow(0.9, t)) * truth->m[i] /
                       (sqrt(truth->v[i] / (1 - pow(0.95, t))) + 1e-8);
    }
}

static void check_trajectory(struct fixture *f)
{
    struct truth truth = { 0 };
    struct hm_train_report report = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < FAKE_VOCAB + 2; i++)
        truth.p[i] = i < FAKE_VOCAB ? f->model.v[i] : f->model.w[i - FAKE_VOCAB];
    assert_ok(run(f, &report, &err), err);
    assert_int_equal(f->n_log, STEPS);
    for (uint64_t step = 1; step <= STEPS; step++) {
        const struct hm_train_metrics *log = &f->log[step - 1];
        truth_step(f, &truth, step);
        assert_int_equal(log->step, step);
        assert_int_equal(log->tokens, step * 4 * SEQ_LEN);
        assert_true(fabs(log->loss - truth.loss) < 1e-6);
        assert_true(fabs(log->grad_norm - truth.norm) < 1e-6);
        assert_true(log->lr == truth.lr);
        assert_true(log->rss_bytes > 0 && log->tokens_per_s > 0);
        assert_true(log->phase_seconds[HM_PHASE_HEAD] == 0.5);
    }
    for (size_t i = 0; i < FAKE_VOCAB; i++)
        assert_true(fabs(f->model.v[i] - truth.p[i]) < 1e-5);
    assert_true(fabs(f->model.w[0] - truth.p[FAKE_VOCAB]) < 1e-5);
    assert_true(fabs(f->model.w[1] - truth.p[FAKE_VOCAB + 1]) < 1e-5);
    assert_int_equal(report.steps, STEPS);
    assert_int_equal(report.tokens, STEPS * 4 * SEQ_LEN);
    assert_int_equal(report.resumed_from, 0);
    assert_true(report.final_loss == f->log[STEPS - 1].loss);
    assert_true(report.flops == FAKE_VOCAB * STEPS * 4.0 * SEQ_LEN);
    assert_true(report.phase_seconds[HM_PHASE_HEAD] == STEPS * 0.5);
}

static void test_trajectory_tokens(void **state)
{
    check_trajectory(*state);
}

static void test_trajectory_micro(void **state)
{
    struct fixture *f = *state;

    f->job.config.loss_norm = HM_LOSS_MICRO;
    check_trajectory(f);
}

/* --- evaluation ------------------------------------------------------------------------------- */

static void test_evaluation(void **state)
{
    static const uint64_t steps[] = { 0, 2, 4, 6 };
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };
    double v[FAKE_VOCAB], loss = 0;
    uint64_t targets = 0;

    for (size_t i = 0; i < FAKE_VOCAB; i++)
        v[i] = f->model.v[i];
    for (uint64_t r = 0; r < ROWS; r++) {
        struct hm_sample sample;
        uint64_t here;
        assert_ok(hm_samples_get(f->data, r, 0, &sample, &err), err);
        struct hm_batch batch = { 1, SEQ_LEN, sample.ids, sample.labels, NULL, NULL };
        loss += fake_loss(v, &batch, 1, &here, NULL);
        targets += here;
    }
    f->job.config.micro_batch = 4; /* does not divide the set */
    f->job.config.accumulate = 1;
    assert_ok(run(f, &report, &err), err);
    assert_int_equal(f->n_eval, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(f->eval_step[i], steps[i]);
        assert_string_equal(f->eval_log[i].set, "valid");
        assert_int_equal(f->eval_log[i].tokens, targets);
        assert_int_equal(f->eval_log[i].bytes, 0);
        assert_true(isnan(f->eval_log[i].bits_per_byte)); /* ids do not know their text */
    }
    assert_true(fabs(f->eval_log[0].nats_per_token - loss / (double)targets) < 1e-12);
    assert_true(f->eval_log[3].nats_per_token < f->eval_log[0].nats_per_token);
}

/* --- stops and failures ----------------------------------------------------------------------- */

static bool same_numbers(const struct hm_train_metrics *a, const struct hm_train_metrics *b)
{
    return a->step == b->step && a->tokens == b->tokens && a->targets == b->targets &&
           a->loss == b->loss && a->aux == b->aux && a->grad_norm == b->grad_norm && a->lr == b->lr;
}

/* Stopped in any micro-batch and continued, at times twice: weights, log and evaluations as if
 * never stopped. */
static void test_stop_anywhere(void **state)
{
    struct fixture *whole = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    assert_ok(run(whole, &report, &err), err);
    for (uint64_t first = 1; first <= STEPS * 2; first++)
        for (uint64_t save_every = 0; save_every < 4; save_every += 2) {
            void *inner = NULL;
            setup(&inner);
            struct fixture *f = inner;
            int stops = 0, status;
            f->job.config.save_every = save_every;
            f->model.stop_at = first;
            while ((status = run(f, &report, &err)) == HM_ERR_STOPPED) {
                assert_non_null(strstr(err.text, "of 6; the same command continues"));
                f->model.stop = 0;
                f->model.stop_at += 3;
                memset(f->model.v, 0, sizeof(f->model.v)); /* a new process starts from the base */
                struct hm_model fresh;
                fake_model_init(&fresh);
                memcpy(f->model.v, fresh.v, sizeof(fresh.v));
                memcpy(f->model.w, fresh.w, sizeof(fresh.w));
                stops++;
            }
            assert_ok(status, err);
            assert_true(stops >= 1);
            assert_memory_equal(f->model.v, whole->model.v, sizeof(f->model.v));
            assert_memory_equal(f->model.w, whole->model.w, sizeof(f->model.w));
            assert_int_equal(f->n_log, STEPS);
            for (size_t i = 0; i < STEPS; i++)
                assert_true(same_numbers(&f->log[i], &whole->log[i]));
            assert_int_equal(f->n_eval, whole->n_eval);
            for (size_t i = 0; i < f->n_eval; i++) {
                assert_int_equal(f->eval_step[i], whole->eval_step[i]);
                assert_true(f->eval_log[i].nats_per_token == whole->eval_log[i].nats_per_token);
            }
            assert_true(report.final_loss == whole->log[STEPS - 1].loss);
            teardown(&inner);
        }
}

static void test_finished_run_runs_nothing(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    assert_ok(run(f, &report, &err), err);
    uint64_t calls = f->model.calls;
    assert_ok(run(f, &report, &err), err);
    assert_int_equal(f->model.calls, calls);
    assert_int_equal(f->resumed_at, STEPS);
    assert_int_equal(report.resumed_from, STEPS);
    assert_int_equal(report.steps, STEPS);
    assert_true(report.final_loss == f->log[STEPS - 1].loss);
    assert_int_equal(f->n_eval, 4);
    f->job.config.steps = STEPS - 1;
    assert_fails(run(f, &report, &err), HM_ERR_USAGE, "this run has 5 steps", err);
}

static void test_non_finite_loss(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    f->job.config.save_every = 0;
    f->model.nan_at = 6;
    assert_fails(run(f, &report, &err), HM_ERR_NUMERIC,
                 "step 3, micro-batch 2 of 2 (samples from 10 on): the loss is NaN", err);
    assert_true(hm_path_exists(tmp_path(f->job.state_dir, "state-2/DONE")));
    f->model.nan_at = 0;
    assert_ok(run(f, &report, &err), err);
    assert_int_equal(report.resumed_from, 2);
}

static void test_non_finite_gradient(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };
    float before;

    f->job.config.keep = 1;
    f->model.inf_gradient_at = 8;
    assert_fails(run(f, &report, &err), HM_ERR_NUMERIC, "step 4: the gradient of v.lora_A.weight",
                 err);
    before = f->model.v[0];
    assert_true(isfinite(before));
    assert_true(hm_path_exists(tmp_path(f->job.state_dir, "state-3/DONE")));
    assert_false(hm_path_exists(tmp_path(f->job.state_dir, "state-4")));
}

static void test_time_limit(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    f->job.config.time_limit_seconds = 1e-9;
    assert_fails(run(f, &report, &err), HM_ERR_STOPPED, "stopped after step 0 of 6", err);
    assert_false(hm_path_exists(tmp_path(f->job.state_dir, "state-0")));
    f->job.config.time_limit_seconds = 1e6;
    assert_ok(run(f, &report, &err), err);
}

static void test_failing_callback(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    f->job.config.save_every = 2;
    f->fail_step = 3;
    assert_fails(run(f, &report, &err), HM_ERR_IO, "the disk is full", err);
    f->fail_step = 0;
    assert_ok(run(f, &report, &err), err);
    assert_int_equal(report.resumed_from, 2);
}

/* --- files ------------------------------------------------------------------------------------ */

static void test_states_kept(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    f->job.config.steps = 7;
    f->job.config.save_every = 2;
    assert_ok(run(f, &report, &err), err);
    for (unsigned step = 1; step <= 7; step++)
        assert_int_equal(hm_path_exists(tmp_path(f->job.state_dir, "state-%u/DONE", step)),
                         step >= 6);
}

static void test_gradients_file(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_safetensors file;
    struct hm_error err = { 0 };
    const struct hm_tensor *tensor;
    const uint64_t shape_v[] = { 1, FAKE_VOCAB }, shape_w[] = { 2 };
    double sum = 0;

    f->job.config.dump_gradients = 2;
    f->job.config.clip = 1e-3; /* written before clipping */
    assert_ok(run(f, &report, &err), err);
    assert_ok(hm_safetensors_open(tmp_path(f->dir, "gradients-2.safetensors"), &file, &err), err);
    assert_int_equal(file.count, 3);
    assert_ok(
        hm_safetensors_need(&file, "v.lora_A.weight", HM_DTYPE_F32, 2, shape_v, &tensor, &err),
        err);
    for (size_t i = 0; i < FAKE_VOCAB; i++) {
        float value;
        memcpy(&value, tensor->data + 4 * i, 4);
        sum += (double)value * value;
    }
    assert_ok(hm_safetensors_need(&file, "w.weight", HM_DTYPE_F32, 1, shape_w, &tensor, &err), err);
    for (size_t i = 0; i < 2; i++) {
        float value;
        memcpy(&value, tensor->data + 4 * i, 4);
        sum += (double)value * value;
    }
    assert_true(fabs(sqrt(sum) - f->log[1].grad_norm) < 1e-9);
    assert_ok(hm_safetensors_need(&file, "loss", HM_DTYPE_F32, 0, shape_w, &tensor, &err), err);
    float loss;
    memcpy(&loss, tensor->data, 4);
    assert_true(loss == (float)f->log[1].loss);
    hm_safetensors_close(&file);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct hm_train_report report;
    struct hm_error err = { 0 };

    f->job.config.steps = 0;
    assert_fails(run(f, &report, &err), HM_ERR_USAGE, "must be at least 1", err);
    f->job.config.steps = STEPS;
    const char *kept = f->job.state_dir;
    f->job.state_dir = "/proc/none/states";
    assert_fails(run(f, &report, &err), HM_ERR_IO, "/proc/none", err);
    f->job.state_dir = kept;
    /* rows 6 and 7 have no target: a step made of them has none */
    f->job.config.accumulate = 1;
    f->job.config.steps = 4;
    assert_fails(run(f, &report, &err), HM_ERR_FORMAT, "step 4 has no target", err);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct fixture *f = context;
    struct hm_train_report report;

    HM_TRY(hm_dir_remove(f->job.state_dir, err));
    HM_TRY(hm_samples_open_ids(tmp_path(f->dir, "data.safetensors"), &f->job.data, err));
    f->n_log = f->n_eval = 0;
    f->job.config.steps = 1;
    f->job.n_eval = 0;
    int status = run(f, &report, err);
    hm_samples_close(f->job.data);
    return status;
}

static void test_out_of_memory(void **state)
{
    assert_true(oom_sweep(oom_attempt, *state) > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_trajectory_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_trajectory_micro, setup, teardown),
        cmocka_unit_test_setup_teardown(test_evaluation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_anywhere, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finished_run_runs_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_non_finite_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_non_finite_gradient, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gradients_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
