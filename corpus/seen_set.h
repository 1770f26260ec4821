/* SPDX-License-Identifier: MIT */
/*
 * A set of 128-bit text hashes, to tell exact duplicates: 16 bytes a distinct text at a load of at
 * most 3/4. Bounded; a table that grows stands beside the old one.
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
    uint64_t max_bytes; /* 0 = none */
};

/* What the set takes at most on its way to so many texts. */
uint64_t hm_seen_set_bytes(uint64_t texts);

/* HM_ERR_NOFIT when max_bytes hold no more. */
int hm_seen_set_add(struct seen_set *set, struct hm_str text, bool *ret_new, struct hm_error *err);
void hm_seen_set_release(struct seen_set *set);

#endif
