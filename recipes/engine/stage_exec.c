/* SPDX-License-Identifier: MIT */
/*
 * One stage from an empty <id>.partial to a finished <id>: stage.json says what it is before work
 * begins, report.json and the measurements follow, the rename comes last. A kill at any instant
 * leaves either the old folder, a .partial that says whose it is, or the new folder.
 */
#include <fcntl.h>
#include <malloc.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hanmix/base/parallel.h"
#include "run_internal.h"

struct exec {
    const struct hm_recipe *recipe;
    const struct hm_recipe_stage *entry;
    const struct hm_stage_turn *turn;
    struct hm_identity *identity;
    char *final_dir, *partial_dir, *old_dir;
    struct hm_planned_stage planned;
    struct hm_stage_run run;
    double seconds;
};

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the record of a stage");
}

static void utc_now(char out[32])
{
    struct tm parts;
    time_t now = time(NULL);

    gmtime_r(&now, &parts);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

/* --- stage.json --- */

/* To a thousandth: what is measured is no more exact than that. */
static double rounded(double value)
{
    return round(value * 1000) / 1000;
}

static json_t *memory_json(void)
{
    json_t *object = json_object();

    for (int tag = 0; object && tag < HM_MEM_TAGS; tag++) {
        uint64_t peak = hm_mem_peak_bytes((enum hm_mem_tag)tag);
        if (peak > 0)
            (void)json_object_set_new(object, hm_mem_tag_name((enum hm_mem_tag)tag),
                                      json_integer((json_int_t)peak));
    }
    return object;
}

/* What holds before and after: what the stage is. */
static int describe(const struct exec *exec, const char *state, json_t **ret_json,
                    struct hm_error *err)
{
    const struct hm_recipe_stage *entry = exec->entry;
    json_t *config = json_object();
    json_t *value = json_pack("{s:s, s:s, s:s, s:s, s:o, s:I, s:i, s:O, s:O, s:s}", "id", entry->id,
                              "stage", entry->stage->name, "state", state, "hanmix", HM_VERSION,
                              "config", config, "seed", (json_int_t)entry->seed, "threads",
                              exec->run.threads, "inputs", exec->identity->inputs, "identity",
                              exec->identity->identity, "config_digest", exec->identity->digest);
    int status = value ? HM_OK : fail_nomem(err);

    if (status == HM_OK)
        status = hm_fields_json(entry->stage->fields, entry->stage->n_fields, entry->config, false,
                                config, err);
    if (status < 0)
        json_decref(value);
    else
        *ret_json = value;
    return status;
}

static int save_state(const struct exec *exec, const char *state, struct hm_error *err)
{
    json_t *value = NULL;

    HM_TRY(describe(exec, state, &value, err));
    int status = hm_json_save_in(exec->partial_dir, "stage.json", value, err);
    json_decref(value);
    return status;
}

static int save_finished(const struct exec *exec, const char *state, struct hm_error *err)
{
    const struct hm_stage_plan *plan = &exec->planned.plan;
    char now[32];
    json_t *value = NULL;

    HM_TRY(describe(exec, state, &value, err));
    utc_now(now);
    int failed = json_object_update(value, exec->run.stage_info);
    failed |= json_object_set_new(value, "finished", json_string(now));
    failed |= json_object_set_new(value, "wall_seconds", json_real(rounded(exec->seconds)));
    failed |=
        json_object_set_new(value, "peak_rss_bytes", json_integer((json_int_t)hm_rss_peak_bytes()));
    failed |= json_object_set_new(value, "planned_bytes",
                                  json_integer((json_int_t)exec->planned.memory_bytes));
    failed |= json_object_set_new(value, "memory_peak_bytes", memory_json());
    if (plan->work > 0 && plan->work_unit)
        failed |= json_object_set_new(
            value, "throughput",
            json_pack("{s:s, s:I, s:f}", "unit", plan->work_unit, "work", (json_int_t)plan->work,
                      "per_second", rounded((double)plan->work / (exec->seconds + 1e-9))));
    int status =
        failed ? fail_nomem(err) : hm_json_save_in(exec->partial_dir, "stage.json", value, err);
    json_decref(value);
    return status;
}

/* --- steps --- */

/*
 * The finished folder takes its name. An older one steps aside first, so that at any instant one of
 * the two is there whole: after a kill in between, the complete .partial is found and renamed.
 */
static int take_name(const struct exec *exec, struct hm_error *err)
{
    HM_TRY(hm_dir_sync(exec->partial_dir, err));
    HM_TRY(hm_dir_remove(exec->old_dir, err));
    if (hm_path_exists(exec->final_dir))
        HM_TRY(hm_path_rename(exec->final_dir, exec->old_dir, err));
    HM_TRY(hm_path_rename(exec->partial_dir, exec->final_dir, err));
    return hm_dir_remove(exec->old_dir, err);
}

/* A .partial that is complete but was killed before its rename. */
static bool adopt(const struct exec *exec, int *ret_status, struct hm_error *err)
{
    json_t *found = hm_stage_json_load(exec->partial_dir);
    const char *state = hm_stage_json_state(found);
    bool failed = strcmp(state, "failed") == 0;
    bool complete = failed || strcmp(state, "done") == 0;

    json_decref(found);
    if (!complete)
        return false;
    *ret_status = take_name(exec, err);
    if (*ret_status == HM_OK && failed)
        *ret_status =
            hm_fail(err, HM_ERR_CHECK, "its check failed; see '%s/report.json'", exec->final_dir);
    return true;
}

static int prepare(struct exec *exec, enum hm_decision decision, struct hm_error *err)
{
    if (decision != HM_DECIDE_CONTINUE)
        HM_TRY(hm_dir_remove(exec->partial_dir, err));
    HM_TRY(hm_dir_make(exec->partial_dir, err));
    HM_TRY(save_state(exec, "running", err));
    malloc_trim(0);
    hm_mem_peak_reset();
    hm_rss_peak_reset();
    hm_threads_set(exec->run.threads);
    HM_TRY(hm_stage_plan_make(exec->entry->stage, &exec->run, &exec->planned, err));
    exec->run.planned_bytes = exec->planned.memory_bytes;
    return HM_OK;
}

/* After a stage that did not finish: keep what can be continued, clear what cannot. */
static void leave(const struct exec *exec, int status)
{
    bool keep = exec->entry->stage->resumable && hm_partial_has_state(exec->partial_dir);

    if (keep)
        (void)save_state(exec, status == HM_ERR_STOPPED ? "stopped" : "interrupted", NULL);
    else
        (void)hm_dir_remove(exec->partial_dir, NULL);
    if (status == HM_ERR_STOPPED)
        hm_ctl_message(exec->run.ctl, "%s: stopped; the same command %s", exec->entry->id,
                       keep ? "continues it" : "starts it over");
}

static int work(struct exec *exec, struct hm_error *err)
{
    const struct hm_stage_turn *turn = exec->turn;
    struct hm_file_digests read = { 0 };
    struct hm_error why = { 0 };

    exec->run.read_digests = exec->identity->unread ? &read : NULL;
    exec->run.out_dir = exec->partial_dir;
    exec->run.config_digest = exec->identity->digest;
    exec->run.digests = exec->identity->inputs;
    exec->run.report = json_object();
    exec->run.stage_info = json_object();
    int status = exec->run.report && exec->run.stage_info ? HM_OK : fail_nomem(&why);
    if (status == HM_OK)
        status = prepare(exec, turn->decision, &why);
    double start = hm_clock_seconds();
    int64_t start_ns = hm_digest_now_ns();
    if (status == HM_OK)
        status = exec->entry->stage->run(&exec->run, &why);
    exec->seconds = hm_clock_seconds() - start;
    int outcome = status;
    if (status == HM_OK || status == HM_ERR_CHECK) {
        status = hm_identity_complete(exec->entry, turn->inputs, &read, start_ns, turn->cache,
                                      exec->run.ctl, exec->identity, &why);
    }
    if (status < 0) {
        leave(exec, status);
        goto out;
    }
    status = hm_json_save_in(exec->partial_dir, "report.json", exec->run.report, &why);
    if (status == HM_OK)
        status = save_finished(exec, outcome == HM_OK ? "done" : "failed", &why);
    if (status == HM_OK)
        status = take_name(exec, &why);
    if (status == HM_OK)
        status = outcome;
    else if (!exec->entry->stage->resumable)
        (void)hm_dir_remove(exec->partial_dir, NULL);
out:
    hm_file_digests_release(&read);
    if (status < 0)
        (void)hm_fail(err, status, "%s", why.text[0] ? why.text : hm_status_text(status));
    return status;
}

static int name_folders(struct exec *exec, struct hm_error *err)
{
    char *hidden = NULL;
    int status = hm_run_path(exec->recipe, exec->entry->id, "", &exec->final_dir, err);

    if (status == HM_OK)
        status = hm_run_path(exec->recipe, exec->entry->id, ".partial", &exec->partial_dir, err);
    if (status == HM_OK)
        status = hm_format(&hidden, err, ".%s", exec->entry->id);
    if (status == HM_OK)
        status = hm_run_path(exec->recipe, hidden, ".old", &exec->old_dir, err);
    hm_free(hidden);
    return status;
}

int hm_stage_exec(const struct hm_recipe *recipe, const struct hm_stage_turn *turn,
                  const struct hm_ctl *ctl, struct hm_error *err)
{
    struct exec exec = { .recipe = recipe,
                         .entry = &recipe->stage[turn->stage],
                         .turn = turn,
                         .identity = turn->identity };
    int threads_before = hm_threads(); /* a stage's own number is for it alone */
    int status = name_folders(&exec, err);

    if (status == HM_OK)
        status = hm_stage_name_check(recipe, exec.entry->id, err);
    if (status == HM_OK) {
        hm_stage_run_fill(recipe, turn->stage, turn->threads, turn->inputs, ctl, &exec.run);
        if (turn->decision != HM_DECIDE_CONTINUE || !adopt(&exec, &status, err))
            status = work(&exec, err);
    }
    hm_threads_set(threads_before);
    json_decref(exec.run.report);
    json_decref(exec.run.stage_info);
    hm_stage_plan_release(&exec.planned.plan);
    hm_free(exec.final_dir);
    hm_free(exec.partial_dir);
    hm_free(exec.old_dir);
    return status;
}
