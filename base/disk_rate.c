/* SPDX-License-Identifier: MIT */
/*
 * Rates of a disk. The file has no name once it is open, so that nothing is left of it; its bytes
 * do not repeat within a block, so that no file system stores them smaller.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/disk_rate.h"
#include "hanmix/base/file.h"
#include "hanmix/base/rng.h"

#define BLOCK_BYTES ((size_t)4 << 20)

/* errno says why where it is false. */
static bool whole(ssize_t moved, int if_short)
{
    if (moved >= 0 && moved < (ssize_t)BLOCK_BYTES)
        errno = if_short;
    return moved == (ssize_t)BLOCK_BYTES;
}

static bool written(int fd, const uint8_t *block, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += BLOCK_BYTES)
        if (!whole(write(fd, block, BLOCK_BYTES), ENOSPC))
            return false;
    return fsync(fd) == 0;
}

static bool read_back(int fd, uint8_t *block, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += BLOCK_BYTES)
        if (!whole(pread(fd, block, BLOCK_BYTES, (off_t)done), EIO))
            return false;
    return true;
}

/* Seconds that this thread has computed. */
static double thread_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool rates_of(int fd, uint8_t *block, uint64_t bytes, struct hm_disk_rates *ret_rates)
{
    double start = hm_clock_seconds();

    if (!written(fd, block, bytes))
        return false;
    ret_rates->write = (double)bytes / (hm_clock_seconds() - start + 1e-9);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    start = hm_clock_seconds();
    double work = thread_seconds();
    if (!read_back(fd, block, bytes))
        return false;
    ret_rates->read_work = (thread_seconds() - work) / (double)bytes;
    ret_rates->read = (double)bytes / (hm_clock_seconds() - start + 1e-9);
    return true;
}

int hm_disk_rates_measure(const char *dir, uint64_t bytes, struct hm_disk_rates *ret_rates,
                          struct hm_error *err)
{
    struct hm_rng_key key = { .seed = 1 };
    struct hm_disk_rates rates = { 0 };
    uint8_t *block = hm_alloc(HM_MEM_OTHER, BLOCK_BYTES);
    char *path = NULL;

    bytes = (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    int status = block ? hm_path_join(&path, dir, ".hanmix-disk-XXXXXX", err)
                       : hm_fail_nomem(err, "for measuring a disk");
    for (size_t i = 0; status == HM_OK && i < BLOCK_BYTES; i += 16) {
        uint32_t draw[4];
        hm_rng_block(key, i / 16, draw);
        memcpy(block + i, draw, sizeof draw);
    }
    int fd = status == HM_OK ? mkostemp(path, O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)unlink(path);
        if (!rates_of(fd, block, bytes, &rates))
            status = hm_fail(err, HM_ERR_IO, "'%s': cannot write and read back a file: %s", dir,
                             strerror(errno));
        close(fd);
    } else if (status == HM_OK) {
        status = hm_fail(err, HM_ERR_IO, "'%s': cannot make a file: %s", dir, strerror(errno));
    }
    if (status == HM_OK)
        *ret_rates = rates;
    hm_free(block);
    hm_free(path);
    return status;
}
