/* SPDX-License-Identifier: MIT */
/*
 * A step's edges: bad ids, wrong workspaces, a loss that is not finite, damaged weights, allocation
 * failures, smaller batches in a larger workspace, what evaluation leaves alone, and counts of
 * tokens per expert.
 */
#include "support/random_model.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/model/generate.h"

#define T 9

static char *dir;
static struct hm_kernels kernels;
static const int32_t ids[2 * T] = { 1, 5, 9, 30, 36, 2, 7, 7, 3, 1, 4, 4, 4, 8, 0, 11, 25, 6 };

static int setup(void **state)
{
    struct hm_arch arch = random_arch(2, 4, 2);
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    dir = tmp_new();
    random_model_write(dir, &arch, 4, 1.0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmp_release(dir);
    return 0;
}

static struct hm_model *opened(const char *folder)
{
    struct hm_model_options options = { &kernels, HM_ROUND_NONE, true };
    struct hm_model *model = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_model_open(folder, &options, &model, &err), err);
    return model;
}

static struct hm_adapter *adapter_new(struct hm_model *model, uint32_t rank)
{
    static char q[] = "q_proj", w2[] = "w2";
    static char *target[] = { q, w2 };
    struct hm_adapter_config config = {
        .rank = rank, .alpha = 4, .dropout = 0.5, .target = target, .n_targets = 2, .seed = 1
    };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(hm_model_checkpoint(model), &config, true, &adapter, &err), err);
    return adapter;
}

static struct hm_workspace *workspace_new(struct hm_model *model, uint32_t rows, uint32_t len,
                                          bool backward)
{
    struct hm_workspace *workspace = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_workspace_new(model, rows, len, backward, true, &workspace, &err), err);
    return workspace;
}

static void test_refused(void **state)
{
    struct hm_model *model = opened(dir);
    struct hm_workspace *workspace = workspace_new(model, 1, T, false);
    struct hm_step_options options = { 0 };
    struct hm_step_result result = { .targets = 77 };
    struct hm_error err = { 0 };
    int32_t wrong[T] = { 1, 2, 37 }, labels[T] = { 1, -5 };
    struct hm_batch batch = { .rows = 1, .seq_len = T, .ids = wrong };

    (void)state;
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_FORMAT,
                 "token id 37", err);
    batch = (struct hm_batch){ .rows = 1, .seq_len = T, .ids = ids, .labels = labels };
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_FORMAT,
                 "label -5", err);
    batch = (struct hm_batch){ .rows = 2, .seq_len = T, .ids = ids };
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_USAGE,
                 "does not fit", err);
    batch.rows = 1;
    options.backward = true;
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_USAGE,
                 "another kind", err);
    options.backward = false;
    struct hm_adapter *adapter = adapter_new(model, 3);
    hm_model_attach(model, adapter);
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_USAGE,
                 "rank 3", err);
    assert_int_equal(result.targets, 77);
    assert_fails(hm_workspace_new(model, 0, T, false, false, &workspace, &err), HM_ERR_USAGE,
                 "at least one", err);
    assert_fails(hm_workspace_new(model, 1 << 20, 1 << 20, false, false, &workspace, &err),
                 HM_ERR_NOFIT, "too many", err);
    hm_adapter_free(adapter);
    hm_workspace_free(workspace);
    hm_model_free(model);
}

/* A batch in a workspace made for more gives the same bytes; evaluation ignores dropout and leaves
 * gradients alone. */
static void test_larger_workspace(void **state)
{
    struct hm_model *model = opened(dir);
    struct hm_adapter *adapter = adapter_new(model, 3);
    struct hm_step_options options = { .backward = true, .recompute = true, .loss_weight = 1 };
    struct hm_step_result exact, roomy, evaluated;
    struct hm_error err = { 0 };
    struct hm_batch batch = { .rows = 1, .seq_len = T, .ids = ids };
    double losses[T];

    (void)state;
    hm_model_attach(model, adapter);
    struct hm_workspace *small = workspace_new(model, 1, T, true),
                        *large = workspace_new(model, 3, 2 * T, true);
    assert_ok(hm_model_step(model, small, &batch, &options, &exact, &err), err);
    float *kept = hm_alloc_array(HM_MEM_OTHER, adapter->param[1].rows,
                                 adapter->param[1].cols * sizeof(float));
    size_t bytes = hm_param_values(&adapter->param[1]) * sizeof(float);
    memcpy(kept, adapter->param[1].grad, bytes);
    hm_adapter_zero_grad(adapter);
    assert_ok(hm_model_step(model, large, &batch, &options, &roomy, &err), err);
    assert_true(exact.loss_sum == roomy.loss_sum);
    assert_memory_equal(kept, adapter->param[1].grad, bytes);
    options = (struct hm_step_options){ .token_loss_out = losses };
    assert_ok(hm_model_step(model, large, &batch, &options, &evaluated, &err), err);
    assert_true(exact.loss_sum == evaluated.loss_sum);
    assert_memory_equal(kept, adapter->param[1].grad, bytes);
    double sum = 0;
    for (size_t t = 0; t < T; t++)
        sum += losses[t];
    assert_true(sum == evaluated.loss_sum && losses[T - 1] == 0);
    assert_int_equal(evaluated.targets, T - 1);
    hm_free(kept);
    hm_workspace_free(small);
    hm_workspace_free(large);
    hm_adapter_free(adapter);
    hm_model_free(model);
}

/* One sequence gives the same loss alone and in company; masks of another row do not reach it. */
static void test_rows_are_independent(void **state)
{
    struct hm_model *model = opened(dir);
    struct hm_workspace *workspace = workspace_new(model, 2, T, false);
    struct hm_step_result alone, both;
    struct hm_error err = { 0 };
    double loss_alone[T], loss_both[2 * T];
    uint8_t mask[2 * T];
    struct hm_step_options options = { .token_loss_out = loss_alone };
    struct hm_batch batch = { .rows = 1, .seq_len = T, .ids = ids };

    (void)state;
    memset(mask, 1, sizeof mask);
    memset(mask + T, 0, T);
    assert_ok(hm_model_step(model, workspace, &batch, &options, &alone, &err), err);
    batch = (struct hm_batch){ .rows = 2, .seq_len = T, .ids = ids, .mask = mask };
    options.token_loss_out = loss_both;
    assert_ok(hm_model_step(model, workspace, &batch, &options, &both, &err), err);
    for (size_t t = 0; t < T; t++)
        assert_true(fabs(loss_alone[t] - loss_both[t]) < 1e-5);
    hm_workspace_free(workspace);
    hm_model_free(model);
}

static void test_expert_counts(void **state)
{
    struct hm_model *model = opened(dir);
    struct hm_workspace *workspace = workspace_new(model, 2, T, false);
    struct hm_step_options options = { 0 };
    struct hm_step_result result;
    struct hm_error err = { 0 };
    struct hm_batch batch = { .rows = 2, .seq_len = T, .ids = ids };
    uint64_t counts[8], sum[2] = { 0 };

    (void)state;
    assert_ok(hm_model_step(model, workspace, &batch, &options, &result, &err), err);
    hm_model_expert_counts(model, counts, true);
    for (size_t i = 0; i < 8; i++)
        sum[i / 4] += counts[i];
    assert_int_equal(sum[0], 2 * 2 * T);
    assert_int_equal(sum[1], 2 * 2 * T);
    hm_model_expert_counts(model, counts, false);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(counts[i], 0);
    hm_workspace_free(workspace);
    hm_model_free(model);
}

/* The head overflows: the step says where and the gradients of the layers are not reached. */
static void test_not_finite(void **state)
{
    struct hm_model *model = opened(dir);
    struct hm_adapter *adapter = adapter_new(model, 3);
    struct hm_step_options options = { .backward = true, .recompute = true, .loss_weight = 1 };
    struct hm_step_result result;
    struct hm_error err = { 0 };
    struct hm_batch batch = { .rows = 2, .seq_len = T, .ids = ids };

    (void)state;
    hm_model_attach(model, adapter);
    struct hm_workspace *workspace = workspace_new(model, 2, T, true);
    for (size_t i = 0; i < adapter->n_params; i++)
        for (size_t j = 0; j < hm_param_values(&adapter->param[i]); j++)
            adapter->param[i].value[j] = 3e38f;
    assert_fails(hm_model_step(model, workspace, &batch, &options, &result, &err), HM_ERR_NUMERIC,
                 "not finite", err);
    hm_workspace_free(workspace);
    hm_adapter_free(adapter);
    hm_model_free(model);
}

static void test_damaged_weights(void **state)
{
    struct hm_model_options options = { &kernels, HM_ROUND_NONE, true };
    struct hm_model *model = NULL;
    struct hm_error err = { 0 };
    struct hm_arch arch = random_arch(1, 4, 2);
    const uint32_t nan_bits = 0x7fc00000u;
    char *folder = tmp_new();
    size_t len;

    (void)state;
    random_model_write(folder, &arch, 4, 1.0);
    char *bytes = file_get(tmp_path(folder, "model.safetensors"), &len);
    memcpy(bytes + len - 4, &nan_bits, 4); /* the last value of the last tensor in the file */
    file_put(tmp_path(folder, "model.safetensors"), bytes, len);
    hm_free(bytes);
    assert_fails(hm_model_open(folder, &options, &model, &err), HM_ERR_FORMAT, "NaN", err);
    options.check_finite = false;
    assert_ok(hm_model_open(folder, &options, &model, &err), err);
    hm_model_free(model);
    assert_fails(hm_model_open(tmp_path(folder, "absent"), &options, &model, &err), HM_ERR_USAGE,
                 "absent", err);
    tmp_release(folder);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_model_options options = { &kernels, HM_ROUND_NONE, true };
    struct hm_step_options step = { 0 };
    struct hm_batch batch = { .rows = 1, .seq_len = T, .ids = ids };
    struct hm_step_result result;
    struct hm_model *model = NULL;
    struct hm_workspace *workspace = NULL;

    (void)context;
    int status = hm_model_open(dir, &options, &model, err);
    if (status == HM_OK)
        status = hm_workspace_new(model, 1, T, true, true, &workspace, err);
    if (status == HM_OK)
        status = hm_model_step(model, workspace, &batch, &step, &result, err);
    hm_workspace_free(workspace);
    hm_model_free(model);
    return status;
}

static int silent(void *context, int32_t id, double logprob)
{
    (void)context;
    (void)id;
    (void)logprob;
    return 0;
}

static int attempt_generate(void *context, struct hm_error *err)
{
    struct hm_generate_options options = { .max_tokens = 2, .eos_id = -1 };

    return hm_generate(context, ids, 3, &options, silent, NULL, NULL, err);
}

static void test_allocation_failures(void **state)
{
    struct hm_model *model = opened(dir);

    (void)state;
    assert_true(oom_sweep(attempt, NULL) > 20);
    assert_true(oom_sweep(attempt_generate, model) > 5);
    hm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_larger_workspace),
        cmocka_unit_test(test_rows_are_independent),
        cmocka_unit_test(test_expert_counts),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_damaged_weights),
        cmocka_unit_test(test_allocation_failures),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
