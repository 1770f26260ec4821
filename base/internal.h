/* SPDX-License-Identifier: MIT */
/*
 * What sources of base/ share: one way to turn errno into a sentence, and the answers of CPU and
 * kernel about instructions. Private to base/ (and to tests that answer otherwise).
 */
#ifndef HANMIX_BASE_INTERNAL_H
#define HANMIX_BASE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/file.h"

/*
 * "cannot <action> '<path>': <reason>" from errno as it stands. ENOMEM is HM_ERR_NOMEM; with
 * `reading`, a path that does not exist is the user's mistake (HM_ERR_USAGE); the rest is
 * HM_ERR_IO.
 */
int hm_fail_errno(struct hm_error *err, const char *action, const char *path);
int hm_fail_errno_reading(struct hm_error *err, const char *action, const char *path);
/* A file that ended before the size it had when it was opened: HM_ERR_FORMAT. */
int hm_fail_cut(struct hm_error *err, const char *path);

struct hm_cpu_leaves {   /* of cpuid */
    unsigned c1;         /* leaf 1, ecx */
    unsigned b7, c7, d7; /* leaf 7.0 */
    unsigned a71;        /* leaf 7.1, eax; 0 without it */
    uint64_t xcr0;       /* register states that the system keeps */
};
/* False: not x86, or too old to tell. */
bool hm_cpu_leaves_read(struct hm_cpu_leaves *ret_leaves);
/* The name of the CPU, with its leading spaces; false: unknown. */
bool hm_cpu_brand_read(char name[64]);
/* Tiles need leave of the kernel, once for the process and all threads to come (Linux 5.16): 0 or
 * errno. */
int hm_cpu_tiles_request(void);

#endif
