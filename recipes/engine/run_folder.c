/* SPDX-License-Identifier: MIT */
/*
 * The files of a run folder that belong to the engine: names, stage.json, and manifest.json with
 * every output file and its SHA-256.
 */
#include <string.h>
#include <sys/stat.h>

#include "run_internal.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the manifest of a run");
}

int hm_run_path(const struct hm_recipe *recipe, const char *id, const char *suffix, char **ret_path,
                struct hm_error *err)
{
    const char *dir = recipe->run_dir;
    size_t len = strlen(dir);

    if (recipe->single && strcmp(dir, ".") == 0)
        return hm_format(ret_path, err, "%s%s", id, suffix);
    return hm_format(ret_path, err, "%s%s%s%s", dir, len > 0 && dir[len - 1] == '/' ? "" : "/", id,
                     suffix);
}

int hm_existing_parent(const char *path, char **ret_dir, struct hm_error *err)
{
    char *dir = hm_strdup(HM_MEM_OTHER, path);

    if (!dir)
        return hm_fail_nomem(err, "for a path");
    while (!hm_path_is_dir(dir)) {
        char *slash = strrchr(dir, '/');
        if (!slash || slash == dir) {
            hm_free(dir);
            dir = hm_strdup(HM_MEM_OTHER, slash ? "/" : ".");
            if (!dir)
                return hm_fail_nomem(err, "for a path");
            break;
        }
        *slash = '\0';
    }
    *ret_dir = dir;
    return HM_OK;
}

bool hm_stage_on_file_system_of(const struct hm_stage_run *run, const char *path)
{
    struct stat from;
    struct stat to;
    char *dir = NULL;
    bool same = run->run_dir && hm_existing_parent(run->run_dir, &dir, NULL) == HM_OK &&
                stat(path, &from) == 0 && stat(dir, &to) == 0 && from.st_dev == to.st_dev;

    hm_free(dir);
    return same;
}

json_t *hm_stage_json_load(const char *folder)
{
    json_t *value = NULL;
    char *path = NULL;

    if (hm_path_join(&path, folder, "stage.json", NULL) == HM_OK && hm_path_exists(path))
        (void)hm_json_load(path, HM_STAGE_JSON_MAX_BYTES, &value, NULL);
    hm_free(path);
    if (value && !json_is_object(value)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

bool hm_partial_has_state(const char *partial_dir)
{
    struct hm_names names = { 0 };
    bool found = hm_dir_list(partial_dir, &names, NULL) < 0; /* unreadable: keep it */

    for (size_t i = 0; i < names.count; i++)
        found |= strcmp(names.item[i], "stage.json") != 0;
    hm_names_release(&names);
    return found;
}

const char *hm_stage_json_state(const json_t *stage_json)
{
    const char *state = json_string_value(json_object_get(stage_json, "state"));

    return state ? state : "";
}

/* A folder named on the command line may be mistyped: another stage's result is not replaced there,
 * while a recipe owns the names in its run folder. */
static int check_owner(const struct hm_recipe *recipe, const char *folder, const json_t *found,
                       struct hm_error *err)
{
    const char *stage = json_string_value(json_object_get(found, "stage"));

    if (!recipe->single || !stage || strcmp(stage, recipe->stage[0].stage->name) == 0)
        return HM_OK;
    return hm_fail(err, HM_ERR_USAGE,
                   "'%s' holds a result of %.60s, which %s would replace; choose another name or "
                   "move it away",
                   folder, stage, recipe->stage[0].stage->name);
}

/* Unreadable is not foreign: out of memory must not be taken for somebody's data. */
static int check_stage_json(const struct hm_recipe *recipe, const char *folder, const char *path,
                            struct hm_error *err)
{
    json_t *found = NULL;

    if (!hm_path_exists(path))
        return hm_fail(
            err, HM_ERR_USAGE,
            "'%s' exists and was not made by a stage; choose another name or move it away", folder);
    HM_TRY(hm_json_load(path, HM_STAGE_JSON_MAX_BYTES, &found, err));
    int status = json_is_object(found)
                     ? check_owner(recipe, folder, found, err)
                     : hm_fail(err, HM_ERR_FORMAT, "'%s' is not a JSON object", path);
    json_decref(found);
    return status;
}

int hm_stage_name_check(const struct hm_recipe *recipe, const char *id, struct hm_error *err)
{
    char *folder = NULL, *path = NULL;

    HM_TRY(hm_run_path(recipe, id, "", &folder, err));
    int status = hm_path_join(&path, folder, "stage.json", err);
    if (status == HM_OK && hm_path_exists(folder)) {
        status = check_stage_json(recipe, folder, path, err);
        if (status == HM_ERR_FORMAT)
            hm_error_prefix(err, "the record of '%s' is damaged, remove the folder to make it anew",
                            folder);
    }
    hm_free(path);
    hm_free(folder);
    return status;
}

/* --- manifest --- */

static json_t *stage_entry(const json_t *root, const char *id)
{
    size_t i;
    json_t *entry;

    json_array_foreach(json_object_get(root, "stages"), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "id"));
        if (name && strcmp(name, id) == 0)
            return entry;
    }
    return NULL;
}

/* The entry of an older manifest when it is of the same stage; else a fresh one. New reference. */
static json_t *entry_for(const struct hm_recipe_stage *stage, const json_t *older)
{
    json_t *entry = stage_entry(older, stage->id);
    const char *name = json_string_value(json_object_get(entry, "stage"));

    if (name && strcmp(name, stage->stage->name) == 0) {
        const char *state = json_string_value(json_object_get(entry, "state"));
        if (state && strcmp(state, "running") == 0) /* its process was killed: we hold the lock */
            (void)json_object_set_new(entry, "state", json_string("waiting"));
        return json_incref(entry);
    }
    return json_pack("{s:s, s:s, s:s, s:[]}", "id", stage->id, "stage", stage->stage->name, "state",
                     "waiting", "files");
}

static int fill(struct hm_manifest *manifest, const struct hm_recipe *recipe, const json_t *older,
                struct hm_error *err)
{
    json_t *overrides = json_array(), *stages = json_array();

    manifest->root =
        json_pack("{s:s, s:s, s:I, s:o, s:o}", "hanmix", HM_VERSION, "recipe", recipe->path, "seed",
                  (json_int_t)recipe->seed, "overrides", overrides, "stages", stages);
    if (!manifest->root)
        return fail_nomem(err);
    for (size_t i = 0; i < recipe->n_overrides; i++)
        if (json_array_append_new(overrides, json_string(recipe->override[i])) < 0)
            return fail_nomem(err);
    for (size_t i = 0; i < recipe->n_stages; i++)
        if (json_array_append_new(stages, entry_for(&recipe->stage[i], older)) < 0)
            return fail_nomem(err);
    return HM_OK;
}

int hm_manifest_open(const struct hm_recipe *recipe, struct hm_manifest *ret_manifest,
                     struct hm_error *err)
{
    struct hm_manifest manifest = { 0 };
    json_t *older = NULL;
    int status = hm_path_join(&manifest.path, recipe->run_dir, "manifest.json", err);

    if (status == HM_OK && hm_path_exists(manifest.path))
        (void)hm_json_load(manifest.path, HM_STAGE_JSON_MAX_BYTES, &older, NULL);
    if (status == HM_OK)
        status = fill(&manifest, recipe, older, err);
    json_decref(older);
    if (status < 0)
        hm_manifest_release(&manifest);
    else
        *ret_manifest = manifest;
    return status;
}

void hm_manifest_release(struct hm_manifest *manifest)
{
    json_decref(manifest->root);
    hm_free(manifest->path);
    *manifest = (struct hm_manifest){ 0 };
}

int hm_manifest_save(const struct hm_manifest *manifest, struct hm_error *err)
{
    return hm_json_save(manifest->path, manifest->root, err);
}

static int add_file(json_t *files, const char *folder, const char *id, const char *name,
                    struct hm_digest_cache *cache, const struct hm_ctl *ctl, struct hm_error *err)
{
    char hex[HM_SHA256_HEX_BYTES], *full = NULL, *relative = NULL;
    uint64_t bytes = 0;
    int status = hm_path_join(&full, folder, name, err);

    if (status == HM_OK)
        status = hm_path_join(&relative, id, name, err);
    if (status == HM_OK)
        status = hm_digest_file(cache, full, ctl, &bytes, hex, err);
    if (status == HM_OK &&
        json_array_append_new(files, json_pack("{s:s, s:I, s:s}", "path", relative, "bytes",
                                               (json_int_t)bytes, "sha256", hex)) < 0)
        status = fail_nomem(err);
    hm_free(full);
    hm_free(relative);
    return status;
}

static int list_files(const struct hm_recipe *recipe, const char *id, struct hm_digest_cache *cache,
                      const struct hm_ctl *ctl, json_t **ret_files, struct hm_error *err)
{
    struct hm_names names = { 0 };
    json_t *files = json_array();
    char *folder = NULL;
    int status = files ? hm_run_path(recipe, id, "", &folder, err) : fail_nomem(err);

    if (status == HM_OK)
        status = hm_folder_files(folder, &names, err);
    for (size_t i = 0; status == HM_OK && i < names.count; i++)
        status = add_file(files, folder, id, names.item[i], cache, ctl, err);
    hm_names_release(&names);
    hm_free(folder);
    if (status < 0)
        json_decref(files);
    else
        *ret_files = files;
    return status;
}

int hm_manifest_set(struct hm_manifest *manifest, const struct hm_recipe *recipe, size_t stage,
                    const char *state, const char *why, struct hm_digest_cache *cache,
                    const struct hm_ctl *ctl, struct hm_error *err)
{
    const char *id = recipe->stage[stage].id;
    json_t *entry = stage_entry(manifest->root, id);
    json_t *files = cache ? NULL : json_array();

    if (cache)
        HM_TRY(list_files(recipe, id, cache, ctl, &files, err));
    int failed = json_object_set_new(entry, "files", files);
    failed |= json_object_set_new(entry, "state", json_string(state));
    if (why)
        failed |= json_object_set_new(entry, "error", json_string(why));
    else
        (void)json_object_del(entry, "error");
    if (failed)
        return fail_nomem(err);
    return hm_manifest_save(manifest, err);
}
