/* SPDX-License-Identifier: MIT */
/*
 * AdamW with 8-bit moments against bitsandbytes' AdamW8bit on CPU: maps, codes and scales of the
 * first steps, parameters over 120 steps. Values and gradients are made again as make_adamw8.py
 * makes them.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/safetensors.h"
#include "optimizer.h"

#define N_PARAMS 3
#define STEPS    120

static const struct {
    const char *name;
    uint32_t rows, cols;
} shape[N_PARAMS] = { { "whole", 64, 96 }, { "partial", 50, 93 }, { "small", 61, 67 } };

static char any_name[] = "a.tensor";

struct fixture {
    struct hm_safetensors golden;
    struct hm_kernels kernels;
    struct hm_adapter adapter;
    struct hm_param param[N_PARAMS];
    struct hm_optimizer *optimizer;
};

static float noise(uint64_t i, uint64_t stream)
{
    uint32_t x = (uint32_t)(i * 747796405u + stream * 2891336453u + 277803737u);

    x = (x ^ x >> 16) * 2246822519u;
    x = (x ^ x >> 13) * 3266489917u;
    x = x ^ x >> 16;
    return (float)((double)(x >> 8) / 16777216.0 - 0.5);
}

static void gradients_fill(struct fixture *f, uint64_t step)
{
    for (size_t p = 0; p < N_PARAMS; p++)
        for (size_t i = 0; i < hm_param_values(&f->param[p]); i++)
            f->param[p].grad[i] = (noise(i, 1000 * (p + 1)) + noise(i, 1000 * (p + 1) + step)) *
                                  ldexpf(1.0f, -4 * (int)(i % 5));
}

static int setup(void **state)
{
    static const struct hm_optimizer_config config = { .beta1 = 0.9,
                                                       .beta2 = 0.999,
                                                       .eps = 1e-8,
                                                       .weight_decay = 0.01,
                                                       .decay_all = true,
                                                       .coded = true };
    struct fixture *f = calloc(1, sizeof(*f));
    struct hm_error err = { 0 };

    assert_ok(hm_safetensors_open(golden_path("adamw8/adamw8.safetensors"), &f->golden, &err), err);
    assert_ok(hm_kernels_choose(&f->kernels, NULL, &err), err);
    f->adapter.param = f->param;
    f->adapter.n_params = N_PARAMS;
    for (size_t p = 0; p < N_PARAMS; p++) {
        struct hm_param *param = &f->param[p];
        *param =
            (struct hm_param){ .name = any_name, .rows = shape[p].rows, .cols = shape[p].cols };
        param->value = calloc(hm_param_values(param), sizeof(float));
        param->grad = calloc(hm_param_values(param), sizeof(float));
        for (size_t i = 0; i < hm_param_values(param); i++)
            param->value[i] = noise(i, 7 + p);
    }
    assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, &config, &f->optimizer, &err), err);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hm_optimizer_free(f->optimizer);
    for (size_t p = 0; p < N_PARAMS; p++) {
        free(f->param[p].value);
        free(f->param[p].grad);
    }
    hm_safetensors_close(&f->golden);
    free(f);
    return 0;
}

static const void *want(const struct fixture *f, enum hm_dtype dtype, const char *format, ...)
{
    char name[128];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    const struct hm_tensor *tensor = hm_safetensors_find(&f->golden, name);
    if (!tensor || tensor->dtype != dtype)
        fail_msg("no tensor '%s' of that type", name);
    return tensor->data;
}

static void update(struct fixture *f, uint64_t step)
{
    struct hm_error err = { 0 };
    double norm = 0;

    gradients_fill(f, step);
    assert_ok(hm_optimizer_norm(f->optimizer, &norm, &err), err);
    hm_optimizer_update(f->optimizer, 1e-3, norm);
}

static void test_maps(void **state)
{
    const struct fixture *f = *state;
    float map[256];

    hm_dynamic_map(true, map);
    assert_memory_equal(map, want(f, HM_DTYPE_F32, "map.signed"), sizeof(map));
    hm_dynamic_map(false, map);
    assert_memory_equal(map, want(f, HM_DTYPE_F32, "map.unsigned"), sizeof(map));
}

/* Codes: equal but for one in 1000, which are neighbours; absmax 3e-7 relative. `floor`: codes
   below it are taken for it. */
static void assert_moment(const struct fixture *f, size_t p, const char *kind, int step, int which,
                          uint8_t floor)
{
    const struct hm_moments8 *coded = &f->optimizer->moments[p].coded;
    const uint8_t *got = which == 1 ? coded->m : coded->v;
    const float *absmax = which == 1 ? coded->m_absmax : coded->v_absmax;
    size_t count = hm_param_values(&f->param[p]), others = 0;
    const uint8_t *codes =
        want(f, HM_DTYPE_U8, "%s.%s.%d.state%d", kind, shape[p].name, step, which);
    const float *scales =
        want(f, HM_DTYPE_F32, "%s.%s.%d.absmax%d", kind, shape[p].name, step, which);

    for (size_t i = 0; i < count; i++) {
        int code = codes[i] < floor ? floor : codes[i];
        others += got[i] != code;
        if (abs(got[i] - code) > 1)
            fail_msg("%s %s step %d state%d code %zu: %d, expected %d", kind, shape[p].name, step,
                     which, i, got[i], code);
    }
    if (others > count / 1000)
        fail_msg("%s %s step %d: %zu codes differ", kind, shape[p].name, step, others);
    for (size_t b = 0; b < hm_units(count, HM_BLOCK8); b++)
        if (!(fabsf(absmax[b] - scales[b]) <= 3e-7f * scales[b]))
            fail_msg("%s %s step %d absmax%d %zu: %.9g, expected %.9g", kind, shape[p].name, step,
                     which, b, (double)absmax[b], (double)scales[b]);
}

static void test_first_step(void **state)
{
    struct fixture *f = *state;

    update(f, 1);
    for (size_t p = 0; p < N_PARAMS; p++) {
        const float *value = want(f, HM_DTYPE_F32, "nearest.%s.1", shape[p].name);
        for (size_t i = 0; i < hm_param_values(&f->param[p]); i++)
            if (!(fabsf(f->param[p].value[i] - value[i]) <= 1e-6f))
                fail_msg("%s %zu: %.9g, expected %.9g", shape[p].name, i,
                         (double)f->param[p].value[i], (double)value[i]);
    }
    for (size_t p = 0; p < 2; p++) { /* second moments: code 0 of bitsandbytes is our 1 */
        assert_moment(f, p, "nearest", 1, 1, 0);
        assert_moment(f, p, "nearest", 1, 2, 1);
    }
    assert_non_null(f->optimizer->moments[2].first);
    assert_null(f->optimizer->moments[2].coded.m);
    update(f, 2);
    for (size_t p = 0; p < 2; p++)
        for (int which = 1; which <= 2; which++)
            assert_moment(f, p, "floored", 2, which, 0);
}

/* rms of got - want. */
static double distance(const float *got, const double *want, size_t count)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
    return sqrt(sum / (double)count);
}

static void test_many_steps(void **state)
{
    struct fixture *f = *state;

    for (uint64_t step = 1; step <= STEPS; step++)
        update(f, step);
    for (size_t p = 0; p < N_PARAMS; p++) {
        size_t count = hm_param_values(&f->param[p]);
        const float *value = want(f, HM_DTYPE_F32, "floored.%s.%d", shape[p].name, STEPS);
        const double *truth = want(f, HM_DTYPE_F64, "truth.%s.%d", shape[p].name, STEPS);
        double apart = 0, off = distance(value, truth, count);
        for (size_t i = 0; i < count; i++)
            apart += pow((double)f->param[p].value[i] - (double)value[i], 2);
        apart = sqrt(apart / (double)count);
        double mine = distance(f->param[p].value, truth, count);
        print_message("%s: from the truth %.2e, bitsandbytes %.2e, apart %.2e\n", shape[p].name,
                      mine, off, apart);
        assert_true(p == 2 ? apart < 1e-6 : apart < off / 20);
        assert_true(p == 2 ? mine < 1e-6 : fabs(mine - off) < off / 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_maps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_steps, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
