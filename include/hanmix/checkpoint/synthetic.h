/* SPDX-License-Identifier: MIT */
/*
 * Model folders of random weights, for measurements without the weights: `plan --bench` of a model
 * that does not exist yet, benches, trials at full size.
 * Thread class: owner thread.
 */
#ifndef HANMIX_CHECKPOINT_SYNTHETIC_H
#define HANMIX_CHECKPOINT_SYNTHETIC_H

#include "hanmix/base/ctl.h"
#include "hanmix/checkpoint/model_arch.h"

/*
 * Folder with config.json and random weights: linears in 4 bits as arch.quant says (blocks of 64
 * values), the rest in arch.dtype. A pure function of arch and seed. Existing files are replaced;
 * stopped: HM_ERR_STOPPED.
 */
int hm_synthetic_make(const char *dir, const struct hm_arch *arch, uint64_t seed,
                      const struct hm_ctl *ctl, struct hm_error *err);
/* count token ids with the frequencies of a language (1/rank), over 2 .. vocab-1. */
void hm_synthetic_ids(uint32_t vocab, uint64_t seed, size_t count, int32_t *ids);

#endif
