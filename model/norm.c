/* SPDX-License-Identifier: MIT */
/*
 * RMSNorm over the rows of a micro-batch, cut in fixed blocks. A trained norm vector sums over all
 * rows in order in one unit: it is small beside every product, and its sum must not depend on the
 * cut.
 */
#include "internal.h"

struct norm_loop {
    const struct hm_step *step;
    const struct hm_norm *norm;
    const float *x, *rho_in, *dy;
    float *y, *rho, *dx, *dw;
    size_t block; /* rows of a unit */
};

static size_t block_rows(const struct norm_loop *loop, size_t row)
{
    size_t left = loop->step->N - row;

    return left < loop->block ? left : loop->block;
}

static void norm_unit(void *context, size_t index, int worker)
{
    const struct norm_loop *loop = context;
    const struct hm_step *step = loop->step;
    size_t row = index * loop->block, d = step->arch->hidden;
    double mark = hm_clock_seconds();

    step->kernels->rmsnorm(loop->x + row * d, loop->norm->w, block_rows(loop, row), d,
                           (float)step->arch->norm_eps, loop->y + row * d, loop->rho + row);
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_norm_rows(const struct hm_step *step, const struct hm_norm *norm, const float *x, float *y,
                  float *rho)
{
    struct norm_loop loop = {
        .step = step, .norm = norm, .x = x, .y = y, .rho = rho, .block = HM_ROW_BLOCK
    };

    hm_parallel_for(hm_units(step->N, loop.block), norm_unit, &loop);
}

static void norm_gradient_unit(void *context, size_t index, int worker)
{
    const struct norm_loop *loop = context;
    const struct hm_step *step = loop->step;
    size_t row = index * loop->block, d = step->arch->hidden;
    double mark = hm_clock_seconds();

    step->kernels->rmsnorm_backward(loop->x + row * d, loop->norm->w, loop->rho_in + row,
                                    loop->dy + row * d, block_rows(loop, row), d,
                                    loop->dx + row * d, loop->dw);
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_norm_backward(const struct hm_step *step, const struct hm_norm *norm, const float *x,
                      const float *rho, const float *dy, float *dx)
{
    struct norm_loop loop = { .step = step,
                              .norm = norm,
                              .x = x,
                              .rho_in = rho,
                              .dy = dy,
                              .dx = dx,
                              .dw = norm->full ? norm->full->grad : NULL,
                              .block = norm->full ? step->N : HM_ROW_BLOCK };

    hm_parallel_for(hm_units(step->N, loop.block), norm_gradient_unit, &loop);
}
