/* SPDX-License-Identifier: MIT */
/*
 * Mixtral shapes for benches, those of the measured rivals and the whole 8x7B with a grown
 * vocabulary: 4-bit and double quantised, router and head in bf16. The folders are made by
 * checkpoint/synthetic_model.c.
 */
#ifndef HANMIX_BENCH_PRESET_H
#define HANMIX_BENCH_PRESET_H

#include "hanmix/checkpoint/model_arch.h"

/* tiny, small, wide1, mixtral-8x7b; unknown names are HM_ERR_USAGE. */
int bench_preset(const char *name, struct hm_arch *ret_arch, struct hm_error *err);

/* A model folder for a bench: `dir`, where a model is made unless there is one; dir NULL: one of
 * its own, which goes with it. */
struct bench_folder {
    const char *dir;
    char own[32]; /* empty: the caller's */
};
int bench_folder_open(struct bench_folder *folder, const char *dir, const struct hm_arch *arch,
                      struct hm_error *err);
void bench_folder_close(struct bench_folder *folder);

#endif
