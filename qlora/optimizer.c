/* SPDX-License-Identifier: MIT */
/*
 * AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it, with torch's clip_grad_norm_
 * before it. Work is cut into pieces of CUT_VALUES values that never cross a parameter; partial
 * sums are joined in the order of the pieces.
 */
#include "optimizer.h"

#include <math.h>

#include "hanmix/base/parallel.h"

#define CUT_VALUES  (64u * 1024)
#define CLIP_MARGIN 1e-6 /* torch's */

struct hm_optimizer_cut {
    size_t param, first, count;
};

struct update_pass {
    struct hm_optimizer *optimizer;
    struct hm_adamw_step step; /* weight_decay as for a parameter that decays */
};

static int moments_new(struct hm_optimizer *optimizer, struct hm_error *err)
{
    const struct hm_adapter *adapter = optimizer->adapter;

    for (size_t i = 0; i < adapter->n_params; i++) {
        size_t count = hm_param_values(&adapter->param[i]);
        struct hm_moments *moments = &optimizer->moments[i];
        moments->first = hm_calloc(HM_MEM_OPTIMIZER, count, sizeof(float));
        moments->second = hm_calloc(HM_MEM_OPTIMIZER, count, sizeof(float));
        if (!moments->first || !moments->second)
            return hm_fail_nomem(err, "for the optimizer state of %s", adapter->param[i].name);
        optimizer->n_cuts += hm_units(count, CUT_VALUES);
    }
    return HM_OK;
}

static void cuts_fill(struct hm_optimizer *optimizer)
{
    size_t at = 0;

    for (size_t i = 0; i < optimizer->adapter->n_params; i++) {
        size_t count = hm_param_values(&optimizer->adapter->param[i]);
        for (size_t first = 0; first < count; first += CUT_VALUES)
            optimizer->cut[at++] = (struct hm_optimizer_cut){
                i, first, count - first < CUT_VALUES ? count - first : CUT_VALUES
            };
    }
}

int hm_optimizer_new(struct hm_adapter *adapter, const struct hm_kernels *kernels,
                     const struct hm_optimizer_config *config, struct hm_optimizer **ret,
                     struct hm_error *err)
{
    struct hm_optimizer *optimizer = hm_calloc(HM_MEM_OPTIMIZER, 1, sizeof(*optimizer));
    int status = HM_ERR_NOMEM;

    if (optimizer) {
        optimizer->config = *config;
        optimizer->kernels = kernels;
        optimizer->adapter = adapter;
        optimizer->moments =
            hm_calloc(HM_MEM_OPTIMIZER, adapter->n_params, sizeof(*optimizer->moments));
        if (optimizer->moments)
            status = moments_new(optimizer, err);
        optimizer->cut =
            hm_alloc_array(HM_MEM_OPTIMIZER, optimizer->n_cuts, sizeof(*optimizer->cut));
        optimizer->cut_sum = hm_alloc_array(HM_MEM_OPTIMIZER, optimizer->n_cuts, sizeof(double));
    }
    if (!optimizer || !optimizer->moments || !optimizer->cut || !optimizer->cut_sum)
        status = hm_fail_nomem(err, "for the optimizer");
    if (status < 0) {
        hm_optimizer_free(optimizer);
        return status;
    }
    cuts_fill(optimizer);
    *ret = optimizer;
    return HM_OK;
}

void hm_optimizer_free(struct hm_optimizer *optimizer)
{
    if (!optimizer)
        return;
    for (size_t i = 0; optimizer->moments && i < optimizer->adapter->n_params; i++) {
        hm_free(optimizer->moments[i].first);
        hm_free(optimizer->moments[i].second);
    }
    hm_free(optimizer->moments);
    hm_free(optimizer->cut);
    hm_free(optimizer->cut_sum);
    hm_free(optimizer);
}

static void norm_unit(void *context, size_t index, int worker)
{
    struct hm_optimizer *optimizer = context;
    const struct hm_optimizer_cut *cut = &optimizer->cut[index];
    const float *grad = optimizer->adapter->param[cut->param].grad + cut->first;

    (void)worker;
    optimizer->cut_sum[index] = optimizer->kernels->sum_squares(grad, cut->count);
}

int hm_optimizer_norm(struct hm_optimizer *optimizer, double *ret_norm, struct hm_error *err)
{
    double sum = 0;

    hm_parallel_for(optimizer->n_cuts, norm_unit, optimizer);
    for (size_t i = 0; i < optimizer->n_cuts; i++) {
        if (!isfinite(optimizer->cut_sum[i]))
            return hm_fail(err, HM_ERR_NUMERIC, "the gradient of %s is not finite",
                           optimizer->adapter->param[optimizer->cut[i].param].name);
        sum += optimizer->cut_sum[i];
    }
    *ret_norm = sqrt(sum);
    return HM_OK;
}

static bool decays(const struct hm_optimizer *optimizer, const struct hm_param *param)
{
    return optimizer->config.decay_all || param->kind == HM_PARAM_LORA_A ||
           param->kind == HM_PARAM_LORA_B;
}

static void update_unit(void *context, size_t index, int worker)
{
    const struct update_pass *pass = context;
    const struct hm_optimizer *optimizer = pass->optimizer;
    const struct hm_optimizer_cut *cut = &optimizer->cut[index];
    const struct hm_param *param = &optimizer->adapter->param[cut->param];
    const struct hm_moments *moments = &optimizer->moments[cut->param];
    struct hm_adamw_step step = pass->step;

    (void)worker;
    if (!decays(optimizer, param))
        step.weight_decay = 0;
    optimizer->kernels->adamw(param->value + cut->first, param->grad + cut->first,
                              moments->first + cut->first, moments->second + cut->first, cut->count,
                              &step);
}

void hm_optimizer_update(struct hm_optimizer *optimizer, double lr, double norm)
{
    const struct hm_optimizer_config *config = &optimizer->config;
    double factor = config->clip > 0 ? config->clip / (norm + CLIP_MARGIN) : 1;
    double updates = (double)++optimizer->updates;
    struct update_pass pass = {
        .optimizer = optimizer,
        .step = { .lr = lr,
                  .beta1 = config->beta1,
                  .beta2 = config->beta2,
                  .eps = config->eps,
                  .weight_decay = config->weight_decay,
                  .bias1 = 1 - pow(config->beta1, updates),
                  .bias2 = 1 - pow(config->beta2, updates),
                  .grad_scale = (float)(factor < 1 ? factor : 1) },
    };

    hm_parallel_for(optimizer->n_cuts, update_unit, &pass);
}
