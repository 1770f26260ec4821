/* SPDX-License-Identifier: MIT */
/*
 * Overrides from the command line, put into the tree of values before it is read, so that they obey
 * the same rules as what stands in the file.
 */
#include <string.h>

#include "engine.h"
#include "recipe_yaml.h"

#define PATH_MAX_BYTES 256u

/* of_stage: the setting of a stage that runs alone, which needs no id. */
static int fail_form(struct hm_error *err, bool of_stage, const char *text)
{
    const char *id = of_stage ? "" : "STAGE.";

    return hm_fail(err, HM_ERR_USAGE,
                   "command line: '%.200s' is not %sin.KEY=VALUE or %sset.KEY=VALUE", text, id, id);
}

/* The child of that key, made when absent; a parent that is no map becomes an empty one. */
static int child_of(struct hm_node *parent, const char *key, struct hm_node **ret_child,
                    struct hm_error *err)
{
    if (parent->kind != HM_NODE_MAP) {
        struct hm_node map = { .kind = HM_NODE_MAP, .key = parent->key };
        parent->key = NULL;
        hm_node_release(parent);
        *parent = map;
    }
    *ret_child = hm_node_find(parent, key);
    if (*ret_child)
        return HM_OK;
    HM_TRY(hm_node_add(parent, key, ret_child, err));
    (*ret_child)->file = NULL;
    return HM_OK;
}

static int set_value(struct hm_node *node, const char *value, struct hm_error *err)
{
    struct hm_node fresh = { .kind = HM_NODE_NULL };
    int status = HM_OK;

    if (value[0] == '[' || value[0] == '{')
        status = hm_yaml_parse(hm_str_of(value), NULL, &fresh, err);
    else if (strcmp(value, "~") != 0)
        status = hm_node_set_text(&fresh, value, err);
    if (status < 0) {
        hm_node_release(&fresh);
        return status;
    }
    fresh.key = node->key;
    node->key = NULL;
    hm_node_release(node);
    *node = fresh;
    return HM_OK;
}

/* KEY of set is one name (a map's key may hold dots after it); KEY of in may name a set and one of
 * its keys. */
static int apply_below(struct hm_node *group, bool is_set, char *path, const char *value,
                       struct hm_error *err)
{
    struct hm_node *node = group;

    for (int level = 0; path; level++) {
        char *dot = level == 0 || (level == 1 && !is_set) ? strchr(path, '.') : NULL;
        if (dot)
            *dot = '\0';
        HM_TRY(child_of(node, path, &node, err));
        path = dot ? dot + 1 : NULL;
    }
    return set_value(node, value, err);
}

/* path: "in.KEY..." or "set.KEY..." */
static int apply_stage(struct hm_node *stage, char *path, const char *value, bool of_stage,
                       const char *text, struct hm_error *err)
{
    struct hm_node *group;
    char *dot = strchr(path, '.');

    if (!dot || dot[1] == '\0')
        return fail_form(err, of_stage, text);
    *dot = '\0';
    bool is_set = strcmp(path, "set") == 0;
    if (!is_set && strcmp(path, "in") != 0)
        return fail_form(err, of_stage, text);
    HM_TRY(child_of(stage, path, &group, err));
    return apply_below(group, is_set, dot + 1, value, err);
}

/* Copies the part before '=' into path; returns the value, or NULL and an error. */
static const char *split(const char *text, bool of_stage, char path[PATH_MAX_BYTES],
                         struct hm_error *err)
{
    const char *mark = strchr(text, '=');

    if (!hm_utf8_valid(hm_str_of(text), NULL)) {
        hm_fail(err, HM_ERR_USAGE, "command line: '%.200s' is not UTF-8 text", text);
        return NULL;
    }
    if (!mark || mark == text || (size_t)(mark - text) >= PATH_MAX_BYTES) {
        fail_form(err, of_stage, text);
        return NULL;
    }
    if (mark[1] == '\0') {
        hm_fail(err, HM_ERR_USAGE,
                "command line: no value after '%.200s'; write ~ for the default, [] for an empty "
                "list",
                text);
        return NULL;
    }
    memcpy(path, text, (size_t)(mark - text));
    path[mark - text] = '\0';
    return mark + 1;
}

int hm_override_apply_stage(struct hm_node *stage, const char *text, struct hm_error *err)
{
    char path[PATH_MAX_BYTES];
    const char *value = split(text, true, path, err);

    return value ? apply_stage(stage, path, value, true, text, err) : (int)HM_ERR_USAGE;
}

static struct hm_node *stage_of_id(const struct hm_node *stages, const char *id)
{
    for (size_t i = 0; i < stages->count; i++) {
        const struct hm_node *node = hm_node_find(&stages->item[i], "id");
        if (node && node->kind == HM_NODE_TEXT && strcmp(node->text, id) == 0)
            return &stages->item[i];
    }
    return NULL;
}

#define LISTED_IDS 64u

static int fail_no_stage(struct hm_error *err, const struct hm_node *stages, const char *id)
{
    const char *ids[LISTED_IDS];
    size_t n = 0;

    for (size_t i = 0; stages && i < stages->count && n < LISTED_IDS; i++) {
        const struct hm_node *node = hm_node_find(&stages->item[i], "id");
        if (node && node->kind == HM_NODE_TEXT)
            ids[n++] = node->text;
    }
    return hm_fail_unknown(err, "command line", "stage id", id, ids, n);
}

int hm_override_apply(struct hm_node *root, const char *text, struct hm_error *err)
{
    char path[PATH_MAX_BYTES];
    struct hm_node *node = NULL;
    const char *value = split(text, false, path, err);

    if (!value)
        return HM_ERR_USAGE;
    char *dot = strchr(path, '.');
    if (!dot && strcmp(path, "run_dir") != 0 && strcmp(path, "seed") != 0 &&
        strcmp(path, "base_dir") != 0)
        return fail_form(err, false, text);
    if (!dot) {
        HM_TRY(child_of(root, path, &node, err));
        return set_value(node, value, err);
    }
    *dot = '\0';
    const struct hm_node *stages = hm_node_find(root, "stages");
    node = stages ? stage_of_id(stages, path) : NULL;
    if (!node)
        return fail_no_stage(err, stages, path);
    return apply_stage(node, dot + 1, value, false, text, err);
}
