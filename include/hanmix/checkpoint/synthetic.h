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

#endif
