/* SPDX-License-Identifier: MIT */
/*
 * Digests of inputs and outputs with a memory. An entry is believed only when it was made clearly
 * after the file's last change, since a file may change twice within one tick of its clock.
 */
#include "digest_cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define CACHE_MAX_BYTES  (256ull << 20)
#define SETTLED_NS       1000000000 /* one second */
#define LARGE_FILE_BYTES (16ull << 20)

static int fail_nomem(struct hm_error *err, const char *path)
{
    return hm_fail_nomem(err, "while digesting '%s'", path);
}

int hm_digest_cache_load(const char *path, struct hm_digest_cache *ret_cache, struct hm_error *err)
{
    struct hm_digest_cache cache = { 0 };

    if (path && hm_path_exists(path) &&
        hm_json_load(path, CACHE_MAX_BYTES, &cache.entries, NULL) == HM_OK &&
        !json_is_object(cache.entries)) {
        json_decref(cache.entries);
        cache.entries = NULL;
    }
    if (!cache.entries)
        cache.entries = json_object();
    if (!cache.entries)
        return fail_nomem(err, path ? path : "");
    *ret_cache = cache;
    return HM_OK;
}

int hm_digest_cache_save(struct hm_digest_cache *cache, const char *path, struct hm_error *err)
{
    if (!cache->changed)
        return HM_OK;
    HM_TRY(hm_json_save(path, cache->entries, err));
    cache->changed = false;
    return HM_OK;
}

void hm_digest_cache_release(struct hm_digest_cache *cache)
{
    json_decref(cache->entries);
    *cache = (struct hm_digest_cache){ 0 };
}

int64_t hm_digest_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t mtime_ns(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

/* "size mtime hashed-at sha256" as text: numbers of 19 digits are better kept out of JSON. */
static bool recall(const struct hm_digest_cache *cache, const char *key, const struct stat *info,
                   char hex[HM_SHA256_HEX_BYTES])
{
    const char *entry = json_string_value(json_object_get(cache->entries, key));
    const char *digest = entry ? strrchr(entry, ' ') : NULL;
    uint64_t size;
    int64_t changed, hashed;

    if (!digest || strlen(digest + 1) != HM_SHA256_HEX_BYTES - 1 ||
        sscanf(entry, "%" SCNu64 " %" SCNd64 " %" SCNd64, &size, &changed, &hashed) != 3 ||
        size != (uint64_t)info->st_size || changed != mtime_ns(info) ||
        hashed < changed + SETTLED_NS)
        return false;
    memcpy(hex, digest + 1, HM_SHA256_HEX_BYTES);
    return true;
}

static int remember(struct hm_digest_cache *cache, const char *key, const struct stat *info,
                    int64_t hashed, const char *hex, struct hm_error *err)
{
    char entry[160];

    snprintf(entry, sizeof(entry), "%" PRIu64 " %" PRId64 " %" PRId64 " %s",
             (uint64_t)info->st_size, mtime_ns(info), hashed, hex);
    if (json_object_set_new(cache->entries, key, json_string(entry)) < 0)
        return fail_nomem(err, key);
    cache->changed = true;
    return HM_OK;
}

#define KEY_BYTES 64

static int look(const char *path, struct stat *info, char key[KEY_BYTES], struct hm_error *err)
{
    HM_TRY(hm_regular_check(path, err)); /* opening a pipe would wait for its writer */
    if (stat(path, info) < 0)
        return hm_fail(err, HM_ERR_IO, "cannot look at '%s': %s", path, strerror(errno));
    snprintf(key, KEY_BYTES, "%" PRIu64 ":%" PRIu64, (uint64_t)info->st_dev,
             (uint64_t)info->st_ino);
    return HM_OK;
}

int hm_digest_file(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                   uint64_t *ret_bytes, char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct stat info;
    char key[KEY_BYTES];

    HM_TRY(look(path, &info, key, err));
    if (!recall(cache, key, &info, hex)) {
        int64_t start = hm_digest_now_ns();
        HM_TRY(hm_sha256_file(path, ctl, hex, err));
        HM_TRY(remember(cache, key, &info, start, hex, err));
    }
    if (ret_bytes)
        *ret_bytes = (uint64_t)info.st_size;
    return HM_OK;
}

int hm_digest_put(struct hm_digest_cache *cache, const char *path, int64_t since_ns,
                  const char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct stat info;
    char key[KEY_BYTES];

    HM_TRY(look(path, &info, key, err));
    return remember(cache, key, &info, since_ns, hex, err);
}

static int count_unread(struct hm_digest_cache *cache, const char *path, uint64_t *bytes,
                        struct hm_error *err)
{
    static const char none[HM_SHA256_HEX_BYTES] =
        "0000000000000000000000000000000000000000000000000000000000000000";
    char key[KEY_BYTES], hex[HM_SHA256_HEX_BYTES];
    struct stat info;

    HM_TRY(look(path, &info, key, err));
    if (recall(cache, key, &info, hex))
        return HM_OK;
    *bytes += (uint64_t)info.st_size;
    return remember(cache, key, &info, INT64_MAX, none, err);
}

/* What stands for the bytes of a large file while they are unread; others are digested. */
static int unread_file(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                       struct hm_unread *unread, uint64_t *ret_bytes, char hex[HM_SHA256_HEX_BYTES],
                       struct hm_error *err)
{
    struct stat info;
    char key[KEY_BYTES], text[2 * KEY_BYTES];

    HM_TRY(look(path, &info, key, err));
    if ((uint64_t)info.st_size < LARGE_FILE_BYTES)
        return hm_digest_file(cache, path, ctl, ret_bytes, hex, err);
    unread->any = true;
    unread->unsettled |= mtime_ns(&info) + SETTLED_NS > hm_digest_now_ns();
    *ret_bytes = (uint64_t)info.st_size;
    int len = snprintf(text, sizeof(text), "unread %s %" PRId64, key, mtime_ns(&info));
    return hm_sha256_of(text, (size_t)len, hex, err);
}

/* --- folders --- */

static bool is_hidden(const char *path)
{
    return path[0] == '.' || strstr(path, "/.") != NULL;
}

int hm_folder_files(const char *dir, struct hm_names *ret_files, struct hm_error *err)
{
    struct hm_names files = { 0 };
    size_t kept = 0;

    HM_TRY(hm_dir_files(dir, &files, err));
    for (size_t i = 0; i < files.count; i++) {
        if (is_hidden(files.item[i]))
            hm_free(files.item[i]);
        else
            files.item[kept++] = files.item[i];
    }
    files.count = kept;
    *ret_files = files;
    return HM_OK;
}

/* unread: NULL reads all files. */
static int digest_or_not(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                         struct hm_unread *unread, uint64_t *ret_bytes,
                         char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    return unread ? unread_file(cache, path, ctl, unread, ret_bytes, hex, err)
                  : hm_digest_file(cache, path, ctl, ret_bytes, hex, err);
}

static int add_line(struct hm_digest_cache *cache, const char *dir, const char *name,
                    const struct hm_ctl *ctl, struct hm_unread *unread, struct hm_sha256 *sha,
                    struct hm_error *err)
{
    char hex[HM_SHA256_HEX_BYTES], *full = NULL, *line = NULL;
    uint64_t bytes = 0;
    int status = hm_path_join(&full, dir, name, err);

    if (status == HM_OK)
        status = digest_or_not(cache, full, ctl, unread, &bytes, hex, err);
    if (status == HM_OK)
        status = hm_format(&line, err, "%s\t%" PRIu64 "\t%s\n", name, bytes, hex);
    if (status == HM_OK)
        hm_sha256_add(sha, line, strlen(line));
    hm_free(full);
    hm_free(line);
    return status;
}

static int digest_path(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                       struct hm_unread *unread, char hex[HM_SHA256_HEX_BYTES],
                       struct hm_error *err)
{
    struct hm_names files = { 0 };
    struct hm_sha256 sha = { 0 };
    uint64_t bytes;

    if (!hm_path_is_dir(path))
        return digest_or_not(cache, path, ctl, unread, &bytes, hex, err);
    HM_TRY(hm_folder_files(path, &files, err));
    int status = hm_sha256_init(&sha, err);
    for (size_t i = 0; status == HM_OK && i < files.count; i++)
        if (strcmp(files.item[i], "stage.json") != 0 && strcmp(files.item[i], "report.json") != 0)
            status = add_line(cache, path, files.item[i], ctl, unread, &sha, err);
    if (status == HM_OK)
        hm_sha256_finish(&sha, hex);
    else
        hm_sha256_release(&sha);
    hm_names_release(&files);
    return status;
}

int hm_digest_path(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                   char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    return digest_path(cache, path, ctl, NULL, hex, err);
}

int hm_digest_path_unread(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                          struct hm_unread *found, char hex[HM_SHA256_HEX_BYTES],
                          struct hm_error *err)
{
    return digest_path(cache, path, ctl, found, hex, err);
}

int hm_digest_unread_bytes(struct hm_digest_cache *cache, const char *path, uint64_t *bytes,
                           struct hm_error *err)
{
    struct hm_names files = { 0 };
    int status = HM_OK;

    if (!hm_path_is_dir(path))
        return count_unread(cache, path, bytes, err);
    HM_TRY(hm_folder_files(path, &files, err));
    for (size_t i = 0; status == HM_OK && i < files.count; i++) {
        char *full = NULL;
        status = hm_path_join(&full, path, files.item[i], err);
        if (status == HM_OK)
            status = count_unread(cache, full, bytes, err);
        hm_free(full);
    }
    hm_names_release(&files);
    return status;
}
