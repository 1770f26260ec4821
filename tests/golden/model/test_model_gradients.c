/* SPDX-License-Identifier: MIT */
/*
 * Every gradient against the recorded ones: all parameters of Mixtral (with and without auxiliary
 * loss, sliding window, padding) and of dense LLaMA (tied and untied), and PEFT adapters over the
 * 16-bit and the NF4 base. The kept and the recomputed backward pass give the same bytes, and so do
 * one and two threads. Limits: 20 times the f32-f64 distance that the READMEs state.
 */
#include "recorded.h"

#include <math.h>

#include "hanmix/base/parallel.h"

#define MIXTRAL_LIMIT 1.9e-5
#define LLAMA_LIMIT   1.6e-5
#define PEFT_LIMIT    2e-5
#define AUX_COEF      0.02

static struct hm_kernels kernels;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    return 0;
}

static uint64_t targets(const struct hm_batch *batch)
{
    uint64_t count = 0;

    for (size_t n = 0; n < (size_t)batch->rows * batch->seq_len; n++)
        count += n % batch->seq_len != 0 && batch->labels[n] >= 0;
    return count;
}

/* Gradients of the mean loss plus aux_weight times the auxiliary loss into the adapter. */
static void backward_run(struct hm_model *model, struct hm_adapter *adapter,
                         const struct hm_batch *batch, double aux_weight, bool recompute)
{
    struct hm_error err = { 0 };
    struct hm_workspace *workspace = NULL;
    struct hm_step_result result;
    struct hm_step_options options = { .backward = true,
                                       .recompute = recompute,
                                       .loss_weight = 1.0 / (double)targets(batch),
                                       .aux_weight = aux_weight };

    hm_adapter_zero_grad(adapter);
    hm_model_attach(model, adapter);
    assert_ok(
        hm_workspace_new(model, batch->rows, batch->seq_len, true, recompute, &workspace, &err),
        err);
    assert_ok(hm_model_step(model, workspace, batch, &options, &result, &err), err);
    assert_int_equal(result.targets, targets(batch));
    hm_workspace_free(workspace);
}

/* Unused ids, experts without tokens: exactly zero. */
static void zero_row_check(const char *name, const float *truth, const float *found, size_t n)
{
    float most = 0;

    for (size_t i = 0; i < n; i++)
        most = fabsf(truth[i]) > most ? fabsf(truth[i]) : most;
    for (size_t i = 0; i < n && most == 0; i++)
        if (found[i] != 0)
            fail_msg("%s: a row that must be exactly zero is not", name);
}

/* Every recorded tensor `prefix`NAME against the gradient of parameter NAME; all of them must be
 * recorded when whole. */
static void compare_gradients(const char *path, const char *prefix,
                              const struct hm_adapter *adapter, bool whole, double limit)
{
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    size_t compared = 0;

    assert_ok(hm_safetensors_open(golden_path(path), &file, &err), err);
    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *param = &adapter->param[i];
        size_t count = hm_param_values(param);
        char name[256];
        snprintf(name, sizeof name, "%s%s", prefix, param->name);
        if (!hm_safetensors_find(&file, name))
            continue;
        float *truth = recorded_f32(&file, name, count);
        assert_close(name, param->grad, truth, count, limit);
        for (size_t row = 0; row < param->rows; row++)
            zero_row_check(name, truth + row * param->cols, param->grad + row * param->cols,
                           param->cols);
        hm_free(truth);
        compared++;
    }
    assert_true(compared > 0);
    if (whole)
        assert_int_equal(compared, adapter->n_params);
    hm_safetensors_close(&file);
}

static struct hm_adapter *full_adapter(struct hm_model *model)
{
    struct hm_adapter_config config = { .rank = 8, .all = true };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(hm_model_checkpoint(model), &config, true, &adapter, &err), err);
    return adapter;
}

/* Recomputed and kept layers, one and two threads: the gradients are the same bytes. */
static void same_bytes(struct hm_model *model, struct hm_adapter *adapter,
                       const struct hm_batch *batch, double aux)
{
    size_t total = 0, at = 0;
    int threads = hm_threads();

    for (size_t i = 0; i < adapter->n_params; i++)
        total += hm_param_values(&adapter->param[i]);
    float *kept = hm_alloc_array(HM_MEM_OTHER, total, sizeof(float));
    hm_threads_set(1);
    backward_run(model, adapter, batch, aux, false);
    for (size_t i = 0; i < adapter->n_params; i++) {
        size_t count = hm_param_values(&adapter->param[i]);
        memcpy(kept + at, adapter->param[i].grad, count * sizeof(float));
        at += count;
    }
    for (int run = 1; run <= 3; run++) {
        hm_threads_set(run);
        backward_run(model, adapter, batch, aux, run != 3);
        at = 0;
        for (size_t i = 0; i < adapter->n_params; i++) {
            size_t count = hm_param_values(&adapter->param[i]);
            if (memcmp(kept + at, adapter->param[i].grad, count * sizeof(float)) != 0)
                fail_msg("'%s' differs in run %d", adapter->param[i].name, run);
            at += count;
        }
    }
    hm_threads_set(threads);
    hm_free(kept);
}

static void test_mixtral(void **state)
{
    struct hm_model *model = model_opened(golden_path("mixtral/model"), &kernels, HM_ROUND_NONE);
    struct hm_adapter *adapter = full_adapter(model);
    struct recorded_batch batch;

    (void)state;
    recorded_batch_read(golden_path("mixtral/batch.safetensors"), &batch);
    backward_run(model, adapter, &batch.batch, AUX_COEF, true);
    compare_gradients("mixtral/full.grads_total_f64.safetensors", "", adapter, true, MIXTRAL_LIMIT);
    compare_gradients("mixtral/full.grads_total_f32.safetensors", "", adapter, true, MIXTRAL_LIMIT);
    backward_run(model, adapter, &batch.batch, 0, false);
    compare_gradients("mixtral/full.grads_lm_f32.safetensors", "", adapter, true, MIXTRAL_LIMIT);
    same_bytes(model, adapter, &batch.batch, AUX_COEF);
    hm_adapter_free(adapter);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_mixtral_sliding(void **state)
{
    char *dir = tmp_new();
    struct hm_model *model =
        model_opened(model_with_config(dir, golden_path("mixtral/model"), "sliding_window", 13),
                     &kernels, HM_ROUND_NONE);
    struct hm_adapter *adapter = full_adapter(model);
    struct recorded_batch batch;

    (void)state;
    recorded_batch_read(golden_path("mixtral/batch.safetensors"), &batch);
    backward_run(model, adapter, &batch.batch, AUX_COEF, true);
    compare_gradients("mixtral/sliding.grads_total_f32.safetensors", "", adapter, false,
                      MIXTRAL_LIMIT);
    hm_adapter_free(adapter);
    recorded_batch_release(&batch);
    hm_model_free(model);
    tmp_release(dir);
}

static void test_mixtral_padded(void **state)
{
    struct hm_model *model = model_opened(golden_path("mixtral/model"), &kernels, HM_ROUND_NONE);
    struct hm_adapter *adapter = full_adapter(model);
    struct recorded_batch batch;

    (void)state;
    recorded_batch_read(golden_path("mixtral/padded.safetensors"), &batch);
    backward_run(model, adapter, &batch.batch, AUX_COEF, true);
    compare_gradients("mixtral/padded.safetensors", "grad_f32.", adapter, false, MIXTRAL_LIMIT);
    hm_adapter_free(adapter);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_llama(void **state)
{
    static const char *const variant[] = { "untied", "tied" };

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct recorded_batch batch;
        char path[64];
        snprintf(path, sizeof path, "llama/%s-model", variant[i]);
        struct hm_model *model = model_opened(golden_path(path), &kernels, HM_ROUND_NONE);
        struct hm_adapter *adapter = full_adapter(model);
        snprintf(path, sizeof path, "llama/%s.batch.safetensors", variant[i]);
        recorded_batch_read(golden_path(path), &batch);
        backward_run(model, adapter, &batch.batch, 0, true);
        snprintf(path, sizeof path, "llama/%s.grads_f64.safetensors", variant[i]);
        compare_gradients(path, "", adapter, true, LLAMA_LIMIT);
        snprintf(path, sizeof path, "llama/%s.grads_f32.safetensors", variant[i]);
        compare_gradients(path, "", adapter, true, LLAMA_LIMIT);
        same_bytes(model, adapter, &batch.batch, 0);
        hm_adapter_free(adapter);
        recorded_batch_release(&batch);
        hm_model_free(model);
    }
}

/* One PEFT recording: logits `truth` (or the other policy's) and gradients. */
static void peft(const char *name, const char *base, const char *folder, const char *truth,
                 enum hm_round round, const char *gradients)
{
    struct hm_model *model = model_opened(golden_path(base), &kernels, round);
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    struct recorded_batch batch;
    struct outputs out;
    char path[64];

    assert_ok(
        hm_adapter_load(golden_path(folder), hm_model_checkpoint(model), true, &adapter, &err),
        err);
    hm_model_attach(model, adapter);
    snprintf(path, sizeof path, "peft/%s.batch.safetensors", name);
    recorded_batch_read(golden_path(path), &batch);
    forward_run(model, &batch.batch, &out);
    snprintf(path, sizeof path, "peft/%s.logits.safetensors", name);
    assert_ok(hm_safetensors_open(golden_path(path), &file, &err), err);
    size_t count =
        (size_t)batch.batch.rows * batch.batch.seq_len * hm_model_arch(model)->vocab_size;
    float *logits = recorded_f32(&file, truth, count);
    assert_close(truth, out.logits, logits, count, 9e-6);
    if (gradients) {
        backward_run(model, adapter, &batch.batch, 0, true);
        snprintf(path, sizeof path, "peft/%s.%s.safetensors", name, gradients);
        compare_gradients(path, "", adapter, true, PEFT_LIMIT);
        same_bytes(model, adapter, &batch.batch, AUX_COEF);
    }
    hm_free(logits);
    hm_safetensors_close(&file);
    outputs_release(model, &out);
    recorded_batch_release(&batch);
    hm_adapter_free(adapter);
    hm_model_free(model);
}

static void test_peft(void **state)
{
    (void)state;
    peft("base16", "mixtral/model", "peft/adapter", "truth", HM_ROUND_NONE, "grads_truth_f64");
    peft("base16", "mixtral/model", "peft/adapter", "peft_f32", HM_ROUND_NONE, "grads_peft_f32");
    peft("nf4", "bnb4bit/dq_gate16bit", "peft/adapter", "truth", HM_ROUND_NONE, "grads_truth_f64");
    peft("rslora", "mixtral/model", "peft/adapter_rslora", "truth", HM_ROUND_NONE,
         "grads_peft_f32");
}

/* Every kernel path of this machine, the reference included. */
static void test_paths(void **state)
{
    struct hm_kernels tables[8];
    struct hm_kernels chosen = kernels;
    size_t count = hm_kernels_all(tables, 8);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        kernels = tables[i];
        peft("nf4", "bnb4bit/dq_gate16bit", "peft/adapter", "truth", HM_ROUND_NONE,
             "grads_truth_f64");
        kernels.frozen_forward = NULL; /* recorded with rounded weights, but products in f32 */
        peft("nf4", "bnb4bit/dq_gate16bit", "peft/adapter", "truth_w_bf16", HM_ROUND_BF16, NULL);
    }
    kernels = chosen;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtral),        cmocka_unit_test(test_mixtral_sliding),
        cmocka_unit_test(test_mixtral_padded), cmocka_unit_test(test_llama),
        cmocka_unit_test(test_peft),           cmocka_unit_test(test_paths),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
