/* SPDX-License-Identifier: MIT */
/*
 * What the machine can do at best, all threads: bf16 products of register-resident operands and
 * reading memory. 0 where this build or CPU has no such loop.
 */
#ifndef HANMIX_BENCH_PEAK_BF16_H
#define HANMIX_BENCH_PEAK_BF16_H

#include <stddef.h>

double bench_peak_dpbf16_gflops(void);                      /* vdpbf16ps, 512 bits */
double bench_read_gbytes(const void *data, size_t n_bytes); /* larger than the caches */

#endif
