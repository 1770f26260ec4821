/* SPDX-License-Identifier: MIT */
/*
 * How inputs may be written: one path, a list of paths, or named sets with weight and epochs.
 * Here they become a flat list; what the paths mean is for recipe_refs.c and input_resolve.c.
 */
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "hanmix/base/file.h"

void hm_input_items_release(struct hm_input_items *items)
{
    for (size_t i = 0; i < items->n_items; i++)
        hm_free(items->item[i].text);
    hm_free(items->item);
    hm_free(items->set);
    *items = (struct hm_input_items){ 0 };
}

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the inputs of a stage");
}

static int add_set(struct hm_input_items *items, const char *name, struct hm_error *err)
{
    struct hm_item_set *set =
        hm_realloc(HM_MEM_OTHER, items->set, (items->n_sets + 1) * sizeof(*set));

    if (!set)
        return fail_nomem(err);
    items->set = set;
    set[items->n_sets++] = (struct hm_item_set){ name, 0, 1 };
    return HM_OK;
}

/* A path into the newest set. */
static int add_item(struct hm_input_items *items, const char *text, size_t len,
                    const struct hm_node *node, struct hm_error *err)
{
    struct hm_input_item *item =
        hm_realloc(HM_MEM_OTHER, items->item, (items->n_items + 1) * sizeof(*item));

    if (!item)
        return fail_nomem(err);
    items->item = item;
    char *copy = hm_strndup(HM_MEM_OTHER, text, len);
    if (!copy)
        return fail_nomem(err);
    item[items->n_items++] = (struct hm_input_item){ copy, node, items->n_sets - 1 };
    return HM_OK;
}

static int fail_shape(struct hm_error *err, const struct hm_node *node, const char *what,
                      const char *expected)
{
    char place[HM_NODE_PLACE_BYTES];

    return hm_fail(err, HM_ERR_USAGE, "%s: %s must be %s, it is %s", hm_node_place(node, place),
                   what, expected, hm_node_kind_name(node));
}

/* "a,b" from the command line is a list, unless there is a file of that very name. */
static bool is_comma_list(const struct hm_node *node)
{
    return !node->file && strchr(node->text, ',') && !hm_path_exists(node->text);
}

static int add_text(struct hm_input_items *items, const struct hm_node *node, bool own_sets,
                    bool may_split, struct hm_error *err)
{
    const char *text = node->text;

    while (may_split && is_comma_list(node) && strchr(text, ',')) {
        size_t len = strcspn(text, ",");
        HM_TRY(add_item(items, text, len, node, err));
        if (own_sets)
            HM_TRY(add_set(items, "", err));
        text += len + 1;
    }
    return add_item(items, text, strlen(text), node, err);
}

static int add_list(struct hm_input_items *items, const struct hm_node *list, bool own_sets,
                    const char *what, struct hm_error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->item[i].kind != HM_NODE_TEXT)
            return fail_shape(err, &list->item[i], what, "a list whose items are paths");
        if (own_sets && i > 0)
            HM_TRY(add_set(items, "", err));
        HM_TRY(
            add_item(items, list->item[i].text, strlen(list->item[i].text), &list->item[i], err));
    }
    return HM_OK;
}

/* weight or epochs of a named set */
static int read_share(const struct hm_node *node, const char *what, double *ret_value,
                      struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];
    const char *text;
    double value;

    HM_TRY(hm_node_need_text(node, what, &text, err));
    int status = hm_parse_double(text, &value, err);
    if (status == HM_OK && (value <= 0 || value > 1e6))
        status = hm_fail(err, HM_ERR_USAGE, "'%s' must be above 0 and at most 1e6", text);
    if (status < 0)
        hm_error_prefix(err, "%s: %s", hm_node_place(node, place), what);
    else
        *ret_value = value;
    return status;
}

static int add_files(struct hm_input_items *items, const struct hm_node *node, const char *what,
                     struct hm_error *err)
{
    if (node->kind == HM_NODE_TEXT)
        return add_text(items, node, false, true, err);
    if (node->kind == HM_NODE_LIST && node->count > 0)
        return add_list(items, node, false, what, err);
    return fail_shape(err, node, what, "a path or a list of paths");
}

static int add_named(struct hm_input_items *items, const struct hm_input *input,
                     const struct hm_node *named, const char *what, struct hm_error *err)
{
    static const char *const keys[] = { "files", "weight", "epochs" };
    char place[HM_NODE_PLACE_BYTES], name[300];
    const struct hm_node *files = hm_node_find(named, "files");

    HM_TRY(add_set(items, named->key, err));
    struct hm_item_set *set = &items->set[items->n_sets - 1];
    snprintf(name, sizeof(name), "%s.%.64s", what, named->key);
    if (named->key[0] == '\0' || strlen(named->key) > 64)
        return hm_fail(err, HM_ERR_USAGE, "%s: %s: the name of a set has 1 to 64 bytes",
                       hm_node_place(named, place), what);
    if (named->kind != HM_NODE_MAP)
        return add_files(items, named, name, err);
    for (size_t i = 0; i < named->count; i++) {
        const struct hm_node *node = &named->item[i];
        if (!input->shares &&
            (strcmp(node->key, "weight") == 0 || strcmp(node->key, "epochs") == 0))
            return hm_fail(err, HM_ERR_USAGE,
                           "%s: '%s' of set %s: this input is read whole, once; shares are for "
                           "corpus.pack",
                           hm_node_place(node, place), node->key, name);
        if (strcmp(node->key, "weight") == 0)
            HM_TRY(read_share(node, "weight", &set->weight, err));
        else if (strcmp(node->key, "epochs") == 0)
            HM_TRY(read_share(node, "epochs", &set->epochs, err));
        else if (strcmp(node->key, "files") != 0)
            return hm_fail_unknown(err, hm_node_place(node, place), "key of a set", node->key, keys,
                                   3);
    }
    if (!files)
        return hm_fail(err, HM_ERR_USAGE, "%s: set %s has no 'files'", hm_node_place(named, place),
                       name);
    return add_files(items, files, name, err);
}

static int read_items(const struct hm_input *input, const struct hm_node *node, const char *what,
                      struct hm_input_items *items, struct hm_error *err)
{
    bool own_sets = input->type != HM_INPUT_TEXT; /* a list of text is one text */

    if (node->kind == HM_NODE_TEXT) {
        HM_TRY(add_set(items, "", err));
        return add_text(items, node, own_sets, input->many, err);
    }
    if (!input->many)
        return fail_shape(err, node, what, "one path");
    if (node->kind == HM_NODE_LIST && node->count > 0) {
        HM_TRY(add_set(items, "", err));
        return add_list(items, node, own_sets, what, err);
    }
    if (node->kind != HM_NODE_MAP || node->count == 0)
        return fail_shape(err, node, what, "a path, a list of paths, or named sets");
    for (size_t i = 0; i < node->count; i++)
        HM_TRY(add_named(items, input, &node->item[i], what, err));
    return HM_OK;
}

int hm_input_items_read(const struct hm_input *input, const struct hm_node *node, const char *what,
                        struct hm_input_items *ret_items, struct hm_error *err)
{
    struct hm_input_items items = { 0 };
    int status = read_items(input, node, what, &items, err);

    if (status < 0)
        hm_input_items_release(&items);
    else
        *ret_items = items;
    return status;
}
