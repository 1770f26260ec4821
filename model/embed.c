/* SPDX-License-Identifier: MIT */
/*
 * The embedding: a row of the table per token, and the gradient back into trained rows. Units of
 * the gradient own columns and visit tokens in order, so that no two add to the same value and the
 * sum has one order.
 */
#include "internal.h"

#define EMBED_COLS 64u

struct embed_loop {
    const struct hm_step *step;
    struct hm_linear table;
    float *x;        /* [N][D] */
    const float *dx; /* [N][D] */
};

static void embed_unit(void *context, size_t index, int worker)
{
    const struct embed_loop *loop = context;
    const struct hm_step *step = loop->step;
    size_t end = (index + 1) * HM_ROW_BLOCK < step->N ? (index + 1) * HM_ROW_BLOCK : step->N;
    double mark = hm_clock_seconds();

    for (size_t t = index * HM_ROW_BLOCK; t < end; t++)
        hm_linear_row(step, &loop->table, (uint32_t)step->batch->ids[t],
                      loop->x + t * loop->table.cols);
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_embed_forward(const struct hm_step *step, float *x)
{
    struct embed_loop loop = { .step = step, .x = x };

    hm_embed_view(step->model, &loop.table);
    hm_parallel_for(hm_units(step->N, HM_ROW_BLOCK), embed_unit, &loop);
    hm_adapter_group_done(step->model->adapter, 0); /* rows here and there map whole large pages */
}

static void embed_gradient_unit(void *context, size_t index, int worker)
{
    const struct embed_loop *loop = context;
    const struct hm_step *step = loop->step;
    const struct hm_param *param = loop->table.full;
    size_t col = index * EMBED_COLS, d = loop->table.cols;
    size_t width = d - col < EMBED_COLS ? d - col : EMBED_COLS;
    double mark = hm_clock_seconds();

    for (size_t t = 0; t < step->N; t++) {
        uint32_t id = (uint32_t)step->batch->ids[t];
        if (id >= param->first_row)
            step->kernels->add(loop->dx + t * d + col, width,
                               param->grad + (size_t)(id - param->first_row) * d + col);
    }
    hm_step_lap(step, worker, HM_PHASE_OTHER, &mark);
}

void hm_embed_backward(const struct hm_step *step, const float *dx)
{
    struct embed_loop loop = { .step = step, .dx = dx };

    hm_embed_view(step->model, &loop.table);
    if (loop.table.full)
        hm_parallel_for(hm_units(loop.table.cols, EMBED_COLS), embed_gradient_unit, &loop);
    hm_adapter_group_done(step->model->adapter, 0);
}
