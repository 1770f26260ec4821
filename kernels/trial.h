/* SPDX-License-Identifier: MIT */
/*
 * Tries a path before it is used: does the CPU take its instructions, are its results right, how
 * fast are its products in bf16. Uses static storage: one trial at a time (kernels/dispatch.c holds
 * a lock).
 */
#ifndef HANMIX_KERNELS_TRIAL_H
#define HANMIX_KERNELS_TRIAL_H

#include "hanmix/kernels/kernels.h"

/* HM_PATH_GOOD, HM_PATH_FAULTS or HM_PATH_WRONG. SIGILL is caught meanwhile. */
enum hm_path_state hm_kernels_trial(const struct hm_kernels *kernels);
/* GFLOP/s of one thread with an NF4 matrix, 64 rows and operands in bf16: frozen_forward, or
 * decoded panels and gemm_nt where a path has none. About 5 ms. */
double hm_kernels_trial_gflops(const struct hm_kernels *kernels);

#endif
