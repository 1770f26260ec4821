/* SPDX-License-Identifier: MIT */
/*
 * Making the filter from the table of pairs: 32 bits or more for each.
 */
#include "span_filter.h"
#include "hanmix/base/alloc.h"

#define FEWEST_BITS 4 /* of the number of words */

int hm_span_filter_make(const struct hm_span_cuts *cuts, struct hm_span_filter *ret_filter,
                        struct hm_error *err)
{
    struct hm_span_filter filter = { .shift = 64 - FEWEST_BITS };
    size_t pairs = 0, words = (size_t)1 << FEWEST_BITS;

    for (size_t i = 0; i <= cuts->mask; i++)
        pairs += cuts->slot[i] != 0;
    for (; words < pairs / 2; filter.shift--)
        words *= 2;
    filter.word = hm_calloc(HM_MEM_VOCAB, words, sizeof(*filter.word));
    if (!filter.word)
        return hm_fail_nomem(err, "for an encoder");
    for (size_t i = 0; i <= cuts->mask; i++) {
        uint64_t pair = cuts->slot[i];
        if (pair == 0)
            continue;
        uint32_t before = (uint32_t)(pair >> 32) & INT32_MAX; /* its top bit is always set */
        uint64_t hash = hm_span_filter_hash(before, (uint32_t)pair);
        filter.word[hash >> filter.shift] |= hm_span_filter_bits(hash);
    }
    *ret_filter = filter;
    return HM_OK;
}

void hm_span_filter_release(struct hm_span_filter *filter)
{
    hm_free(filter->word);
    *filter = (struct hm_span_filter){ NULL, 0 };
}
