/* SPDX-License-Identifier: MIT */
/*
 * See hanmix/base/scratch.h. One file, one mapping; an array is a range of both. posix_fallocate
 * reserves blocks, so a write to the mapping cannot run out of disk later (it would end the process
 * by SIGBUS).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/scratch.h"
#include "internal.h"

#define SCRATCH_NAME "state.scratch"
#define ZERO_PIECE   ((size_t)4 << 20)

struct hm_scratch {
    uint8_t *data;
    uint64_t bytes, taken;
    int fd;
};

static uint64_t page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t hm_scratch_room(uint64_t bytes)
{
    return (bytes + page_bytes() - 1) / page_bytes() * page_bytes();
}

static int fail_space(const char *path, uint64_t bytes, uint64_t room, int code,
                      struct hm_error *err)
{
    return hm_fail(err, HM_ERR_IO,
                   "'%s' needs %.1f MiB for trained values, gradients and moments, the disk has "
                   "%.1f MiB left (%s): free some, or keep them in memory",
                   path, (double)bytes / 1048576, (double)room / 1048576, strerror(code));
}

/* All blocks or none: asking for more than there is would first fill the disk. */
static int space_take(int fd, const char *path, const char *dir, uint64_t bytes,
                      struct hm_error *err)
{
    uint64_t room = 0;

    HM_TRY(hm_disk_free(dir, &room, err));
    if (room < bytes)
        return fail_space(path, bytes, room, ENOSPC, err);
    int code = posix_fallocate(fd, 0, (off_t)bytes);
    if (code == ENOSPC || code == EFBIG || code == EDQUOT)
        return fail_space(path, bytes, room, code, err);
    errno = code;
    return code ? hm_fail_errno(err, "reserve disk space for", path) : HM_OK;
}

/* Opened, nameless, of full size. */
static int file_make(const char *dir, uint64_t bytes, int *ret_fd, struct hm_error *err)
{
    char *path = NULL;
    int fd, status = HM_OK;

    HM_TRY(hm_path_join(&path, dir, SCRATCH_NAME, err));
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        status = hm_fail_errno(err, "create", path);
        goto out;
    }
    if (unlink(path) < 0) {
        status = hm_fail_errno(err, "unlink", path);
        goto out;
    }
    status = space_take(fd, path, dir, bytes, err);
out:
    hm_free(path);
    if (status < 0 && fd >= 0)
        close(fd);
    else
        *ret_fd = fd;
    return status;
}

int hm_scratch_new(const char *dir, uint64_t bytes, struct hm_scratch **ret_scratch,
                   struct hm_error *err)
{
    struct hm_scratch *scratch = hm_calloc(HM_MEM_OTHER, 1, sizeof(*scratch));
    void *data;
    int status;

    if (!scratch)
        return hm_fail_nomem(err, "for a scratch file");
    scratch->bytes = hm_scratch_room(bytes > 0 ? bytes : 1);
    status = file_make(dir, scratch->bytes, &scratch->fd, err);
    if (status < 0) {
        hm_free(scratch);
        return status;
    }
    data = mmap(NULL, scratch->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, scratch->fd, 0);
    if (data == MAP_FAILED) {
        status = hm_fail_errno(err, "map the scratch file in", dir);
        close(scratch->fd);
        hm_free(scratch);
        return status;
    }
    scratch->data = data;
    *ret_scratch = scratch;
    return HM_OK;
}

void hm_scratch_free(struct hm_scratch *scratch)
{
    if (!scratch)
        return;
    munmap(scratch->data, scratch->bytes);
    close(scratch->fd);
    hm_free(scratch);
}

void *hm_scratch_take(struct hm_scratch *scratch, size_t bytes)
{
    uint8_t *array = scratch->data + scratch->taken;

    HM_BUG(hm_scratch_room(bytes) > scratch->bytes - scratch->taken);
    scratch->taken += hm_scratch_room(bytes);
    return array;
}

struct range {
    uint8_t *data;
    size_t bytes;
    off_t offset;
};

static bool is_outside(const struct hm_scratch *scratch, const void *data)
{
    const uint8_t *at = data;

    return !scratch || at < scratch->data || at >= scratch->data + scratch->bytes;
}

static struct range whole_pages(const struct hm_scratch *scratch, const void *data, size_t bytes)
{
    uint64_t first = (uint64_t)((const uint8_t *)data - scratch->data);
    uint64_t begin = first / page_bytes() * page_bytes();

    return (struct range){ scratch->data + begin, hm_scratch_room(first + bytes) - begin,
                           (off_t)begin };
}

void hm_scratch_fetch(const struct hm_scratch *scratch, const void *data, size_t bytes)
{
    if (is_outside(scratch, data))
        return;
    struct range range = whole_pages(scratch, data, bytes);
    (void)madvise(range.data, range.bytes, MADV_WILLNEED);
}

void hm_scratch_drop(const struct hm_scratch *scratch, const void *data, size_t bytes)
{
    if (is_outside(scratch, data))
        return;
    struct range range = whole_pages(scratch, data, bytes);
    (void)madvise(range.data, range.bytes, MADV_DONTNEED); /* changed pages stay in the cache */
    (void)sync_file_range(scratch->fd, range.offset, (off_t)range.bytes, SYNC_FILE_RANGE_WRITE);
}

void hm_scratch_discard(const struct hm_scratch *scratch, const void *data, size_t bytes)
{
    if (is_outside(scratch, data))
        return;
    struct range range = whole_pages(scratch, data, bytes);
    if (fallocate(scratch->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range.offset,
                  (off_t)range.bytes) < 0)
        (void)madvise(range.data, range.bytes, MADV_DONTNEED);
}

void hm_scratch_zero(const struct hm_scratch *scratch, void *data, size_t bytes)
{
    if (scratch) {
        struct range range = whole_pages(scratch, data, bytes);
        if (fallocate(scratch->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range.offset,
                      (off_t)range.bytes) == 0)
            return;
    }
    for (size_t at = 0; at < bytes; at += ZERO_PIECE) {
        size_t n = bytes - at < ZERO_PIECE ? bytes - at : ZERO_PIECE;
        memset((uint8_t *)data + at, 0, n);
        hm_scratch_drop(scratch, (uint8_t *)data + at, n);
    }
}
