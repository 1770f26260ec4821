/* SPDX-License-Identifier: MIT */
/*
 * Fuzz input as a file: with the ending that the parser under test wants to see, or under a name of
 * its own in a folder. One temporary folder for the program's life.
 */
#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/file.h"

static char dir[64];
static char path[256];

static void remove_all(void)
{
    (void)hm_dir_remove(dir, NULL);
}

const char *fuzz_folder_file(const uint8_t *data, size_t size, const char *name)
{
    if (!dir[0]) {
        strcpy(dir, "/tmp/hanmix-fuzz-XXXXXX");
        char *made = mkdtemp(dir);
        HM_BUG(!made);
        atexit(remove_all);
    }
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "wbe");
    HM_BUG(!file);
    size_t put = fwrite(data, 1, size, file);
    int closed = fclose(file);
    HM_BUG(put != size || closed != 0);
    return dir;
}

const char *fuzz_file(const uint8_t *data, size_t size, const char *suffix)
{
    char name[64];

    snprintf(name, sizeof(name), "input%s", suffix);
    (void)fuzz_folder_file(data, size, name);
    return path;
}
