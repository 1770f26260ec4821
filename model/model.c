/* SPDX-License-Identifier: MIT */
/*
 * Opening and closing a model folder, attaching an adapter, and the small questions about both.
 * The passes live in forward.c and backward.c, the weights in weights.c.
 */
#include <string.h>

#include "internal.h"

int hm_model_open(const char *dir, const struct hm_model_options *options,
                  struct hm_model **ret_model, struct hm_error *err)
{
    return hm_model_open_first(dir, options, UINT32_MAX, ret_model, err);
}

int hm_model_open_first(const char *dir, const struct hm_model_options *options, uint32_t layers,
                        struct hm_model **ret_model, struct hm_error *err)
{
    struct hm_model *model = hm_calloc(HM_MEM_WEIGHT, 1, sizeof *model);
    int status;

    if (!model)
        return hm_fail_nomem(err, "opening '%s'", dir);
    model->kernels = options->kernels;
    model->round = options->round;
    status = hm_checkpoint_open(dir, &model->ckpt, err);
    if (status < 0)
        goto out;
    if (layers < model->ckpt.arch.layers)
        model->ckpt.arch.layers = layers;
    status = hm_weights_open(model, options->check_finite, err);
    if (status < 0)
        goto out;
    const struct hm_arch *arch = &model->ckpt.arch;
    model->expert_counts =
        hm_calloc(HM_MEM_WEIGHT, (size_t)arch->layers * arch->experts, sizeof(uint64_t));
    if (!model->expert_counts) {
        status = hm_fail_nomem(err, "opening '%s'", dir);
        goto out;
    }
    *ret_model = model;
    model = NULL;
out:
    hm_model_free(model);
    return status;
}

void hm_model_free(struct hm_model *model)
{
    if (!model)
        return;
    hm_weights_release(&model->weights);
    hm_free(model->expert_counts);
    hm_checkpoint_close(&model->ckpt);
    hm_free(model);
}

bool hm_model_packs(const struct hm_kernels *kernels, enum hm_round round)
{
    return round == HM_ROUND_BF16 && kernels->frozen_forward;
}

const struct hm_checkpoint *hm_model_checkpoint(const struct hm_model *model)
{
    return &model->ckpt;
}

const struct hm_arch *hm_model_arch(const struct hm_model *model)
{
    return &model->ckpt.arch;
}

void hm_model_attach(struct hm_model *model, struct hm_adapter *adapter)
{
    model->adapter = adapter;
}

void hm_model_expert_counts(struct hm_model *model, uint64_t *counts, bool reset)
{
    size_t bytes = (size_t)model->ckpt.arch.layers * model->ckpt.arch.experts * sizeof(uint64_t);

    memcpy(counts, model->expert_counts, bytes);
    if (reset)
        memset(model->expert_counts, 0, bytes);
}
