/* SPDX-License-Identifier: MIT */
/*
 * Random Mixtral-shaped models in NF4 for benches: the presets of the measured rivals, written
 * straight in bitsandbytes' layout (double quantised, router and head in bf16), and token ids with
 * their frequencies.
 */
#ifndef HANMIX_BENCH_MODEL_H
#define HANMIX_BENCH_MODEL_H

#include "hanmix/checkpoint/model_arch.h"

/* tiny, small, wide1; unknown names are HM_ERR_USAGE. */
int bench_preset(const char *name, struct hm_arch *ret_arch, struct hm_error *err);
/* Folder of random 4-bit weights; existing files are replaced. */
int bench_model_make(const char *dir, const struct hm_arch *arch, uint64_t seed,
                     struct hm_error *err);
/* count ids, Zipf-distributed over 3 .. vocab-1. */
void bench_ids(uint32_t vocab, uint64_t seed, size_t count, int32_t *ids);

#endif
