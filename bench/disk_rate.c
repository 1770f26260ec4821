/* SPDX-License-Identifier: MIT */
/*
 * What the disk under a folder gives, past the page cache: see disk_rate.h. Requests of REQUEST
 * bytes from JOBS threads, each on a stretch of its own, so that the device has a queue.
 */
#include "disk_rate.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/file.h"

#define REQUEST (8u << 20)
#define JOBS    4u

struct job {
    int fd;
    bool write;
    uint64_t first, end; /* bytes of the file */
    int code;            /* errno */
};

static void *work(void *context)
{
    struct job *job = context;
    void *buffer = NULL;

    job->code = posix_memalign(&buffer, 4096, REQUEST);
    if (job->code == 0)
        memset(buffer, 0x5a, REQUEST);
    for (uint64_t at = job->first; at < job->end && job->code == 0; at += REQUEST) {
        ssize_t done = job->write ? pwrite(job->fd, buffer, REQUEST, (off_t)at)
                                  : pread(job->fd, buffer, REQUEST, (off_t)at);
        if (done != REQUEST)
            job->code = done < 0 ? errno : EIO;
    }
    free(buffer);
    return NULL;
}

static int timed(int fd, uint64_t bytes, bool write, const char *path, double *ret_mb_s,
                 struct hm_error *err)
{
    uint64_t share = bytes / JOBS / REQUEST * REQUEST;
    struct job job[JOBS];
    pthread_t thread[JOBS];
    double start = hm_clock_seconds();
    unsigned started = 0;
    int code = 0;

    if (share == 0)
        return hm_fail(err, HM_ERR_USAGE, "'%s' is too small to time a disk with", path);
    for (; started < JOBS && code == 0; started += code == 0) {
        job[started] = (struct job){ fd, write, started * share, (started + 1) * share, 0 };
        code = pthread_create(&thread[started], NULL, work, &job[started]);
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        code = code ? code : job[i].code;
    }
    if (write && code == 0 && fsync(fd) < 0)
        code = errno;
    if (code != 0)
        return hm_fail(err, HM_ERR_IO, "'%s': %s", path, strerror(code));
    *ret_mb_s = (double)(share * JOBS) / 1e6 / (hm_clock_seconds() - start);
    return HM_OK;
}

int disk_read_rate(const char *path, uint64_t bytes, double *ret_mb_s, struct hm_error *err)
{
    uint64_t size = 0;

    HM_TRY(hm_file_size(path, &size, err));
    int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        return hm_fail(err, HM_ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int status = timed(fd, bytes < size ? bytes : size, false, path, ret_mb_s, err);
    close(fd);
    return status;
}

int disk_write_rate(const char *path, uint64_t bytes, double *ret_mb_s, struct hm_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0666);

    if (fd < 0)
        return hm_fail(err, HM_ERR_IO, "cannot create '%s': %s", path, strerror(errno));
    int status = timed(fd, bytes, true, path, ret_mb_s, err);
    close(fd);
    unlink(path);
    return status;
}
