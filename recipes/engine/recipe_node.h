/* SPDX-License-Identifier: MIT */
/*
 * A value of a recipe with the place it was written at: text, list or map. Made by recipe_yaml.c,
 * changed by overrides, read by fields.c and recipe.c. Private to recipes/.
 */
#ifndef HANMIX_RECIPES_ENGINE_RECIPE_NODE_H
#define HANMIX_RECIPES_ENGINE_RECIPE_NODE_H

#include <stdbool.h>
#include <stddef.h>

#include "hanmix/base/str.h"

#define HM_NODE_PLACE_BYTES 512

enum hm_node_kind { HM_NODE_NULL, HM_NODE_TEXT, HM_NODE_LIST, HM_NODE_MAP };

struct hm_node {
    enum hm_node_kind kind;
    char *key;            /* owned; NULL for the root and for items of a list */
    char *text;           /* owned; TEXT only */
    struct hm_node *item; /* owned; LIST and MAP */
    size_t count, cap;
    const char *file; /* borrowed from the recipe; NULL: the command line */
    int line;         /* from 1; 0 unknown */
};

void hm_node_release(struct hm_node *node);
/* A new last child, zeroed but for its place, which is the parent's. key may be NULL. */
int hm_node_add(struct hm_node *parent, const char *key, struct hm_node **ret_child,
                struct hm_error *err);
int hm_node_set_text(struct hm_node *node, const char *text, struct hm_error *err);
/* NULL: none, or no map */
struct hm_node *hm_node_find(const struct hm_node *map, const char *key);
/* "recipe.yaml:12" or "command line". */
const char *hm_node_place(const struct hm_node *node, char buf[HM_NODE_PLACE_BYTES]);
const char *hm_node_kind_name(const struct hm_node *node); /* "a list" */
/* Its text, or HM_ERR_USAGE "PLACE: WHAT must be one value, not a list". */
int hm_node_need_text(const struct hm_node *node, const char *what, const char **ret_text,
                      struct hm_error *err);

#endif
