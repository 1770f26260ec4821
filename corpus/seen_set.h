/* SPDX-License-Identifier: MIT */
/*
 * A set of 128-bit text hashes, to tell exact duplicates: 16 bytes a distinct text at a load of at
 * most 3/4.
 */
#ifndef HANMIX_CORPUS_SEEN_SET_H
#define HANMIX_CORPUS_SEEN_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"
#include "hanmix/base/str.h"

struct seen_set {
    uint64_t (*slot)[2]; /* open addressing; {0, 0} is empty */
    size_t cap, count;
};

int hm_seen_set_add(struct seen_set *set, struct hm_str text, bool *ret_new, struct hm_error *err);
void hm_seen_set_release(struct seen_set *set);

#endif
