/* SPDX-License-Identifier: MIT */
/*
 * The prediction of qlora.train: which parts to time within the seconds there are, and how the
 * whole follows from them. The whole model where its steps are short; else its first layer and its
 * first two, whose difference is a layer and whose rest is embedding, head and loss; where even
 * that is too long, fewer tokens, or one layer alone. A model that does not exist yet is made of
 * random weights in its shape.
 */
#include "train_bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/cpu.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/kernels/peak.h"
#include "stage_util.h"
#include "train_probe.h"

#define FIRST_TOKENS      256u /* of the first look, whose only use is to choose the parts */
#define FIRST_SHARE       0.1  /* of the seconds, for a second step of it */
#define WHOLE_SHARE       0.5  /* of the seconds, for timing the whole model */
#define MAKE_SHARE        0.2  /* of the seconds, for writing two layers; else one is made */
#define WHOLE_BYTES       ((uint64_t)1 << 30) /* the largest model made of random weights as a whole */
#define SAVED_BYTES       ((uint64_t)1 << 30) /* larger states are not written for the clock */
#define STEPS_LEAST       3u
#define LONG_SECONDS      8.0       /* enough for one part */
#define PARTS_SHARE       0.9       /* of the seconds left: a step may take longer than foreseen */
#define SHORT_SECONDS     2.0       /* micro-batches above are not evaluated, too */
#define FORWARD_SHARE     (1.0 / 3) /* of a step with recomputation, in an evaluation */
#define FORWARD_SHARE_ALL (1.0 / 2) /* of one without */

struct bench {
    const struct hm_stage_run *run;
    const struct hm_bench_limits *limits;
    struct train_forecast f;
    char *model_dir, *probe_dir;
    uint32_t layers;                            /* that model_dir has */
    uint32_t rows, seq_len;                     /* that are timed */
    double ends;                                /* on the clock */
    struct train_probe part;                    /* the largest timed */
    double layer, layer_evaluation, layer_open; /* of each further layer */
};

static double left(const struct bench *b)
{
    return b->ends - hm_clock_seconds();
}

/* --- the model --- */

static int model_make(struct bench *b, struct hm_error *err)
{
    struct hm_arch arch = b->f.model.arch;
    char *dir = NULL;

    if (b->f.model.file_bytes > WHOLE_BYTES && arch.layers > 2) {
        double two = 2 * (double)b->f.model.file_bytes / arch.layers;
        arch.layers = two > b->limits->write_rate * b->limits->seconds * MAKE_SHARE ? 1 : 2;
    }
    HM_TRY(hm_path_join(&dir, b->limits->scratch_dir, "model", err));
    b->model_dir = dir;
    b->layers = arch.layers;
    HM_TRY(hm_synthetic_make(dir, &arch, 1, b->run->ctl, err));
    struct hm_vocab_record record = { .old_vocab_size = b->f.model.old_vocab_size,
                                      .new_vocab_size = arch.vocab_size };
    memset(record.old_tokenizer, '0', sizeof(record.old_tokenizer) - 1); /* of no tokenizer */
    memset(record.new_tokenizer, '0', sizeof(record.new_tokenizer) - 1);
    return hm_vocab_record_write(dir, &record, err);
}

static int model_find(struct bench *b, struct hm_error *err)
{
    const char *dir = NULL;

    if (hm_stage_pending(b->run, "model"))
        return model_make(b, err);
    HM_TRY(hm_stage_path(b->run, "model", &dir, err));
    b->model_dir = hm_strdup(HM_MEM_OTHER, dir);
    b->layers = b->f.model.arch.layers;
    return b->model_dir ? HM_OK : hm_fail_nomem(err, "for a path");
}

/* --- parts --- */

static int probe_run(struct bench *b, struct train_probe *probe, struct hm_error *err)
{
    hm_ctl_message(b->run->ctl, "%s: timing %u of %u layers, %u x %u tokens", b->run->id,
                   probe->layers, b->f.model.arch.layers, probe->rows, probe->seq_len);
    probe->forecast = &b->f;
    probe->model_dir = b->model_dir;
    return hm_train_probe(b->run, probe, b->probe_dir, err);
}

/* In `share` of the seconds left, or with one step that takes longer. */
static int part_time(struct bench *b, uint32_t layers, double expected, double share,
                     struct hm_error *err)
{
    const struct train_forecast *f = &b->f;
    bool whole_batch = b->rows == f->config.micro_batch && b->seq_len == f->seq_len;
    const char *data = hm_stage_input(b->run, "ids") ? "ids" : "data";
    struct train_probe probe = { .layers = layers, .rows = b->rows, .seq_len = b->seq_len };

    if (expected < SHORT_SECONDS && f->eval_seq_len > 0)
        probe.eval_seq_len = b->seq_len == f->seq_len ? f->eval_seq_len : b->seq_len;
    /* A single step touches its memory for the first time and is slow: more if there is time. */
    probe.steps = TRAIN_PROBE_STEPS;
    probe.least = (uint64_t)fmin(fmax(share * left(b) / (expected + 1e-9), 1), STEPS_LEAST);
    probe.ends = hm_clock_seconds() + fmin(left(b) / 3, LONG_SECONDS);
    probe.own_data = whole_batch && !hm_stage_pending(b->run, data);
    probe.save = f->saved_bytes < SAVED_BYTES;
    HM_TRY(probe_run(b, &probe, err));
    b->part = probe;
    return HM_OK;
}

/* Rows, then tokens of a sample, halved until a step of one layer fits into the seconds there are:
 * fewer tokens would take longer each. */
static void batch_shrink(struct bench *b, double layer_token)
{
    const double tokens = PARTS_SHARE * left(b) / (layer_token + 1e-12);

    while (b->rows > 1 && (double)b->rows * b->seq_len > tokens)
        b->rows = (b->rows + 1) / 2;
    while (b->seq_len > FIRST_TOKENS && b->seq_len > tokens)
        b->seq_len = (b->seq_len + 1) / 2;
}

static int parts_time(struct bench *b, struct hm_error *err)
{
    const uint32_t layers = b->f.model.arch.layers;
    struct train_probe first = { .layers = 1, .rows = 1, .steps = 2, .least = 1 };

    first.ends = hm_clock_seconds() + FIRST_SHARE * left(b);
    first.seq_len = b->f.seq_len < FIRST_TOKENS ? b->f.seq_len : FIRST_TOKENS;
    HM_TRY(probe_run(b, &first, err));
    double layer_token = first.micro / first.seq_len;
    double one = layer_token * b->rows * b->seq_len;
    if (b->layers == layers && 3 * one * layers < WHOLE_SHARE * left(b))
        return part_time(b, layers, one * layers, WHOLE_SHARE, err);
    batch_shrink(b, layer_token);
    one = layer_token * b->rows * b->seq_len;
    bool two = b->layers > 1 && 3 * one < PARTS_SHARE * left(b);
    HM_TRY(part_time(b, 1, one, two ? PARTS_SHARE / 3 : PARTS_SHARE, err));
    const struct train_probe single = b->part;
    b->layer = single.micro - single.head;
    b->layer_evaluation = single.evaluation * (1 - single.head / (single.micro + 1e-9));
    b->layer_open = single.open;
    if (b->layers == 1 || 2 * single.micro > PARTS_SHARE * left(b))
        return HM_OK;
    HM_TRY(part_time(b, 2, 2 * single.micro, PARTS_SHARE, err));
    b->layer = fmax(b->part.micro - single.micro, 0);
    b->layer_evaluation = fmax(b->part.evaluation - single.evaluation, 0);
    b->layer_open = fmax(b->part.open - single.open, 0);
    return HM_OK;
}

/* --- the whole --- */

static uint64_t due(uint64_t every, uint64_t from, uint64_t steps)
{
    return every == 0 ? 1 : (steps - 1) / every - from / every + 1;
}

/* The newest state of a run that goes on; 0 for a fresh start. */
static uint64_t steps_done(const struct hm_stage_run *run)
{
    struct hm_names names = { 0 };
    uint64_t newest = 0;

    if (!run->out_dir[0] || hm_dir_list(run->out_dir, &names, NULL) < 0)
        return 0;
    for (size_t i = 0; i < names.count; i++) {
        uint64_t step = 0;
        if (strncmp(names.item[i], "state-", 6) == 0 &&
            hm_parse_count(names.item[i] + 6, &step, NULL) == HM_OK && step > newest)
            newest = step;
    }
    hm_names_release(&names);
    return newest;
}

/* A state in a file that memory cannot hold besides the run: what a step takes of the disk for it.
 */
static double state_disk(const struct bench *b)
{
    const struct train_forecast *f = &b->f;
    const double read = b->limits->read_rate, write = b->limits->write_rate;

    if (!(read > 0) || !(write > 0) ||
        f->store_bytes + hm_memory_plan_total(&f->memory) <= hm_memory_limit_bytes())
        return 0;
    return (double)f->store_read / read + (double)f->store_write / write;
}

static void predict(const struct bench *b, struct hm_stage_bench *bench)
{
    const struct train_forecast *f = &b->f;
    const struct hm_train_config *config = &f->config;
    const struct train_probe *p = &b->part;
    double more = (double)(f->model.arch.layers - p->layers);
    double tokens = (double)config->micro_batch * f->seq_len / ((double)p->rows * p->seq_len);
    double parameters = (double)f->parameters / (double)p->parameters;
    uint64_t done = steps_done(b->run);
    uint64_t steps = config->steps > done ? config->steps - done : 0;

    /* Weights that are read again while others are computed with: the disk, or the work of a core
       for it, which the products lack. */
    double again = (double)f->memory.weights_read;
    double disk = b->limits->read_rate > 0 ? again / b->limits->read_rate : 0;
    double lacking = again * b->limits->read_work / b->run->threads;
    double micro = fmax((p->micro + more * b->layer) * tokens + lacking, disk);
    double step = (double)config->accumulate * micro + p->optimizer * parameters;
    step = fmax(step, (double)config->accumulate * disk + state_disk(b));
    hm_stage_bench_add(bench, "start", p->open + more * b->layer_open, 1);
    hm_stage_bench_add(bench, "step", step, (double)steps);
    if (f->n_eval > 0 && steps > 0) {
        double share = config->recompute ? FORWARD_SHARE : FORWARD_SHARE_ALL;
        double rows = (double)config->micro_batch;
        double each = p->eval_seq_len > 0 ? (p->evaluation + more * b->layer_evaluation) * rows /
                                                p->rows * f->eval_seq_len / p->eval_seq_len
                                          : micro * share * f->eval_seq_len / f->seq_len;
        each = fmax(each, disk / 2); /* one pass of two */
        double batches = ((double)f->eval_windows + (double)f->n_eval * (rows - 1) / 2) / rows;
        double times = (double)due(config->eval_every, done, config->steps) + (done == 0);
        hm_stage_bench_add(bench, "evaluation", each * batches, times);
    }
    double save = p->save ? p->saving * parameters
                          : (double)f->saved_bytes /
                                (b->limits->write_rate > 0 ? b->limits->write_rate : 1e9);
    if (steps > 0)
        hm_stage_bench_add(bench, "save", save,
                           (double)due(config->save_every, done, config->steps));
    hm_stage_bench_add(bench, "end", STAGE_PEAK_SECONDS + save / 3, 1);
    snprintf(bench->how, sizeof(bench->how),
             "%u of %u layers, %u x %u of %u x %u tokens, %" PRIu64 " step%s%s", p->layers,
             f->model.arch.layers, p->rows, p->seq_len, config->micro_batch, f->seq_len, p->steps,
             p->steps == 1 ? "" : "s", p->steps < STEPS_LEAST ? ": rough, time was short" : "");
}

int hm_train_bench(const struct hm_stage_run *run, const struct hm_bench_limits *limits,
                   struct hm_stage_bench *ret_bench, struct hm_error *err)
{
    struct bench b = { .run = run, .limits = limits, .ends = hm_clock_seconds() + limits->seconds };

    HM_TRY(hm_train_forecast(run, &b.f, err));
    int r = HM_OK;
    if (!b.f.model.known || b.f.config.steps == 0)
        goto out;
    b.rows = b.f.config.micro_batch;
    b.seq_len = b.f.seq_len;
    r = hm_path_join(&b.probe_dir, limits->scratch_dir, "steps", err);
    if (r == HM_OK)
        r = model_find(&b, err);
    if (r == HM_OK)
        r = parts_time(&b, err);
    if (r == HM_OK)
        predict(&b, ret_bench);
out:
    hm_free(b.model_dir);
    hm_free(b.probe_dir);
    hm_train_forecast_release(&b.f);
    return r;
}
