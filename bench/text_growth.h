/* SPDX-License-Identifier: MIT */
/*
 * How the parts of a text grow with its size: what the memory and time of a trainer follow. Owner
 * thread; parallel inside.
 */
#ifndef HANMIX_BENCH_TEXT_GROWTH_H
#define HANMIX_BENCH_TEXT_GROWTH_H

#include "hanmix/base/text.h"

struct text_growth {
    uint64_t bytes, han_characters, distinct_characters, pairs, distinct_runs;
    /* cut at pairs rarer than 85 % of the 25,000th merge's usual share of the characters */
    double kept_share;                     /* of pairs, as often as they occur */
    uint64_t kept_pairs;                   /* different ones */
    uint64_t segments, segment_characters; /* of two characters and more, each once */
};
/* Of the first `bytes` of the source. */
int text_growth_measure(struct hm_text_source *source, uint64_t bytes,
                        struct text_growth *ret_growth, struct hm_error *err);

#endif
