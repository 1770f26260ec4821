/* SPDX-License-Identifier: MIT */
/*
 * Confidence interval of a ratio of sums over documents. Private to eval/.
 */
#ifndef HANMIX_EVAL_BOOTSTRAP_H
#define HANMIX_EVAL_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"

struct hm_scored { /* one document, or window */
    double loss;   /* nats, summed over its targets */
    uint64_t bytes;
};

/*
 * Percentile bootstrap (Efron 1979): 95 % interval of sum(loss) / sum(bytes) when documents are
 * drawn anew with replacement. More than BOOTSTRAP_BLOCKS documents are joined to that many blocks
 * of neighbours first. Deterministic.
 */
int hm_bootstrap_ratio(const struct hm_scored *scored, size_t n, double *ret_low, double *ret_high,
                       struct hm_error *err);

#endif
