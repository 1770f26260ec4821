/* SPDX-License-Identifier: MIT */
/*
 * Fuzz input as a file that lives in memory.
 */
#include "fuzz/fuzz.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hanmix/base/status.h"

const char *fuzz_file(const uint8_t *data, size_t size)
{
    static char path[64];
    static int fd = -1;

    if (fd >= 0)
        close(fd);
    fd = memfd_create("fuzz", MFD_CLOEXEC);
    HM_BUG(fd < 0);
    while (size > 0) {
        ssize_t put = write(fd, data, size);
        HM_BUG(put <= 0);
        data += put;
        size -= (size_t)put;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return path;
}
