/* SPDX-License-Identifier: MIT */
/*
 * The verb plan: order, decisions, memory by purpose and disk of a recipe, for people and programs.
 */
#include <inttypes.h>
#include <time.h>

#include "cli.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "plan_text.h"

static int stage_text(const struct hm_recipe_stage *entry, const struct hm_planned_stage *planned,
                      struct hm_buf *text, struct hm_error *err)
{
    const struct hm_stage_plan *plan = &planned->plan;
    char amount[40];

    HM_TRY(hm_buf_printf(text, err, "%s (%s): %s%s%s\n", entry->id, entry->stage->name,
                         hm_decision_name(planned->decision), planned->reason[0] ? "; " : "",
                         planned->reason));
    if (planned->decision == HM_DECIDE_SKIP)
        return HM_OK;
    for (size_t i = 0; i < plan->n_memory; i++)
        if (plan->memory[i].bytes > 0)
            HM_TRY(hm_buf_printf(text, err, "  %-34s %12s%s\n", plan->memory[i].purpose,
                                 hm_bytes_text(plan->memory[i].bytes, amount, sizeof(amount)),
                                 plan->memory[i].mapped ? "  file pages, may be evicted" : ""));
    HM_TRY(hm_buf_printf(text, err, "  %-34s %12s\n", "memory in all",
                         hm_bytes_text(planned->memory_bytes, amount, sizeof(amount))));
    HM_TRY(hm_buf_printf(text, err, "  %-34s %12s\n", "disk",
                         hm_bytes_text(plan->disk_bytes, amount, sizeof(amount))));
    if (plan->read_bytes > 0)
        HM_TRY(hm_buf_printf(text, err, "  %-34s %12s\n", "read from disk",
                             hm_bytes_text(plan->read_bytes, amount, sizeof(amount))));
    if (plan->read_bytes_per_step > 0)
        HM_TRY(hm_buf_printf(text, err, "  %-34s %12s\n", "read from disk in each step",
                             hm_bytes_text(plan->read_bytes_per_step, amount, sizeof(amount))));
    if (plan->write_bytes_per_step > 0)
        HM_TRY(hm_buf_printf(text, err, "  %-34s %12s\n", "written to disk in each step",
                             hm_bytes_text(plan->write_bytes_per_step, amount, sizeof(amount))));
    if (plan->work > 0 && plan->work_unit)
        HM_TRY(hm_buf_printf(text, err, "  %-34s %12" PRIu64 " %s\n", "work", plan->work,
                             plan->work_unit));
    return HM_OK;
}

int hm_plan_text(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                 struct hm_buf *text, struct hm_error *err)
{
    char memory[40], unmapped[40], disk[40];

    HM_TRY(hm_buf_printf(text, err, "%s -> %s\n", recipe->single ? "stage" : recipe->path,
                         recipe->run_dir));
    for (size_t i = 0; i < plan->n_missing; i++)
        HM_TRY(hm_buf_printf(text, err, "not there yet: %s\n", plan->missing[i]));
    for (size_t i = 0; i < plan->n_stages; i++)
        HM_TRY(stage_text(&recipe->stage[i], &plan->stage[i], text, err));
    if (plan->memory_bytes == 0)
        return hm_buf_text(text, "nothing to run: every stage is finished\n", err);
    return hm_buf_printf(text, err, "peak memory %s (%s without file pages), stage '%s'; disk %s\n",
                         hm_bytes_text(plan->memory_bytes, memory, sizeof(memory)),
                         hm_bytes_text(plan->memory_unmapped_bytes, unmapped, sizeof(unmapped)),
                         recipe->stage[plan->memory_stage].id,
                         hm_bytes_text(plan->disk_bytes, disk, sizeof(disk)));
}

/* --- --bench --- */

#define BENCH_SECONDS 55.0 /* of the 60 promised: a part that has begun is finished */

/* Share of the peak that training reaches with wide matrices, where nothing could be timed. */
#define TRAIN_SHARE 0.5

struct timing {
    struct hm_plan_bench bench;
    double gflops; /* f32, all threads */
    uint32_t size; /* of the matrices that it was measured with */
};

static int measure(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                   const struct hm_ctl *ctl, struct timing *timing, struct hm_error *err)
{
    struct hm_kernels kernels;
    double start = hm_clock_seconds();

    HM_TRY(hm_kernels_choose(&kernels, NULL, err));
    hm_threads_set(0);
    timing->gflops = hm_machine_gflops(&kernels, &timing->size);
    if (timing->gflops <= 0)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for the measurement");
    double seconds = BENCH_SECONDS - (hm_clock_seconds() - start);
    return hm_run_plan_bench(recipe, plan, 0, seconds, ctl, &timing->bench, err);
}

/* Timed, else by the rate of products; 0 when there is neither. */
static double seconds_of(const struct hm_run_plan *plan, const struct timing *timing, size_t i)
{
    double seconds = hm_stage_bench_seconds(&timing->bench.stage[i]);

    if (seconds > 0 || plan->stage[i].decision == HM_DECIDE_SKIP)
        return seconds;
    return plan->stage[i].plan.flops / (TRAIN_SHARE * timing->gflops * 1e9);
}

static double seconds_in_all(const struct hm_run_plan *plan, const struct timing *timing)
{
    double sum = 0;

    for (size_t i = 0; i < plan->n_stages; i++)
        sum += seconds_of(plan, timing, i);
    return sum;
}

/* Local time so many seconds from now, "2026-11-25T21:07:00+0100". */
static void finish_text(double seconds, char out[40])
{
    time_t then = time(NULL) + (time_t)seconds;
    struct tm parts;

    localtime_r(&then, &parts);
    strftime(out, 40, "%Y-%m-%dT%H:%M:%S%z", &parts);
}

static int parts_text(const struct hm_stage_bench *bench, struct hm_buf *text, struct hm_error *err)
{
    char each[40], all[40];

    for (size_t i = 0; i < bench->n_parts; i++) {
        const struct hm_bench_part *part = &bench->part[i];
        HM_TRY(hm_buf_printf(text, err, "    %-12s %10s x %-8.0f %s\n", part->what,
                             hm_seconds_text(part->seconds, each, sizeof(each)), part->times,
                             hm_time_text(part->seconds * part->times, all, sizeof(all))));
    }
    return HM_OK;
}

static int bench_text(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                      const struct timing *timing, struct hm_buf *text, struct hm_error *err)
{
    char took[40], read[40], write[40], finish[40];
    double all = seconds_in_all(plan, timing);

    HM_TRY(hm_buf_printf(
        text, err, "bench: %.1f GFLOP/s f32 (%u cubed, %d threads), disk read %s/s, write %s/s\n",
        timing->gflops, timing->size, hm_threads(),
        hm_bytes_text((uint64_t)timing->bench.read_rate, read, sizeof(read)),
        hm_bytes_text((uint64_t)timing->bench.write_rate, write, sizeof(write))));
    for (size_t i = 0; i < plan->n_stages; i++) {
        const struct hm_stage_bench *bench = &timing->bench.stage[i];
        double seconds = seconds_of(plan, timing, i);
        if (seconds > 0 && bench->n_parts > 0)
            HM_TRY(hm_buf_printf(text, err, "  %s: about %s (%s)\n", recipe->stage[i].id,
                                 hm_time_text(seconds, took, sizeof(took)), bench->how));
        else if (seconds > 0)
            HM_TRY(hm_buf_printf(text, err, "  %s: %.3g GFLOP, about %s at half of that rate\n",
                                 recipe->stage[i].id, plan->stage[i].plan.flops / 1e9,
                                 hm_time_text(seconds, took, sizeof(took))));
        HM_TRY(parts_text(bench, text, err));
    }
    if (all <= 0)
        return HM_OK;
    finish_text(all, finish);
    HM_TRY(hm_buf_printf(text, err, "begun now, finished about %s, in %s", finish,
                         hm_time_text(all, took, sizeof(took))));
    if (timing->bench.unpredicted > 0)
        HM_TRY(hm_buf_printf(text, err, "; %zu stages not timed", timing->bench.unpredicted));
    return hm_buf_text(text, "\n", err);
}

static json_t *stage_bench_json(const struct hm_stage_bench *bench)
{
    json_t *parts = json_array();

    for (size_t i = 0; parts && i < bench->n_parts; i++)
        (void)json_array_append_new(parts, json_pack("{s:s, s:f, s:f}", "what", bench->part[i].what,
                                                     "seconds", bench->part[i].seconds, "times",
                                                     bench->part[i].times));
    return json_pack("{s:s, s:f, s:o}", "how", bench->how, "measured_seconds",
                     bench->measured_seconds, "parts", parts);
}

static void bench_json(const struct hm_run_plan *plan, const struct timing *timing, json_t *root)
{
    json_t *stages = json_object_get(root, "stages");
    double all = seconds_in_all(plan, timing);
    char finish[40];

    finish_text(all, finish);
    (void)json_object_set_new(root, "gemm_gflops", json_real(timing->gflops));
    (void)json_object_set_new(root, "disk_read_bytes_per_s", json_real(timing->bench.read_rate));
    (void)json_object_set_new(root, "disk_write_bytes_per_s", json_real(timing->bench.write_rate));
    (void)json_object_set_new(root, "estimated_seconds", json_real(all));
    (void)json_object_set_new(root, "estimated_finish", json_string(finish));
    (void)json_object_set_new(root, "unpredicted_stages",
                              json_integer((json_int_t)timing->bench.unpredicted));
    for (size_t i = 0; i < plan->n_stages; i++) {
        const struct hm_stage_bench *bench = &timing->bench.stage[i];
        json_t *stage = json_array_get(stages, i);
        double seconds = seconds_of(plan, timing, i);
        double step = hm_stage_bench_part(bench, "step");
        if (seconds > 0)
            (void)json_object_set_new(stage, "estimated_seconds", json_real(seconds));
        if (step > 0)
            (void)json_object_set_new(stage, "seconds_per_step", json_real(step));
        if (bench->n_parts > 0)
            (void)json_object_set_new(stage, "bench", stage_bench_json(bench));
    }
}

static int print_plan(const struct hm_recipe *recipe, const struct hm_run_plan *plan, bool as_json,
                      const struct timing *timing, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    json_t *value = NULL;

    if (as_json) {
        HM_TRY(hm_run_plan_json(recipe, plan, &value, err));
        if (timing)
            bench_json(plan, timing, value);
        return hm_print_json(value, err);
    }
    int status = hm_plan_text(recipe, plan, &text, err);
    if (status == HM_OK && timing)
        status = bench_text(recipe, plan, timing, &text, err);
    if (status == HM_OK)
        return hm_print_buf(&text, err);
    hm_buf_release(&text);
    return status;
}

int hm_cmd_plan(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    bool as_json = false, bench = false;
    uint64_t memory = 0, ranks = 1;
    const char *run_dir = NULL;
    const struct hm_arg table[] = {
        { "json", HM_ARG_FLAG, &as_json },    { "bench", HM_ARG_FLAG, &bench },
        { "memory", HM_ARG_SIZE, &memory },   { "ranks", HM_ARG_COUNT, &ranks },
        { "run-dir", HM_ARG_TEXT, &run_dir }, { "quiet", HM_ARG_FLAG, &terminal.quiet },
    };
    struct hm_recipe recipe = { 0 };
    struct hm_run_plan plan = { 0 };
    struct timing timing = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 1, SIZE_MAX, err));
    if (ranks != 1)
        return hm_fail(err, HM_ERR_USAGE, "--ranks: this build runs as one process, without MPI");
    HM_TRY(
        hm_recipe_load(argv[1], (const char *const *)argv + 2, words - 1, run_dir, &recipe, err));
    struct hm_fit_limits limits = { .memory_bytes = memory, .last = SIZE_MAX };
    struct hm_error nofit = { 0 };
    int status = hm_run_plan_make(&recipe, 0, &ctl, &plan, &nofit);
    bool made = status == HM_OK;
    if (made) { /* what is not here yet may be meant for another machine */
        limits.machine = plan.n_missing == 0;
        status = hm_run_plan_fits(&recipe, &plan, &limits, &nofit);
    }
    if (status == HM_ERR_NOFIT)
        hm_run_plan_advise(&recipe, 0, &limits, &nofit);
    int fits = status;
    status = made ? HM_OK : status;
    if (status == HM_OK && bench && fits == HM_OK)
        status = measure(&recipe, &plan, &ctl, &timing, &nofit);
    hm_terminal_close(&terminal);
    if (status == HM_OK)
        status = print_plan(&recipe, &plan, as_json, timing.bench.stage ? &timing : NULL, &nofit);
    if (status == HM_OK)
        status = fits;
    if (status < 0)
        hm_error_pass(err, &nofit);
    hm_plan_bench_release(&timing.bench);
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status;
}
