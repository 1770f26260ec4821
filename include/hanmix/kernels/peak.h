/* SPDX-License-Identifier: MIT */
/*
 * What this machine's matrix products reach: the yardstick of "GFLOP/s, share of peak" in stage
 * reports, `hanmix doctor` and bench/kernels. Thread class: owner thread (runs a parallel loop).
 */
#ifndef HANMIX_KERNELS_PEAK_H
#define HANMIX_KERNELS_PEAK_H

#include <stddef.h>

struct hm_kernels;

/*
 * Best GFLOP/s of C = A B^T, all n x n, over hm_threads() threads, repeated until seconds_budget is
 * spent (once at least, after one run to warm up). 0 when memory for the matrices is out.
 */
double hm_gemm_peak_gflops(const struct hm_kernels *kernels, size_t n, double seconds_budget);

#endif
