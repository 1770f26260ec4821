/* SPDX-License-Identifier: MIT */
/*
 * One micro-batch from token ids to loss, and on to gradients: the order of the whole step. Checks
 * what the caller hands in; everything below trusts it.
 */
#include <string.h>

#include "internal.h"

void hm_step_lap(const struct hm_step *step, int worker, enum hm_phase phase, double *mark)
{
    double now = hm_clock_seconds();

    step->ws->seconds[worker][step->head ? HM_PHASE_HEAD : phase] += now - *mark;
    *mark = now;
}

static int ids_check(const struct hm_batch *batch, uint32_t vocab, struct hm_error *err)
{
    for (size_t i = 0; i < (size_t)batch->rows * batch->seq_len; i++) {
        if (batch->ids[i] < 0 || (uint32_t)batch->ids[i] >= vocab)
            return hm_fail(err, HM_ERR_FORMAT,
                           "token id %d in row %zu, position %zu: the model has %u tokens",
                           batch->ids[i], i / batch->seq_len, i % batch->seq_len, vocab);
        if (batch->labels && batch->labels[i] != HM_LABEL_IGNORE &&
            (batch->labels[i] < 0 || (uint32_t)batch->labels[i] >= vocab))
            return hm_fail(
                err, HM_ERR_FORMAT,
                "label %d in row %zu, position %zu: neither %d nor one of the model's %u tokens",
                batch->labels[i], i / batch->seq_len, i % batch->seq_len, HM_LABEL_IGNORE, vocab);
    }
    return HM_OK;
}

/* What a caller of the library can get wrong; a trainer cannot. */
static int step_check(const struct hm_model *model, const struct hm_workspace *ws,
                      const struct hm_batch *batch, const struct hm_step_options *options,
                      struct hm_error *err)
{
    const struct hm_shape *shape = &ws->shape;
    const struct hm_adapter *adapter = model->adapter;

    if (batch->rows == 0 || batch->seq_len == 0 || batch->rows > shape->rows ||
        batch->seq_len > shape->seq_len)
        return hm_fail(
            err, HM_ERR_USAGE,
            "a micro-batch of %u sequences of %u tokens does not fit a workspace of %u x %u",
            batch->rows, batch->seq_len, shape->rows, shape->seq_len);
    if (hm_threads() > shape->threads)
        return hm_fail(err, HM_ERR_USAGE, "%d threads, but the workspace was made for %d",
                       hm_threads(), shape->threads);
    for (size_t i = 0; adapter && i < adapter->n_lora; i++)
        if (adapter->lora[i].rank > shape->rank)
            return hm_fail(err, HM_ERR_USAGE,
                           "an adapter of rank %u was attached after the workspace was made",
                           adapter->lora[i].rank);
    if (options->backward && (!shape->backward || shape->recompute != options->recompute))
        return hm_fail(err, HM_ERR_USAGE,
                       "the workspace was made for another kind of backward pass");
    for (size_t i = 0; options->backward && adapter && i < adapter->n_params; i++)
        if (!adapter->param[i].grad)
            return hm_fail(err, HM_ERR_USAGE, "'%s' has no room for its gradient",
                           adapter->param[i].name);
    return ids_check(batch, model->ckpt.arch.vocab_size, err);
}

void hm_step_init(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step *ret_step)
{
    const uint32_t experts = model->ckpt.arch.experts;
    struct hm_step step = { .model = model,
                            .ws = workspace,
                            .kernels = model->kernels,
                            .arch = &model->ckpt.arch,
                            .batch = batch,
                            .options = options,
                            .B = batch->rows,
                            .T = batch->seq_len,
                            .N = batch->rows * batch->seq_len,
                            .context = batch->seq_len };

    if (options->train && model->adapter)
        step.dropout = model->adapter->config.dropout;
    if (experts > 1 && (options->want_aux || options->aux_weight != 0)) {
        step.aux_count = hm_f64(workspace, HM_BUF_AUX);
        step.aux_prob = step.aux_count + experts;
        memset(step.aux_count, 0, 2 * experts * sizeof(double));
    }
    memset(workspace->seconds, 0, (size_t)workspace->shape.threads * sizeof *workspace->seconds);
    *ret_step = step;
}

static void hidden_copy(const struct hm_step *step, uint32_t index, const float *x)
{
    size_t values = (size_t)step->N * step->arch->hidden;

    if (step->options->hidden_out)
        memcpy(step->options->hidden_out + index * values, x, values * sizeof(float));
}

/* Embedding and all blocks; returns the residual stream after the last. */
static float *blocks_forward(struct hm_step *step)
{
    const uint32_t layers = step->arch->layers;
    float *x = hm_block_state(step, 0).x;

    hm_embed_forward(step, x);
    hidden_copy(step, 0, x);
    hm_weights_pass_begin(step, HM_PASS_FORWARD,
                          step->options->backward ? HM_PASS_BACKWARD : HM_PASS_FORWARD);
    for (uint32_t layer = 0; layer < layers && hm_weights_check(step->model, NULL) == HM_OK;
         layer++) {
        struct hm_block_state state = hm_block_state(step, layer);
        x = hm_block_state(step, layer + 1).x;
        hm_block_forward(step, layer, &state, x);
        hidden_copy(step, layer + 1, x);
    }
    return x;
}

static void phases_join(const struct hm_step *step, struct hm_step_result *result)
{
    const int threads = step->ws->shape.threads;

    for (int phase = 0; phase < HM_PHASE_COUNT; phase++) {
        double sum = 0;
        for (int worker = 0; worker < threads; worker++)
            sum += step->ws->seconds[worker][phase];
        result->phase_seconds[phase] = sum / threads;
    }
}

int hm_model_step(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step_result *ret_result, struct hm_error *err)
{
    struct hm_step_result result = { 0 };
    struct hm_step step;
    struct hm_norm norm;

    HM_TRY(step_check(model, workspace, batch, options, err));
    hm_step_init(model, workspace, batch, options, &step);
    hm_attention_prepare(&step, 0, step.T);
    float *x = blocks_forward(&step);
    float *h = hm_f32(workspace, HM_BUF_H);
    float *dh = options->backward ? hm_f32(workspace, HM_BUF_DH) : NULL;
    float *rho = hm_f32(workspace, HM_BUF_RHO) + (workspace->buffer[HM_BUF_RHO].rows - 1) * step.N;
    hm_final_norm_view(model, &norm);
    hm_norm_rows(&step, &norm, x, h, rho);
    hidden_copy(&step, step.arch->layers + 1, h);
    result.aux = hm_router_aux(&step);
    hm_head_acquire(model);
    int status = hm_weights_check(model, err);
    if (status == HM_OK)
        status = hm_loss(&step, h, dh, &result, err);
    hm_head_release(model);
    HM_TRY(status);
    if (options->backward) {
        float *dx = hm_f32(workspace, HM_BUF_DX);
        memset(dx, 0, (size_t)step.N * step.arch->hidden * sizeof(float));
        hm_norm_backward(&step, &norm, x, rho, dh, dx);
        hm_backward(&step, dx);
        HM_TRY(hm_weights_check(model, err));
    }
    phases_join(&step, &result);
    *ret_result = result;
    return HM_OK;
}

/* 2 * weights of the linears one token meets (attention, router, its experts, head) * tokens *
 * passes. */
double hm_model_step_flops(const struct hm_arch *arch, uint64_t tokens, bool backward,
                           bool recompute)
{
    double d = arch->hidden, q = (double)arch->heads * arch->head_dim,
           kv = (double)arch->kv_heads * arch->head_dim;
    double gate = arch->experts > 1 ? arch->experts * d : 0;
    double layer = 2 * d * q + 2 * d * kv + gate + 3.0 * arch->top_k * d * arch->ffn;
    double active = arch->layers * layer + d * arch->vocab_size;

    return 2 * active * (double)tokens * (backward ? recompute ? 3 : 2 : 1);
}
