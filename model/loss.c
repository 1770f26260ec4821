/* SPDX-License-Identifier: MIT */
/*
 * Head and loss over chunks of rows: logits = h W^T, cross entropy of the next token, and at once
 * the gradient into h and W, so that [N][V] never exists. Position t of a sequence predicts label
 * t+1; HM_LABEL_IGNORE and the last position have no target. Losses are summed in row order in f64.
 */
#include <math.h>
#include <string.h>

#include "internal.h"

#define XENT_ROWS 16u

struct xent_loop {
    const struct hm_step *step;
    float *logits;
    size_t row0, rows; /* of this chunk */
    bool gradient;
};

static void targets_set(const struct hm_step *step)
{
    const struct hm_batch *batch = step->batch;
    const int32_t *labels = batch->labels ? batch->labels : batch->ids;
    int32_t *target = hm_i32(step->ws, HM_BUF_TARGET);
    float *weight = hm_f32(step->ws, HM_BUF_WEIGHT);

    for (size_t n = 0; n < step->N; n++) {
        bool last = n % step->T == step->T - 1;
        target[n] = last || labels[n + 1] < 0 ? -1 : labels[n + 1];
        weight[n] = (float)step->options->loss_weight;
    }
}

static void xent_unit(void *context, size_t index, int worker)
{
    const struct xent_loop *loop = context;
    const struct hm_step *step = loop->step;
    const size_t vocab = step->arch->vocab_size, row = index * XENT_ROWS;
    const size_t n = loop->rows - row < XENT_ROWS ? loop->rows - row : XENT_ROWS;
    const size_t at = loop->row0 + row;
    double mark = hm_clock_seconds();

    step->kernels->xent(loop->logits + row * vocab, n, vocab, vocab,
                        hm_i32(step->ws, HM_BUF_TARGET) + at, hm_f32(step->ws, HM_BUF_WEIGHT) + at,
                        loop->gradient, hm_f64(step->ws, HM_BUF_LOSS) + at);
    hm_step_lap(step, worker, HM_PHASE_HEAD, &mark);
}

/* Adds the chunk's losses; false when the sum is no longer finite. */
static bool losses_add(const struct xent_loop *loop, struct hm_step_result *result)
{
    const struct hm_step *step = loop->step;
    const double *loss = hm_f64(step->ws, HM_BUF_LOSS);
    const int32_t *target = hm_i32(step->ws, HM_BUF_TARGET);

    for (size_t n = loop->row0; n < loop->row0 + loop->rows; n++) {
        result->loss_sum += loss[n];
        result->targets += target[n] >= 0;
        if (step->options->token_loss_out)
            step->options->token_loss_out[n] = loss[n];
    }
    return isfinite(result->loss_sum);
}

int hm_loss(struct hm_step *step, const float *h, float *dh, struct hm_step_result *result,
            struct hm_error *err)
{
    const size_t d = step->arch->hidden, vocab = step->arch->vocab_size;
    const size_t most = hm_head_rows(step->arch, step->N);
    struct xent_loop loop = { .step = step,
                              .logits = hm_f32(step->ws, HM_BUF_LOGITS),
                              .gradient = dh != NULL };
    struct hm_linear head;
    int status = HM_OK;

    hm_head_view(step->model, &head);
    targets_set(step);
    step->head = true;
    for (loop.row0 = 0; loop.row0 < step->N && status == HM_OK; loop.row0 += most) {
        loop.rows = step->N - loop.row0 < most ? step->N - loop.row0 : most;
        struct hm_fan fan = { .n = loop.rows,
                              .x = h + loop.row0 * d,
                              .branch = { hm_branch_make(step, &head, loop.logits, 0, HM_LOW_HEAD,
                                                         0) },
                              .n_branches = 1 };
        hm_fan_forward(step, &fan);
        if (step->options->logits_out)
            memcpy(step->options->logits_out + loop.row0 * vocab, loop.logits,
                   loop.rows * vocab * sizeof(float));
        hm_parallel_for(hm_units(loop.rows, XENT_ROWS), xent_unit, &loop);
        if (!losses_add(&loop, result))
            status = hm_fail(err, HM_ERR_NUMERIC,
                             "the loss is not finite at row %zu, position %zu of the micro-batch",
                             loop.row0 / step->T, loop.row0 % step->T);
        if (dh && status == HM_OK) {
            fan.dx = dh + loop.row0 * d;
            hm_fan_backward(step, &fan);
        }
    }
    step->head = false;
    return status;
}
