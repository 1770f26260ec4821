/* SPDX-License-Identifier: MIT */
/*
 * The functions of model/model.c that the trainer calls, over a model of one number per id.
 */
#include "fake_model.h"

#include <math.h>
#include <string.h>

#include "hanmix/base/rng.h"

static char name_v[] = "v.lora_A.weight", name_w[] = "w.weight";

void fake_model_init(struct hm_model *model)
{
    *model = (struct hm_model){ .arch = { .experts = 2, .vocab_size = FAKE_VOCAB } };
    for (size_t i = 0; i < FAKE_VOCAB; i++)
        model->v[i] = 1 + 0.1f * (float)i;
    model->w[0] = 2;
    model->w[1] = -3;
    model->param[0] = (struct hm_param){ .name = name_v,
                                         .kind = HM_PARAM_LORA_A,
                                         .rows = 1,
                                         .cols = FAKE_VOCAB,
                                         .value = model->v,
                                         .grad = model->v_grad };
    model->param[1] = (struct hm_param){ .name = name_w,
                                         .kind = HM_PARAM_FULL,
                                         .rows = 2,
                                         .cols = 1,
                                         .value = model->w,
                                         .grad = model->w_grad };
    model->adapter = (struct hm_adapter){ .param = model->param, .n_params = 2 };
}

double fake_factor(const struct hm_step_options *options)
{
    struct hm_rng_key key = { options->dropout_seed, options->step };

    return options->train ? 0.5 + hm_rng_uniform(key, options->sample) : 1;
}

double fake_loss(const double *v, const struct hm_batch *batch, double factor,
                 uint64_t *ret_targets, double *g)
{
    double sum = 0;

    *ret_targets = 0;
    for (size_t i = 0; i < (size_t)batch->rows * batch->seq_len; i++) {
        if (i % batch->seq_len == batch->seq_len - 1)
            continue;
        int32_t y = batch->labels ? batch->labels[i + 1] : batch->ids[i + 1];
        if (y == HM_LABEL_IGNORE)
            continue;
        double d = v[y % FAKE_VOCAB] - batch->ids[i] / 8.0;
        sum += factor * d * d / 2;
        if (g)
            g[y % FAKE_VOCAB] += factor * d;
        ++*ret_targets;
    }
    return sum;
}

const struct hm_arch *hm_model_arch(const struct hm_model *model)
{
    return &model->arch;
}

double hm_model_step_flops(const struct hm_arch *arch, uint64_t tokens, bool backward,
                           bool recompute)
{
    return (double)arch->vocab_size * (double)tokens * (backward + recompute);
}

int hm_workspace_new(struct hm_model *model, uint32_t rows, uint32_t seq_len, bool backward,
                     bool recompute, struct hm_workspace **ret, struct hm_error *err)
{
    (void)model;
    (void)backward;
    (void)recompute;
    *ret = hm_alloc(HM_MEM_SCRATCH, (size_t)rows * seq_len);
    return *ret ? HM_OK : hm_fail(err, HM_ERR_NOMEM, "out of memory for a workspace");
}

void hm_workspace_free(struct hm_workspace *workspace)
{
    hm_free(workspace);
}

int hm_model_step(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step_result *ret_result, struct hm_error *err)
{
    struct hm_step_result result = { 0 };
    double v[FAKE_VOCAB], g[FAKE_VOCAB] = { 0 };

    (void)workspace;
    for (size_t i = 0; i < FAKE_VOCAB; i++)
        v[i] = model->v[i];
    result.loss_sum = fake_loss(v, batch, fake_factor(options), &result.targets, g);
    result.aux = model->w[0] * model->w[0] + model->w[1];
    if (options->backward) {
        model->calls++;
        if (model->calls == model->nan_at)
            return hm_fail(err, HM_ERR_NUMERIC, "the loss is NaN");
        for (size_t i = 0; i < FAKE_VOCAB; i++)
            model->v_grad[i] += (float)(options->loss_weight * g[i]);
        model->w_grad[0] += (float)(options->aux_weight * 2 * model->w[0]);
        model->w_grad[1] += (float)options->aux_weight;
        if (model->calls == model->inf_gradient_at)
            model->v_grad[3] = INFINITY;
        model->stop = model->stop || model->calls == model->stop_at;
        result.phase_seconds[HM_PHASE_HEAD] = 0.25;
    }
    *ret_result = result;
    return HM_OK;
}
