/* SPDX-License-Identifier: MIT */
/*
 * The low-rank part of a linear: u = s dropout(x) A^T and v = s G B by blocks of rows or, for
 * experts of few ranks, as sums of cuts of F; the gradient of A, and what v adds to dx where it
 * does not join the product with W. Functions are units: they open no parallel region.
 *
 * In bf16 (see linear.c) u and v are values of struct hm_low_rank in the buffers that hold them in
 * f32 else, where u is not yet times s. Kept and recomputed layers take the same sums.
 */
#include "internal.h"

bool hm_low_packed(const struct hm_step *step, const struct hm_linear *w)
{
    return w->rank > 0 && w->frozen.rows == w->rows && step->dropout == 0 &&
           step->kernels->low_project;
}

uint16_t *hm_low_of(float *value)
{
    return (uint16_t *)(void *)value;
}

static size_t cuts_of(uint32_t width)
{
    return hm_units(width, hm_cut(width));
}

void hm_fan_fetch(const struct hm_fan *fan, unsigned which, size_t cut)
{
    const struct hm_linear *w = &fan->branch[which].w;
    size_t row0 = cut * hm_cut(w->rows), n = hm_least(hm_cut(w->rows), w->rows - row0) * w->rank;

    if (w->rank > HM_LOW_SUM_MOST) /* then products take longer than memory */
        return;
    for (size_t i = 0; i < n; i += 16) { /* a cache line */
        __builtin_prefetch(w->b->value + row0 * w->rank + i, 0, 2);
        __builtin_prefetch(w->b->grad + row0 * w->rank + i, 1, 2);
    }
}

void hm_fan_low_sums(const struct hm_step *step, const struct hm_fan *fan, unsigned which,
                     enum hm_pack side, size_t cut, int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    const bool forward = side == HM_PACK_FORWARD;
    const uint32_t k = forward ? w->cols : w->rows, col0 = (uint32_t)cut * hm_cut(k);
    float *sums = forward ? branch->u_sums : branch->v_sums;
    double mark = hm_clock_seconds();

    if (!hm_low_packed(step, w) || !sums)
        return;
    step->kernels->low_sums(side, forward ? w->a->value : w->b->value, w->rank,
                            forward ? fan->packed_x : branch->packed_dy, fan->n, k, col0,
                            (uint32_t)hm_least(hm_cut(k), k - col0),
                            sums + cut * branch->sums_stride, hm_worker_panel(step->ws, worker));
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
}

/* u of a block whose packed x is lost: packed again, and in the same parts as before. */
static void down_again(const struct hm_step *step, const struct hm_fan *fan,
                       const struct hm_branch *branch, size_t row0, size_t n, int worker)
{
    const struct hm_linear *w = &branch->w;
    /* Few rows alone would be packed in an order of their own: those before come along. */
    const size_t skip = fan->n > n && n < HM_PACK_ROWS ? HM_PACK_ROWS : 0, m = skip + n;
    uint16_t *packed = (uint16_t *)(void *)hm_worker_scratch(step->ws, worker);
    uint16_t *u = hm_low_of(branch->u) + 2 * row0;
    void *scratch = hm_worker_panel(step->ws, worker);

    step->kernels->frozen_pack(HM_PACK_FORWARD, m, w->cols, 0, m, 0, w->cols,
                               fan->x + (row0 - skip) * w->cols, w->cols, packed);
    if (!branch->u_sums) {
        step->kernels->low_project(HM_PACK_FORWARD, w->a->value, w->rank, w->scale, packed, m,
                                   w->cols, skip, n, u, hm_low_ld(fan->n), scratch);
        return;
    }
    float *sums = branch->u_sums + hm_low_sums(row0, w->rank);
    for (size_t cut = 0; cut < cuts_of(w->cols); cut++) {
        uint32_t col0 = (uint32_t)cut * hm_cut(w->cols);
        step->kernels->low_sums(HM_PACK_FORWARD, w->a->value, w->rank, packed, m, w->cols, col0,
                                (uint32_t)hm_least(hm_cut(w->cols), w->cols - col0),
                                sums + cut * branch->sums_stride, scratch);
    }
    step->kernels->low_join(sums, branch->sums_stride, cuts_of(w->cols), w->rank, w->scale, skip, n,
                            u, hm_low_ld(fan->n));
}

static void down_packed(const struct hm_step *step, const struct hm_fan *fan,
                        const struct hm_branch *branch, size_t row0, size_t n, int worker)
{
    const struct hm_linear *w = &branch->w;
    uint16_t *u = hm_low_of(branch->u) + 2 * row0;

    if (fan->x_lost)
        down_again(step, fan, branch, row0, n, worker);
    else if (branch->u_sums)
        step->kernels->low_join(branch->u_sums, branch->sums_stride, cuts_of(w->cols), w->rank,
                                w->scale, row0, n, u, hm_low_ld(fan->n));
    else
        step->kernels->low_project(HM_PACK_FORWARD, w->a->value, w->rank, w->scale, fan->packed_x,
                                   fan->n, w->cols, row0, n, u, hm_low_ld(fan->n),
                                   hm_worker_panel(step->ws, worker));
}

void hm_fan_down(const struct hm_step *step, const struct hm_fan *fan, unsigned which, size_t block,
                 int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    size_t row0 = block * HM_ROW_BLOCK;
    size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
    const float *x = fan->x + row0 * w->cols;
    double mark = hm_clock_seconds();

    if (hm_low_packed(step, w)) {
        down_packed(step, fan, branch, row0, n, worker);
        hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
        return;
    }
    if (step->dropout > 0) {
        float *masked = hm_worker_scratch(step->ws, worker);
        hm_dropout(step, fan, w->module, row0, n, 0, w->cols, x, w->cols, masked, w->cols);
        x = masked;
    }
    step->kernels->gemm_nt(n, w->rank, w->cols, 1.0f, x, w->cols, w->a->value, w->cols, 0.0f,
                           branch->u + row0 * w->rank, w->rank);
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
}

void hm_fan_up_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned which,
                        size_t block, int worker)
{
    const struct hm_branch *branch = &fan->branch[which];
    const struct hm_linear *w = &branch->w;
    size_t row0 = block * HM_ROW_BLOCK;
    size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
    double mark = hm_clock_seconds();

    if (hm_low_packed(step, w) && branch->v_sums)
        step->kernels->low_join(branch->v_sums, branch->sums_stride, cuts_of(w->rows), w->rank,
                                w->scale, row0, n, hm_low_of(branch->v) + 2 * row0,
                                hm_low_ld(fan->n));
    else if (hm_low_packed(step, w))
        step->kernels->low_project(HM_PACK_BACKWARD, w->b->value, w->rank, w->scale,
                                   branch->packed_dy, fan->n, w->rows, row0, n,
                                   hm_low_of(branch->v) + 2 * row0, hm_low_ld(fan->n),
                                   hm_worker_panel(step->ws, worker));
    else
        step->kernels->gemm_nn(n, w->rank, w->rows, w->scale, branch->y + row0 * w->rows, w->rows,
                               w->b->value, w->rank, 0.0f, branch->v + row0 * w->rank, w->rank);
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
}

/* dx += dropout(v A) of one branch, columns from col0. */
void hm_low_input_gradient(const struct hm_step *step, const struct hm_fan *fan,
                           const struct hm_branch *branch, uint32_t col0, uint32_t n_cols,
                           float *dx, size_t ld_dx, int worker)
{
    const struct hm_linear *w = &branch->w;

    if (step->dropout == 0) {
        step->kernels->gemm_nn(fan->n, n_cols, w->rank, 1.0f, branch->v, w->rank,
                               w->a->value + col0, w->cols, 1.0f, dx, ld_dx);
        return;
    }
    float *part = hm_worker_scratch(step->ws, worker);
    for (size_t row0 = 0; row0 < fan->n; row0 += HM_ROW_BLOCK) {
        size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
        step->kernels->gemm_nn(n, n_cols, w->rank, 1.0f, branch->v + row0 * w->rank, w->rank,
                               w->a->value + col0, w->cols, 0.0f, part, n_cols);
        hm_dropout(step, fan, w->module, row0, n, col0, n_cols, part, n_cols, part, n_cols);
        for (size_t r = 0; r < n; r++)
            step->kernels->add(part + r * n_cols, n_cols, dx + (row0 + r) * ld_dx);
    }
}

/* dA of one branch in f32. */
static void low_rank_a_gradient(const struct hm_step *step, const struct hm_fan *fan,
                                const struct hm_branch *branch, uint32_t col0, uint32_t n_cols,
                                int worker)
{
    const struct hm_linear *w = &branch->w;
    float *grad = w->a->grad + col0;

    if (step->dropout == 0) {
        step->kernels->gemm_tn(w->rank, n_cols, fan->n, 1.0f, branch->v, w->rank, fan->x + col0,
                               w->cols, 1.0f, grad, w->cols);
        return;
    }
    float *masked = hm_worker_scratch(step->ws, worker);
    for (size_t row0 = 0; row0 < fan->n; row0 += HM_ROW_BLOCK) {
        size_t n = hm_least(HM_ROW_BLOCK, fan->n - row0);
        hm_dropout(step, fan, w->module, row0, n, col0, n_cols, fan->x + row0 * w->cols + col0,
                   w->cols, masked, n_cols);
        step->kernels->gemm_tn(w->rank, n_cols, n, 1.0f, branch->v + row0 * w->rank, w->rank,
                               masked, n_cols, 1.0f, grad, w->cols);
    }
}

void hm_fan_a_gradients(const struct hm_step *step, const struct hm_fan *fan, size_t cut,
                        int worker)
{
    const uint32_t cols = fan->branch[0].w.cols;
    uint32_t col0 = (uint32_t)cut * hm_cut(cols);
    uint32_t n_cols = (uint32_t)hm_least(hm_cut(cols), cols - col0);
    struct hm_low_part part[HM_LOW_PARTS];
    unsigned n_parts = 0;
    double mark = hm_clock_seconds();

    for (unsigned i = 0; i < fan->n_branches; i++) {
        const struct hm_branch *branch = &fan->branch[i];
        const struct hm_linear *w = &branch->w;
        if (hm_low_packed(step, w))
            part[n_parts++] =
                (struct hm_low_part){ hm_low_of(branch->v), w->rank, w->a->grad + col0 };
        else if (w->rank > 0)
            low_rank_a_gradient(step, fan, branch, col0, n_cols, worker);
    }
    if (n_parts > 0)
        step->kernels->low_a_gradient(fan->x + col0, cols, fan->n, n_cols, part, n_parts, cols,
                                      hm_worker_panel(step->ws, worker));
    hm_step_lap(step, worker, HM_PHASE_LORA, &mark);
}
