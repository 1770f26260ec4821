/* SPDX-License-Identifier: MIT */
/*
 * Small random model folders (F32 or BF16, one file) for tests of the model: every weight depends
 * on seed and name order.
 */
#ifndef HANMIX_TESTS_RANDOM_MODEL_H
#define HANMIX_TESTS_RANDOM_MODEL_H

#include "support/support.h"

#include "hanmix/checkpoint/model_arch.h"

/* A Mixtral of D 24, H 4, Hkv 2, C 6, F 20, V 37 (dense when experts is 1). */
struct hm_arch random_arch(uint32_t layers, uint32_t experts, uint32_t top_k);
/* Weights normal with the given deviation over the root of their width; norms near 1. */
void random_model_write(const char *dir, const struct hm_arch *arch, uint64_t seed,
                        double deviation);

#endif
