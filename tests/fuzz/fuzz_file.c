/* SPDX-License-Identifier: MIT */
/*
 * Fuzz input as a file with the ending that the parser under test wants to see.
 */
#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/status.h"

static char dir[64];
static char path[128];

static void remove_all(void)
{
    unlink(path);
    rmdir(dir);
}

const char *fuzz_file(const uint8_t *data, size_t size, const char *suffix)
{
    if (!dir[0]) {
        strcpy(dir, "/tmp/hanmix-fuzz-XXXXXX");
        char *made = mkdtemp(dir);
        HM_BUG(!made);
        atexit(remove_all);
    }
    snprintf(path, sizeof(path), "%s/input%s", dir, suffix);
    FILE *file = fopen(path, "wbe");
    HM_BUG(!file);
    size_t put = fwrite(data, 1, size, file);
    int closed = fclose(file);
    HM_BUG(put != size || closed != 0);
    return path;
}
