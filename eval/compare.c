/* SPDX-License-Identifier: MIT */
/*
 * Logits of two models side by side; see compare.h.
 */
#include "hanmix/eval/compare.h"

#include <math.h>

#include "hanmix/base/alloc.h"

/* logits [n][V] of one side; *ret_vocab is its V. The caller frees. */
static int side_logits(const struct hm_compare_side *side, const int32_t *ids, uint32_t n,
                       const struct hm_kernels *kernels, float **ret_logits, uint32_t *ret_vocab,
                       struct hm_error *err)
{
    struct hm_model_options options = { .kernels = kernels, .round = HM_ROUND_NONE };
    struct hm_batch batch = { .rows = 1, .seq_len = n, .ids = ids };
    struct hm_workspace *workspace = NULL;
    struct hm_adapter *adapter = NULL;
    struct hm_model *model = NULL;
    struct hm_step_result result;
    float *logits = NULL;

    int r = hm_model_open(side->model_dir, &options, &model, err);
    if (r == HM_OK && side->adapter_dir)
        r = hm_adapter_load(side->adapter_dir, hm_model_checkpoint(model), false, &adapter, err);
    if (r < 0)
        goto out;
    hm_model_attach(model, adapter);
    *ret_vocab = hm_model_arch(model)->vocab_size;
    logits = hm_alloc_array(HM_MEM_ACTIVATION, (size_t)n * *ret_vocab, sizeof(float));
    if (!logits) {
        r = hm_fail_nomem(err, "for the logits of %u tokens", n);
        goto out;
    }
    r = hm_workspace_new(model, 1, n, false, false, &workspace, err);
    if (r == HM_OK)
        r = hm_model_step(model, workspace, &batch,
                          &(struct hm_step_options){ .logits_out = logits }, &result, err);
out:
    hm_workspace_free(workspace);
    if (model)
        hm_model_attach(model, NULL);
    hm_adapter_free(adapter);
    hm_model_free(model);
    if (r < 0)
        hm_free(logits);
    else
        *ret_logits = logits;
    return r;
}

static double log_sum_exp(const float *x, uint32_t n)
{
    double most = x[0];
    double sum = 0;

    for (uint32_t i = 1; i < n; i++)
        most = x[i] > most ? (double)x[i] : most;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - most);
    return most + log(sum);
}

static double kl_of_row(const float *p, const float *q, uint32_t vocab)
{
    double log_p = log_sum_exp(p, vocab);
    double log_q = log_sum_exp(q, vocab);
    double kl = 0;

    for (uint32_t i = 0; i < vocab; i++)
        kl += exp(p[i] - log_p) * ((p[i] - log_p) - (q[i] - log_q));
    return kl;
}

int hm_eval_compare(const struct hm_compare_side *first, const struct hm_compare_side *second,
                    const int32_t *ids, uint32_t n, const struct hm_kernels *kernels,
                    const struct hm_ctl *ctl, struct hm_compare_result *ret_result,
                    struct hm_error *err)
{
    struct hm_compare_result result = { 0 };
    uint32_t vocab[2] = { 0 };
    float *a = NULL;
    float *b = NULL;

    if (n == 0)
        return hm_fail(err, HM_ERR_FORMAT, "there is no token to compare two models on");
    int r = side_logits(first, ids, n, kernels, &a, &vocab[0], err);
    if (r == HM_OK && hm_ctl_stopped(ctl))
        r = hm_fail(err, HM_ERR_STOPPED, "stopped while comparing models");
    if (r == HM_OK)
        r = side_logits(second, ids, n, kernels, &b, &vocab[1], err);
    if (r == HM_OK && vocab[0] != vocab[1])
        r = hm_fail(err, HM_ERR_FORMAT, "'%s' has %u rows of logits, '%s' has %u", first->model_dir,
                    vocab[0], second->model_dir, vocab[1]);
    for (uint32_t t = 0; r == HM_OK && t < n; t++) {
        const float *p = a + (size_t)t * vocab[0];
        const float *q = b + (size_t)t * vocab[0];
        for (uint32_t i = 0; i < vocab[0]; i++)
            result.max_abs = fmax(result.max_abs, fabs((double)p[i] - q[i]));
        result.mean_kl += kl_of_row(p, q, vocab[0]) / n;
    }
    hm_free(a);
    hm_free(b);
    if (r == HM_OK)
        *ret_result = result;
    return r;
}
