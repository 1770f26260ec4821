/* SPDX-License-Identifier: MIT */
/*
 * score_loop_ids MODEL: one line of ids per line of standard input, as `hanmix encode` prints them,
 * made by the loop of score_loop.c. For tests/interop.
 */
#include "score_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct hm_spm_model model = { 0 };
    struct hm_error err = { 0 };
    struct hm_ids ids = { 0 };
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    if (argc != 2 || hm_spm_model_load(argv[1], &model, &err) < 0) {
        fprintf(stderr, "usage: score_loop_ids MODEL < text: %s\n", err.text);
        return 2;
    }
    while ((len = getline(&line, &room, stdin)) >= 0) {
        len -= len > 0 && line[len - 1] == '\n';
        hm_ids_clear(&ids);
        score_loop_encode(&model, (struct hm_str){ line, (size_t)len }, &ids);
        for (size_t i = 0; i < ids.count; i++)
            printf("%s%d", i > 0 ? " " : "", (int)ids.id[i]);
        putchar('\n');
    }
    hm_ids_release(&ids);
    hm_spm_model_release(&model);
    free(line);
    return fflush(stdout) != 0;
}
