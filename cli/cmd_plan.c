/* SPDX-License-Identifier: MIT */
/*
 * The verb plan: order, decisions, memory by purpose and disk of a recipe, for people and programs.
 */
#include <inttypes.h>

#include "cli.h"
#include "plan_text.h"

#define TABLE(rows) (rows), sizeof(rows) / sizeof((rows)[0])

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
    return hm_buf_printf(text, err, "peak memory %s (%s without file pages), stage '%s'; disk %s\n",
                         hm_bytes_text(plan->memory_bytes, memory, sizeof(memory)),
                         hm_bytes_text(plan->memory_unmapped_bytes, unmapped, sizeof(unmapped)),
                         plan->memory_bytes > 0 ? recipe->stage[plan->memory_stage].id : "-",
                         hm_bytes_text(plan->disk_bytes, disk, sizeof(disk)));
}

static int print_plan(const struct hm_recipe *recipe, const struct hm_run_plan *plan, bool as_json,
                      struct hm_error *err)
{
    struct hm_buf text = { 0 };
    json_t *value = NULL;

    if (as_json) {
        HM_TRY(hm_run_plan_json(recipe, plan, &value, err));
        return hm_print_json(value, err);
    }
    int status = hm_plan_text(recipe, plan, &text, err);
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
    if (bench)
        return hm_fail(err, HM_ERR_USAGE,
                       "--bench: times are not estimated; `hanmix doctor` measures this machine, "
                       "and stage.json records the throughput of every run");
    HM_TRY(
        hm_recipe_load(argv[1], (const char *const *)argv + 2, words - 1, run_dir, &recipe, err));
    int status = hm_run_plan_make(&recipe, 0, &ctl, &plan, err);
    if (status == HM_OK)
        status = print_plan(&recipe, &plan, as_json, err);
    if (status == HM_OK)
        status = hm_run_plan_fits(&recipe, &plan, memory, err);
    hm_terminal_close(&terminal);
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status;
}
