/* SPDX-License-Identifier: MIT */
/*
 * Stages by name; and what they call while they plan and run: their inputs by name, and the lines
 * of a plan.
 */
#include <string.h>

#include "hanmix/recipes/recipe.h"
#include "hanmix/recipes/stage.h"
#include "recipe_node.h"

#define LISTED_STAGES 64u

int hm_stage_find(const char *name, const char *place, const struct hm_stage **ret_stage,
                  struct hm_error *err)
{
    const char *names[LISTED_STAGES];
    size_t n = 0;

    for (size_t i = 0; i < hm_stage_count(); i++) {
        const struct hm_stage *stage = hm_stage_at(i);
        if (strcmp(stage->name, name) == 0) {
            *ret_stage = stage;
            return HM_OK;
        }
        if (n < LISTED_STAGES)
            names[n++] = stage->name;
    }
    return hm_fail_unknown(err, place, "stage", name, names, n);
}

const struct hm_input_value *hm_stage_input(const struct hm_stage_run *run, const char *name)
{
    for (size_t i = 0; i < run->n_inputs; i++)
        if (strcmp(run->inputs[i].input->name, name) == 0)
            return run->inputs[i].n_sets > 0 ? &run->inputs[i] : NULL;
    return NULL;
}

int hm_stage_path(const struct hm_stage_run *run, const char *name, const char **ret_path,
                  struct hm_error *err)
{
    const struct hm_input_value *value = hm_stage_input(run, name);

    if (!value)
        return hm_fail(err, HM_ERR_USAGE, "%s: input '%s' is not given", run->id, name);
    if (value->n_sets != 1 || value->set[0].n_paths != 1)
        return hm_fail(err, HM_ERR_USAGE, "%s: input '%s' must be one path, it is %zu", run->id,
                       name, value->n_sets == 1 ? value->set[0].n_paths : value->n_sets);
    *ret_path = value->set[0].path[0];
    return HM_OK;
}

bool hm_stage_given(const struct hm_stage_run *run, const char *setting)
{
    const struct hm_node *node = hm_node_find(run->set_node, setting);

    return node && node->kind != HM_NODE_NULL;
}

int hm_stage_refuse_given(const struct hm_stage_run *run, const char *const *settings,
                          const char *why, struct hm_error *err)
{
    for (size_t i = 0; settings[i]; i++)
        if (hm_stage_given(run, settings[i]))
            return hm_fail(err, HM_ERR_USAGE, "set.%s: %s", settings[i], why);
    return HM_OK;
}

static int plan_add(struct hm_stage_plan *plan, const char *purpose, uint64_t bytes, bool mapped,
                    struct hm_error *err)
{
    struct hm_plan_line *line =
        hm_realloc(HM_MEM_OTHER, plan->memory, (plan->n_memory + 1) * sizeof(*line));

    if (line)
        plan->memory = line;
    char *copy = line ? hm_strdup(HM_MEM_OTHER, purpose) : NULL;
    if (!copy)
        return hm_fail_nomem(err, "for a plan");
    line[plan->n_memory++] = (struct hm_plan_line){ copy, bytes, mapped };
    return HM_OK;
}

int hm_stage_plan_memory(struct hm_stage_plan *plan, const char *purpose, uint64_t bytes,
                         struct hm_error *err)
{
    return plan_add(plan, purpose, bytes, false, err);
}

int hm_stage_plan_mapped(struct hm_stage_plan *plan, const char *purpose, uint64_t bytes,
                         struct hm_error *err)
{
    return plan_add(plan, purpose, bytes, true, err);
}

int hm_stage_plan_fact(struct hm_stage_plan *plan, const char *name, json_t *value,
                       struct hm_error *err)
{
    if (!plan->facts)
        plan->facts = json_object();
    if (json_object_set_new(plan->facts, name, value) < 0) /* drops value when it fails */
        return hm_fail_nomem(err, "for a plan");
    return HM_OK;
}

void hm_stage_plan_release(struct hm_stage_plan *plan)
{
    for (size_t i = 0; i < plan->n_memory; i++)
        hm_free(plan->memory[i].purpose);
    hm_free(plan->memory);
    json_decref(plan->facts);
    *plan = (struct hm_stage_plan){ 0 };
}

/* --- predictions --- */

void hm_stage_bench_add(struct hm_stage_bench *bench, const char *what, double seconds,
                        double times)
{
    HM_BUG(bench->n_parts == HM_BENCH_PARTS);
    bench->part[bench->n_parts++] = (struct hm_bench_part){ what, seconds, times };
}

double hm_stage_bench_seconds(const struct hm_stage_bench *bench)
{
    double sum = 0;

    for (size_t i = 0; i < bench->n_parts; i++)
        sum += bench->part[i].seconds * bench->part[i].times;
    return sum;
}

double hm_stage_bench_part(const struct hm_stage_bench *bench, const char *what)
{
    for (size_t i = 0; i < bench->n_parts; i++)
        if (strcmp(bench->part[i].what, what) == 0)
            return bench->part[i].seconds;
    return 0;
}
