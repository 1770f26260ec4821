/* SPDX-License-Identifier: MIT */
/*
 * References between stages: what `$id` means to an input of a type, which stages a stage needs,
 * and the order that follows. The order is that of the recipe wherever the needs allow it.
 */
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "hanmix/base/file.h"

#define LISTED_IDS   64u
#define PRODUCTS_MAX 3

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the order of the stages");
}

static int find_id(const struct hm_recipe *recipe, const char *place, const char *id, size_t len,
                   size_t *ret_index, struct hm_error *err)
{
    const char *ids[LISTED_IDS];
    char name[104], what[] = "stage id";
    size_t n = 0;

    for (size_t i = 0; i < recipe->n_stages; i++) {
        if (strlen(recipe->stage[i].id) == len && memcmp(recipe->stage[i].id, id, len) == 0) {
            *ret_index = i;
            return HM_OK;
        }
        if (n < LISTED_IDS)
            ids[n++] = recipe->stage[i].id;
    }
    snprintf(name, sizeof(name), "%.*s", len < 100 ? (int)len : 100, id);
    return hm_fail_unknown(err, place, what, name, ids, n);
}

int hm_recipe_find(const struct hm_recipe *recipe, const char *id, size_t *ret_index,
                   struct hm_error *err)
{
    return find_id(recipe, "command line", id, strlen(id), ret_index, err);
}

/* "tokenizer, model" */
static const char *products_text(const struct hm_stage *stage, char *buf, size_t size)
{
    size_t used = 0;

    snprintf(buf, size, "no product of a type");
    for (int i = 0; i < PRODUCTS_MAX; i++)
        if (stage->product_path[i] && used < size)
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used > 0 ? ", " : "",
                                     hm_input_type_name(stage->product[i]));
    return buf;
}

/* The path of the stage's only product of the type. */
static int product_of(const struct hm_recipe_stage *producer, const struct hm_input *input,
                      const char *place, const char *what, const char **ret_path,
                      struct hm_error *err)
{
    const struct hm_stage *stage = producer->stage;
    const char *found = NULL;
    char made[120];

    for (int i = 0; i < PRODUCTS_MAX; i++) {
        if (!stage->product_path[i] || stage->product[i] != input->type)
            continue;
        if (found)
            return hm_fail(err, HM_ERR_USAGE,
                           "%s: %s: stage '%s' (%s) has two candidates of type %s, '%s' and '%s'; "
                           "write $%s/%s or $%s/%s",
                           place, what, producer->id, stage->name, hm_input_type_name(input->type),
                           found, stage->product_path[i], producer->id, found, producer->id,
                           stage->product_path[i]);
        found = stage->product_path[i];
    }
    if (!found)
        return hm_fail(err, HM_ERR_USAGE,
                       "%s: %s must be of type %s, but stage '%s' (%s) makes %s; to name one of "
                       "its files write $%s/FILE",
                       place, what, hm_input_type_name(input->type), producer->id, stage->name,
                       products_text(stage, made, sizeof(made)), producer->id);
    *ret_path = found;
    return HM_OK;
}

static bool leaves_folder(const char *path)
{
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
            return true;
    }
    return path[0] == '/';
}

int hm_ref_read(const struct hm_recipe *recipe, const struct hm_input *input,
                const struct hm_input_item *item, const char *what, struct hm_ref *ret_ref,
                struct hm_error *err)
{
    char place_buf[HM_NODE_PLACE_BYTES];
    const char *place = hm_node_place(item->node, place_buf);
    struct hm_ref ref = { HM_NO_STAGE, item->text };

    if (item->text[0] == '\0')
        return hm_fail(err, HM_ERR_USAGE, "%s: %s: an empty path", place, what);
    if (item->text[0] == '$') {
        const char *id = item->text + 1;
        size_t len = strcspn(id, "/");
        HM_TRY(find_id(recipe, place, id, len, &ref.producer, err));
        const char *path = id[len] == '/' ? id + len + 1 : "";
        if (leaves_folder(path))
            return hm_fail(err, HM_ERR_USAGE, "%s: %s: '%s' leaves the folder of stage '%s'", place,
                           what, item->text, recipe->stage[ref.producer].id);
        if (*path == '\0')
            HM_TRY(product_of(&recipe->stage[ref.producer], input, place, what, &path, err));
        ref.path = path;
    }
    *ret_ref = ref;
    return HM_OK;
}

/* --- needs --- */

static int add_need(struct hm_recipe_stage *stage, size_t producer, struct hm_error *err)
{
    for (size_t i = 0; i < stage->n_needs; i++)
        if (stage->needs[i] == producer)
            return HM_OK;
    size_t *needs = hm_realloc(HM_MEM_OTHER, stage->needs, (stage->n_needs + 1) * sizeof(*needs));
    if (!needs)
        return fail_nomem(err);
    stage->needs = needs;
    needs[stage->n_needs++] = producer;
    return HM_OK;
}

static int input_needs(const struct hm_recipe *recipe, struct hm_recipe_stage *stage,
                       const struct hm_input *input, const struct hm_node *node,
                       struct hm_error *err)
{
    struct hm_input_items items = { 0 };
    char what[200];

    snprintf(what, sizeof(what), "%.80s.in.%s", stage->id, input->name);
    int status = hm_input_items_read(input, node, what, &items, err);
    for (size_t i = 0; status == HM_OK && i < items.n_items; i++) {
        struct hm_ref ref;
        status = hm_ref_read(recipe, input, &items.item[i], what, &ref, err);
        if (status == HM_OK && ref.producer != HM_NO_STAGE)
            status = add_need(stage, ref.producer, err);
    }
    hm_input_items_release(&items);
    return status;
}

static const char *stage_place(const struct hm_recipe *recipe, const struct hm_recipe_stage *stage,
                               char buf[HM_NODE_PLACE_BYTES])
{
    struct hm_node node = { .file = recipe->single ? NULL : recipe->path, .line = stage->line };

    return hm_node_place(&node, buf);
}

static int stage_needs(const struct hm_recipe *recipe, struct hm_recipe_stage *stage,
                       struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];

    for (size_t i = 0; i < stage->stage->n_inputs; i++) {
        const struct hm_input *input = &stage->stage->inputs[i];
        const struct hm_node *node = hm_node_find(stage->in_node, input->name);
        if (node && node->kind != HM_NODE_NULL)
            HM_TRY(input_needs(recipe, stage, input, node, err));
        else if (input->required)
            return hm_fail(err, HM_ERR_USAGE, "%s: stage '%s' (%s): input '%s' (%s) is missing",
                           stage_place(recipe, stage, place), stage->id, stage->stage->name,
                           input->name, hm_input_type_name(input->type));
    }
    return HM_OK;
}

/* --- order --- */

static bool ready(const struct hm_recipe_stage *stage, const size_t *position)
{
    for (size_t i = 0; i < stage->n_needs; i++)
        if (position[stage->needs[i]] == HM_NO_STAGE)
            return false;
    return true;
}

/* Follow unplaced needs from an unplaced stage until one repeats, and tell the ring. */
static int fail_cycle(const struct hm_recipe *recipe, const size_t *position, struct hm_error *err)
{
    char ring[500] = "";
    size_t used = 0, at = 0;

    while (position[at] != HM_NO_STAGE)
        at++;
    for (int pass = 0; pass < 2; pass++) { /* first to get onto the ring, then around it */
        size_t first = at;
        for (size_t step = 0; step <= recipe->n_stages; step++) {
            const struct hm_recipe_stage *stage = &recipe->stage[at];
            if (pass == 1 && used < sizeof(ring))
                used += (size_t)snprintf(ring + used, sizeof(ring) - used, "%s needs ", stage->id);
            size_t i = 0;
            while (position[stage->needs[i]] != HM_NO_STAGE)
                i++;
            at = stage->needs[i];
            if (pass == 1 && at == first)
                break;
        }
    }
    return hm_fail(err, HM_ERR_USAGE, "%s:%d: a cycle: %s%s", recipe->path, recipe->stage[at].line,
                   ring, recipe->stage[at].id);
}

static int compare_index(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;

    return (x > y) - (x < y);
}

/* Move the stages to their positions and rename what they need accordingly. */
static void permute(struct hm_recipe *recipe, const size_t *position,
                    struct hm_recipe_stage *sorted)
{
    for (size_t i = 0; i < recipe->n_stages; i++) {
        struct hm_recipe_stage *stage = &recipe->stage[i];
        for (size_t k = 0; k < stage->n_needs; k++)
            stage->needs[k] = position[stage->needs[k]];
        if (stage->n_needs > 1)
            qsort(stage->needs, stage->n_needs, sizeof(*stage->needs), compare_index);
        sorted[position[i]] = *stage;
    }
    memcpy(recipe->stage, sorted, recipe->n_stages * sizeof(*sorted));
}

int hm_recipe_order(struct hm_recipe *recipe, struct hm_error *err)
{
    size_t n = recipe->n_stages;
    int status = HM_OK;

    for (size_t i = 0; i < n; i++)
        HM_TRY(stage_needs(recipe, &recipe->stage[i], err));
    size_t *position = hm_alloc_array(HM_MEM_OTHER, n, sizeof(*position));
    struct hm_recipe_stage *sorted = hm_alloc_array(HM_MEM_OTHER, n, sizeof(*sorted));
    if (!position || !sorted) {
        status = fail_nomem(err);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        position[i] = HM_NO_STAGE;
    for (size_t placed = 0; placed < n && status == HM_OK; placed++) {
        size_t i = 0;
        while (i < n && (position[i] != HM_NO_STAGE || !ready(&recipe->stage[i], position)))
            i++;
        if (i == n)
            status = fail_cycle(recipe, position, err);
        else
            position[i] = placed;
    }
    if (status == HM_OK)
        permute(recipe, position, sorted);
out:
    hm_free(position);
    hm_free(sorted);
    return status;
}
