/* SPDX-License-Identifier: MIT */
/*
 * Command lines of the benches: "--name value" in any order, given as a table.
 */
#ifndef HANMIX_BENCH_ARGS_H
#define HANMIX_BENCH_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"

struct bench_option { /* one of the pointers says where its value goes */
    const char *name;
    const char **text;
    uint64_t *count;
    uint32_t *number;
    double *real;
    bool *flag; /* set to true; takes no value */
};

/*
 * What is not given keeps its value. Words that are no options are moved to argv[1..*ret_words];
 * with ret_words NULL they are refused. Anything unknown or without its value: HM_ERR_USAGE.
 */
int bench_args(int argc, char **argv, const struct bench_option *option, size_t n,
               size_t *ret_words, struct hm_error *err);

#endif
