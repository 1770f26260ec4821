/* SPDX-License-Identifier: MIT */
/*
 * Reading files: mapped views, bounded whole reads, sizes; and what the process knows of its own
 * memory and clock. Writing is in file_write.c, folders and names in file_path.c, locks in
 * file_lock.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

int hm_fail_errno(struct hm_error *err, const char *action, const char *path)
{
    int code = errno == ENOMEM ? HM_ERR_NOMEM : HM_ERR_IO;

    return hm_fail(err, code, "cannot %s '%s': %s", action, path, strerror(errno));
}

int hm_fail_errno_reading(struct hm_error *err, const char *action, const char *path)
{
    if (errno == ENOENT || errno == ENOTDIR)
        return hm_fail(err, HM_ERR_USAGE, "'%s' does not exist", path);
    return hm_fail_errno(err, action, path);
}

int hm_fail_cut(struct hm_error *err, const char *path)
{
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s' was cut short while it was read; whoever replaces a file in use must "
                   "rename, not overwrite",
                   path);
}

static int fail_not_regular(const char *path, mode_t mode, struct hm_error *err)
{
    return hm_fail(err, HM_ERR_USAGE, "'%s' is %s, not a regular file", path,
                   S_ISDIR(mode) ? "a folder" : "a device or pipe");
}

/* Open a regular file for reading and learn its size. */
static int open_regular(const char *path, int *ret_fd, uint64_t *ret_size, struct hm_error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */

    if (fd < 0)
        return hm_fail_errno_reading(err, "open", path);
    if (fstat(fd, &info) < 0) {
        int status = hm_fail_errno(err, "look at", path);
        close(fd);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return fail_not_regular(path, info.st_mode, err);
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)info.st_size;
    return HM_OK;
}

int hm_regular_check(const char *path, struct hm_error *err)
{
    struct stat info;

    if (stat(path, &info) < 0)
        return hm_fail_errno_reading(err, "look at", path);
    return S_ISREG(info.st_mode) ? HM_OK : fail_not_regular(path, info.st_mode, err);
}

int hm_map_open(const char *path, struct hm_map *ret_map, struct hm_error *err)
{
    struct hm_map map = { 0 };

    HM_TRY(open_regular(path, &map.fd, &map.size_bytes, err));
    if (map.size_bytes > 0) {
        void *data = mmap(NULL, map.size_bytes, PROT_READ, MAP_SHARED, map.fd, 0);
        if (data == MAP_FAILED) {
            int status = hm_fail_errno(err, "map", path);
            close(map.fd);
            return status;
        }
        map.data = data;
    }
    *ret_map = map;
    return HM_OK;
}

void hm_map_close(struct hm_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size_bytes);
    if (map->fd > 0)
        close(map->fd);
    *map = (struct hm_map){ 0 };
}

/*
 * Both ends round down: the page that holds the end is still being read, and it is dropped with the
 * next call, whose start lies in it. Dropping is never wrong, only slow when done too early.
 */
void hm_map_drop(const struct hm_map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (!map->data || offset >= map->size_bytes)
        return;
    uint64_t end = bytes < map->size_bytes - offset ? offset + bytes : map->size_bytes;
    uint64_t first = offset / page * page;
    uint64_t last = end == map->size_bytes ? end : end / page * page;
    if (last > first)
        madvise((void *)(uintptr_t)(map->data + first), last - first, MADV_DONTNEED);
}

int hm_file_read(const char *path, uint64_t max_bytes, struct hm_buf *ret_buf, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    uint64_t size;
    int fd;

    HM_TRY(open_regular(path, &fd, &size, err));
    int status = HM_OK;
    if (size > max_bytes) {
        status =
            hm_fail(err, HM_ERR_FORMAT, "'%s' has %" PRIu64 " bytes; at most %" PRIu64 " are read",
                    path, size, max_bytes);
        goto out;
    }
    status = hm_buf_reserve(&buf, (size_t)size, err);
    if (status < 0)
        goto out;
    while (buf.len < size) {
        ssize_t got = read(fd, buf.ptr + buf.len, (size_t)size - buf.len);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            status = hm_fail_errno(err, "read", path);
            goto out;
        }
        if (got == 0) {
            status = hm_fail_cut(err, path);
            goto out;
        }
        buf.len += (size_t)got;
    }
    buf.ptr[buf.len] = '\0';
    *ret_buf = buf;
    buf = (struct hm_buf){ 0 };
out:
    hm_buf_release(&buf);
    close(fd);
    return status;
}

int hm_file_size(const char *path, uint64_t *ret_bytes, struct hm_error *err)
{
    struct stat info;

    if (stat(path, &info) < 0)
        return hm_fail_errno_reading(err, "look at", path);
    *ret_bytes = (uint64_t)info.st_size;
    return HM_OK;
}

/* A "Name:   123 kB" line of /proc/self/status, in bytes. */
static uint64_t status_line_bytes(const char *name)
{
    char line[256];
    uint64_t kib = 0;
    size_t len = strlen(name);
    FILE *file = fopen("/proc/self/status", "re");

    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (strncmp(line, name, len) == 0 && sscanf(line + len, ": %" SCNu64, &kib) == 1)
            break;
    fclose(file);
    return kib * 1024;
}

uint64_t hm_rss_peak_bytes(void)
{
    return status_line_bytes("VmHWM");
}

void hm_rss_peak_reset(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    ssize_t done = write(fd, "5", 1);
    (void)done;
    close(fd);
}

uint64_t hm_rss_bytes(void)
{
    return status_line_bytes("VmRSS");
}

double hm_clock_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
