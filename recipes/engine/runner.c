/* SPDX-License-Identifier: MIT */
/*
 * The loop over the stages of a recipe: lock, plan everything, then decide and run one stage after
 * the other, with the manifest saved after each. How a stage runs is stage_exec.c.
 */
#include <stdio.h>
#include <string.h>

#include "hanmix/recipes/report.h"
#include "run_internal.h"

struct runner {
    const struct hm_recipe *recipe;
    const struct hm_run_options *options;
    struct hm_manifest manifest; /* unused for a single stage */
    struct hm_digest_cache cache;
    char *cache_path, *lock_path; /* cache_path NULL for a single stage */
    int lock_fd;
    size_t first, last; /* stages to look at */
};

static void tell(const struct runner *runner, size_t stage, const char *what, const char *reason)
{
    const struct hm_recipe_stage *entry = &runner->recipe->stage[stage];

    hm_ctl_message(runner->options->ctl, "[%zu/%zu] %s (%s): %s%s%s", stage + 1,
                   runner->recipe->n_stages, entry->id, entry->stage->name, what,
                   *reason ? "; " : "", reason);
}

/* --- before --- */

static int choose_stages(struct runner *runner, struct hm_error *err)
{
    const struct hm_run_options *options = runner->options;

    runner->last = runner->recipe->n_stages - 1;
    if (options->only && options->until)
        return hm_fail(err, HM_ERR_USAGE, "--only and --until exclude each other");
    if (options->until)
        return hm_recipe_find(runner->recipe, options->until, &runner->last, err);
    if (options->only) {
        HM_TRY(hm_recipe_find(runner->recipe, options->only, &runner->first, err));
        runner->last = runner->first;
    }
    return HM_OK;
}

/* With --only, what the stage reads must be there. */
static int check_needs(const struct runner *runner, const struct hm_run_plan *plan,
                       struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &runner->recipe->stage[runner->first];

    for (size_t i = 0; runner->options->only && i < entry->n_needs; i++)
        if (plan->stage[entry->needs[i]].decision != HM_DECIDE_SKIP)
            return hm_fail(err, HM_ERR_USAGE,
                           "--only %s: stage '%s', which it needs, has not finished with these "
                           "settings; run it first",
                           entry->id, runner->recipe->stage[entry->needs[i]].id);
    return HM_OK;
}

/* All inputs, settings, memory and disk before anything heavy. */
static int check_all(struct runner *runner, struct hm_error *err)
{
    const struct hm_recipe *recipe = runner->recipe;
    const struct hm_fit_limits limits = { .machine = true,
                                          .first = runner->first,
                                          .last = runner->last };
    struct hm_run_plan plan = { 0 };
    struct hm_error why = { 0 };

    int status =
        hm_run_plan_make(recipe, runner->options->threads, runner->options->ctl, &plan, &why);
    if (status == HM_OK)
        status = check_needs(runner, &plan, &why);
    if (status == HM_OK)
        status = hm_run_plan_fits(recipe, &plan, &limits, &why);
    if (status == HM_ERR_NOFIT)
        hm_run_plan_advise(recipe, runner->options->threads, &limits, &why);
    hm_run_plan_release(&plan);
    return status < 0 ? hm_error_pass(err, &why) : HM_OK;
}

static int open_folder(struct runner *runner, struct hm_error *err)
{
    const struct hm_recipe *recipe = runner->recipe;
    const char *lock_name = recipe->single ? recipe->stage[0].id : "";

    HM_TRY(hm_dir_make(recipe->run_dir, err));
    HM_TRY(hm_run_path(recipe, lock_name, ".lock", &runner->lock_path, err));
    HM_TRY(hm_lock_acquire(runner->lock_path, &runner->lock_fd, err));
    if (!recipe->single) {
        HM_TRY(hm_run_path(recipe, ".digests.json", "", &runner->cache_path, err));
        HM_TRY(hm_manifest_open(recipe, &runner->manifest, err));
    }
    return hm_digest_cache_load(runner->cache_path, &runner->cache, err);
}

/* --- one stage --- */

static int record(struct runner *runner, size_t stage, const char *state, const char *why,
                  bool with_files, struct hm_error *err)
{
    if (runner->recipe->single)
        return HM_OK;
    HM_TRY(hm_manifest_set(&runner->manifest, runner->recipe, stage, state, why,
                           with_files ? &runner->cache : NULL, runner->options->ctl, err));
    return hm_digest_cache_save(&runner->cache, runner->cache_path, err);
}

static int run_it(struct runner *runner, size_t stage, enum hm_decision decision,
                  const struct hm_input_value *inputs, struct hm_identity *identity,
                  struct hm_error *err)
{
    const struct hm_stage_turn turn = { stage,  decision, runner->options->threads,
                                        inputs, identity, &runner->cache };

    HM_TRY(record(runner, stage, "running", NULL, false, err));
    int status = hm_stage_exec(runner->recipe, &turn, runner->options->ctl, err);
    if (status == HM_OK)
        return record(runner, stage, "done", NULL, true, err);
    const char *state = status == HM_ERR_STOPPED ? "stopped" : "failed";
    (void)record(runner, stage, state, err ? err->text : NULL, status == HM_ERR_CHECK, NULL);
    return status;
}

/* The manifest may not know a stage that finished just before a kill. */
static int note_skip(struct runner *runner, size_t stage, struct hm_error *err)
{
    const json_t *entry = json_array_get(json_object_get(runner->manifest.root, "stages"), stage);
    const char *state = json_string_value(json_object_get(entry, "state"));

    if (runner->recipe->single || (state && strcmp(state, "done") == 0))
        return HM_OK;
    return record(runner, stage, "done", NULL, true, err);
}

static int one_stage(struct runner *runner, size_t stage, struct hm_error *err)
{
    struct hm_resolver resolver = { runner->recipe, NULL, true, NULL, NULL };
    const struct hm_recipe_stage *entry = &runner->recipe->stage[stage];
    struct hm_input_value *inputs = NULL;
    struct hm_identity identity = { 0 };
    enum hm_decision decision = HM_DECIDE_RUN;
    char *reason = NULL;

    HM_TRY(hm_inputs_resolve(&resolver, stage, &inputs, err));
    int status = hm_identity_begin(runner->recipe, stage, inputs, &runner->cache,
                                   runner->options->ctl, &identity, err);
    if (status == HM_OK)
        status = hm_stage_decide(runner->recipe, stage, &identity, &decision, &reason, err);
    if (status == HM_OK && decision == HM_DECIDE_SKIP) {
        tell(runner, stage, "already done", "");
        status = note_skip(runner, stage, err);
    } else if (status == HM_OK && hm_ctl_stopped(runner->options->ctl)) {
        status = hm_fail(err, HM_ERR_STOPPED, "stopped before it began");
    } else if (status == HM_OK) {
        tell(runner, stage, decision == HM_DECIDE_CONTINUE ? "continues" : "starts", reason);
        status = run_it(runner, stage, decision, inputs, &identity, err);
    }
    hm_free(reason);
    hm_identity_release(&identity);
    hm_inputs_release(inputs, entry->stage->n_inputs);
    if (status < 0)
        hm_error_prefix(err, "stage '%s' (%s)", entry->id, entry->stage->name);
    return status;
}

/* --- all --- */

static int run_stages(struct runner *runner, struct hm_error *err)
{
    int status = runner->recipe->single ? HM_OK : hm_manifest_save(&runner->manifest, err);

    for (size_t i = runner->first; status == HM_OK && i <= runner->last; i++)
        status = one_stage(runner, i, err);
    if (!runner->recipe->single) {
        struct hm_error report_err = { 0 };
        int report = hm_digest_cache_save(&runner->cache, runner->cache_path, &report_err);
        if (report == HM_OK && hm_path_exists(runner->manifest.path))
            report = hm_run_report_write(runner->recipe->run_dir, &report_err);
        if (status == HM_OK && report < 0)
            status = hm_error_pass(err, &report_err);
    }
    return status;
}

int hm_run(const struct hm_recipe *recipe, const struct hm_run_options *options,
           struct hm_error *err)
{
    struct runner runner = { .recipe = recipe, .options = options, .lock_fd = -1 };

    HM_TRY(choose_stages(&runner, err));
    /* A folder that is there is locked first; one that is not there is made only for a sound
     * recipe. */
    bool there = hm_path_is_dir(recipe->run_dir);
    int status = there ? open_folder(&runner, err) : HM_OK;
    if (status == HM_OK)
        status = check_all(&runner, err);
    if (status == HM_OK && !there)
        status = open_folder(&runner, err);
    if (status == HM_OK)
        status = run_stages(&runner, err);
    if (recipe->single && runner.lock_fd >= 0)
        (void)remove(runner.lock_path);
    hm_lock_release(runner.lock_fd);
    hm_manifest_release(&runner.manifest);
    hm_digest_cache_release(&runner.cache);
    hm_free(runner.cache_path);
    hm_free(runner.lock_path);
    return status;
}
