/* SPDX-License-Identifier: MIT */
/*
 * What the units of moe.c compute besides products: rows to experts and back, SwiGLU on a cut of F,
 * and the gradient at the inner activation. No parallel region is opened here.
 *
 * Backward of one expert (G = dL/dy of the layer, w the routing weight of a row):
 *   G' = w G    dm = G' W2 + dropout(v2 A2)    gamma = <dm, m>    (da1, da3) = swiglu'(a1, a3, dm)
 * which gives gamma = w <G, expert output> without computing that output again. What is trained in
 * cuts of F is summed while the cut is in the cache.
 */
#include <string.h>

#include "internal.h"

/* Rows of a block as they stand, or times their routing weights. */
static void copy_rows(const struct hm_moe *moe, const struct hm_expert_job *job, const float *from,
                      bool weighed, enum hm_buffer to, size_t block, int worker)
{
    const struct hm_step *step = moe->step;
    size_t d = step->arch->hidden;
    size_t end = hm_least((block + 1) * HM_ROW_BLOCK, job->in.n);
    double mark = hm_clock_seconds();

    if (!moe->routed)
        return;
    float *rows = hm_f32(step->ws, to) + job->round_row * d;
    const int32_t *slot = hm_i32(step->ws, HM_BUF_ROW_SLOT) + job->row0;
    for (size_t row = block * HM_ROW_BLOCK; row < end; row++) {
        memcpy(rows + row * d, from + (size_t)job->in.token[row] * d, d * sizeof(float));
        if (weighed)
            step->kernels->scale(moe->routing.weight[slot[row]], rows + row * d, d);
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_expert_gather(const struct hm_moe *moe, const struct hm_expert_job *job, size_t block,
                      int worker)
{
    copy_rows(moe, job, moe->h, false, HM_BUF_XG, block, worker);
    if (moe->dh && !moe->step->ws->shape.recompute)
        return;
    hm_fan_pack(moe->step, &job->in, block, worker);
    for (unsigned b = 0; b < 2; b++)
        if (job->in.branch[b].w.rank > 0)
            hm_fan_down(moe->step, &job->in, b, block, worker);
}

void hm_expert_gather_gradient(const struct hm_moe *moe, const struct hm_expert_job *job,
                               size_t block, int worker)
{
    hm_expert_gather(moe, job, block, worker);
    copy_rows(moe, job, moe->out, true, HM_BUF_YG, block, worker);
    hm_fan_pack_gradient(moe->step, &job->out, 0, block, worker);
    if (job->out.branch[0].w.rank > 0)
        hm_fan_up_gradient(moe->step, &job->out, 0, block, worker);
}

/* Rows of token t that lie in this round, ascending: the one after `last`, or -1. Experts ascend
 * with rows. */
static int32_t next_row(const struct hm_moe *moe, size_t t, int32_t last, uint32_t *ret_k)
{
    const uint32_t k = moe->step->arch->top_k;
    const int32_t *row = hm_i32(moe->step->ws, HM_BUF_TOKEN_ROW) + t * k;
    int32_t best = -1;

    for (uint32_t i = 0; i < k; i++) {
        int32_t found = row[i] - (int32_t)moe->row0;
        if (found > last && found < (int32_t)moe->rows && (best < 0 || found < best)) {
            best = found;
            *ret_k = i;
        }
    }
    return best;
}

void hm_expert_combine(const struct hm_moe *moe, size_t block, int worker)
{
    const struct hm_step *step = moe->step;
    const float *y = hm_f32(step->ws, HM_BUF_YG);
    size_t d = step->arch->hidden;
    size_t end = hm_least((block + 1) * HM_ROW_BLOCK, step->N);
    double mark = hm_clock_seconds();

    for (size_t t = block * HM_ROW_BLOCK; t < end; t++) {
        uint32_t k = 0;
        for (int32_t row = next_row(moe, t, -1, &k); row >= 0; row = next_row(moe, t, row, &k))
            step->kernels->axpy(moe->routing.weight[t * step->arch->top_k + k], y + (size_t)row * d,
                                d, moe->out + t * d);
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_expert_scatter(const struct hm_moe *moe, size_t block, int worker)
{
    const struct hm_step *step = moe->step;
    const float *dx = hm_f32(step->ws, HM_BUF_DXG);
    size_t d = step->arch->hidden;
    size_t end = hm_least((block + 1) * HM_ROW_BLOCK, step->N);
    double mark = hm_clock_seconds();

    for (size_t t = block * HM_ROW_BLOCK; t < end; t++) {
        uint32_t k = 0;
        for (int32_t row = next_row(moe, t, -1, &k); row >= 0; row = next_row(moe, t, row, &k))
            step->kernels->add(dx + (size_t)row * d, d, moe->dh + t * d);
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

/* Columns [*ret_col0, + return value) of a cut of F. */
static size_t inner_cut(const struct hm_moe *moe, size_t cut, size_t *ret_col0)
{
    uint32_t f = moe->step->arch->ffn;

    *ret_col0 = cut * hm_cut(f);
    return hm_least(hm_cut(f), f - *ret_col0);
}

/* m of a cut, from a1 and a3; packed in the forward pass. */
static void activate(const struct hm_moe *moe, const struct hm_expert_job *job, size_t cut,
                     int worker)
{
    const struct hm_step *step = moe->step;
    size_t f = step->arch->ffn, col0;
    size_t width = inner_cut(moe, cut, &col0);
    float *m = hm_f32(step->ws, HM_BUF_M) + job->round_row * f;
    double mark = hm_clock_seconds();

    for (size_t at = col0; at < job->in.n * f; at += f)
        step->kernels->swiglu(job->in.branch[0].y + at, job->in.branch[1].y + at, width, m + at);
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
    if (!moe->dh && hm_fan_frozen(&job->out))
        step->kernels->frozen_pack(HM_PACK_FORWARD, job->in.n, f, 0, job->in.n, col0, width,
                                   m + col0, f, job->out.packed_x);
    hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
    if (!moe->dh)
        hm_fan_low_sums(step, &job->out, 0, HM_PACK_FORWARD, cut, worker);
}

void hm_expert_inner(const struct hm_moe *moe, const struct hm_expert_job *job, size_t cut,
                     int worker)
{
    hm_fan_product(moe->step, &job->in, 0, cut, worker);
    hm_fan_product(moe->step, &job->in, 1, cut, worker);
    activate(moe, job, cut, worker);
}

/* The gradients of a1 and a3 on a cut, packed for the products with W1 and W3. */
static void pack_inner(const struct hm_moe *moe, const struct hm_expert_job *job, size_t col0,
                       size_t width, int worker)
{
    const struct hm_step *step = moe->step;
    double mark = hm_clock_seconds();

    for (unsigned b = 0; b < 2; b++) {
        const struct hm_branch *branch = &job->in.branch[b];
        if (branch->w.frozen.rows > col0)
            step->kernels->frozen_pack(HM_PACK_BACKWARD, job->in.n, branch->w.frozen.rows, 0,
                                       job->in.n, col0,
                                       hm_least(width, branch->w.frozen.rows - col0),
                                       branch->y + col0, branch->w.rows, branch->packed_dy);
    }
    hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
}

void hm_expert_inner_gradient(const struct hm_moe *moe, const struct hm_expert_job *job, size_t cut,
                              int worker)
{
    const struct hm_step *step = moe->step;
    size_t f = step->arch->ffn, col0;
    size_t width = inner_cut(moe, cut, &col0);
    size_t ld = hm_cut(step->arch->ffn);
    float *dm = hm_f32(step->ws, HM_BUF_DM) + (size_t)worker * step->ws->buffer[HM_BUF_DM].cols;
    float *gamma =
        hm_f32(step->ws, HM_BUF_GAMMA_CUT) + cut * step->ws->buffer[HM_BUF_GAMMA_CUT].cols;

    if (step->ws->shape.recompute)
        hm_expert_inner(moe, job, cut, worker);
    else
        activate(moe, job, cut, worker);
    hm_fan_a_gradients(step, &job->out, cut, worker); /* m is in the cache */
    hm_fan_input_gradient(step, &job->out, cut, dm, ld, worker);
    double mark = hm_clock_seconds();
    for (unsigned b = 0; b < 2; b++)
        hm_fan_fetch(&job->in, b, cut);
    for (size_t row = 0; row < job->in.n; row++, dm += ld) {
        size_t at = row * f + col0;
        float *a1 = job->in.branch[0].y + at, *a3 = job->in.branch[1].y + at;
        if (moe->routed)
            gamma[job->round_row + row] = (float)step->kernels->dot(dm, job->out.x + at, width);
        step->kernels->swiglu_backward(a1, a3, dm, width, a1, a3);
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
    pack_inner(moe, job, col0, width, worker);
    for (unsigned b = 0; b < 2; b++)
        hm_fan_low_sums(step, &job->in, b, HM_PACK_BACKWARD, cut, worker);
    for (unsigned b = 0; b < 2; b++)
        hm_fan_weight_gradient(step, &job->in, b, cut, worker);
}

/* v1 and v3, u2 where it was not kept; joins gamma over the cuts. */
void hm_expert_low_gradient(const struct hm_moe *moe, const struct hm_expert_job *job, size_t block,
                            int worker)
{
    const struct hm_step *step = moe->step;
    const int32_t *slot = hm_i32(step->ws, HM_BUF_ROW_SLOT) + job->row0;
    const struct hm_act *parts = &step->ws->buffer[HM_BUF_GAMMA_CUT];
    size_t end = hm_least((block + 1) * HM_ROW_BLOCK, job->in.n);

    for (unsigned b = 0; b < 2; b++)
        if (job->in.branch[b].w.rank > 0)
            hm_fan_up_gradient(step, &job->in, b, block, worker);
    if (job->out.branch[0].w.rank > 0 && step->ws->shape.recompute)
        hm_fan_down(step, &job->out, 0, block, worker); /* over the sums of v1 */
    double mark = hm_clock_seconds();
    for (size_t row = block * HM_ROW_BLOCK; moe->routed && row < end; row++) {
        const float *part = hm_f32(step->ws, HM_BUF_GAMMA_CUT) + job->round_row + row;
        double sum = 0;
        for (uint64_t cut = 0; cut < parts->rows; cut++)
            sum += (double)part[cut * parts->cols];
        moe->gamma[slot[row]] = (float)sum;
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}
