/* SPDX-License-Identifier: MIT */
/*
 * Shapes that are cut in several panels, blocks and tiles (all other tests fit in one of each),
 * over a BF16 base that is decoded: directional derivatives against the double-precision objective.
 * Along the gradient itself each tensor contributes exactly 1, so that a tensor that is wrong by a
 * part of itself shows; random directions show the rest.
 */
#include "reference.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "support/random_model.h"

#define TOKENS 140
#define LIMIT  2e-4 /* of the number of tensors */

static struct hm_arch wide_arch(void)
{
    struct hm_arch arch = random_arch(1, 3, 2);

    arch.hidden = 576; /* 512 + 64 columns */
    arch.heads = 9;
    arch.kv_heads = 3;
    arch.head_dim = 64;
    arch.ffn = 1048;        /* cuts of 128 with a rest that is no multiple of 64 */
    arch.vocab_size = 2100; /* cuts of 256 with a rest */
    arch.dtype = HM_DTYPE_BF16;
    return arch;
}

struct direction {
    double *d;    /* all values of all tensors, in order */
    double slope; /* by the gradient */
};

static double norm_squared(const struct hm_param *param)
{
    double sum = 0;

    for (size_t j = 0; j < hm_param_values(param); j++)
        sum += (double)param->grad[j] * param->grad[j];
    return sum;
}

/* Along the gradient, or random; scaled so that each tensor counts alike. */
static void direction_set(const struct hm_adapter *adapter, uint64_t seed, bool along,
                          struct direction *ret)
{
    size_t at = 0;

    ret->slope = 0;
    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *param = &adapter->param[i];
        struct hm_rng_key key = { seed, i };
        double size = norm_squared(param);
        for (size_t j = 0; j < hm_param_values(param); j++, at++) {
            double grad = (double)param->grad[j];
            ret->d[at] = size == 0 ? 0 : along ? grad / size : hm_rng_normal(key, j) / sqrt(size);
            ret->slope += grad * ret->d[at];
        }
    }
}

static void move(struct reference *reference, const struct hm_adapter *adapter,
                 const struct direction *direction, double by)
{
    size_t at = 0;

    for (size_t i = 0; i < adapter->n_params; i++)
        for (size_t j = 0; j < hm_param_values(&adapter->param[i]); j++, at++)
            *reference_value(reference, adapter, i, j) += by * direction->d[at];
}

static void check(struct reference *reference, const struct hm_adapter *adapter,
                  const struct direction *direction, double h)
{
    move(reference, adapter, direction, h);
    double above = reference_objective(reference);
    move(reference, adapter, direction, -2 * h);
    double below = reference_objective(reference);
    move(reference, adapter, direction, h);
    double slope = (above - below) / (2 * h);
    if (!(fabs(slope - direction->slope) <= LIMIT * (double)adapter->n_params))
        fail_msg("slope %.9g by the gradient, %.9g by differences, %zu tensors", direction->slope,
                 slope, adapter->n_params);
}

static struct hm_adapter *adapter_make(struct hm_model *model)
{
    static char q[] = "q_proj", k[] = "k_proj", v[] = "v_proj", o[] = "o_proj", w1[] = "w1",
                w2[] = "w2", w3[] = "w3";
    static char *target[] = { q, k, v, o, w1, w2, w3 };
    const struct hm_adapter_config config = { .rank = 5,
                                              .alpha = 5,
                                              .target = target,
                                              .n_targets = 7,
                                              .embed = HM_ROWS_ALL,
                                              .head = HM_ROWS_ALL,
                                              .gate = true,
                                              .seed = 3 };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(hm_model_checkpoint(model), &config, true, &adapter, &err), err);
    for (size_t i = 0; i < adapter->n_params; i++) {
        struct hm_param *param = &adapter->param[i];
        struct hm_rng_key key = { 11, i };
        for (size_t j = 0; j < hm_param_values(param) && param->kind == HM_PARAM_LORA_B; j++)
            param->value[j] = (float)(0.2 * hm_rng_normal(key, j));
    }
    return adapter;
}

static void test_directions(void **state)
{
    struct hm_kernels kernels;
    struct hm_model_options model_options = { &kernels, HM_ROUND_NONE, true };
    struct hm_step_options options = { .backward = true,
                                       .recompute = true,
                                       .loss_weight = 1.0 / TOKENS };
    struct hm_arch arch = wide_arch();
    struct hm_model *model = NULL;
    struct hm_workspace *workspace = NULL;
    struct hm_step_result result;
    struct reference reference;
    struct direction direction;
    struct hm_error err = { 0 };
    int32_t ids[TOKENS];
    struct hm_batch batch = { .rows = 1, .seq_len = TOKENS, .ids = ids };
    char *dir = tmp_new();
    size_t values = 0;

    (void)state;
    for (size_t n = 0; n < TOKENS; n++)
        ids[n] = (int32_t)(n * 997 % 2100);
    random_model_write(dir, &arch, 17, 1.2);
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    assert_ok(hm_model_open(dir, &model_options, &model, &err), err);
    struct hm_adapter *adapter = adapter_make(model);
    hm_model_attach(model, adapter);
    assert_ok(hm_workspace_new(model, 1, TOKENS, true, true, &workspace, &err), err);
    assert_ok(hm_model_step(model, workspace, &batch, &options, &result, &err), err);
    reference_init(&reference, model, adapter);
    reference.batch = &batch;
    reference.loss_weight = 1.0 / TOKENS;
    assert_true(fabs(reference_objective(&reference) - result.loss_sum / TOKENS) < 1e-5);
    assert_true(reference.margin > 1e-5);
    for (size_t i = 0; i < adapter->n_params; i++)
        values += hm_param_values(&adapter->param[i]);
    direction.d = hm_alloc_array(HM_MEM_OTHER, values, sizeof(double));
    direction_set(adapter, 1, true, &direction);
    assert_true(fabs(direction.slope - (double)adapter->n_params) < 1e-6);
    check(&reference, adapter, &direction, 1e-6);
    for (uint64_t seed = 2; seed < 4; seed++) {
        direction_set(adapter, seed, false, &direction);
        check(&reference, adapter, &direction, 1e-6);
    }
    hm_free(direction.d);
    reference_release(&reference);
    hm_workspace_free(workspace);
    hm_adapter_free(adapter);
    hm_model_free(model);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_directions) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
