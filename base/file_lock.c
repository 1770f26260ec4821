/* SPDX-License-Identifier: MIT */
/*
 * Advisory locks between processes by flock(2): the system drops them when the holder dies, however
 * it dies. The file holds the pid of its last holder, for the message only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

static long holder_pid(int fd)
{
    char text[32] = { 0 };
    ssize_t got = pread(fd, text, sizeof(text) - 1, 0);

    return got > 0 ? strtol(text, NULL, 10) : 0;
}

/* The holder before us may have removed the file between our open and our lock. */
static bool is_still_named(int fd, const char *path)
{
    struct stat held, named;

    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

int hm_lock_acquire(const char *path, int *ret_fd, struct hm_error *err)
{
    char text[32];
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    if (fd < 0)
        return hm_fail_errno(err, "create lock", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int status;
        if (errno == EWOULDBLOCK)
            status = hm_fail(err, HM_ERR_IO,
                             "'%s' is locked by process %ld; wait for it to end or stop it", path,
                             holder_pid(fd));
        else
            status = hm_fail_errno(err, "lock", path);
        close(fd);
        return status;
    }
    if (!is_still_named(fd, path)) {
        close(fd);
        return hm_lock_acquire(path, ret_fd, err);
    }
    int len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)len, 0) < 0) {
        int status = hm_fail_errno(err, "write", path);
        close(fd);
        return status;
    }
    *ret_fd = fd;
    return HM_OK;
}

void hm_lock_release(int fd)
{
    if (fd >= 0)
        close(fd);
}
