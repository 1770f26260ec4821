/* SPDX-License-Identifier: MIT */
/*
 * A disk that fails, as a library to preload: reads of one file from one byte on end with EIO, and
 * pulling its pages in with EFAULT, as the kernel answers for a page that it cannot read.
 * HM_FAULT_PATH: what the file's path ends with; HM_FAULT_AT: the byte, a multiple of 4096;
 * HM_FAULT_ARM: a path whose existence begins the fault. Touches of mapped pages are not changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);

    return tail > 0 && len >= tail && strcmp(text + len - tail, end) == 0;
}

static bool armed(const char **ret_path, uint64_t *ret_at)
{
    const char *arm = getenv("HM_FAULT_ARM"), *at = getenv("HM_FAULT_AT");

    *ret_path = getenv("HM_FAULT_PATH");
    *ret_at = at ? strtoull(at, NULL, 10) : 0;
    return *ret_path && arm && access(arm, F_OK) == 0;
}

/* Bytes of `count` at `offset` that can be read; -1 with EIO: none. */
static ssize_t readable(int fd, size_t count, uint64_t offset)
{
    char link[64], path[PATH_MAX];
    const char *wanted;
    uint64_t at;

    if (!armed(&wanted, &at))
        return (ssize_t)count;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof(path) - 1);
    path[len > 0 ? len : 0] = '\0';
    if (!ends_with(path, wanted) || offset + count <= at)
        return (ssize_t)count;
    if (offset < at)
        return (ssize_t)(at - offset);
    errno = EIO;
    return -1;
}

#pragma GCC visibility push(default)

ssize_t pread(int fd, void *out, size_t count, off_t offset)
{
    ssize_t most = readable(fd, count, (uint64_t)offset);

    return most < 0 ? -1 : syscall(SYS_pread64, fd, out, most, offset);
}

ssize_t read(int fd, void *out, size_t count)
{
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t most = offset < 0 ? (ssize_t)count : readable(fd, count, (uint64_t)offset);

    return most < 0 ? -1 : syscall(SYS_read, fd, out, most);
}

/* Whether the range holds bytes of the file from `at` on. */
static bool range_fails(const char *wanted, uint64_t at, uint64_t first, uint64_t bytes)
{
    char line[PATH_MAX + 128];
    bool fails = false;
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && !fails && fgets(line, sizeof(line), maps)) {
        uint64_t begin, end, offset;
        line[strcspn(line, "\n")] = '\0';
        if (ends_with(line, wanted) &&
            sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64, &begin, &end, &offset) == 3)
            fails = first + bytes > begin && first < end && offset + (first + bytes - begin) > at;
    }
    if (maps)
        fclose(maps);
    return fails;
}

int madvise(void *address, size_t bytes, int advice)
{
    const char *wanted;
    uint64_t at;

    if (advice == MADV_POPULATE_READ && armed(&wanted, &at) &&
        range_fails(wanted, at, (uint64_t)(uintptr_t)address, bytes)) {
        errno = EFAULT;
        return -1;
    }
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

#pragma GCC visibility pop
