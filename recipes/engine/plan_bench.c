/* SPDX-License-Identifier: MIT */
/*
 * Predictions for a plan: each stage that can times parts of itself, in a scratch folder that is
 * removed whatever happens. What is timed is the stages' own business; here time is shared out and
 * the disk measured.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/disk_rate.h"
#include "hanmix/base/parallel.h"
#include "run_internal.h"

#define DISK_BYTES        ((uint64_t)128 << 20)
#define REHEARSAL_SECONDS 6.0          /* for one stage */
#define ALIKE             2            /* times the memory, and the times are no longer alike */
#define REHEARSED_BYTES   (2ull << 30) /* of mapped files, with which nothing is short any more */

struct bench {
    const struct hm_recipe *recipe;
    const struct hm_run_plan *plan;
    const struct hm_ctl *ctl;
    int threads;
    double deadline; /* on the clock */
    char *scratch;
    double read_work; /* seconds of a core for each byte read */
    struct hm_plan_bench result;
};

void hm_plan_bench_release(struct hm_plan_bench *bench)
{
    hm_free(bench->stage);
    *bench = (struct hm_plan_bench){ 0 };
}

/* --- the scratch folder --- */

static int scratch_in(const char *dir, char **ret_scratch, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, ".hanmix-plan-XXXXXX", err));
    if (!mkdtemp(path)) {
        int status = hm_fail(err, HM_ERR_IO, "'%s': %s", dir, strerror(errno));
        hm_free(path);
        return status;
    }
    *ret_scratch = path;
    return HM_OK;
}

/* Beside the run folder, on the disk that the run will use; where that cannot be written, in
 * $TMPDIR. */
static int scratch_make(const char *run_dir, char **ret_scratch, struct hm_error *err)
{
    const char *temporary = getenv("TMPDIR");
    char *dir = NULL;

    HM_TRY(hm_existing_parent(run_dir, &dir, err));
    int status = scratch_in(dir, ret_scratch, NULL);
    hm_free(dir);
    if (status < 0)
        status = scratch_in(temporary && *temporary ? temporary : "/tmp", ret_scratch, err);
    return status;
}

/* --- stages --- */

static bool wanted(const struct bench *bench, size_t stage)
{
    const struct hm_stage *row = bench->recipe->stage[stage].stage;
    const struct hm_planned_stage *planned = &bench->plan->stage[stage];

    return planned->decision != HM_DECIDE_SKIP &&
           (row->bench || (row->rehearsed && planned->mapped_bytes < REHEARSED_BYTES));
}

/* Stages that do little besides reading and writing: the slower of both, at the share of the disk's
 * rate that streaming reaches. */
#define DISK_SHARE 0.8

static void disk_bench(struct bench *bench, size_t stage)
{
    const struct hm_stage_plan *plan = &bench->plan->stage[stage].plan;
    struct hm_stage_bench *ret = &bench->result.stage[stage];
    const struct hm_plan_bench *rates = &bench->result;

    if (bench->plan->stage[stage].decision == HM_DECIDE_SKIP || !plan->work_unit ||
        strcmp(plan->work_unit, "tensors") != 0 || plan->read_bytes == 0 ||
        !(rates->read_rate > 0) || !(rates->write_rate > 0))
        return;
    double read = (double)plan->read_bytes / rates->read_rate;
    double write = (double)plan->disk_bytes / rates->write_rate;
    hm_stage_bench_add(ret, read > write ? "read" : "write",
                       (read > write ? read : write) / DISK_SHARE, 1);
    snprintf(ret->how, sizeof(ret->how), "by the rates of the disk");
}

/* By what the stage itself times, else by a rehearsal, whose tokenizer stays for stages after it.
 */
static int stage_time(struct bench *bench, size_t stage, struct hm_stage_run *run,
                      const struct hm_bench_limits *limits, struct hm_error *err)
{
    const struct hm_stage *row = bench->recipe->stage[stage].stage;
    struct hm_stage_bench *ret = &bench->result.stage[stage];

    if (row->bench)
        return row->bench(run, limits, ret, err);
    for (size_t i = 0; i < run->n_inputs; i++)
        for (size_t s = 0; s < run->inputs[i].n_sets; s++)
            if (run->inputs[i].set[s].pending)
                return HM_OK;
    run->out_dir = limits->scratch_dir;
    double seconds = limits->seconds < REHEARSAL_SECONDS ? limits->seconds : REHEARSAL_SECONDS;
    return hm_stage_rehearse(row, run, seconds, ret, err);
}

static int stage_bench(struct bench *bench, size_t stage, double seconds, struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &bench->recipe->stage[stage];
    struct hm_resolver resolver = { bench->recipe, bench->plan->stage, false, NULL,
                                    bench->scratch };
    struct hm_input_value *inputs = NULL;
    struct hm_stage_run run;
    struct hm_bench_limits limits = { seconds, NULL, bench->result.read_rate,
                                      bench->result.write_rate, bench->read_work };
    char *scratch = NULL, *partial = NULL;

    HM_TRY(hm_inputs_resolve(&resolver, stage, &inputs, err));
    hm_stage_run_fill(bench->recipe, stage, bench->threads, inputs, bench->ctl, &run);
    int status = hm_path_join(&scratch, bench->scratch, entry->id, err);
    if (status == HM_OK)
        status = hm_dir_make(scratch, err);
    if (status == HM_OK && bench->plan->stage[stage].decision == HM_DECIDE_CONTINUE) {
        status = hm_run_path(bench->recipe, entry->id, ".partial", &partial, err);
        run.out_dir = partial;
    }
    if (status == HM_OK) {
        limits.scratch_dir = scratch;
        hm_threads_set(run.threads);
        double start = hm_clock_seconds();
        status = stage_time(bench, stage, &run, &limits, err);
        bench->result.stage[stage].measured_seconds = hm_clock_seconds() - start;
    }
    if (scratch && entry->stage->product[0] != HM_INPUT_TOKENIZER)
        (void)hm_dir_remove(scratch, NULL);
    hm_free(scratch);
    hm_free(partial);
    hm_inputs_release(inputs, entry->stage->n_inputs);
    if (status < 0)
        hm_error_prefix(err, "timing stage '%s' (%s)", entry->id, entry->stage->name);
    return status;
}

/* A stage that could not be timed takes as long as one of its kind that was, by their work. */
static void like_another(struct bench *bench, size_t stage)
{
    const struct hm_planned_stage *planned = bench->plan->stage;

    if (planned[stage].decision == HM_DECIDE_SKIP || bench->result.stage[stage].n_parts > 0 ||
        planned[stage].plan.work == 0)
        return;
    for (size_t i = 0; i < bench->plan->n_stages; i++) {
        const struct hm_stage_bench *other = &bench->result.stage[i];
        if (i == stage || bench->recipe->stage[i].stage != bench->recipe->stage[stage].stage ||
            strcmp(other->part[0].what ? other->part[0].what : "", "run") != 0 ||
            planned[i].plan.work == 0 ||
            planned[stage].memory_bytes > ALIKE * planned[i].memory_bytes)
            continue;
        struct hm_stage_bench *ret = &bench->result.stage[stage];
        hm_stage_bench_add(ret, "as",
                           hm_stage_bench_seconds(other) * (double)planned[stage].plan.work /
                               (double)planned[i].plan.work,
                           1);
        snprintf(ret->how, sizeof(ret->how), "by stage '%.80s'", bench->recipe->stage[i].id);
        return;
    }
}

/* Every stage gets an equal share of what the ones before it left. */
static int stages_bench(struct bench *bench, struct hm_error *err)
{
    size_t left = 0, n = bench->plan->n_stages;

    for (size_t i = 0; i < n; i++)
        left += wanted(bench, i);
    for (size_t i = 0; i < n; i++) {
        if (!wanted(bench, i)) {
            disk_bench(bench, i);
            continue;
        }
        if (hm_ctl_stopped(bench->ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped while timing");
        double share = (bench->deadline - hm_clock_seconds()) / (double)left--;
        if (share > 0) /* else it counts among those of which nothing is known */
            HM_TRY(stage_bench(bench, i, share, err));
    }
    for (size_t i = 0; i < n; i++)
        like_another(bench, i);
    for (size_t i = 0; i < n; i++) {
        double seconds = hm_stage_bench_seconds(&bench->result.stage[i]);
        bench->result.seconds += seconds;
        bench->result.unpredicted +=
            bench->plan->stage[i].decision != HM_DECIDE_SKIP && !(seconds > 0);
    }
    return HM_OK;
}

int hm_run_plan_bench(const struct hm_recipe *recipe, const struct hm_run_plan *plan, int threads,
                      double seconds, const struct hm_ctl *ctl, struct hm_plan_bench *ret_bench,
                      struct hm_error *err)
{
    struct bench bench = { .recipe = recipe,
                           .plan = plan,
                           .ctl = ctl,
                           .threads = threads,
                           .deadline = hm_clock_seconds() + seconds };
    int threads_before = hm_threads();

    bench.result.n_stages = plan->n_stages;
    bench.result.stage = hm_calloc(HM_MEM_OTHER, plan->n_stages + 1, sizeof(*bench.result.stage));
    int status = bench.result.stage ? scratch_make(recipe->run_dir, &bench.scratch, err)
                                    : hm_fail_nomem(err, "for predictions");
    if (status == HM_OK) {
        struct hm_disk_rates rates = { 0 };
        if (hm_disk_rates_measure(bench.scratch, DISK_BYTES, &rates, NULL) == HM_OK) {
            bench.result.read_rate = rates.read;
            bench.result.write_rate = rates.write;
            bench.read_work = rates.read_work;
        }
        status = stages_bench(&bench, err);
        if (status == HM_OK)
            status = hm_plan_digests(recipe, plan, bench.scratch, &bench.result, err);
        (void)hm_dir_remove(bench.scratch, NULL);
    }
    hm_threads_set(threads_before);
    hm_free(bench.scratch);
    if (status < 0)
        hm_plan_bench_release(&bench.result);
    else
        *ret_bench = bench.result;
    return status;
}
