/* SPDX-License-Identifier: MIT */
/*
 * Verbs that work on a recipe: run, validate; and stage, a recipe of one.
 */
#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "plan_text.h"

/* argv[1] is the recipe, the rest are overrides. */
static int load(char **argv, size_t words, const char *run_dir, struct hm_recipe *recipe,
                struct hm_error *err)
{
    HM_TRY(hm_args_count(argv[0], words, 1, SIZE_MAX, err));
    return hm_recipe_load(argv[1], (const char *const *)argv + 2, words - 1, run_dir, recipe, err);
}

static int check_threads(uint64_t threads, struct hm_error *err)
{
    if (threads > 4096)
        return hm_fail(err, HM_ERR_USAGE, "--threads %" PRIu64 ": at most 4096", threads);
    hm_threads_set((int)threads);
    return HM_OK;
}

static int run_recipe(const struct hm_recipe *recipe, const struct hm_run_options *options,
                      bool quiet, struct hm_error *err)
{
    int status = hm_run(recipe, options, err);

    if (status == HM_OK && !quiet)
        printf("%s/report.md\n%s/index.html\n", recipe->run_dir, recipe->run_dir);
    return status == HM_OK ? hm_print_flush(err) : status;
}

static int dry_run(const struct hm_recipe *recipe, int threads, const struct hm_ctl *ctl,
                   struct hm_error *err)
{
    struct hm_run_plan plan = { 0 };
    struct hm_buf text = { 0 };

    HM_TRY(hm_run_plan_make(recipe, threads, ctl, &plan, err));
    int status = hm_plan_text(recipe, &plan, &text, err);
    hm_run_plan_release(&plan);
    if (status == HM_OK)
        return hm_print_buf(&text, err);
    hm_buf_release(&text);
    return status;
}

int hm_cmd_run(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    struct hm_run_options options = { .ctl = &ctl };
    const char *run_dir = NULL;
    uint64_t threads = 0;
    bool dry = false;
    const struct hm_arg table[] = {
        { "run-dir", HM_ARG_TEXT, &run_dir },   { "until", HM_ARG_TEXT, &options.until },
        { "only", HM_ARG_TEXT, &options.only }, { "dry-run", HM_ARG_FLAG, &dry },
        { "threads", HM_ARG_COUNT, &threads },  { "quiet", HM_ARG_FLAG, &terminal.quiet },
    };
    struct hm_recipe recipe = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(check_threads(threads, err));
    HM_TRY(load(argv, words, run_dir, &recipe, err));
    options.threads = (int)threads;
    hm_process_outlive_reader();
    int status = dry ? dry_run(&recipe, options.threads, &ctl, err)
                     : run_recipe(&recipe, &options, terminal.quiet, err);
    hm_terminal_close(&terminal);
    hm_recipe_release(&recipe);
    return status;
}

int hm_cmd_validate(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    const struct hm_arg table[] = { { "quiet", HM_ARG_FLAG, &terminal.quiet } };
    struct hm_recipe recipe = { 0 };
    struct hm_run_plan plan = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(load(argv, words, NULL, &recipe, err));
    int status = hm_run_plan_make(&recipe, 0, &ctl, &plan, err);
    if (status == HM_OK && !terminal.quiet) {
        printf("OK: %zu stages", recipe.n_stages);
        for (size_t i = 0; i < recipe.n_stages; i++)
            printf("%s %s", i == 0 ? ":" : ",", recipe.stage[i].id);
        putchar('\n');
        for (size_t i = 0; i < plan.n_missing; i++)
            printf("not there yet: %s\n", plan.missing[i]);
    }
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status == HM_OK ? hm_print_flush(err) : status;
}

/* --- stage --- */

static int print_stage_help(const char *name, struct hm_error *err)
{
    const struct hm_stage *stage;
    struct hm_buf text = { 0 };

    HM_TRY(hm_stage_find(name, "stage", &stage, err));
    int status = hm_stage_help(stage, &text, err);
    if (status == HM_OK)
        return hm_print_buf(&text, err);
    hm_buf_release(&text);
    return status;
}

static int list_stages(struct hm_error *err)
{
    for (size_t i = 0; i < hm_stage_count(); i++)
        printf("%-16s %s\n", hm_stage_at(i)->name, hm_stage_at(i)->summary);
    return hm_print_flush(err);
}

int hm_cmd_stage(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    struct hm_run_options options = { .ctl = &ctl };
    const char *out = NULL;
    uint64_t threads = 0;
    bool help = false, dry = false;
    const struct hm_arg table[] = {
        { "out", HM_ARG_TEXT, &out },          { "help", HM_ARG_FLAG, &help },
        { "threads", HM_ARG_COUNT, &threads }, { "quiet", HM_ARG_FLAG, &terminal.quiet },
        { "dry-run", HM_ARG_FLAG, &dry },
    };
    const struct hm_stage *stage;
    struct hm_recipe recipe = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    if (words == 0)
        return list_stages(err);
    if (help)
        return print_stage_help(argv[1], err);
    HM_TRY(hm_stage_find(argv[1], "stage", &stage, err));
    if (!out)
        return hm_fail(err, HM_ERR_USAGE, "stage %s: --out DIR is missing", argv[1]);
    HM_TRY(check_threads(threads, err));
    HM_TRY(hm_recipe_single(argv[1], (const char *const *)argv + 2, words - 1, out, &recipe, err));
    options.threads = (int)threads;
    hm_process_outlive_reader();
    int status =
        dry ? dry_run(&recipe, options.threads, &ctl, err) : hm_run(&recipe, &options, err);
    hm_terminal_close(&terminal);
    hm_recipe_release(&recipe);
    return status;
}
