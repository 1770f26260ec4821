/* SPDX-License-Identifier: MIT */
/*
 * Pages of a mapping, pulled in and given back by hand instead of by the kernel's own guess.
 * Pulling in goes through MADV_POPULATE_READ, which reads and maps in one call and reports what a
 * touch would have died of; on kernels without it (before 5.14) the bytes go into the page cache
 * and are mapped at first touch. Giving back empties mapping and page cache, so that a limit on
 * either holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#define FETCH_BYTES ((uint64_t)8 << 20) /* one call: a stop is noticed between two */
#define PLAIN_BYTES 65536

static uint64_t page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* The range within the mapping, widened to whole pages. False when it is empty. */
static bool range_pages(const struct hm_map *map, uint64_t *offset, uint64_t *bytes)
{
    uint64_t page = page_bytes();

    if (!map->data || *bytes == 0 || *offset >= map->size_bytes)
        return false;
    uint64_t end = *bytes < map->size_bytes - *offset ? *offset + *bytes : map->size_bytes;
    *offset = *offset / page * page;
    *bytes = (end + page - 1) / page * page - *offset;
    return true;
}

static void *address(const struct hm_map *map, uint64_t offset)
{
    return (void *)(uintptr_t)(map->data + offset);
}

void hm_map_advise(const struct hm_map *map, uint64_t offset, uint64_t bytes,
                   enum hm_map_access access)
{
    static const int advice[][2] = { [HM_MAP_NORMAL] = { MADV_NORMAL, MADV_NORMAL },
                                     [HM_MAP_ROWS] = { MADV_RANDOM, MADV_NOHUGEPAGE },
                                     [HM_MAP_LARGE] = { MADV_NORMAL, MADV_HUGEPAGE },
                                     [HM_MAP_SMALL] = { MADV_NORMAL, MADV_NOHUGEPAGE } };

    if (!range_pages(map, &offset, &bytes))
        return;
    for (int i = 0; i < 2; i++) /* advice: what the kernel does not know it refuses, no harm done */
        madvise(address(map, offset), bytes, advice[access][i]);
}

/* Why a page of the range cannot be read. */
static int fail_lost(const struct hm_map *map, const char *path, uint64_t offset, uint64_t bytes,
                     struct hm_error *err)
{
    struct stat info;
    uint8_t byte;

    if (fstat(map->fd, &info) < 0)
        return hm_fail_errno(err, "look at", path);
    if ((uint64_t)info.st_size < map->size_bytes)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' was cut from %" PRIu64 " to %" PRIu64
                       " bytes while in use; whoever replaces a file in use must rename, not "
                       "overwrite",
                       path, map->size_bytes, (uint64_t)info.st_size);
    for (uint64_t at = offset; at < offset + bytes && at < map->size_bytes; at += page_bytes())
        if (pread(map->fd, &byte, 1, (off_t)at) < 0)
            return hm_fail_errno(err, "read", path);
    errno = EIO;
    return hm_fail_errno(err, "read", path);
}

/* Into the page cache only. */
static int fetch_plain(const struct hm_map *map, const char *path, uint64_t offset, uint64_t bytes,
                       struct hm_error *err)
{
    uint8_t plain[PLAIN_BYTES];
    uint64_t end = offset + bytes < map->size_bytes ? offset + bytes : map->size_bytes;

    while (offset < end) {
        uint64_t want = end - offset < PLAIN_BYTES ? end - offset : PLAIN_BYTES;
        ssize_t got = pread(map->fd, plain, want, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail_lost(map, path, offset, end - offset, err);
        offset += (uint64_t)got;
    }
    return HM_OK;
}

int hm_map_fetch(const struct hm_map *map, const char *path, uint64_t offset, uint64_t bytes,
                 struct hm_error *err)
{
    if (!range_pages(map, &offset, &bytes))
        return HM_OK;
    for (uint64_t end = offset + bytes; offset < end;) {
        uint64_t part = end - offset < FETCH_BYTES ? end - offset : FETCH_BYTES;
        if (madvise(address(map, offset), part, MADV_POPULATE_READ) == 0) {
            offset += part;
            continue;
        }
        if (errno == EINTR || errno == EAGAIN)
            continue;
        if (errno == ENOMEM)
            return hm_fail(err, HM_ERR_NOMEM, "no memory for %" PRIu64 " bytes of '%s'", part,
                           path);
        if (errno != EINVAL)
            return fail_lost(map, path, offset, part, err);
        HM_TRY(fetch_plain(map, path, offset, part, err));
        offset += part;
    }
    return HM_OK;
}

void hm_map_forget(const struct hm_map *map, uint64_t offset, uint64_t bytes)
{
    if (!range_pages(map, &offset, &bytes))
        return;
    madvise(address(map, offset), bytes, MADV_DONTNEED);
    posix_fadvise(map->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

int hm_map_blank(const struct hm_map *map, uint64_t offset, uint64_t bytes, struct hm_error *err)
{
    if (!range_pages(map, &offset, &bytes))
        return HM_OK;
    if (mmap(address(map, offset), bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == MAP_FAILED)
        return hm_fail(err, HM_ERR_NOMEM, "cannot replace %" PRIu64 " bytes of a mapping: %s",
                       bytes, strerror(errno));
    return HM_OK;
}
