/* SPDX-License-Identifier: MIT */
/*
 * y = x W^T + s (dropout(x) A^T) B^T and its gradients, for a fan of linears that read the same x
 * (q, k, v; w1, w3).
 *
 * The frozen W is decoded in panels that stay in L2 and meets all rows of x there: one output cut
 * in the forward pass, one input cut in the backward pass, so that each weight is decoded once per
 * pass and no sum crosses units. With G = dL/dy:
 *
 *   u = dropout(x) A^T  [n][R]       v = s G B  [n][R]
 *   dx = G W + dropout(v A)          dA += v^T dropout(x)       dB += s G^T u
 *   dW += G^T x                      (matrices trained in full)
 *
 * With compute bf16, x and G are packed once and meet the stored W in kernels that decode it
 * themselves. Where all of W is frozen and nothing is dropped, u and v (times s) are bf16 there,
 * come from what is packed and join those products; else the low-rank part is computed in f32.
 *
 * u stays from the forward pass (HM_BUF_LOW). Functions on cuts and blocks are units: they open no
 * parallel region. hm_fan_forward and hm_fan_backward do.
 */
#include <string.h>

#include "internal.h"

/* First row from row0 on that is read elsewhere than row0: a matrix may be frozen up to first_row
 * and trained from there. */
static uint32_t segment_end(const struct hm_linear *w, uint32_t row0, uint32_t end)
{
    if (row0 < w->frozen.rows)
        return (uint32_t)hm_least(w->frozen.rows, end);
    if (!w->dense && w->full && row0 < w->full->first_row && w->full->first_row < end)
        return w->full->first_row;
    return end;
}

static bool in_place(const struct hm_linear *w, uint32_t row0)
{
    return w->dense || (w->full && row0 >= w->full->first_row);
}

/* W[row0..+n_rows][col0..+n_cols] as f32: in place where it is stored so, else decoded into the
 * worker's panel. */
static const float *block_f32(const struct hm_step *step, const struct hm_linear *w, uint32_t row0,
                              uint32_t n_rows, uint32_t col0, uint32_t n_cols, int worker,
                              size_t *ret_ld)
{
    if (in_place(w, row0)) {
        const float *base = w->dense
                                ? w->dense + (size_t)row0 * w->cols
                                : w->full->value + (size_t)(row0 - w->full->first_row) * w->cols;
        *ret_ld = w->cols;
        return base + col0;
    }
    float *panel = hm_worker_panel(step->ws, worker);
    hm_weight_decode(w->weight, step->kernels, row0, n_rows, col0, n_cols, w->round, panel, n_cols);
    *ret_ld = n_cols;
    return panel;
}

struct hm_branch hm_branch_make(const struct hm_step *step, const struct hm_linear *w, float *y,
                                uint32_t layer, enum hm_low low, size_t row)
{
    static const size_t dy[] = {
        [HM_LOW_K] = 1, [HM_LOW_V] = 2, [HM_LOW_W3] = 1, [HM_LOW_W2] = 2, [HM_LOW_HEAD] = 0
    };
    const struct hm_act *table = step->ws->buffer;
    size_t rows = table[HM_BUF_LOW_DY].rows / 3, cols = table[HM_BUF_LOW].cols;
    size_t at = low == HM_LOW_HEAD ? table[HM_BUF_LOW].rows / rows - 1
                                   : hm_set_of(step, layer) * HM_LOW_LAYER + low;

    return (struct hm_branch){ .w = *w,
                               .y = y,
                               .u = hm_f32(step->ws, HM_BUF_LOW) + (at * rows + row) * cols,
                               .v = hm_f32(step->ws, HM_BUF_LOW_DY) +
                                    (dy[low] * rows + row) * cols };
}

void hm_linear_row(const struct hm_step *step, const struct hm_linear *w, uint32_t row, float *out)
{
    if (!in_place(w, row)) {
        hm_weight_decode(w->weight, step->kernels, row, 1, 0, w->cols, w->round, out, w->cols);
        return;
    }
    size_t ld;
    memcpy(out, block_f32(step, w, row, 1, 0, w->cols, 0, &ld), w->cols * sizeof(float));
}

/* y[:, row0..end) from rows of W that are read from one place. */
static void product_segment(const struct hm_step *step, const struct hm_fan *fan,
                            const struct hm_branch *branch, uint32_t row0, uint32_t end, int worker,
                            double *mark)
{
    const struct hm_linear *w = &branch->w;
    uint32_t width = in_place(w, row0) ? w->cols : HM_PANEL_COLS;

    if (row0 < w->frozen.rows) {
        const bool packed = hm_low_packed(step, w);
        const struct hm_low_rank low = { w->rank, packed ? w->b->value : NULL,
                                         hm_low_of(branch->u) };
        step->kernels->frozen_forward(&w->frozen, row0, end - row0, fan->packed_x, fan->n,
                                      packed ? &low : NULL, fan->add_y, branch->y + row0, w->rows,
                                      hm_worker_panel(step->ws, worker));
        hm_step_lap(step, worker, HM_PHASE_PRODUCT, mark);
        return;
    }
    for (uint32_t col = 0; col < w->cols; col += width) {
        uint32_t n_cols = (uint32_t)hm_least(width, w->cols - col);
        size_t ld;
        const float *block = block_f32(step, w, row0, end - row0, col, n_cols, worker, &ld);
        hm_step_lap(step, worker, HM_PHASE_DECODE, mark);
        step->kernels->gemm_nt(fan->n, end - row0, n_cols, 1.0f, fan->x + col, w->cols, block, ld,
                               col > 0 || fan->add_y ? 1.0f : 0.0f, branch->y + row0, w->rows);
        hm_step_lap(step, worker, HM_PHASE_PRODUCT, mark);
    }
}

void hm_fan_product(const struct hm_step *step, const struct hm_fan *fan, unsigned which,
                    size_t cut, int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    uint32_t row0 = (uint32_t)cut * hm_cut(w->rows);
    uint32_t end = (uint32_t)hm_least(row0 + hm_cut(w->rows), w->rows);
    double mark = hm_clock_seconds();

    for (uint32_t row = row0; row < end;) {
        uint32_t stop = segment_end(w, row, end);
        product_segment(step, fan, branch, row, stop, worker, &mark);
        row = stop;
    }
    if (w->rank > 0 && !hm_low_packed(step, w))
        step->kernels->gemm_nt(fan->n, end - row0, w->rank, w->scale, branch->u, w->rank,
                               w->b->value + (size_t)row0 * w->rank, w->rank, 1.0f,
                               branch->y + row0, w->rows);
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
}

bool hm_fan_frozen(const struct hm_fan *fan)
{
    for (unsigned i = 0; i < fan->n_branches; i++)
        if (fan->branch[i].w.frozen.rows > 0)
            return true;
    return false;
}

void hm_fan_pack(const struct hm_step *step, const struct hm_fan *fan, size_t block, int worker)
{
    const uint32_t cols = fan->branch[0].w.cols;
    size_t row0 = block * HM_ROW_BLOCK;
    size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
    double mark = hm_clock_seconds();

    if (hm_fan_frozen(fan))
        step->kernels->frozen_pack(HM_PACK_FORWARD, fan->n, cols, row0, n, 0, cols,
                                   fan->x + row0 * cols, cols, fan->packed_x);
    hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
}

void hm_fan_pack_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned which,
                          size_t block, int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    size_t row0 = block * HM_ROW_BLOCK;
    size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
    double mark = hm_clock_seconds();

    if (w->frozen.rows > 0)
        step->kernels->frozen_pack(HM_PACK_BACKWARD, fan->n, w->frozen.rows, row0, n, 0,
                                   w->frozen.rows, branch->y + row0 * w->rows, w->rows,
                                   branch->packed_dy);
    hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
}

void hm_fan_input_gradient(const struct hm_step *step, const struct hm_fan *fan, size_t cut,
                           float *dx, size_t ld_dx, int worker)
{
    const uint32_t cols = fan->branch[0].w.cols;
    uint32_t col0 = (uint32_t)cut * hm_cut(cols);
    uint32_t n_cols = (uint32_t)hm_least(hm_cut(cols), cols - col0);
    float beta = fan->add_dx ? 1.0f : 0.0f;
    double mark = hm_clock_seconds();

    for (unsigned i = 0; i < fan->n_branches; i++) {
        const struct hm_branch *branch = &fan->branch[i];
        const struct hm_linear *w = &branch->w;
        const bool packed = hm_low_packed(step, w);
        if (w->frozen.rows > 0) {
            const struct hm_low_rank low = { w->rank, packed ? w->a->value : NULL,
                                             hm_low_of(branch->v) };
            step->kernels->frozen_backward(&w->frozen, col0, n_cols, branch->packed_dy, fan->n,
                                           packed ? &low : NULL, beta > 0, dx, ld_dx,
                                           hm_worker_panel(step->ws, worker));
            hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
            beta = 1.0f;
        }
        for (uint32_t row = w->frozen.rows; row < w->rows;) {
            uint32_t height = in_place(w, row) ? w->rows : HM_PANEL_ROWS * HM_PANEL_COLS / n_cols;
            uint32_t stop = segment_end(w, row, (uint32_t)hm_least((size_t)row + height, w->rows));
            size_t ld;
            const float *block = block_f32(step, w, row, stop - row, col0, n_cols, worker, &ld);
            hm_step_lap(step, worker, HM_PHASE_DECODE, &mark);
            step->kernels->gemm_nn(fan->n, n_cols, stop - row, 1.0f, branch->y + row, w->rows,
                                   block, ld, beta, dx, ld_dx);
            hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
            beta = 1.0f;
            row = stop;
        }
        if (w->rank > 0 && !packed)
            hm_low_input_gradient(step, fan, branch, col0, n_cols, dx, ld_dx, worker);
        hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
    }
}

void hm_fan_weight_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned which,
                            size_t cut, int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    uint32_t row0 = (uint32_t)cut * hm_cut(w->rows);
    uint32_t end = (uint32_t)hm_least(row0 + hm_cut(w->rows), w->rows);
    double mark = hm_clock_seconds();

    if (hm_low_packed(step, w))
        step->kernels->low_b_gradient(
            branch->packed_dy, fan->n, w->rows, row0, end - row0, hm_low_of(branch->u), w->rank,
            w->b->grad + (size_t)row0 * w->rank, hm_worker_panel(step->ws, worker));
    else if (w->rank > 0)
        step->kernels->gemm_tn(end - row0, w->rank, fan->n, w->scale, branch->y + row0, w->rows,
                               branch->u, w->rank, 1.0f, w->b->grad + (size_t)row0 * w->rank,
                               w->rank);
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
    if (!w->full)
        return;
    uint32_t first = row0 > w->full->first_row ? row0 : w->full->first_row;
    if (first < end)
        step->kernels->gemm_tn(
            end - first, w->cols, fan->n, 1.0f, branch->y + first, w->rows, fan->x, w->cols, 1.0f,
            w->full->grad + (size_t)(first - w->full->first_row) * w->cols, w->cols);
    hm_step_lap(step, worker, HM_PHASE_PRODUCT, &mark);
}

/* --- whole fans ------------------------------------------------------------------------------- */

struct fan_loop {
    const struct hm_step *step;
    struct hm_fan fan;
    size_t per_branch; /* units of a branch in loops that have the same number for each */
    size_t begin[4];   /* first unit of a branch in loops over output cuts */
    size_t input_cuts;
};

static unsigned branch_of(const struct fan_loop *loop, size_t unit)
{
    unsigned branch = 0;

    while (unit >= loop->begin[branch + 1])
        branch++;
    return branch;
}

/* A block is packed, then meets what reads it packed. */
static void prepare_unit(void *context, size_t block, int worker)
{
    struct fan_loop *loop = context;

    hm_fan_pack(loop->step, &loop->fan, block, worker);
    for (unsigned i = 0; i < loop->fan.n_branches; i++)
        if (loop->fan.branch[i].w.rank > 0)
            hm_fan_down(loop->step, &loop->fan, i, block, worker);
}

static void product_unit(void *context, size_t index, int worker)
{
    struct fan_loop *loop = context;
    unsigned branch = branch_of(loop, index);

    hm_fan_product(loop->step, &loop->fan, branch, index - loop->begin[branch], worker);
}

static void prepare_gradient_unit(void *context, size_t index, int worker)
{
    struct fan_loop *loop = context;
    unsigned branch = (unsigned)(index / loop->per_branch);
    size_t block = index % loop->per_branch;

    hm_fan_pack_gradient(loop->step, &loop->fan, branch, block, worker);
    if (loop->fan.branch[branch].w.rank == 0)
        return;
    if (loop->fan.u_lost)
        hm_fan_down(loop->step, &loop->fan, branch, block, worker);
    hm_fan_up_gradient(loop->step, &loop->fan, branch, block, worker);
}

static void gradient_unit(void *context, size_t index, int worker)
{
    struct fan_loop *loop = context;
    const struct hm_fan *fan = &loop->fan;

    if (index >= loop->input_cuts) {
        unsigned branch = branch_of(loop, index - loop->input_cuts);
        hm_fan_weight_gradient(loop->step, fan, branch,
                               index - loop->input_cuts - loop->begin[branch], worker);
        return;
    }
    hm_fan_input_gradient(loop->step, fan, index, fan->dx + index * hm_cut(fan->branch[0].w.cols),
                          fan->branch[0].w.cols, worker);
    hm_fan_a_gradients(loop->step, fan, index, worker);
}

static void fan_place(const struct hm_step *step, struct hm_fan *fan)
{
    if (!hm_fan_frozen(fan))
        return;
    fan->packed_x = hm_bf16(step->ws, HM_BUF_PACK_X);
    if (!step->options->backward)
        return;
    uint16_t *at = hm_bf16(step->ws, HM_BUF_PACK_DY);
    for (unsigned i = 0; i < fan->n_branches; i++) {
        fan->branch[i].packed_dy = at;
        at += hm_pack_values(fan->n, fan->branch[i].w.frozen.rows);
    }
}

static struct fan_loop fan_loop(const struct hm_step *step, const struct hm_fan *fan)
{
    struct fan_loop loop = { .step = step,
                             .fan = *fan,
                             .per_branch = hm_units(fan->n, HM_ROW_BLOCK) };
    const struct hm_linear *first = &fan->branch[0].w;

    fan_place(step, &loop.fan);
    loop.input_cuts = hm_units(first->cols, hm_cut(first->cols));
    for (unsigned i = 0; i < fan->n_branches; i++) {
        const struct hm_linear *w = &fan->branch[i].w;
        loop.begin[i + 1] = loop.begin[i] + hm_units(w->rows, hm_cut(w->rows));
    }
    return loop;
}

static bool prepared(const struct hm_fan *fan)
{
    if (hm_fan_frozen(fan))
        return true;
    for (unsigned i = 0; i < fan->n_branches; i++)
        if (fan->branch[i].w.rank > 0)
            return true;
    return false;
}

void hm_fan_forward(const struct hm_step *step, const struct hm_fan *fan)
{
    struct fan_loop loop = fan_loop(step, fan);

    if (prepared(fan))
        hm_parallel_for(loop.per_branch, prepare_unit, &loop);
    hm_parallel_for(loop.begin[fan->n_branches], product_unit, &loop);
}

void hm_fan_backward(const struct hm_step *step, const struct hm_fan *fan)
{
    struct fan_loop loop = fan_loop(step, fan);

    loop.fan.x_lost = true; /* others have packed since */
    if (prepared(fan))
        hm_parallel_for(loop.per_branch * fan->n_branches, prepare_gradient_unit, &loop);
    hm_parallel_for(loop.input_cuts + loop.begin[fan->n_branches], gradient_unit, &loop);
}
