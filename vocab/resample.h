/* SPDX-License-Identifier: MIT */
/*
 * Poisson bootstrap of sums: in each of HM_RESAMPLES resamples a document counts Poisson(1) times,
 * drawn by (seed, document, resample), which needs no memory per document and depends on no order.
 * Private to vocab/. Thread class: draws are pure; one array of sums per range of resamples.
 */
#ifndef HANMIX_VOCAB_RESAMPLE_H
#define HANMIX_VOCAB_RESAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/rng.h"

#define HM_RESAMPLES      1000u
#define HM_RESAMPLE_UNIT  40u /* resamples drawn together */
#define HM_RESAMPLE_UNITS (HM_RESAMPLES / HM_RESAMPLE_UNIT)

struct hm_poisson {      /* inversion of 32 random bits */
    uint64_t below[13];  /* P(X <= i) * 2^32 */
    int8_t by_byte[256]; /* the value where the upper byte decides it, else -1 */
};

void hm_poisson_make(struct hm_poisson *ret_poisson);
/* How often the document counts in the resamples of one unit. */
void hm_poisson_draw(const struct hm_poisson *poisson, struct hm_rng_key key, uint64_t document,
                     size_t unit, uint64_t times[HM_RESAMPLE_UNIT]);
/* The interval of a[i]/b[i] over resamples where b is not 0, at that confidence; untouched when
 * there are none. */
void hm_resample_ratio(const uint64_t a[HM_RESAMPLES], const uint64_t b[HM_RESAMPLES],
                       double confidence, double *ret_low, double *ret_high);

#endif
