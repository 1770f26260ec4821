/* SPDX-License-Identifier: MIT */
/*
 * A Hugging Face model folder as one namespace. The single file wins over an index, as in
 * transformers. With an index, files and index must tell the same story: a mapped tensor that its
 * shard lacks, a tensor that is not mapped (or mapped elsewhere), a missing shard are errors.
 * The index's total_size is not judged: many public ones are wrong.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"

#define CONFIG_MAX_BYTES (1u << 20)
#define INDEX_MAX_BYTES  (256u << 20)
#define SHARDS_MAX       100000u
#define READ_CHUNK_BYTES (16u << 20)

static int fail_nomem(const char *dir, struct hm_error *err)
{
    return hm_fail_nomem(err, "opening model folder '%s'", dir);
}

static int read_config(struct hm_checkpoint *ckpt, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, ckpt->dir, "config.json", err));
    int status = hm_json_load(path, CONFIG_MAX_BYTES, &ckpt->config, err);
    if (status == HM_OK)
        status = hm_arch_parse(ckpt->config, path, &ckpt->arch, err);
    hm_free(path);
    return status;
}

static int open_file(struct hm_checkpoint *ckpt, const char *name, struct hm_error *err)
{
    char *path = NULL;
    struct hm_safetensors *file = &ckpt->file[ckpt->n_files];

    HM_TRY(hm_path_join(&path, ckpt->dir, name, err));
    int status = hm_path_exists(path) ? hm_safetensors_open(path, file, err)
                                      : hm_fail(err, HM_ERR_FORMAT, "shard '%s' is missing", path);
    hm_free(path);
    if (status < 0)
        return status;
    for (size_t i = 0; i < file->count; i++)
        file->tensor[i].file = (uint32_t)ckpt->n_files;
    ckpt->n_files++;
    return HM_OK;
}

static int compare_text(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

/* The distinct file names of the map, sorted; they must be plain names within the folder. */
static int shard_names(const char *path, json_t *map, const char ***ret_names, size_t *ret_count,
                       struct hm_error *err)
{
    size_t count = 0, n = 0;
    const char *key;
    json_t *value;

    if (!json_is_object(map) || json_object_size(map) == 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'weight_map' is missing or empty", path);
    const char **names = hm_alloc_array(HM_MEM_TENSOR, json_object_size(map), sizeof *names);
    if (!names)
        return fail_nomem(path, err);
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        if (!name || strlen(name) != json_string_length(value) || strchr(name, '/') ||
            !hm_text_ends(name, ".safetensors")) {
            hm_free(names);
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' is mapped to '%s', which names no safetensors file "
                           "of the folder",
                           path, key, name ? name : "?");
        }
        names[count++] = name;
    }
    qsort(names, count, sizeof *names, compare_text);
    for (size_t i = 0; i < count; i++)
        if (n == 0 || strcmp(names[n - 1], names[i]) != 0)
            names[n++] = names[i];
    *ret_names = names;
    *ret_count = n;
    return HM_OK;
}

/* Every tensor of every file is mapped to that file, and nothing else is mapped. */
static int check_map(const char *path, const struct hm_checkpoint *ckpt, const char *const *names,
                     json_t *map, struct hm_error *err)
{
    const char *key;
    json_t *value;

    for (size_t f = 0; f < ckpt->n_files; f++) {
        for (size_t i = 0; i < ckpt->file[f].count; i++) {
            const char *name = ckpt->file[f].tensor[i].name;
            const char *mapped = json_string_value(json_object_get(map, name));
            if (!mapped || strcmp(mapped, names[f]) != 0)
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': tensor '%s' lies in '%s' but is mapped to '%s'", path, name,
                               names[f], mapped ? mapped : "no file");
        }
    }
    json_object_foreach(map, key, value)
    {
        const char *mapped = json_string_value(value);
        const char *const *at = bsearch(&mapped, names, ckpt->n_files, sizeof *names, compare_text);
        if (!hm_safetensors_find(&ckpt->file[at - names], key))
            return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is mapped to '%s' but not in it",
                           path, key, mapped);
    }
    return HM_OK;
}

static int open_shards(struct hm_checkpoint *ckpt, const char *index_path, struct hm_error *err)
{
    json_t *index = NULL;
    const char **names = NULL;
    size_t n = 0;

    int status = hm_json_load(index_path, INDEX_MAX_BYTES, &index, err);
    if (status < 0)
        return status;
    json_t *map = json_object_get(index, "weight_map");
    status = shard_names(index_path, map, &names, &n, err);
    if (status < 0)
        goto out;
    if (n > SHARDS_MAX) {
        status = hm_fail(err, HM_ERR_FORMAT, "'%s': %zu shards, at most %u are allowed", index_path,
                         n, SHARDS_MAX);
        goto out;
    }
    ckpt->file = hm_calloc(HM_MEM_TENSOR, n, sizeof *ckpt->file);
    if (!ckpt->file)
        status = fail_nomem(ckpt->dir, err);
    for (size_t i = 0; i < n && status == HM_OK; i++)
        status = open_file(ckpt, names[i], err);
    if (status == HM_OK)
        status = check_map(index_path, ckpt, names, map, err);
out:
    hm_free(names);
    json_decref(index);
    return status;
}

static int open_files(struct hm_checkpoint *ckpt, struct hm_error *err)
{
    char *single = NULL;
    char *index = NULL;

    int status = hm_path_join(&single, ckpt->dir, HM_MODEL_FILE, err);
    if (status == HM_OK)
        status = hm_path_join(&index, ckpt->dir, HM_MODEL_INDEX_FILE, err);
    if (status < 0)
        goto out;
    if (!hm_path_exists(single) && hm_path_exists(index)) {
        status = open_shards(ckpt, index, err);
        goto out;
    }
    if (!hm_path_exists(single)) {
        status = hm_fail(err, HM_ERR_FORMAT,
                         "'%s': neither " HM_MODEL_FILE " nor " HM_MODEL_INDEX_FILE
                         " is there; other weight formats are not read",
                         ckpt->dir);
        goto out;
    }
    ckpt->file = hm_calloc(HM_MEM_TENSOR, 1, sizeof *ckpt->file);
    status = ckpt->file ? open_file(ckpt, HM_MODEL_FILE, err) : fail_nomem(ckpt->dir, err);
out:
    hm_free(single);
    hm_free(index);
    return status;
}

static int compare_tensor(const void *a, const void *b)
{
    const struct hm_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int join_names(struct hm_checkpoint *ckpt, struct hm_error *err)
{
    size_t total = 0;

    for (size_t f = 0; f < ckpt->n_files; f++)
        total += ckpt->file[f].count;
    ckpt->tensor = hm_alloc_array(HM_MEM_TENSOR, total, sizeof(struct hm_tensor *));
    if (!ckpt->tensor)
        return fail_nomem(ckpt->dir, err);
    for (size_t f = 0; f < ckpt->n_files; f++)
        for (size_t i = 0; i < ckpt->file[f].count; i++)
            ckpt->tensor[ckpt->count++] = &ckpt->file[f].tensor[i];
    qsort(ckpt->tensor, ckpt->count, sizeof(struct hm_tensor *), compare_tensor);
    return HM_OK;
}

int hm_checkpoint_open(const char *dir, struct hm_checkpoint *ret_ckpt, struct hm_error *err)
{
    struct hm_checkpoint ckpt = { 0 };

    if (!hm_path_exists(dir))
        return hm_fail(err, HM_ERR_USAGE, "model folder '%s' does not exist", dir);
    if (!hm_path_is_dir(dir)) {
        HM_TRY(hm_regular_check(dir, err));
        return hm_fail(err, HM_ERR_USAGE, "'%s' is no model folder but a file", dir);
    }
    ckpt.dir = hm_strdup(HM_MEM_TENSOR, dir);
    int status = ckpt.dir ? read_config(&ckpt, err) : fail_nomem(dir, err);
    if (status == HM_OK)
        status = open_files(&ckpt, err);
    if (status == HM_OK)
        status = join_names(&ckpt, err);
    if (status == HM_OK)
        *ret_ckpt = ckpt;
    else
        hm_checkpoint_close(&ckpt);
    return status;
}

void hm_checkpoint_close(struct hm_checkpoint *ckpt)
{
    if (!ckpt)
        return;
    for (size_t i = 0; i < ckpt->n_files; i++)
        hm_safetensors_close(&ckpt->file[i]);
    hm_arch_release(&ckpt->arch);
    json_decref(ckpt->config);
    hm_free(ckpt->file);
    hm_free(ckpt->tensor);
    hm_free(ckpt->dir);
    *ckpt = (struct hm_checkpoint){ 0 };
}

const struct hm_tensor *hm_checkpoint_find(const struct hm_checkpoint *ckpt, const char *name)
{
    struct hm_tensor key = { .name = name };
    const struct hm_tensor *key_at = &key;

    if (ckpt->count == 0)
        return NULL;
    const struct hm_tensor **found =
        bsearch(&key_at, ckpt->tensor, ckpt->count, sizeof(struct hm_tensor *), compare_tensor);
    return found ? *found : NULL;
}

int hm_checkpoint_need(const struct hm_checkpoint *ckpt, const char *name,
                       const struct hm_tensor **ret, struct hm_error *err)
{
    const struct hm_tensor *found = hm_checkpoint_find(ckpt, name);

    if (!found)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is missing", ckpt->dir, name);
    *ret = found;
    return HM_OK;
}

void hm_checkpoint_drop(const struct hm_checkpoint *ckpt, const struct hm_tensor *tensor,
                        uint64_t offset, uint64_t bytes)
{
    const struct hm_map *map = &ckpt->file[tensor->file].map;

    hm_map_drop(map, (uint64_t)(tensor->data - map->data) + offset, bytes);
}

/* The tensor's bytes into sha, pages dropped behind. */
static void add_data(struct hm_sha256 *sha, const struct hm_checkpoint *ckpt,
                     const struct hm_tensor *tensor)
{
    for (uint64_t at = 0; at < tensor->size_bytes; at += READ_CHUNK_BYTES) {
        uint64_t left = tensor->size_bytes - at;
        size_t part = left < READ_CHUNK_BYTES ? (size_t)left : READ_CHUNK_BYTES;
        hm_sha256_add(sha, tensor->data + at, part);
        hm_checkpoint_drop(ckpt, tensor, at, part);
    }
}

int hm_checkpoint_fingerprint(const struct hm_checkpoint *ckpt, bool full,
                              char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct hm_sha256 sha = { 0 };
    char text[256];

    HM_TRY(hm_sha256_init(&sha, err));
    for (size_t i = 0; i < ckpt->count; i++) {
        const struct hm_tensor *tensor = ckpt->tensor[i];
        char shape[192];
        int len = snprintf(text, sizeof text, " %s %s\n", hm_dtype_name(tensor->dtype),
                           hm_shape_text(tensor->n_dims, tensor->shape, shape, sizeof shape));
        hm_sha256_add(&sha, tensor->name, strlen(tensor->name));
        hm_sha256_add(&sha, text, (size_t)len);
        if (full)
            add_data(&sha, ckpt, tensor);
    }
    for (size_t f = 0; f < ckpt->n_files; f++) {
        int len = snprintf(text, sizeof text, "%" PRIu64 "\n", ckpt->file[f].map.size_bytes);
        hm_sha256_add(&sha, text, (size_t)len);
    }
    hm_sha256_finish(&sha, hex);
    return HM_OK;
}
