/* SPDX-License-Identifier: MIT */
/*
 * Arrays in a file of their own instead of on the heap, for what is larger than memory: a shared
 * mapping that is touched piece by piece and given back behind. The file has no name once it is
 * open, so nothing is left of it however the process ends; its disk space is taken before it is
 * used. Thread class: one owner takes; fetch, drop, discard and zero are thread safe on
 * disjoint ranges.
 */
#ifndef HANMIX_BASE_SCRATCH_H
#define HANMIX_BASE_SCRATCH_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"

struct hm_scratch;

/* What an array of so many bytes takes: whole pages. */
uint64_t hm_scratch_room(uint64_t bytes);
/* In folder `dir`. Disk space that cannot be had is HM_ERR_IO saying how much is missing. */
int hm_scratch_new(const char *dir, uint64_t bytes, struct hm_scratch **ret_scratch,
                   struct hm_error *err);
void hm_scratch_free(struct hm_scratch *scratch);
/* The next array, zeroed, page aligned; it lives as long as the scratch. Together the arrays take
 * no more than hm_scratch_new was told. */
void *hm_scratch_take(struct hm_scratch *scratch, size_t bytes);

/* Hints about a range inside one array, rounded to pages; nothing for what lies elsewhere, or with
 * a NULL scratch. fetch: begin to read it from disk. drop: begin to write it, and give its memory
 * back. */
void hm_scratch_fetch(const struct hm_scratch *scratch, const void *data, size_t bytes);
void hm_scratch_drop(const struct hm_scratch *scratch, const void *data, size_t bytes);
/* Of a whole array that is not read again: its memory, and its disk space where the file system can
 * give it back before the end. */
void hm_scratch_discard(const struct hm_scratch *scratch, const void *data, size_t bytes);
/* Zeroes, without reading, and without writing where the file system can. */
void hm_scratch_zero(const struct hm_scratch *scratch, void *data, size_t bytes);

#endif
