/* SPDX-License-Identifier: MIT */
/*
 * AdamW over the trainable parameters of an adapter, in three passes: gradients are accumulated by
 * the model, their global norm is taken, then every parameter is updated. Moments are f32, or 8-bit
 * block-wise as bitsandbytes' AdamW8bit keeps them. Private to qlora/.
 *
 * Thread class: owner thread; passes run parallel loops over fixed cuts, so results do not depend
 * on the thread count.
 */
#ifndef HANMIX_QLORA_OPTIMIZER_H
#define HANMIX_QLORA_OPTIMIZER_H

#include "hanmix/kernels/kernels.h"
#include "hanmix/model/adapter.h"

#define HM_MOMENTS8_MIN 4096u /* bitsandbytes' min_8bit_size: smaller parameters keep f32 */

struct hm_moments {           /* of one parameter, each of the parameter's shape */
    float *first, *second;    /* f32; NULL when coded */
    struct hm_moments8 coded; /* else zero */
};

struct hm_optimizer_config {
    double beta1, beta2, eps, weight_decay, clip; /* clip 0: none */
    bool decay_all;                               /* else only lora_A and lora_B decay */
    bool coded;                                   /* moments in 8 bits */
};

struct hm_optimizer {
    struct hm_optimizer_config config;
    const struct hm_kernels *kernels; /* borrowed */
    struct hm_adapter *adapter;       /* borrowed */
    struct hm_moments *moments;       /* [n_params] */
    struct hm_map8 *map8;             /* without and with sign; NULL unless config.coded */
    struct hm_optimizer_cut *cut;     /* [n_cuts], fixed pieces of parameters */
    double *cut_sum;                  /* [n_cuts] */
    size_t n_cuts;
    uint64_t updates; /* done so far */
};

int hm_optimizer_new(struct hm_adapter *adapter, const struct hm_kernels *kernels,
                     const struct hm_optimizer_config *config, struct hm_optimizer **ret,
                     struct hm_error *err);
void hm_optimizer_free(struct hm_optimizer *optimizer);
/* L2 norm over all gradients, joined in order; a non-finite gradient is HM_ERR_NUMERIC naming its
 * tensor. */
int hm_optimizer_norm(struct hm_optimizer *optimizer, double *ret_norm, struct hm_error *err);
/* One update at rate lr: gradients times min(1, clip / (norm + 1e-6)), then torch.optim.AdamW. */
void hm_optimizer_update(struct hm_optimizer *optimizer, double lr, double norm);

#endif
