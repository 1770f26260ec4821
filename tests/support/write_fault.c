/* SPDX-License-Identifier: MIT */
/*
 * A disk that is full, as a library to preload: writes to files whose path holds HM_FULL_PATH go
 * well for HM_FULL_BYTES bytes of the process; what goes beyond is written in part and then refused
 * with ENOSPC, as a file system does. Other files are not changed.
 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Atomic uint64_t used_bytes;

static bool counts(int fd)
{
    const char *wanted = getenv("HM_FULL_PATH");
    char link[64], path[PATH_MAX];

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t len = wanted ? readlink(link, path, sizeof(path) - 1) : -1;
    path[len > 0 ? len : 0] = '\0';
    return len > 0 && strstr(path, wanted) != NULL;
}

/* Bytes of `count` that there is room for; -1 with ENOSPC: none. */
static ssize_t room(int fd, size_t count)
{
    const char *text = getenv("HM_FULL_BYTES");
    uint64_t most = text ? strtoull(text, NULL, 10) : UINT64_MAX;

    if (count == 0 || !counts(fd))
        return (ssize_t)count;
    uint64_t before = atomic_fetch_add(&used_bytes, count);
    if (before + count <= most)
        return (ssize_t)count;
    uint64_t left = before < most ? (most - before) / 4096 * 4096 : 0; /* direct writes: pages */
    if (left > 0)
        return (ssize_t)left;
    errno = ENOSPC;
    return -1;
}

#pragma GCC visibility push(default)

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset)
{
    ssize_t most = room(fd, count);

    return most < 0 ? -1 : syscall(SYS_pwrite64, fd, data, most, offset);
}

ssize_t write(int fd, const void *data, size_t count)
{
    ssize_t most = room(fd, count);

    return most < 0 ? -1 : syscall(SYS_write, fd, data, most);
}

#pragma GCC visibility pop
