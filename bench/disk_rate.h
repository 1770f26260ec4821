/* SPDX-License-Identifier: MIT */
/*
 * Rates of a disk in 10^6 bytes a second, past the page cache: what streaming is measured against.
 * Thread class: owner thread; uses threads of its own.
 */
#ifndef HANMIX_BENCH_DISK_RATE_H
#define HANMIX_BENCH_DISK_RATE_H

#include <stdint.h>

#include "hanmix/base/status.h"

/* Reads up to `bytes` of an existing file. */
int disk_read_rate(const char *path, uint64_t bytes, double *ret_mb_s, struct hm_error *err);
/* Writes a file of `bytes`, synced, and removes it. */
int disk_write_rate(const char *path, uint64_t bytes, double *ret_mb_s, struct hm_error *err);

#endif
