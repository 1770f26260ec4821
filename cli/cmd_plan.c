/* SPDX-License-Identifier: MIT */
/*
 * The verb plan: order, decisions, memory by purpose and disk of a recipe, for people and programs.
 */
#include <inttypes.h>

#include "cli.h"
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

/* Share of the peak that training reaches with wide matrices; short batches and narrow models reach
 * less. */
#define TRAIN_SHARE 0.5

static int measure(double *ret_gflops, uint32_t *ret_size, struct hm_error *err)
{
    struct hm_kernels kernels;

    HM_TRY(hm_kernels_choose(&kernels, NULL, err));
    hm_threads_set(0);
    *ret_gflops = hm_machine_gflops(&kernels, ret_size);
    if (*ret_gflops <= 0)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for the measurement");
    return HM_OK;
}

static double seconds_of(const struct hm_planned_stage *planned, double gflops)
{
    return planned->plan.flops / (TRAIN_SHARE * gflops * 1e9);
}

static int bench_text(const struct hm_recipe *recipe, const struct hm_run_plan *plan, double gflops,
                      uint32_t size, struct hm_buf *text, struct hm_error *err)
{
    char time[40];

    HM_TRY(hm_buf_printf(text, err, "bench: %.1f GFLOP/s f32 (%u cubed, %d threads)\n", gflops,
                         size, hm_threads()));
    for (size_t i = 0; i < plan->n_stages; i++)
        if (plan->stage[i].plan.flops > 0)
            HM_TRY(hm_buf_printf(
                text, err, "  %s: %.3g GFLOP, about %s at half of that rate\n", recipe->stage[i].id,
                plan->stage[i].plan.flops / 1e9,
                hm_time_text(seconds_of(&plan->stage[i], gflops), time, sizeof(time))));
    return HM_OK;
}

static void bench_json(const struct hm_run_plan *plan, double gflops, json_t *root)
{
    json_t *stages = json_object_get(root, "stages");

    (void)json_object_set_new(root, "gemm_gflops", json_real(gflops));
    for (size_t i = 0; i < plan->n_stages; i++)
        if (plan->stage[i].plan.flops > 0)
            (void)json_object_set_new(json_array_get(stages, i), "estimated_seconds",
                                      json_real(seconds_of(&plan->stage[i], gflops)));
}

static int print_plan(const struct hm_recipe *recipe, const struct hm_run_plan *plan, bool as_json,
                      bool bench, struct hm_error *err)
{
    double gflops = 0;
    uint32_t size = 0;
    struct hm_buf text = { 0 };
    json_t *value = NULL;

    if (bench)
        HM_TRY(measure(&gflops, &size, err));
    if (as_json) {
        HM_TRY(hm_run_plan_json(recipe, plan, &value, err));
        if (bench)
            bench_json(plan, gflops, value);
        return hm_print_json(value, err);
    }
    int status = hm_plan_text(recipe, plan, &text, err);
    if (status == HM_OK && bench)
        status = bench_text(recipe, plan, gflops, size, &text, err);
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
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 1, SIZE_MAX, err));
    if (ranks != 1)
        return hm_fail(err, HM_ERR_USAGE, "--ranks: this build runs as one process, without MPI");
    HM_TRY(
        hm_recipe_load(argv[1], (const char *const *)argv + 2, words - 1, run_dir, &recipe, err));
    int status = hm_run_plan_make(&recipe, 0, &ctl, &plan, err);
    if (status == HM_OK)
        status = print_plan(&recipe, &plan, as_json, bench, err);
    if (status == HM_OK)
        status = hm_run_plan_fits(&recipe, &plan, memory, err);
    hm_terminal_close(&terminal);
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status;
}
