/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 of files and folders, remembered by device, inode, size and modification time, so that
 * looking again at a large model folder costs nothing. Private to recipes/. Owner thread.
 */
#ifndef HANMIX_RECIPES_ENGINE_DIGEST_CACHE_H
#define HANMIX_RECIPES_ENGINE_DIGEST_CACHE_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/file.h"
#include "hanmix/base/hash.h"
#include "hanmix/base/json.h"

struct hm_digest_cache {
    json_t *entries; /* "device:inode" -> "size mtime-ns hashed-at-ns sha256" */
    bool changed;
};

/* path may be NULL or absent: empty. A cache that cannot be read is taken as empty, too. */
int hm_digest_cache_load(const char *path, struct hm_digest_cache *ret_cache, struct hm_error *err);
int hm_digest_cache_save(struct hm_digest_cache *cache, const char *path, struct hm_error *err);
void hm_digest_cache_release(struct hm_digest_cache *cache);

int hm_digest_file(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                   uint64_t *ret_bytes, char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);
/*
 * A file's digest; or a folder's: SHA-256 over sorted "path<TAB>size<TAB>sha256" lines of its
 * files. Hidden files are left out, and so are the top-level stage.json and report.json, which tell
 * times.
 */
int hm_digest_path(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                   char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);

/* The same, but large files are not read: inode, size and time of change stand for their bytes.
 * Adds to *found, so that it may be asked over many paths. */
struct hm_unread {
    bool any;       /* there was such a file */
    bool unsettled; /* one has changed within the last second: its time proves nothing */
};
int hm_digest_path_unread(struct hm_digest_cache *cache, const char *path, const struct hm_ctl *ctl,
                          struct hm_unread *found, char hex[HM_SHA256_HEX_BYTES],
                          struct hm_error *err);
/* A digest that was taken from since_ns on (hm_digest_now_ns) while the file did not change. */
int hm_digest_put(struct hm_digest_cache *cache, const char *path, int64_t since_ns,
                  const char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);
int64_t hm_digest_now_ns(void);

/* Adds the bytes that hm_digest_path would read. The cache then takes them as read, with no digest:
 * it is good for counting only. */
int hm_digest_unread_bytes(struct hm_digest_cache *cache, const char *path, uint64_t *bytes,
                           struct hm_error *err);

/* All files below dir, as sorted paths relative to it; hidden ones are left out. */
int hm_folder_files(const char *dir, struct hm_names *ret_files, struct hm_error *err);

#endif
