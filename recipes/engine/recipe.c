/* SPDX-License-Identifier: MIT */
/*
 * From the tree of values to a struct hm_recipe: top-level keys, stage entries, configs through
 * their field tables. Order and references are recipe_refs.c; files are first looked at when
 * planning.
 */
#include "hanmix/recipes/recipe.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "hanmix/base/file.h"
#include "recipe_yaml.h"

#define STAGES_MAX 1000u
#define ID_MAX     64u

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "while reading a recipe");
}

void hm_recipe_release(struct hm_recipe *recipe)
{
    for (size_t i = 0; i < recipe->n_stages; i++) {
        struct hm_recipe_stage *stage = &recipe->stage[i];
        if (stage->stage)
            hm_fields_release(stage->stage->fields, stage->stage->n_fields, stage->config);
        hm_free(stage->config);
        hm_free(stage->id);
        hm_free(stage->needs);
    }
    for (size_t i = 0; i < recipe->n_external; i++) {
        hm_free(recipe->external[i].path);
        hm_free(recipe->external[i].what);
        hm_free(recipe->external[i].config);
    }
    for (size_t i = 0; i < recipe->n_overrides; i++)
        hm_free(recipe->override[i]);
    hm_free(recipe->stage);
    hm_free(recipe->external);
    hm_free(recipe->override);
    if (recipe->root)
        hm_node_release(recipe->root);
    hm_free(recipe->root);
    hm_free(recipe->path);
    hm_free(recipe->base_dir);
    hm_free(recipe->run_dir);
    hm_free(recipe->about);
    *recipe = (struct hm_recipe){ 0 };
}

static int copy_text(char **slot, const char *text, struct hm_error *err)
{
    *slot = hm_strdup(HM_MEM_OTHER, text);
    return *slot ? HM_OK : fail_nomem(err);
}

/* Every key of the map is one of names. */
static int check_keys(const struct hm_node *map, const char *what, const char *const *names,
                      size_t n, struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];

    for (size_t i = 0; i < map->count; i++) {
        size_t k = 0;
        while (k < n && strcmp(map->item[i].key, names[k]) != 0)
            k++;
        if (k == n)
            return hm_fail_unknown(err, hm_node_place(&map->item[i], place), what, map->item[i].key,
                                   names, n);
    }
    return HM_OK;
}

/* The text of a key, or `otherwise` when it is absent. */
static int text_of(const struct hm_node *map, const char *key, const char *otherwise,
                   const char **ret_text, struct hm_error *err)
{
    const struct hm_node *node = hm_node_find(map, key);

    *ret_text = otherwise;
    return node && node->kind != HM_NODE_NULL ? hm_node_need_text(node, key, ret_text, err) : HM_OK;
}

/* --- one stage --- */

static int check_id(const struct hm_recipe *recipe, const struct hm_node *entry, const char *id,
                    struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];
    size_t len = strlen(id);

    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)id[i]) && id[i] != '_' && id[i] != '-')
            len = 0;
    if (len == 0 || len > ID_MAX)
        return hm_fail(err, HM_ERR_USAGE,
                       "%s: stage id '%.80s' must be 1 to %u letters, digits, _ or -",
                       hm_node_place(entry, place), id, ID_MAX);
    for (size_t i = 0; i < recipe->n_stages; i++)
        if (strcmp(recipe->stage[i].id, id) == 0)
            return hm_fail(err, HM_ERR_USAGE, "%s: stage id '%s' is used twice, first in line %d",
                           hm_node_place(entry, place), id, recipe->stage[i].line);
    return HM_OK;
}

static int check_group(const struct hm_node *entry, const char *key, const struct hm_node **ret_map,
                       struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];
    const struct hm_node *node = hm_node_find(entry, key);

    if (node && node->kind != HM_NODE_MAP && node->kind != HM_NODE_NULL)
        return hm_fail(err, HM_ERR_USAGE, "%s: '%s' must be a map, it is %s",
                       hm_node_place(node, place), key, hm_node_kind_name(node));
    *ret_map = node;
    return HM_OK;
}

#define INPUTS_MAX 32u

static int check_inputs(const struct hm_recipe_stage *stage, struct hm_error *err)
{
    const char *names[INPUTS_MAX];
    char what[160];
    size_t n = 0;

    for (; n < stage->stage->n_inputs && n < INPUTS_MAX; n++)
        names[n] = stage->stage->inputs[n].name;
    snprintf(what, sizeof(what), "input of %s in %.64s.in:", stage->stage->name, stage->id);
    return stage->in_node ? check_keys(stage->in_node, what, names, n, err) : HM_OK;
}

static int read_config(const struct hm_recipe *recipe, struct hm_recipe_stage *stage,
                       const struct hm_node *set, struct hm_error *err)
{
    struct hm_common_config common = { .seed = recipe->seed };
    const struct hm_stage *row = stage->stage;
    char prefix[96];

    snprintf(prefix, sizeof(prefix), "%.64s.set", stage->id);
    stage->config = hm_calloc(HM_MEM_OTHER, 1, row->config_bytes);
    if (!stage->config)
        return fail_nomem(err);
    HM_TRY(hm_stage_check_keys(row, set, prefix, err));
    HM_TRY(hm_fields_parse(row->fields, row->n_fields, set, prefix, recipe->base_dir, stage->config,
                           err));
    HM_TRY(hm_fields_parse(hm_common_fields, HM_COMMON_FIELDS, set, prefix, recipe->base_dir,
                           &common, err));
    stage->seed = common.seed;
    stage->threads = common.threads;
    stage->memory_bytes = common.memory;
    return HM_OK;
}

static int read_stage(struct hm_recipe *recipe, const struct hm_node *entry, struct hm_error *err)
{
    static const char *const keys[] = { "id", "stage", "in", "set" };
    char place_buf[HM_NODE_PLACE_BYTES];
    const char *place = hm_node_place(entry, place_buf), *id, *name;
    const struct hm_node *in, *set;
    struct hm_recipe_stage *stage = &recipe->stage[recipe->n_stages];

    if (entry->kind != HM_NODE_MAP)
        return hm_fail(err, HM_ERR_USAGE, "%s: a stage must be {id, stage, in, set}, it is %s",
                       place, hm_node_kind_name(entry));
    HM_TRY(check_keys(entry, "key of a stage", keys, 4, err));
    HM_TRY(text_of(entry, "id", NULL, &id, err));
    HM_TRY(text_of(entry, "stage", NULL, &name, err));
    if (!id || !name)
        return hm_fail(err, HM_ERR_USAGE, "%s: a stage needs '%s'", place, id ? "stage" : "id");
    if (!recipe->single)
        HM_TRY(check_id(recipe, entry, id, err));
    HM_TRY(hm_stage_find(name, hm_node_place(hm_node_find(entry, "stage"), place_buf),
                         &stage->stage, err));
    HM_TRY(check_group(entry, "in", &in, err));
    HM_TRY(check_group(entry, "set", &set, err));
    stage->in_node = in;
    stage->set_node = set;
    stage->line = entry->line;
    recipe->n_stages++; /* from here on released with the recipe */
    HM_TRY(copy_text(&stage->id, id, err));
    HM_TRY(check_inputs(stage, err));
    return read_config(recipe, stage, set, err);
}

/* --- the whole --- */

static int read_external(struct hm_recipe *recipe, const struct hm_node *map, struct hm_error *err)
{
    static const char *const keys[] = { "what", "config" };
    char place[HM_NODE_PLACE_BYTES];

    if (map->kind != HM_NODE_MAP)
        return hm_fail(err, HM_ERR_USAGE, "%s: 'external' must map paths to what they are",
                       hm_node_place(map, place));
    recipe->external = hm_calloc(HM_MEM_OTHER, map->count, sizeof(*recipe->external));
    if (!recipe->external)
        return fail_nomem(err);
    for (size_t i = 0; i < map->count; i++) {
        const struct hm_node *node = &map->item[i];
        struct hm_recipe_external *external = &recipe->external[recipe->n_external++];
        const char *what, *config = NULL;
        HM_TRY(copy_text(&external->path, node->key, err));
        if (node->kind == HM_NODE_MAP) {
            HM_TRY(check_keys(node, "key of an external path", keys, 2, err));
            HM_TRY(text_of(node, "what", "", &what, err));
            HM_TRY(text_of(node, "config", NULL, &config, err));
        } else {
            HM_TRY(hm_node_need_text(node, node->key, &what, err));
        }
        HM_TRY(copy_text(&external->what, what, err));
        if (config)
            HM_TRY(hm_path_join(&external->config, recipe->base_dir, config, err));
    }
    return HM_OK;
}

/* The folder of the recipe, or base_dir: relative to that folder when written in it. */
static int read_base_dir(struct hm_recipe *recipe, const struct hm_node *root, struct hm_error *err)
{
    const struct hm_node *node = hm_node_find(root, "base_dir");
    const char *slash = strrchr(recipe->path, '/'), *text;
    char *folder = NULL;

    folder = hm_strndup(HM_MEM_OTHER, recipe->path, slash ? (size_t)(slash - recipe->path) + 1 : 0);
    if (!folder)
        return fail_nomem(err);
    if (!node || node->kind == HM_NODE_NULL) {
        recipe->base_dir = folder;
        return HM_OK;
    }
    int status = hm_node_need_text(node, "base_dir", &text, err);
    if (status == HM_OK)
        status = hm_path_join(&recipe->base_dir, node->file ? folder : "", text, err);
    hm_free(folder);
    return status;
}

static int read_run_dir(struct hm_recipe *recipe, const struct hm_node *root, const char *run_dir,
                        struct hm_error *err)
{
    const char *slash = strrchr(recipe->path, '/');
    const char *name = slash ? slash + 1 : recipe->path, *text;
    const char *dot = strrchr(name, '.');

    HM_TRY(text_of(root, "run_dir", NULL, &text, err));
    HM_TRY(hm_name_check(run_dir ? run_dir : "", err));
    text = run_dir ? run_dir : text;
    if (text && !*text)
        return hm_fail(err, HM_ERR_USAGE, "the name of the run folder is empty");
    if (text)
        return copy_text(&recipe->run_dir, text, err);
    return hm_format(&recipe->run_dir, err, "runs/%.*s",
                     (int)(dot && dot > name ? (size_t)(dot - name) : strlen(name)), name);
}

static int read_seed(struct hm_recipe *recipe, const struct hm_node *root, struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];
    const char *text;

    HM_TRY(text_of(root, "seed", "1", &text, err));
    int status = hm_parse_count(text, &recipe->seed, err);
    if (status == HM_OK && recipe->seed > INT64_MAX)
        status =
            hm_fail(err, HM_ERR_USAGE, "%s is out of range: at most %" PRId64, text, INT64_MAX);
    if (status < 0)
        hm_error_prefix(err, "%s: seed", hm_node_place(hm_node_find(root, "seed"), place));
    return status;
}

static int read_root(struct hm_recipe *recipe, const struct hm_node *root, const char *run_dir,
                     struct hm_error *err)
{
    static const char *const keys[] = {
        "run_dir", "seed", "stages", "about", "base_dir", "external"
    };
    const struct hm_node *stages = hm_node_find(root, "stages");
    const struct hm_node *external = hm_node_find(root, "external");
    const char *about;

    if (root->kind != HM_NODE_MAP)
        return hm_fail(err, HM_ERR_USAGE, "%s: a recipe is a map with 'stages', this is %s",
                       recipe->path, hm_node_kind_name(root));
    HM_TRY(check_keys(root, "key of a recipe", keys, sizeof(keys) / sizeof(keys[0]), err));
    HM_TRY(read_base_dir(recipe, root, err));
    HM_TRY(read_run_dir(recipe, root, run_dir, err));
    HM_TRY(read_seed(recipe, root, err));
    HM_TRY(text_of(root, "about", "", &about, err));
    HM_TRY(copy_text(&recipe->about, about, err));
    if (external && external->kind != HM_NODE_NULL)
        HM_TRY(read_external(recipe, external, err));
    if (!stages || stages->kind != HM_NODE_LIST || stages->count == 0 || stages->count > STAGES_MAX)
        return hm_fail(err, HM_ERR_USAGE, "%s: 'stages' must be a list of 1 to %u stages",
                       recipe->path, STAGES_MAX);
    recipe->stage = hm_calloc(HM_MEM_OTHER, stages->count, sizeof(*recipe->stage));
    if (!recipe->stage)
        return fail_nomem(err);
    for (size_t i = 0; i < stages->count; i++)
        HM_TRY(read_stage(recipe, &stages->item[i], err));
    return hm_recipe_order(recipe, err);
}

static int keep_overrides(struct hm_recipe *recipe, const char *const *overrides, size_t n,
                          struct hm_error *err)
{
    recipe->override = hm_calloc(HM_MEM_OTHER, n + 1, sizeof(*recipe->override));
    if (!recipe->override)
        return fail_nomem(err);
    for (; recipe->n_overrides < n; recipe->n_overrides++)
        HM_TRY(
            copy_text(&recipe->override[recipe->n_overrides], overrides[recipe->n_overrides], err));
    return HM_OK;
}

static int begin(struct hm_recipe *recipe, const char *path, const char *const *overrides, size_t n,
                 struct hm_error *err)
{
    recipe->root = hm_calloc(HM_MEM_OTHER, 1, sizeof(struct hm_node));
    if (!recipe->root)
        return fail_nomem(err);
    HM_TRY(hm_name_check(path, err));
    HM_TRY(copy_text(&recipe->path, path, err));
    return keep_overrides(recipe, overrides, n, err);
}

int hm_recipe_parse(struct hm_str text, const char *path, const char *const *overrides,
                    size_t n_overrides, const char *run_dir, struct hm_recipe *ret_recipe,
                    struct hm_error *err)
{
    struct hm_recipe recipe = { 0 };
    int status = begin(&recipe, path, overrides, n_overrides, err);

    if (status == HM_OK)
        status = hm_yaml_parse(text, recipe.path, recipe.root, err);
    for (size_t i = 0; status == HM_OK && i < n_overrides; i++)
        status = hm_override_apply(recipe.root, overrides[i], err);
    if (status == HM_OK)
        status = read_root(&recipe, recipe.root, run_dir, err);
    if (status < 0)
        hm_recipe_release(&recipe);
    else
        *ret_recipe = recipe;
    return status;
}

int hm_recipe_load(const char *path, const char *const *overrides, size_t n_overrides,
                   const char *run_dir, struct hm_recipe *ret_recipe, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    int status = hm_file_read(path, HM_RECIPE_MAX_BYTES, &text, err);

    if (status == HM_ERR_FORMAT) /* too large: a mistake of the recipe like any other */
        status = HM_ERR_USAGE;
    if (status == HM_OK)
        status = hm_recipe_parse((struct hm_str){ text.ptr, text.len }, path, overrides,
                                 n_overrides, run_dir, ret_recipe, err);
    hm_buf_release(&text);
    return status;
}

/* A tree of one stage as a recipe would hold it. */
static int single_tree(struct hm_node *root, const char *id, const char *stage_name,
                       const char *const *settings, size_t n, struct hm_error *err)
{
    struct hm_node *stages, *entry, *node;

    root->kind = HM_NODE_MAP;
    HM_TRY(hm_node_add(root, "stages", &stages, err));
    stages->kind = HM_NODE_LIST;
    HM_TRY(hm_node_add(stages, NULL, &entry, err));
    entry->kind = HM_NODE_MAP;
    HM_TRY(hm_node_add(entry, "id", &node, err));
    HM_TRY(hm_node_set_text(node, id, err));
    HM_TRY(hm_node_add(entry, "stage", &node, err));
    HM_TRY(hm_node_set_text(node, stage_name, err));
    for (size_t i = 0; i < n; i++)
        HM_TRY(hm_override_apply_stage(entry, settings[i], err));
    return HM_OK;
}

int hm_recipe_single(const char *stage_name, const char *const *settings, size_t n_settings,
                     const char *out, struct hm_recipe *ret_recipe, struct hm_error *err)
{
    struct hm_recipe recipe = { .single = true };
    size_t len = strlen(out);
    char *id = NULL, *folder = NULL;

    while (len > 1 && out[len - 1] == '/')
        len--;
    size_t start = len;
    while (start > 0 && out[start - 1] != '/')
        start--;
    if (start == len || (len - start <= 2 && strspn(out + start, ".") >= len - start))
        return hm_fail(err, HM_ERR_USAGE, "'%s' is no name of a new folder", out);
    HM_TRY(hm_name_check(out, err));
    int status = begin(&recipe, "", settings, n_settings, err);
    if (status == HM_OK) {
        id = hm_strndup(HM_MEM_OTHER, out + start, len - start);
        folder = start == 0 ? hm_strdup(HM_MEM_OTHER, ".") : hm_strndup(HM_MEM_OTHER, out, start);
        status = id && folder ? HM_OK : fail_nomem(err);
    }
    if (status == HM_OK)
        status = single_tree(recipe.root, id, stage_name, settings, n_settings, err);
    if (status == HM_OK)
        status = read_root(&recipe, recipe.root, folder, err);
    hm_free(id);
    hm_free(folder);
    if (status < 0)
        hm_recipe_release(&recipe);
    else
        *ret_recipe = recipe;
    return status;
}
