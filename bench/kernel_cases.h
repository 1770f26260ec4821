/* SPDX-License-Identifier: MIT */
/*
 * The speed of each kernel on each path of this machine, for bench/kernels.c and the --bench option
 * of the check programs.
 */
#ifndef HANMIX_BENCH_KERNEL_CASES_H
#define HANMIX_BENCH_KERNEL_CASES_H

#include <stdio.h>

/*
 * Rows "kernel,path,values,gvalues_s,gb_s" under a header: one thread, best of repeated calls, at a
 * size that stays in the second-level cache and at one that does not. gb_s counts the bytes a call
 * must read and write. stem NULL: all stems. The stem
 * "gemm" is bench_gemm_cases. Returns 0, or 1 when the stem has no case.
 */
int bench_kernel_cases(const char *stem, FILE *out);

/* Rows "kernel,path,m,n,k,gflop_s" of matrix products, one thread. */
void bench_gemm_cases(FILE *out);

double bench_seconds(void); /* a steady clock */

#endif
