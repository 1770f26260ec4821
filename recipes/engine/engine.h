/* SPDX-License-Identifier: MIT */
/*
 * What the files of the engine share: overrides, items of inputs, references to products. Private
 * to recipes/engine.
 */
#ifndef HANMIX_RECIPES_ENGINE_ENGINE_H
#define HANMIX_RECIPES_ENGINE_ENGINE_H

#include "fields.h"
#include "hanmix/recipes/recipe.h"
#include "recipe_node.h"

#define HM_NO_STAGE SIZE_MAX

/* --- recipe_override.c --- */

/* "lora.set.rank=8" into the tree of a recipe; "run_dir", "seed" and "base_dir" stand alone. */
int hm_override_apply(struct hm_node *root, const char *text, struct hm_error *err);
/* "set.rank=8" into the map of one stage. */
int hm_override_apply_stage(struct hm_node *stage, const char *text, struct hm_error *err);

/* --- input_items.c --- */

struct hm_input_item {
    char *text;                 /* path, pattern or $reference; owned */
    const struct hm_node *node; /* where it was written */
    size_t set;
};
struct hm_item_set {
    const char *name; /* borrowed; "" when not named */
    double weight, epochs;
};
struct hm_input_items {
    struct hm_input_item *item;
    size_t n_items;
    struct hm_item_set *set;
    size_t n_sets;
};
/* One path, a list or named sets of an input, as written. what: "zh.in.text", for errors. */
int hm_input_items_read(const struct hm_input *input, const struct hm_node *node, const char *what,
                        struct hm_input_items *ret_items, struct hm_error *err);
void hm_input_items_release(struct hm_input_items *items);

/* --- input_check.c --- */

/* An existing path can be what the input asks for: the folder has a config.json, the file a known
 * ending. */
int hm_input_check(const struct hm_input *input, const char *path, struct hm_error *err);
/* Records are JSON, which cannot keep a name that is not UTF-8: HM_ERR_USAGE. */
int hm_name_check(const char *path, struct hm_error *err);

/* --- recipe_refs.c --- */

struct hm_ref {
    size_t producer;  /* index of a stage, or HM_NO_STAGE: a plain path */
    const char *path; /* below the producer's folder, "" = the folder itself */
};
/* What the text of an item refers to; checks that the stage exists and makes the type. */
int hm_ref_read(const struct hm_recipe *recipe, const struct hm_input *input,
                const struct hm_input_item *item, const char *what, struct hm_ref *ret_ref,
                struct hm_error *err);
/* Fill stage->needs, then put the stages in an order in which products come before their use. */
int hm_recipe_order(struct hm_recipe *recipe, struct hm_error *err);

#endif
