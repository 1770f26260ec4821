/* SPDX-License-Identifier: MIT */
/*
 * The pairs of span_cut.h in a filter that fits a cache. It may say that two characters join when
 * they do not (one pair in some 250): then a text is cut less often, which changes no id. Private
 * to vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_SPAN_FILTER_H
#define HANMIX_VOCAB_SPAN_FILTER_H

#include "span_cut.h"

struct hm_span_filter {
    uint64_t *word; /* two bits of one word for each pair */
    unsigned shift; /* 64 - log2 of the words */
};

int hm_span_filter_make(const struct hm_span_cuts *cuts, struct hm_span_filter *ret_filter,
                        struct hm_error *err);
void hm_span_filter_release(struct hm_span_filter *filter);

/* Of two code points, U+2581 for ' ': the word by the upper bits, two bits in it by lower ones. */
static inline uint64_t hm_span_filter_hash(uint32_t a, uint32_t b)
{
    uint64_t hash = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;

    return hash ^ hash >> 29;
}

static inline uint64_t hm_span_filter_bits(uint64_t hash)
{
    return (uint64_t)1 << (hash & 63) | (uint64_t)1 << (hash >> 6 & 63);
}

/* false: no piece holds a and b in a row. */
static inline bool hm_span_filter_joins(const struct hm_span_filter *filter, uint32_t a, uint32_t b)
{
    uint64_t hash = hm_span_filter_hash(a, b);
    uint64_t bits = hm_span_filter_bits(hash);

    return (filter->word[hash >> filter->shift] & bits) == bits;
}

#endif
