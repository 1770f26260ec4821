/* SPDX-License-Identifier: MIT */
/*
 * Inputs as written become paths: references to the output of stages, patterns to sorted files,
 * relative paths by the folder they refer to. Products that do not exist yet are marked pending and
 * carry what the plan of their stage foretold.
 */
#include <stdio.h>
#include <string.h>

#include "run_internal.h"

struct place { /* of the item at hand, for errors */
    const struct hm_resolver *resolver;
    const struct hm_input *input;
    const struct hm_input_item *item;
    const char *what; /* "zh.in.text" */
};

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the inputs of a stage");
}

void hm_inputs_release(struct hm_input_value *values, size_t n)
{
    for (size_t i = 0; values && i < n; i++) {
        for (size_t s = 0; s < values[i].n_sets; s++) {
            struct hm_input_set *set = &values[i].set[s];
            for (size_t p = 0; p < set->n_paths; p++)
                hm_free(set->path[p]);
            hm_free(set->path);
            hm_free(set->name);
            json_decref((json_t *)(uintptr_t)set->facts);
        }
        hm_free(values[i].set);
    }
    hm_free(values);
}

/* Takes path over, also when it fails. */
static int add_path(struct hm_input_set *set, char *path, struct hm_error *err)
{
    char **paths = hm_realloc(HM_MEM_OTHER, set->path, (set->n_paths + 1) * sizeof(*paths));

    if (!paths) {
        hm_free(path);
        return fail_nomem(err);
    }
    set->path = paths;
    paths[set->n_paths++] = path;
    return HM_OK;
}

static void set_pending(struct hm_input_set *set, const json_t *facts)
{
    set->pending = true;
    if (facts && !set->facts)
        set->facts = json_incref((json_t *)(uintptr_t)facts);
}

/* --- what other stages make --- */

/* What a rehearsal has made of a tokenizer that does not exist yet; NULL when there is none. */
static int find_stand_in(const struct place *place, const char *id, const char *within,
                         char **ret_path, struct hm_error *err)
{
    const char *dir = place->resolver->stand_ins;
    char *folder = NULL, *path = NULL;

    if (!dir || place->input->type != HM_INPUT_TOKENIZER)
        return HM_OK;
    HM_TRY(hm_path_join(&folder, dir, id, err));
    int status =
        *within ? hm_path_join(&path, folder, within, err) : hm_format(&path, err, "%s", folder);
    hm_free(folder);
    HM_TRY(status);
    if (hm_input_check(place->input, path, NULL) == HM_OK)
        *ret_path = path;
    else
        hm_free(path);
    return HM_OK;
}

static int add_product(const struct place *place, const struct hm_ref *ref,
                       struct hm_input_set *set, struct hm_error *err)
{
    const struct hm_recipe *recipe = place->resolver->recipe;
    const struct hm_recipe_stage *producer = &recipe->stage[ref->producer];
    const struct hm_planned_stage *planned = place->resolver->planned;
    char place_buf[HM_NODE_PLACE_BYTES], *folder = NULL, *path = NULL, *stand_in = NULL;
    bool pending = planned && planned[ref->producer].decision != HM_DECIDE_SKIP;

    if (pending)
        HM_TRY(find_stand_in(place, producer->id, ref->path, &stand_in, err));
    if (stand_in)
        return add_path(set, stand_in, err);
    HM_TRY(hm_run_path(recipe, producer->id, "", &folder, err));
    int status = *ref->path ? hm_path_join(&path, folder, ref->path, err)
                            : hm_format(&path, err, "%s", folder);
    hm_free(folder);
    HM_TRY(status);
    if (pending)
        set_pending(set, planned[ref->producer].plan.facts);
    else if (!hm_path_exists(path))
        status = hm_fail(err, HM_ERR_USAGE, "stage '%s' (%s) has not made '%s'", producer->id,
                         producer->stage->name, path);
    else
        status = hm_input_check(place->input, path, err);
    if (status == HM_OK)
        return add_path(set, path, err);
    hm_error_prefix(err, "%s: %s", hm_node_place(place->item->node, place_buf), place->what);
    hm_free(path);
    return status;
}

/* --- external paths --- */

/* The entry whose path is the item's, or a folder above it. */
static const struct hm_recipe_external *external_of(const struct hm_recipe *recipe,
                                                    const struct hm_input_item *item)
{
    for (size_t i = 0; item->node->file && i < recipe->n_external; i++) {
        const struct hm_recipe_external *external = &recipe->external[i];
        size_t len = strlen(external->path);
        if (strncmp(item->text, external->path, len) == 0 &&
            (item->text[len] == '\0' || item->text[len] == '/' ||
             (len > 0 && external->path[len - 1] == '/')))
            return external;
    }
    return NULL;
}

static int note_missing(struct hm_run_plan *plan, const char *path, const char *what,
                        struct hm_error *err)
{
    char *line = NULL;

    HM_TRY(hm_format(&line, err, "%s: %s", path, what));
    for (size_t i = 0; i < plan->n_missing; i++)
        if (strcmp(plan->missing[i], line) == 0) {
            hm_free(line);
            return HM_OK;
        }
    char **missing =
        hm_realloc(HM_MEM_OTHER, plan->missing, (plan->n_missing + 1) * sizeof(*missing));
    if (!missing) {
        hm_free(line);
        return fail_nomem(err);
    }
    plan->missing = missing;
    missing[plan->n_missing++] = line;
    return HM_OK;
}

/* "config" and "vocab_size" of the config.json that stands for a model or tokenizer meanwhile. */
static int external_facts(const struct hm_recipe_external *external, struct hm_input_set *set,
                          struct hm_error *err)
{
    json_t *config = NULL, *facts = NULL;

    set_pending(set, NULL);
    if (!external->config)
        return HM_OK;
    HM_TRY(hm_json_load(external->config, HM_STAGE_JSON_MAX_BYTES, &config, err));
    facts = json_pack("{s:O, s:O*}", "config", config, "vocab_size",
                      json_object_get(config, "vocab_size"));
    json_decref(config);
    if (!facts)
        return fail_nomem(err);
    set_pending(set, facts);
    json_decref(facts);
    return HM_OK;
}

static int add_missing(const struct place *place, char *path, struct hm_input_set *set,
                       struct hm_error *err)
{
    const struct hm_recipe_external *external = external_of(place->resolver->recipe, place->item);
    const char *bring = external ? external->what : "";
    int status = HM_OK;

    if (!external || place->resolver->need_external)
        status = hm_fail(err, HM_ERR_USAGE, "'%s' does not exist%s%s", path,
                         *bring ? "; it must be brought along: " : "", bring);
    if (status == HM_OK && place->resolver->plan)
        status = note_missing(place->resolver->plan, path, bring, err);
    if (status == HM_OK)
        status = external_facts(external, set, err);
    if (status == HM_OK)
        return add_path(set, path, err);
    hm_free(path);
    return status;
}

/* --- plain paths and patterns --- */

/* Every file that matches the pattern; HM_ERR_USAGE of hm_glob when none does. */
static int add_pattern(const struct place *place, const char *pattern, bool *ret_any,
                       struct hm_input_set *set, struct hm_error *err)
{
    struct hm_names names = { 0 };
    int status = hm_glob(pattern, &names, err);

    *ret_any = status == HM_OK;
    if (status == HM_ERR_USAGE)
        return HM_OK;
    for (size_t i = 0; status == HM_OK && i < names.count; i++) {
        status = hm_input_check(place->input, names.item[i], err);
        if (status == HM_OK) {
            status = add_path(set, names.item[i], err);
            names.item[i] = NULL;
        }
    }
    hm_names_release(&names);
    return status;
}

/* path is taken over */
static int add_written(const struct place *place, char *path, struct hm_input_set *set,
                       struct hm_error *err)
{
    bool any = false;
    int status = HM_OK;

    if (hm_path_exists(path)) {
        status = hm_input_check(place->input, path, err);
        if (status == HM_OK)
            return add_path(set, path, err);
        hm_free(path);
        return status;
    }
    if (strpbrk(place->item->text, "*?["))
        status = add_pattern(place, path, &any, set, err);
    if (status == HM_OK && !any)
        return add_missing(place, path, set, err);
    hm_free(path);
    return status;
}

static int add_plain(const struct place *place, struct hm_input_set *set, struct hm_error *err)
{
    const char *base = place->item->node->file ? place->resolver->recipe->base_dir : "";
    char place_buf[HM_NODE_PLACE_BYTES], *path = NULL;
    int status = hm_path_join(&path, base, place->item->text, err);

    if (status == HM_OK)
        status = add_written(place, path, set, err);
    if (status < 0)
        hm_error_prefix(err, "%s: %s", hm_node_place(place->item->node, place_buf), place->what);
    return status;
}

static int resolve_items(const struct hm_resolver *resolver, const struct hm_input *input,
                         const char *what, const struct hm_input_items *items,
                         struct hm_input_value *value, struct hm_error *err)
{
    value->set = hm_calloc(HM_MEM_OTHER, items->n_sets, sizeof(*value->set));
    if (!value->set)
        return fail_nomem(err);
    for (size_t s = 0; s < items->n_sets; s++) {
        value->set[s] =
            (struct hm_input_set){ .weight = items->set[s].weight, .epochs = items->set[s].epochs };
        value->n_sets++;
        value->set[s].name = hm_strdup(HM_MEM_OTHER, items->set[s].name);
        if (!value->set[s].name)
            return fail_nomem(err);
    }
    for (size_t i = 0; i < items->n_items; i++) {
        struct place place = { resolver, input, &items->item[i], what };
        struct hm_input_set *set = &value->set[items->item[i].set];
        struct hm_ref ref;
        HM_TRY(hm_ref_read(resolver->recipe, input, &items->item[i], what, &ref, err));
        HM_TRY(ref.producer != HM_NO_STAGE ? add_product(&place, &ref, set, err)
                                           : add_plain(&place, set, err));
    }
    return HM_OK;
}

static int resolve_input(const struct hm_resolver *resolver, const struct hm_recipe_stage *stage,
                         struct hm_input_value *value, struct hm_error *err)
{
    const struct hm_node *node = hm_node_find(stage->in_node, value->input->name);
    struct hm_input_items items = { 0 };
    char place[HM_NODE_PLACE_BYTES], what[200];

    if (!node || node->kind == HM_NODE_NULL)
        return HM_OK;
    snprintf(what, sizeof(what), "%.80s.in.%s", stage->id, value->input->name);
    HM_TRY(hm_input_items_read(value->input, node, what, &items, err));
    int status = resolve_items(resolver, value->input, what, &items, value, err);
    hm_input_items_release(&items);
    if (status == HM_OK && !value->input->many && value->set[0].n_paths != 1)
        status = hm_fail(err, HM_ERR_USAGE, "%s: %s must be one path, the pattern matches %zu",
                         hm_node_place(node, place), what, value->set[0].n_paths);
    return status;
}

int hm_inputs_resolve(const struct hm_resolver *resolver, size_t stage,
                      struct hm_input_value **ret_values, struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &resolver->recipe->stage[stage];
    size_t n = entry->stage->n_inputs;
    struct hm_input_value *values = hm_calloc(HM_MEM_OTHER, n + 1, sizeof(*values));
    int status = values ? HM_OK : fail_nomem(err);

    for (size_t i = 0; status == HM_OK && i < n; i++) {
        values[i].input = &entry->stage->inputs[i];
        status = resolve_input(resolver, entry, &values[i], err);
    }
    if (status < 0)
        hm_inputs_release(values, n);
    else
        *ret_values = values;
    return status;
}
