/* SPDX-License-Identifier: MIT */
/*
 * Two models on the same tokens: how far apart their logits are. Used to prove a merge.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_EVAL_COMPARE_H
#define HANMIX_EVAL_COMPARE_H

#include "hanmix/model/model.h"

struct hm_compare_side {
    const char *model_dir;
    const char *adapter_dir; /* NULL: the model alone */
};
struct hm_compare_result {
    double max_abs; /* largest difference of two logits */
    double mean_kl; /* mean over positions of KL(first || second), nats */
};
/* ids[n], checked against both vocabularies. One model is open at a time; logits of n tokens are
 * held twice. */
int hm_eval_compare(const struct hm_compare_side *first, const struct hm_compare_side *second,
                    const int32_t *ids, uint32_t n, const struct hm_kernels *kernels,
                    const struct hm_ctl *ctl, struct hm_compare_result *ret_result,
                    struct hm_error *err);

#endif
