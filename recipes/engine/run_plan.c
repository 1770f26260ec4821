/* SPDX-License-Identifier: MIT */
/*
 * What a run would do: per stage skip, run, continue or wait, why, and its memory and disk. Nothing
 * is written, and inputs are digested only where there is an earlier result to compare with.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/parallel.h"
#include "run_internal.h"

/* What grows in the program besides what stages plan: stacks of so many threads, library tables,
 * the recipe itself; and what each further thread takes (76 KB measured). */
#define PROGRAM_GROWTH_BYTES (6ull << 20)
#define GROWTH_THREADS       32
#define THREAD_BYTES         (80ull << 10)

const char *hm_decision_name(enum hm_decision decision)
{
    static const char *const name[] = { "skip", "run", "continue", "wait" };

    return name[decision];
}

void hm_run_plan_release(struct hm_run_plan *plan)
{
    for (size_t i = 0; i < plan->n_stages; i++) {
        hm_free(plan->stage[i].reason);
        hm_stage_plan_release(&plan->stage[i].plan);
    }
    for (size_t i = 0; i < plan->n_missing; i++)
        hm_free(plan->missing[i]);
    hm_free(plan->stage);
    hm_free(plan->missing);
    *plan = (struct hm_run_plan){ 0 };
}

/* --- deciding --- */

/* Compare stage.json of a folder with the identity of now. Absent or unreadable: not the same. */
static int compare_with(const json_t *stage_json, const struct hm_identity *identity,
                        bool *ret_same, char **ret_reason, struct hm_error *err)
{
    *ret_same = false;
    *ret_reason = NULL;
    if (!stage_json)
        return HM_OK;
    return hm_identity_compare(json_object_get(stage_json, "identity"), identity->identity,
                               ret_same, ret_reason, err);
}

static bool is_complete(const json_t *stage_json)
{
    const char *state = hm_stage_json_state(stage_json);

    return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0;
}

/* What the .partial folder is good for, when the finished one is not. */
static int decide_partial(const struct hm_recipe_stage *entry, const char *dir,
                          const json_t *partial, const struct hm_identity *identity,
                          enum hm_decision *ret_decision, char **reason, struct hm_error *err)
{
    char *change = NULL;
    bool same;

    HM_TRY(compare_with(partial, identity, &same, &change, err));
    int status = HM_OK;
    *ret_decision = HM_DECIDE_RUN;
    if (same && ((entry->stage->resumable && hm_partial_has_state(dir)) || is_complete(partial))) {
        *ret_decision = HM_DECIDE_CONTINUE;
        hm_free(*reason);
        status = hm_format(reason, err, "%s",
                           is_complete(partial) ? "complete but for its name" : "it was stopped");
    } else if (!*reason) {
        status = change ? hm_format(reason, err, "unfinished, starts over: %s", change)
                        : hm_format(reason, err, "unfinished, starts over");
    }
    hm_free(change);
    return status;
}

int hm_stage_decide(const struct hm_recipe *recipe, size_t stage,
                    const struct hm_identity *identity, enum hm_decision *ret_decision,
                    char **ret_reason, struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &recipe->stage[stage];
    char *final_dir = NULL, *partial_dir = NULL, *reason = NULL;
    json_t *final_json = NULL, *partial_json = NULL;
    bool same = false;
    int status = hm_run_path(recipe, entry->id, "", &final_dir, err);

    if (status == HM_OK)
        status = hm_run_path(recipe, entry->id, ".partial", &partial_dir, err);
    if (status < 0)
        goto out;
    final_json = hm_stage_json_load(final_dir);
    partial_json = hm_stage_json_load(partial_dir);
    status = compare_with(final_json, identity, &same, &reason, err);
    *ret_decision = HM_DECIDE_RUN;
    if (status == HM_OK && same && strcmp(hm_stage_json_state(final_json), "done") == 0)
        *ret_decision = HM_DECIDE_SKIP;
    else if (status == HM_OK && same)
        status = hm_format(&reason, err, "its check failed before");
    if (status == HM_OK && *ret_decision == HM_DECIDE_RUN && hm_path_exists(partial_dir))
        status =
            decide_partial(entry, partial_dir, partial_json, identity, ret_decision, &reason, err);
    if (status == HM_OK && !reason)
        status = hm_format(&reason, err, "%s", "");
out:
    json_decref(final_json);
    json_decref(partial_json);
    hm_free(final_dir);
    hm_free(partial_dir);
    if (status < 0)
        hm_free(reason);
    else
        *ret_reason = reason;
    return status;
}

/* Is there anything an identity could be compared with? */
static bool has_earlier(const struct hm_recipe *recipe, const char *id)
{
    static const char *const suffix[] = { "", ".partial" };
    bool found = false;

    for (int i = 0; i < 2; i++) {
        char *path = NULL;
        found |= hm_run_path(recipe, id, suffix[i], &path, NULL) == HM_OK && hm_path_exists(path);
        hm_free(path);
    }
    return found;
}

static bool any_pending(const struct hm_input_value *inputs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t s = 0; s < inputs[i].n_sets; s++)
            if (inputs[i].set[s].pending)
                return true;
    return false;
}

static int decide(const struct hm_recipe *recipe, size_t stage, const struct hm_input_value *inputs,
                  struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                  struct hm_planned_stage *planned, struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &recipe->stage[stage];
    struct hm_identity identity = { 0 };

    planned->decision = HM_DECIDE_RUN;
    HM_TRY(hm_stage_name_check(recipe, entry->id, err));
    if (!has_earlier(recipe, entry->id))
        return hm_format(&planned->reason, err, "%s", "");
    if (any_pending(inputs, entry->stage->n_inputs)) {
        planned->decision = HM_DECIDE_WAIT;
        return hm_format(&planned->reason, err, "its inputs come first");
    }
    HM_TRY(hm_identity_begin(recipe, stage, inputs, cache, ctl, &identity, err));
    int status =
        hm_stage_decide(recipe, stage, &identity, &planned->decision, &planned->reason, err);
    hm_identity_release(&identity);
    return status;
}

/* --- one stage --- */

void hm_stage_run_fill(const struct hm_recipe *recipe, size_t stage, int threads,
                       const struct hm_input_value *inputs, const struct hm_ctl *ctl,
                       struct hm_stage_run *ret_run)
{
    const struct hm_recipe_stage *entry = &recipe->stage[stage];
    int own = entry->threads > 0 ? (int)entry->threads : threads;

    *ret_run = (struct hm_stage_run){
        .id = entry->id,
        .config = entry->config,
        .inputs = inputs,
        .n_inputs = entry->stage->n_inputs,
        .out_dir = "",
        .run_dir = recipe->run_dir,
        .config_digest = "",
        .seed = entry->seed,
        .threads = own > 0 ? own : hm_threads(),
        .memory_bytes = entry->memory_bytes,
        .set_node = entry->set_node,
        .ctl = ctl,
    };
}

/* set.memory limits what is taken; mapped pages, which the system may evict, are not. */
static int check_memory(const struct hm_stage_run *run, const struct hm_planned_stage *planned,
                        struct hm_error *err)
{
    uint64_t taken = planned->memory_bytes - planned->mapped_bytes;

    if (run->memory_bytes == 0 || taken <= run->memory_bytes)
        return HM_OK;
    return hm_fail_memory(err, run->id, planned, false, run->memory_bytes, "set.memory");
}

int hm_stage_plan_make(const struct hm_stage *stage, const struct hm_stage_run *run,
                       struct hm_planned_stage *planned, struct hm_error *err)
{
    uint64_t program = hm_rss_bytes() + PROGRAM_GROWTH_BYTES;

    if (run->threads > GROWTH_THREADS)
        program += THREAD_BYTES * (uint64_t)(run->threads - GROWTH_THREADS);

    HM_TRY(stage->plan(run, &planned->plan, err)); /* its lines alone: set.ram counts the program */
    HM_TRY(hm_stage_plan_memory(&planned->plan, "program and libraries", program, err));
    planned->memory_bytes = 0;
    planned->mapped_bytes = 0;
    for (size_t i = 0; i < planned->plan.n_memory; i++) {
        planned->memory_bytes += planned->plan.memory[i].bytes;
        if (planned->plan.memory[i].mapped)
            planned->mapped_bytes += planned->plan.memory[i].bytes;
    }
    return stage->own_memory ? HM_OK : check_memory(run, planned, err);
}

/* Settings that name files: they are there. */
static int check_path_fields(const struct hm_recipe_stage *entry, struct hm_error *err)
{
    for (size_t i = 0; i < entry->stage->n_fields; i++) {
        const struct hm_field *field = &entry->stage->fields[i];
        const struct hm_node *node = hm_node_find(entry->set_node, field->name);
        char place[HM_NODE_PLACE_BYTES];
        const char *path = hm_field_path(field, entry->config);
        int status = path ? hm_regular_check(path, err) : HM_OK;
        if (status < 0) {
            hm_error_prefix(err, "%s: %s.set.%s", node ? hm_node_place(node, place) : "default",
                            entry->id, field->name);
            return status;
        }
    }
    return HM_OK;
}

static int plan_stage(const struct hm_resolver *resolver, size_t stage, int threads,
                      struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                      struct hm_planned_stage *planned, struct hm_error *err)
{
    const struct hm_stage *row = resolver->recipe->stage[stage].stage;
    struct hm_input_value *inputs = NULL;
    struct hm_stage_run run;

    HM_TRY(check_path_fields(&resolver->recipe->stage[stage], err));
    HM_TRY(hm_inputs_resolve(resolver, stage, &inputs, err));
    hm_stage_run_fill(resolver->recipe, stage, threads, inputs, ctl, &run);
    int status = row->check ? row->check(&run, err) : HM_OK;
    if (status == HM_OK)
        status = decide(resolver->recipe, stage, inputs, cache, ctl, planned, err);
    if (status == HM_OK && planned->decision != HM_DECIDE_SKIP)
        status = hm_stage_plan_make(row, &run, planned, err);
    hm_inputs_release(inputs, row->n_inputs);
    return status;
}

/* --- all stages --- */

static void sum_up(struct hm_run_plan *plan)
{
    for (size_t i = 0; i < plan->n_stages; i++) {
        const struct hm_planned_stage *planned = &plan->stage[i];
        if (planned->decision == HM_DECIDE_SKIP)
            continue;
        plan->disk_bytes += planned->plan.disk_bytes;
        plan->read_bytes += planned->plan.read_bytes;
        uint64_t unmapped = planned->memory_bytes - planned->mapped_bytes;
        if (unmapped > plan->memory_unmapped_bytes)
            plan->memory_unmapped_bytes = unmapped;
        if (planned->memory_bytes > plan->memory_bytes) {
            plan->memory_bytes = planned->memory_bytes;
            plan->memory_stage = i;
        }
    }
}

/* Does the sentence tell the stage: "a.in.text", "a.set.rank", "stage 'a'"? */
static bool names_stage(const char *sentence, const char *id)
{
    char in[100], set[100], stage[100];

    snprintf(in, sizeof(in), "%.80s.in.", id);
    snprintf(set, sizeof(set), "%.80s.set.", id);
    snprintf(stage, sizeof(stage), "stage '%.80s'", id);
    return strstr(sentence, in) || strstr(sentence, set) || strstr(sentence, stage);
}

int hm_run_plan_make(const struct hm_recipe *recipe, int threads, const struct hm_ctl *ctl,
                     struct hm_run_plan *ret_plan, struct hm_error *err)
{
    struct hm_run_plan plan = { 0 };
    struct hm_digest_cache cache = { 0 };
    char *cache_path = NULL;
    size_t n = recipe->n_stages;
    int status = hm_run_path(recipe, ".digests.json", "", &cache_path, err);

    plan.stage = hm_calloc(HM_MEM_OTHER, n + 1, sizeof(*plan.stage));
    if (status == HM_OK && !plan.stage)
        status = hm_fail_nomem(err, "for the plan of %zu stages", n);
    if (status == HM_OK)
        status = hm_digest_cache_load(recipe->single ? NULL : cache_path, &cache, err);
    for (size_t i = 0; status == HM_OK && i < n; i++) {
        struct hm_resolver resolver = { recipe, plan.stage, false, &plan, NULL };
        plan.n_stages = i + 1;
        status = plan_stage(&resolver, i, threads, &cache, ctl, &plan.stage[i], err);
        if (status < 0 && !names_stage(err ? err->text : "", recipe->stage[i].id))
            hm_error_prefix(err, "stage '%s' (%s)", recipe->stage[i].id,
                            recipe->stage[i].stage->name);
    }
    hm_digest_cache_release(&cache);
    hm_free(cache_path);
    if (status < 0) {
        hm_run_plan_release(&plan);
        return status;
    }
    sum_up(&plan);
    *ret_plan = plan;
    return HM_OK;
}

/* --- for programs --- */

static json_t *memory_json(const struct hm_stage_plan *plan)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < plan->n_memory; i++)
        (void)json_array_append_new(
            array, json_pack("{s:s, s:I, s:b}", "purpose", plan->memory[i].purpose, "bytes",
                             (json_int_t)plan->memory[i].bytes, "mapped", plan->memory[i].mapped));
    return array;
}

static json_t *stage_json(const struct hm_recipe_stage *entry,
                          const struct hm_planned_stage *planned)
{
    const struct hm_stage_plan *plan = &planned->plan;

    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:f}", "id", entry->id,
        "stage", entry->stage->name, "decision", hm_decision_name(planned->decision), "reason",
        planned->reason, "memory_bytes", (json_int_t)planned->memory_bytes, "mapped_bytes",
        (json_int_t)planned->mapped_bytes, "memory", memory_json(plan), "disk_bytes",
        (json_int_t)plan->disk_bytes, "read_bytes", (json_int_t)plan->read_bytes,
        "read_bytes_per_step", (json_int_t)plan->read_bytes_per_step, "write_bytes_per_step",
        (json_int_t)plan->write_bytes_per_step, "work", (json_int_t)plan->work, "work_unit",
        plan->work_unit ? plan->work_unit : "", "flops", plan->flops);
}

int hm_run_plan_json(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                     json_t **ret_json, struct hm_error *err)
{
    json_t *stages = json_array(), *missing = json_array();
    int failed = !stages || !missing;

    for (size_t i = 0; !failed && i < plan->n_stages; i++)
        failed |= json_array_append_new(stages, stage_json(&recipe->stage[i], &plan->stage[i])) < 0;
    for (size_t i = 0; !failed && i < plan->n_missing; i++)
        failed |= json_array_append_new(missing, json_string(plan->missing[i])) < 0;
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "recipe", recipe->path, "run_dir",
        recipe->run_dir, "memory_bytes", (json_int_t)plan->memory_bytes, "memory_unmapped_bytes",
        (json_int_t)plan->memory_unmapped_bytes, "disk_bytes", (json_int_t)plan->disk_bytes,
        "read_bytes", (json_int_t)plan->read_bytes, "missing", missing, "stages", stages);
    if (failed || !root) {
        json_decref(root);
        return hm_fail_nomem(err, "for a plan");
    }
    *ret_json = root;
    return HM_OK;
}
