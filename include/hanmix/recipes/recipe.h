/* SPDX-License-Identifier: MIT */
/*
 * A recipe: stages with inputs and settings, read from YAML, overridden from the command line,
 * checked, and put in order. Nothing below reads model or text data.
 *
 * Paths written in a recipe are relative to its folder (or its base_dir); run_dir, overrides and
 * everything given on the command line to the working directory.
 * Thread class: owner thread; immutable after load.
 */
#ifndef HANMIX_RECIPES_RECIPE_H
#define HANMIX_RECIPES_RECIPE_H

#include "hanmix/recipes/stage.h"

struct hm_recipe_stage {
    char *id;
    const struct hm_stage *stage;
    void *config; /* of stage->config_bytes, owned */
    uint64_t seed, threads, memory_bytes;
    int line;
    const void *in_node, *set_node; /* private; borrowed from the recipe's tree */
    size_t *needs, n_needs;         /* indices of the stages whose output this one reads, sorted */
};

struct hm_recipe_external { /* a path the recipe does not bring along */
    char *path;             /* as written */
    char *what;             /* what it is and where to get it */
    char *config;           /* a config.json that plans may use meanwhile; NULL: none */
};

struct hm_recipe {
    char *path;     /* as given; "" for a stage run alone */
    char *base_dir; /* "" = working directory */
    char *run_dir;  /* folder that holds <id>/ */
    char *about;    /* one sentence, may be "" */
    bool single;    /* one stage run alone: no manifest, no report of the run */
    uint64_t seed;
    struct hm_recipe_stage *stage; /* in the order they run */
    size_t n_stages;
    struct hm_recipe_external *external;
    size_t n_external;
    char **override; /* "lora.set.rank=8" as given */
    size_t n_overrides;
    void *root; /* private: the tree of values */
};

/*
 * Load and check everything that needs no file of the inputs: keys, values, ids, references, types
 * of products, cycles. run_dir may be NULL (the recipe's, else runs/<recipe's name>).
 */
int hm_recipe_load(const char *path, const char *const *overrides, size_t n_overrides,
                   const char *run_dir, struct hm_recipe *ret_recipe, struct hm_error *err);
/* The same from text; `path` names it in errors and gives its folder. */
int hm_recipe_parse(struct hm_str text, const char *path, const char *const *overrides,
                    size_t n_overrides, const char *run_dir, struct hm_recipe *ret_recipe,
                    struct hm_error *err);
/* A recipe of one stage whose output is the folder `out`; settings are in.KEY=VALUE, set.KEY=VALUE.
 */
int hm_recipe_single(const char *stage_name, const char *const *settings, size_t n_settings,
                     const char *out, struct hm_recipe *ret_recipe, struct hm_error *err);
void hm_recipe_release(struct hm_recipe *recipe);

/* Index of the stage with this id; HM_ERR_USAGE with the nearest id. */
int hm_recipe_find(const struct hm_recipe *recipe, const char *id, size_t *ret_index,
                   struct hm_error *err);

/*
 * HM_ERR_USAGE "PLACE: unknown WHAT 'NAME'; did you mean 'x'?", or with all valid names when none
 * is near.
 */
int hm_fail_unknown(struct hm_error *err, const char *place, const char *what, const char *name,
                    const char *const *names, size_t n);

/* Inputs and fields of a stage as a table for people, and docs/RECIPES.md of all stages. */
int hm_stage_help(const struct hm_stage *stage, struct hm_buf *text, struct hm_error *err);
int hm_stages_markdown(struct hm_buf *text, struct hm_error *err);

#endif
