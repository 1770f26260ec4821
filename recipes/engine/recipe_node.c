/* SPDX-License-Identifier: MIT */
/*
 * Storage of recipe values: a tree of owned nodes, each knowing file and line. No meaning is given
 * to any key here.
 */
#include "recipe_node.h"

#include <stdio.h>
#include <string.h>

void hm_node_release(struct hm_node *node)
{
    for (size_t i = 0; i < node->count; i++)
        hm_node_release(&node->item[i]);
    hm_free(node->item);
    hm_free(node->key);
    hm_free(node->text);
    *node = (struct hm_node){ 0 };
}

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "while reading a recipe");
}

int hm_node_add(struct hm_node *parent, const char *key, struct hm_node **ret_child,
                struct hm_error *err)
{
    if (parent->count == parent->cap) {
        size_t cap = parent->cap == 0 ? 8 : 2 * parent->cap;
        struct hm_node *item = hm_realloc(HM_MEM_OTHER, parent->item, cap * sizeof(*item));
        if (!item)
            return fail_nomem(err);
        parent->item = item;
        parent->cap = cap;
    }
    struct hm_node child = { .file = parent->file, .line = parent->line };
    if (key) {
        child.key = hm_strdup(HM_MEM_OTHER, key);
        if (!child.key)
            return fail_nomem(err);
    }
    parent->item[parent->count] = child;
    *ret_child = &parent->item[parent->count++];
    return HM_OK;
}

int hm_node_set_text(struct hm_node *node, const char *text, struct hm_error *err)
{
    char *copy = hm_strdup(HM_MEM_OTHER, text);

    if (!copy)
        return fail_nomem(err);
    hm_free(node->text);
    node->text = copy;
    node->kind = HM_NODE_TEXT;
    return HM_OK;
}

struct hm_node *hm_node_find(const struct hm_node *map, const char *key)
{
    if (!map || map->kind != HM_NODE_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->item[i].key, key) == 0)
            return &map->item[i];
    return NULL;
}

const char *hm_node_place(const struct hm_node *node, char buf[HM_NODE_PLACE_BYTES])
{
    if (!node->file)
        return "command line";
    snprintf(buf, HM_NODE_PLACE_BYTES, "%s:%d", node->file, node->line);
    return buf;
}

const char *hm_node_kind_name(const struct hm_node *node)
{
    static const char *const name[] = { "empty", "one value", "a list", "a map" };
    static const char *const without[] = { "empty", "one value", "an empty list", "an empty map" };

    return node->count > 0 ? name[node->kind] : without[node->kind];
}

int hm_node_need_text(const struct hm_node *node, const char *what, const char **ret_text,
                      struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];

    if (node->kind != HM_NODE_TEXT)
        return hm_fail(err, HM_ERR_USAGE, "%s: %s must be one value, it is %s",
                       hm_node_place(node, place), what, hm_node_kind_name(node));
    *ret_text = node->text;
    return HM_OK;
}
