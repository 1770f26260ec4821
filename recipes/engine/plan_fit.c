/* SPDX-License-Identifier: MIT */
/*
 * Whether a plan fits, and what would make it fit: memory and disk against limits, and, where they
 * are exceeded, the changes that stages offer (stage->smaller), each tried by planning the recipe
 * with it. The first that suffices is told; else all of them together, less those not needed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/cpu.h"
#include "run_internal.h"

#define CHANGES_MAX 48u

/* --- does it fit --- */

static int compare_lines(const void *a, const void *b)
{
    const struct hm_plan_line *x = a, *y = b;

    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

int hm_fail_memory(struct hm_error *err, const char *id, const struct hm_planned_stage *planned,
                   bool with_mapped, uint64_t limit_bytes, const char *by)
{
    struct hm_stage_plan sorted = planned->plan;
    uint64_t needed = planned->memory_bytes - (with_mapped ? 0 : planned->mapped_bytes);
    char largest[300] = "", allowed[60];
    size_t used = 0, told = 0;

    qsort(sorted.memory, sorted.n_memory, sizeof(*sorted.memory), compare_lines);
    for (size_t i = 0; i < sorted.n_memory && told < 3 && used < sizeof(largest); i++) {
        if (sorted.memory[i].mapped && !with_mapped)
            continue;
        used += (size_t)snprintf(largest + used, sizeof(largest) - used, "%s%s %.1f MiB",
                                 told++ == 0 ? "" : ", ", sorted.memory[i].purpose,
                                 (double)sorted.memory[i].bytes / 1048576.0);
    }
    snprintf(allowed, sizeof(allowed), by ? "%s allows %.1f MiB" : "%s%.1f MiB are allowed",
             by ? by : "", (double)limit_bytes / 1048576.0);
    return hm_fail(err, HM_ERR_NOFIT, "stage '%s' needs %.1f MiB of memory%s, %s; most goes to: %s",
                   id, (double)needed / 1048576.0, with_mapped ? "" : " beside pages of files",
                   allowed, largest);
}

static int check_disk(const struct hm_recipe *recipe, uint64_t needed, struct hm_error *err)
{
    uint64_t available = 0;
    char *dir = NULL;

    HM_TRY(hm_existing_parent(recipe->run_dir, &dir, err));
    int known = hm_disk_free(dir, &available, NULL);
    hm_free(dir);
    if (known < 0 || needed <= available)
        return HM_OK;
    return hm_fail(err, HM_ERR_NOFIT,
                   "the stages write about %.1f MiB, '%s' has %.1f MiB of free disk space",
                   (double)needed / 1048576.0, recipe->run_dir, (double)available / 1048576.0);
}

int hm_run_plan_fits(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                     const struct hm_fit_limits *limits, struct hm_error *err)
{
    uint64_t machine = limits->machine ? hm_memory_limit_bytes() : 0, disk = 0;

    for (size_t i = limits->first; i < plan->n_stages && i <= limits->last; i++) {
        const struct hm_planned_stage *planned = &plan->stage[i];
        if (planned->decision == HM_DECIDE_SKIP)
            continue;
        disk += planned->plan.disk_bytes;
        if (limits->memory_bytes > 0 && planned->memory_bytes > limits->memory_bytes)
            return hm_fail_memory(err, recipe->stage[i].id, planned, true, limits->memory_bytes,
                                  NULL);
        if (machine > 0 && planned->memory_bytes - planned->mapped_bytes > machine)
            return hm_fail_memory(err, recipe->stage[i].id, planned, false, machine, NULL);
    }
    return limits->machine ? check_disk(recipe, disk, err) : HM_OK;
}

/* --- what would --- */

struct advice {
    const struct hm_recipe *recipe;
    const struct hm_fit_limits *limits;
    int threads;
    char *change[CHANGES_MAX]; /* "lora.set.rank=4" or, of a single stage, "set.rank=4"; owned */
    size_t group[CHANGES_MAX]; /* changes of one group go together */
    size_t n_changes, n_groups;
};

/* The recipe with the changes of the groups that are chosen. */
static int recipe_with(const struct advice *advice, const bool *chosen,
                       struct hm_recipe *ret_recipe, struct hm_error *err)
{
    const struct hm_recipe *recipe = advice->recipe;
    size_t n = recipe->n_overrides;
    const char **override =
        hm_alloc_array(HM_MEM_OTHER, n + advice->n_changes + 1, sizeof(*override));
    char *out = NULL;

    if (!override)
        return hm_fail_nomem(err, "for advice");
    for (size_t i = 0; i < n; i++)
        override[i] = recipe->override[i];
    for (size_t i = 0; i < advice->n_changes; i++)
        if (chosen[advice->group[i]])
            override[n++] = advice->change[i];
    int status = HM_OK;
    if (recipe->single) {
        status = hm_path_join(&out, recipe->run_dir, recipe->stage[0].id, err);
        if (status == HM_OK)
            status =
                hm_recipe_single(recipe->stage[0].stage->name, override, n, out, ret_recipe, err);
    } else {
        status = hm_recipe_load(recipe->path, override, n, recipe->run_dir, ret_recipe, err);
    }
    hm_free(out);
    hm_free(override);
    return status;
}

/* HM_OK: it fits with these; HM_ERR_NOFIT: not yet; else they do not go with the recipe. */
static int try_out(const struct advice *advice, const bool *chosen)
{
    struct hm_recipe recipe = { 0 };
    struct hm_run_plan plan = { 0 };

    HM_TRY(recipe_with(advice, chosen, &recipe, NULL));
    int status = hm_run_plan_make(&recipe, advice->threads, NULL, &plan, NULL);
    if (status == HM_OK)
        status = hm_run_plan_fits(&recipe, &plan, advice->limits, NULL);
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status;
}

static int change_add(struct advice *advice, const char *id, const char *setting,
                      struct hm_error *err)
{
    if (advice->n_changes == CHANGES_MAX)
        return HM_OK;
    advice->group[advice->n_changes] = advice->n_groups;
    HM_TRY(advice->recipe->single
               ? hm_format(&advice->change[advice->n_changes], err, "%s", setting)
               : hm_format(&advice->change[advice->n_changes], err, "%s.%s", id, setting));
    advice->n_changes++;
    return HM_OK;
}

/* One of the changes that a stage offers; ">" means the stages that make its packed inputs. */
static int group_add(struct advice *advice, size_t stage, char *text, struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &advice->recipe->stage[stage];
    size_t before = advice->n_changes;
    char *rest = NULL;

    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        if (word[0] != '>') {
            HM_TRY(change_add(advice, entry->id, word, err));
            continue;
        }
        for (size_t i = 0; i < entry->n_needs; i++) {
            const struct hm_recipe_stage *maker = &advice->recipe->stage[entry->needs[i]];
            if (maker->stage->product[0] == HM_INPUT_PACKED)
                HM_TRY(change_add(advice, maker->id, word + 1, err));
        }
    }
    if (advice->n_changes > before)
        advice->n_groups++;
    return HM_OK;
}

static int changes_list(struct advice *advice, struct hm_error *err)
{
    for (size_t i = advice->limits->first;
         i < advice->recipe->n_stages && i <= advice->limits->last; i++) {
        const struct hm_recipe_stage *entry = &advice->recipe->stage[i];
        struct hm_stage_run run;
        char text[HM_SMALLER_BYTES];
        hm_stage_run_fill(advice->recipe, i, advice->threads, NULL, NULL, &run);
        run.n_inputs = 0;
        for (size_t at = 0; entry->stage->smaller &&
                            entry->stage->smaller(&run, at, advice->limits->memory_bytes, text);
             at++)
            HM_TRY(group_add(advice, i, text, err));
    }
    return HM_OK;
}

/* The key of a change is set again by a later one. */
static bool overridden(const struct advice *advice, size_t i, const bool *chosen)
{
    size_t key = strcspn(advice->change[i], "=") + 1;

    for (size_t j = i + 1; j < advice->n_changes; j++)
        if (chosen[advice->group[j]] && strncmp(advice->change[i], advice->change[j], key) == 0)
            return true;
    return false;
}

/* One group that suffices, or all that go together less those not needed; false when nothing does.
 */
static bool choose(const struct advice *advice, bool *chosen)
{
    for (size_t g = 0; g < advice->n_groups; g++) {
        chosen[g] = true;
        if (try_out(advice, chosen) == HM_OK)
            return true;
        chosen[g] = false;
    }
    for (size_t g = 0; g < advice->n_groups; g++) {
        chosen[g] = true;
        int status = try_out(advice, chosen);
        if (status < 0) {
            chosen[g] = status == HM_ERR_NOFIT;
            continue;
        }
        for (size_t drop = 0; drop < g; drop++) {
            bool was = chosen[drop];
            chosen[drop] = false;
            chosen[drop] = was && try_out(advice, chosen) < 0;
        }
        return true;
    }
    return false;
}

void hm_run_plan_advise(const struct hm_recipe *recipe, int threads,
                        const struct hm_fit_limits *limits, struct hm_error *err)
{
    struct advice advice = { .recipe = recipe, .limits = limits, .threads = threads };
    bool chosen[CHANGES_MAX] = { false };
    size_t used = strlen(err->text), told = 0;

    if (changes_list(&advice, NULL) == HM_OK && advice.n_groups > 0) {
        bool found = choose(&advice, chosen);
        used += (size_t)snprintf(err->text + used, sizeof(err->text) - used, "%s",
                                 found ? "; it would fit with "
                                       : "; no change of settings known here would suffice");
        for (size_t i = 0; found && i < advice.n_changes && used < sizeof(err->text); i++)
            if (chosen[advice.group[i]] && !overridden(&advice, i, chosen))
                used += (size_t)snprintf(err->text + used, sizeof(err->text) - used, "%s%s",
                                         told++ == 0 ? "" : " ", advice.change[i]);
    }
    for (size_t i = 0; i < advice.n_changes; i++)
        hm_free(advice.change[i]);
}
