/* SPDX-License-Identifier: MIT */
/*
 * The schedule over experts, and nothing else: which rows an expert gets, in which rounds experts
 * run, how their work is cut, and in which order loops follow each other. What a unit computes is
 * in expert.c and linear.c.
 *
 * Rows are sorted by expert, then by token; no token is dropped, an expert may have none. A round
 * takes consecutive experts as long as their rows fit the buffers; within a round every loop runs
 * the units of all its experts, so that experts with few tokens still fill all threads. All cuts
 * depend on shapes and routing only.
 */
#include <string.h>

#include "internal.h"

enum op {
    OP_GATHER,          /* x, u1, u3 */
    OP_GATHER_GRADIENT, /* and G, v2 */
    OP_IN,              /* a1 and a3 on a cut of F, then m */
    OP_LOW_OUT,         /* u2 */
    OP_OUT,             /* y on a cut of D */
    OP_COMBINE,
    OP_INNER_GRADIENT, /* m again; dm, da1, da3 and dA2, dB1, dB3 on a cut of F */
    OP_LOW_GRADIENT,   /* v1, v3 */
    OP_INPUT_GRADIENT, /* dx and dA1, dA3, dB2 on a cut of D */
    OP_SCATTER
};

#define FEW_ROWS 8u

struct schedule {
    const struct hm_moe *moe;
    struct hm_unit *unit;
    size_t count;
};

static void unit_run(void *context, size_t index, int worker)
{
    const struct schedule *schedule = context;
    const struct hm_moe *moe = schedule->moe;
    const struct hm_step *step = moe->step;
    const struct hm_unit unit = schedule->unit[index];
    const struct hm_expert_job *job = &moe->job[unit.job];
    size_t i = (size_t)unit.index;

    switch ((enum op)unit.op) {
    case OP_GATHER:
        hm_expert_gather(moe, job, i, worker);
        break;
    case OP_GATHER_GRADIENT:
        hm_expert_gather_gradient(moe, job, i, worker);
        break;
    case OP_IN:
        hm_expert_inner(moe, job, i, worker);
        break;
    case OP_LOW_OUT:
        hm_fan_down(step, &job->out, 0, i, worker);
        break;
    case OP_OUT:
        hm_fan_product(step, &job->out, 0, i, worker);
        break;
    case OP_COMBINE:
        hm_expert_combine(moe, i, worker);
        break;
    case OP_INNER_GRADIENT:
        hm_expert_inner_gradient(moe, job, i, worker);
        break;
    case OP_LOW_GRADIENT:
        hm_expert_low_gradient(moe, job, i, worker);
        break;
    case OP_INPUT_GRADIENT:
        hm_fan_input_gradient(step, &job->in, i, job->in.dx + i * hm_cut(step->arch->hidden),
                              step->arch->hidden, worker);
        hm_fan_a_gradients(step, &job->in, i, worker);
        hm_fan_weight_gradient(step, &job->out, 0, i, worker);
        break;
    case OP_SCATTER:
        hm_expert_scatter(moe, i, worker);
        break;
    }
}

/* --- lists of units --------------------------------------------------------------------------- */

static struct schedule schedule_begin(const struct hm_moe *moe)
{
    return (struct schedule){ moe, moe->step->ws->buffer[HM_BUF_UNITS].data, 0 };
}

static void list(struct schedule *schedule, enum op op, size_t job, size_t count)
{
    HM_BUG(schedule->count + count > schedule->moe->step->ws->buffer[HM_BUF_UNITS].rows);
    for (size_t i = 0; i < count; i++)
        schedule->unit[schedule->count++] =
            (struct hm_unit){ (int32_t)op, (int32_t)job, (int32_t)i };
}

/* Row blocks of every expert of the round. */
static void list_rows(struct schedule *schedule, enum op op)
{
    for (size_t j = 0; j < schedule->moe->n_jobs; j++)
        list(schedule, op, j, hm_units(schedule->moe->job[j].in.n, HM_ROW_BLOCK));
}

static void list_cuts(struct schedule *schedule, enum op op, uint32_t width)
{
    for (size_t j = 0; j < schedule->moe->n_jobs; j++)
        list(schedule, op, j, hm_units(width, hm_cut(width)));
}

static void schedule_run(struct schedule *schedule)
{
    if (schedule->count > 0)
        hm_parallel_for(schedule->count, unit_run, schedule);
    schedule->count = 0;
}

/* --- rows and rounds -------------------------------------------------------------------------- */

/* Counting sort of (token, k) by expert; tokens ascend within an expert. */
static void rows_sort(const struct hm_moe *moe)
{
    const struct hm_step *step = moe->step;
    const uint32_t experts = step->arch->experts, k = step->arch->top_k;
    const size_t slots = (size_t)step->N * k;
    int32_t *start = hm_i32(step->ws, HM_BUF_EXPERT);
    int32_t *row_token = hm_i32(step->ws, HM_BUF_ROW_TOKEN),
            *row_slot = hm_i32(step->ws, HM_BUF_ROW_SLOT);
    int32_t *token_row = hm_i32(step->ws, HM_BUF_TOKEN_ROW);

    memset(start, 0, ((size_t)experts + 1) * sizeof *start);
    for (size_t s = 0; s < slots; s++)
        start[moe->routing.id[s] + 1]++;
    for (uint32_t e = 0; e < experts; e++)
        start[e + 1] += start[e];
    for (size_t s = 0; s < slots; s++) {
        int32_t row = start[moe->routing.id[s]]++; /* start[e] becomes its end */
        token_row[s] = row;
        row_slot[row] = (int32_t)s;
        row_token[row] = (int32_t)(s / k);
    }
    for (uint32_t e = experts; e > 0; e--)
        start[e] = start[e - 1];
    start[0] = 0;
}

/* First row of the next job where rows of jobs are padded: a multiple of HM_PACK_ROWS. */
static size_t packed_row(const struct hm_moe *moe, size_t round_row)
{
    return round_row / HM_PACK_ROWS * HM_PACK_ROWS + moe->n_jobs * HM_PACK_ROWS;
}

static void job_place(const struct hm_moe *moe, struct hm_expert_job *job)
{
    const struct hm_workspace *ws = moe->step->ws;
    const size_t d = moe->step->arch->hidden, f = moe->step->arch->ffn;
    size_t row = packed_row(moe, job->round_row);
    uint16_t *inner = hm_bf16(ws, HM_BUF_PACK_M) + hm_pack_values(row, f);

    job->in.packed_x = hm_bf16(ws, HM_BUF_PACK_X) + hm_pack_values(row, d);
    job->out.packed_x = inner;
    if (!moe->dh)
        return;
    job->out.branch[0].packed_dy = hm_bf16(ws, HM_BUF_PACK_DY) + hm_pack_values(row, d);
    job->in.branch[0].packed_dy = inner;
    job->in.branch[1].packed_dy = inner + ws->buffer[HM_BUF_PACK_M].cols / 2;
}

/* Parts of u of w2 and of v of w1 and w3, by cuts of F; each in its time. */
static void sums_place(const struct hm_moe *moe, struct hm_expert_job *job)
{
    const struct hm_workspace *ws = moe->step->ws;
    const size_t half = hm_low_sums_half(&ws->shape);
    size_t row = job->round_row / 32 * 32 + moe->n_jobs * 32;
    float *sums = hm_f32(ws, HM_BUF_LOW_SUMS) + hm_low_sums(row, ws->shape.rank);

    job->in.branch[0].v_sums = job->out.branch[0].u_sums = sums;
    job->in.branch[1].v_sums = sums + half;
    for (unsigned b = 0; b < 2; b++)
        job->in.branch[b].sums_stride = 2 * half;
    job->out.branch[0].sums_stride = 2 * half;
}

static void job_set(const struct hm_moe *moe, uint32_t layer, uint32_t expert, size_t row0,
                    size_t n, struct hm_expert_job *ret_job)
{
    const struct hm_step *step = moe->step;
    const struct hm_shape *shape = &step->ws->shape;
    const size_t d = step->arch->hidden, f = step->arch->ffn, at = row0 - moe->row0;
    const size_t low = shape->packed ? packed_row(moe, at) : at;
    const size_t kept = hm_set_of(step, layer) * step->ws->buffer[HM_BUF_A1].cols;
    const int32_t *token = moe->routed ? hm_i32(step->ws, HM_BUF_ROW_TOKEN) + row0 : NULL;
    float *m = hm_f32(step->ws, HM_BUF_M) + at * f;
    struct hm_expert_view view;
    struct hm_expert_job job = { .row0 = row0, .round_row = at, .expert = expert };

    hm_expert_acquire(step->model, layer, expert, &view);
    job.in = (struct hm_fan){ .n = n, .token = token, .n_branches = 2 };
    job.out = (struct hm_fan){ .n = n,
                               .token = token,
                               .n_branches = 1,
                               .x = m,
                               .x_lost = moe->dh != NULL,
                               .add_y = !moe->routed };
    job.in.x = moe->routed ? hm_f32(step->ws, HM_BUF_XG) + at * d : moe->h;
    job.in.dx = moe->routed ? hm_f32(step->ws, HM_BUF_DXG) + at * d : moe->dh;
    float *y = moe->routed ? hm_f32(step->ws, HM_BUF_YG) + at * d : moe->out;
    job.in.branch[0] = hm_branch_make(step, &view.w1, hm_f32(step->ws, HM_BUF_A1) + kept + at * f,
                                      layer, HM_LOW_W1, low);
    job.in.branch[1] = hm_branch_make(step, &view.w3, hm_f32(step->ws, HM_BUF_A3) + kept + at * f,
                                      layer, HM_LOW_W3, low);
    job.out.branch[0] = hm_branch_make(step, &view.w2, y, layer, HM_LOW_W2, low);
    if (shape->packed)
        job_place(moe, &job);
    if (n > 2 * HM_PACK_ROWS && hm_low_sums_half(shape) > 0)
        sums_place(moe, &job);
    *ret_job = job;
}

/* Experts from `expert` on whose rows fit one round; returns the first one left for the next. */
static uint32_t round_begin(struct hm_moe *moe, uint32_t layer, uint32_t expert)
{
    const struct hm_step *step = moe->step;
    const int32_t *start = hm_i32(step->ws, HM_BUF_EXPERT);
    size_t most = hm_expert_round_rows(&step->ws->shape);

    moe->row0 = (size_t)start[expert];
    moe->rows = 0;
    moe->n_jobs = 0;
    for (; expert < step->arch->experts; expert++) {
        size_t n = (size_t)(start[expert + 1] - start[expert]);
        if (moe->rows + n > most)
            break;
        if (n > 0)
            job_set(moe, layer, expert, (size_t)start[expert], n, &moe->job[moe->n_jobs++]);
        moe->rows += n;
    }
    return expert;
}

static void round_end(const struct hm_moe *moe, uint32_t layer)
{
    for (size_t j = 0; j < moe->n_jobs; j++)
        hm_expert_release(moe->step->model, layer, moe->job[j].expert);
}

static struct hm_moe moe_begin(const struct hm_step *step, uint32_t layer, const float *h)
{
    struct hm_moe moe = { .step = step,
                          .routing = hm_routing_of(step, layer),
                          .h = h,
                          .job = step->ws->buffer[HM_BUF_JOBS].data,
                          .routed = step->arch->experts > 1 };

    rows_sort(&moe);
    return moe;
}

/* --- the two passes --------------------------------------------------------------------------- */

/* Copies of a few rows are done before other threads would wake; down products are not. */
static void gather_run(struct schedule *schedule)
{
    const struct hm_moe *moe = schedule->moe;
    bool few = moe->rows <= FEW_ROWS;

    for (size_t j = 0; j < moe->n_jobs; j++)
        for (unsigned b = 0; b < moe->job[j].in.n_branches; b++)
            few = few && moe->job[j].in.branch[b].w.rank == 0;
    if (!few) {
        schedule_run(schedule);
        return;
    }
    for (size_t i = 0; i < schedule->count; i++)
        unit_run(schedule, i, 0);
    schedule->count = 0;
}

static void round_forward(const struct hm_moe *moe)
{
    const struct hm_step *step = moe->step;
    struct schedule schedule = schedule_begin(moe);

    list_rows(&schedule, OP_GATHER);
    gather_run(&schedule);
    list_cuts(&schedule, OP_IN, step->arch->ffn);
    schedule_run(&schedule);
    for (size_t j = 0; j < moe->n_jobs; j++)
        if (moe->job[j].out.branch[0].w.rank > 0)
            list(&schedule, OP_LOW_OUT, j, hm_units(moe->job[j].out.n, HM_ROW_BLOCK));
    schedule_run(&schedule);
    list_cuts(&schedule, OP_OUT, step->arch->hidden);
    schedule_run(&schedule);
    if (moe->routed)
        list(&schedule, OP_COMBINE, 0, hm_units(step->N, HM_ROW_BLOCK));
    schedule_run(&schedule);
}

void hm_moe_forward(const struct hm_step *step, uint32_t layer, const float *h, float *out)
{
    struct hm_moe moe = moe_begin(step, layer, h);

    moe.out = out;
    for (uint32_t expert = 0; expert < step->arch->experts;) {
        expert = round_begin(&moe, layer, expert);
        round_forward(&moe);
        round_end(&moe, layer);
    }
}

static void round_backward(const struct hm_moe *moe)
{
    const struct hm_step *step = moe->step;
    struct schedule schedule = schedule_begin(moe);

    list_rows(&schedule, OP_GATHER_GRADIENT);
    schedule_run(&schedule);
    list_cuts(&schedule, OP_INNER_GRADIENT, step->arch->ffn);
    schedule_run(&schedule);
    list_rows(&schedule, OP_LOW_GRADIENT);
    schedule_run(&schedule);
    list_cuts(&schedule, OP_INPUT_GRADIENT, step->arch->hidden);
    schedule_run(&schedule);
    if (moe->routed)
        list(&schedule, OP_SCATTER, 0, hm_units(step->N, HM_ROW_BLOCK));
    schedule_run(&schedule);
}

void hm_moe_backward(const struct hm_step *step, uint32_t layer, const float *h, float *dout,
                     float *dh, float *gamma)
{
    struct hm_moe moe = moe_begin(step, layer, h);

    moe.out = dout;
    moe.dh = dh;
    moe.gamma = gamma;
    memset(dh, 0, (size_t)step->N * step->arch->hidden * sizeof(float));
    for (uint32_t expert = 0; expert < step->arch->experts;) {
        expert = round_begin(&moe, layer, expert);
        round_backward(&moe);
        round_end(&moe, layer);
    }
}
