/* SPDX-License-Identifier: MIT */
/*
 * What a training run will take, from steps that are timed on a part of it. Thread class: owner
 * thread.
 */
#ifndef HANMIX_RECIPES_TRAIN_BENCH_H
#define HANMIX_RECIPES_TRAIN_BENCH_H

#include "hanmix/recipes/stage.h"

/* bench() of qlora.train. */
int hm_train_bench(const struct hm_stage_run *run, const struct hm_bench_limits *limits,
                   struct hm_stage_bench *ret_bench, struct hm_error *err);

#endif
