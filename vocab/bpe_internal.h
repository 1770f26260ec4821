/* SPDX-License-Identifier: MIT */
/*
 * What han_runs.c shares with the trainer: aggregated runs as UTF-16 units, walked in place.
 * Private to vocab/han_*.c and vocab/bpe_*.c.
 */
#ifndef HANMIX_VOCAB_BPE_INTERNAL_H
#define HANMIX_VOCAB_BPE_INTERNAL_H

#include "hanmix/vocab/bpe_train.h"

struct hm_run {           /* one distinct run */
    const uint16_t *unit; /* borrowed UTF-16 */
    uint32_t n_units;
    uint64_t count;
};

/* Walk all distinct runs in order of first appearance: false at the end. *cursor starts at 0. */
bool hm_han_counts_next(const struct hm_han_counts *counts, uint64_t *cursor,
                        struct hm_run *ret_run);

/* Add `count` occurrences of a run given as UTF-16; n_units >= 1. */
int hm_han_counts_add_units(struct hm_han_counts *counts, const uint16_t *unit, size_t n_units,
                            uint64_t count, struct hm_error *err);

/* Next code point of a run; *i < n_units. Runs hold whole surrogate pairs. */
static inline uint32_t hm_run_code(const uint16_t *unit, uint32_t *i)
{
    uint32_t code = unit[(*i)++];

    if (code >= 0xd800 && code < 0xdc00)
        code = 0x10000 + ((code - 0xd800) << 10) + (unit[(*i)++] - 0xdc00u);
    return code;
}

#endif
