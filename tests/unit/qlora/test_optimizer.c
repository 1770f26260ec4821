/* SPDX-License-Identifier: MIT */
/*
 * qlora/optimizer.c: updates against AdamW in double, which parameters decay, clipping, the norm's
 * order, bad gradients.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "optimizer.h"

#define N_PARAMS 4

static char any_name[] = "a.tensor", bad_name[] = "the.bad.one";

static const struct {
    enum hm_param_kind kind;
    uint32_t rows, cols;
} shape[N_PARAMS] = {
    { HM_PARAM_EMBED, 7, 5 },
    { HM_PARAM_LORA_A, 3, 70001 }, /* several pieces */
    { HM_PARAM_LORA_B, 11, 3 },
    { HM_PARAM_HEAD, 1, 1 },
};

struct fixture {
    struct hm_adapter adapter;
    struct hm_param param[N_PARAMS];
    struct hm_kernels kernels;
    size_t count[N_PARAMS];
};

static void fill(float *out, size_t count, uint64_t stream, double scale)
{
    for (size_t i = 0; i < count; i++)
        out[i] = (float)(scale * hm_rng_normal((struct hm_rng_key){ 3, stream }, i));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    hm_kernels_reference(&f->kernels);
    f->adapter.param = f->param;
    f->adapter.n_params = N_PARAMS;
    for (size_t i = 0; i < N_PARAMS; i++) {
        f->count[i] = (size_t)shape[i].rows * shape[i].cols;
        f->param[i] = (struct hm_param){ .name = any_name,
                                         .kind = shape[i].kind,
                                         .rows = shape[i].rows,
                                         .cols = shape[i].cols,
                                         .value = calloc(f->count[i], sizeof(float)),
                                         .grad = calloc(f->count[i], sizeof(float)) };
        fill(f->param[i].value, f->count[i], i, 1);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < N_PARAMS; i++) {
        free(f->param[i].value);
        free(f->param[i].grad);
    }
    free(f);
    return 0;
}

static const struct hm_optimizer_config plain = { 0.9, 0.95, 1e-8, 0.1, 1.0, false, false };

/* One parameter's state in double. */
struct truth {
    double *p, *m, *v;
};

static void truth_update(struct truth *truth, const float *grad, size_t count, double factor,
                         double lr, double decay, double t)
{
    for (size_t i = 0; i < count; i++) {
        double g = grad[i] * factor;
        truth->p[i] -= lr * decay * truth->p[i];
        truth->m[i] = plain.beta1 * truth->m[i] + (1 - plain.beta1) * g;
        truth->v[i] = plain.beta2 * truth->v[i] + (1 - plain.beta2) * g * g;
        double denominator = sqrt(truth->v[i]) / sqrt(1 - pow(plain.beta2, t)) + plain.eps;
        truth->p[i] -= lr / (1 - pow(plain.beta1, t)) * truth->m[i] / denominator;
    }
}

static void run_against_truth(struct fixture *f, const struct hm_optimizer_config *config)
{
    struct hm_optimizer *optimizer = NULL;
    struct hm_error err = { 0 };
    struct truth truth[N_PARAMS];

    assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, config, &optimizer, &err), err);
    for (size_t i = 0; i < N_PARAMS; i++) {
        truth[i] = (struct truth){ calloc(f->count[i], 8), calloc(f->count[i], 8),
                                   calloc(f->count[i], 8) };
        for (size_t k = 0; k < f->count[i]; k++)
            truth[i].p[k] = f->param[i].value[k];
    }
    for (int step = 0; step < 6; step++) {
        double norm = 0, want = 0, lr = step == 0 ? 0 : 0.01;
        for (size_t i = 0; i < N_PARAMS; i++) {
            fill(f->param[i].grad, f->count[i], 100 + (uint64_t)step * N_PARAMS + i,
                 step < 3 ? 1e-3 : 1e-4);
            for (size_t k = 0; k < f->count[i]; k++)
                want += (double)f->param[i].grad[k] * f->param[i].grad[k];
        }
        want = sqrt(want);
        assert_ok(hm_optimizer_norm(optimizer, &norm, &err), err);
        assert_true(fabs(norm - want) < 1e-12 * want);
        hm_optimizer_update(optimizer, lr, norm);
        double factor = config->clip > 0 ? fmin(1, config->clip / (want + 1e-6)) : 1;
        for (size_t i = 0; i < N_PARAMS; i++) {
            bool decay = config->decay_all || i == 1 || i == 2;
            truth_update(&truth[i], f->param[i].grad, f->count[i], factor, lr,
                         decay ? config->weight_decay : 0, step + 1);
        }
    }
    for (size_t i = 0; i < N_PARAMS; i++) {
        for (size_t k = 0; k < f->count[i]; k++) {
            double off = fabs(f->param[i].value[k] - truth[i].p[k]);
            if (off > 2e-6 + 1e-6 * fabs(truth[i].p[k]))
                fail_msg("parameter %zu value %zu: %.9g, expected %.9g", i, k,
                         (double)f->param[i].value[k], truth[i].p[k]);
        }
        free(truth[i].p);
        free(truth[i].m);
        free(truth[i].v);
    }
    hm_optimizer_free(optimizer);
}

static void test_updates(void **state)
{
    run_against_truth(*state, &plain);
}

static void test_updates_without_clip_and_decay_everywhere(void **state)
{
    struct hm_optimizer_config config = plain;

    config.clip = 0;
    config.decay_all = true;
    run_against_truth(*state, &config);
}

static void test_clip_bites(void **state)
{
    struct hm_optimizer_config config = plain;

    config.clip = 0.01;
    run_against_truth(*state, &config);
}

static void test_first_update_at_rate_zero_moves_nothing_but_moments(void **state)
{
    struct fixture *f = *state;
    struct hm_optimizer *optimizer = NULL;
    struct hm_error err = { 0 };
    float before[35];
    double norm;

    assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, &plain, &optimizer, &err), err);
    fill(f->param[0].grad, f->count[0], 9, 1);
    memcpy(before, f->param[0].value, sizeof(before));
    assert_ok(hm_optimizer_norm(optimizer, &norm, &err), err);
    hm_optimizer_update(optimizer, 0, norm);
    assert_memory_equal(before, f->param[0].value, sizeof(before));
    assert_true(optimizer->moments[0].first[0] != 0 && optimizer->moments[0].second[0] > 0);
    assert_int_equal(optimizer->updates, 1);
    hm_optimizer_free(optimizer);
}

static void test_same_bits_for_any_thread_count(void **state)
{
    struct fixture *f = *state;
    struct hm_error err = { 0 };
    double norm[2];
    float *first = calloc(f->count[1], sizeof(float));

    for (int i = 0; i < 2; i++) {
        struct hm_optimizer *optimizer = NULL;
        hm_threads_set(i + 1);
        fill(f->param[1].value, f->count[1], 1, 1);
        fill(f->param[1].grad, f->count[1], 50, 1);
        assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, &plain, &optimizer, &err), err);
        assert_ok(hm_optimizer_norm(optimizer, &norm[i], &err), err);
        hm_optimizer_update(optimizer, 0.1, norm[i]);
        if (i == 0)
            memcpy(first, f->param[1].value, f->count[1] * sizeof(float));
        hm_optimizer_free(optimizer);
    }
    assert_true(norm[0] == norm[1]);
    assert_memory_equal(first, f->param[1].value, f->count[1] * sizeof(float));
    free(first);
    hm_threads_set(0);
}

static void test_bad_gradients(void **state)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    struct fixture *f = *state;
    struct hm_optimizer *optimizer = NULL;
    struct hm_error err = { 0 };
    double norm = 5;

    assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, &plain, &optimizer, &err), err);
    f->param[2].name = bad_name;
    for (size_t i = 0; i < 3; i++) {
        f->param[2].grad[32] = bad[i];
        assert_fails(hm_optimizer_norm(optimizer, &norm, &err), HM_ERR_NUMERIC, "the.bad.one", err);
        assert_true(norm == 5);
    }
    hm_optimizer_free(optimizer);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct fixture *f = context;
    struct hm_optimizer *optimizer = NULL;

    HM_TRY(hm_optimizer_new(&f->adapter, &f->kernels, &plain, &optimizer, err));
    hm_optimizer_free(optimizer);
    return HM_OK;
}

static void test_out_of_memory(void **state)
{
    assert_true(oom_sweep(oom_attempt, *state) >= 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_updates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_updates_without_clip_and_decay_everywhere, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_clip_bites, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_update_at_rate_zero_moves_nothing_but_moments,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_bits_for_any_thread_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_gradients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
