/* SPDX-License-Identifier: MIT */
/*
 * AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it, with torch's clip_grad_norm_
 * before it. Work is cut into pieces of CUT_VALUES values (whole blocks of 8-bit moments) that
 * never cross a parameter; partial sums are joined in the order of the pieces.
 */
#include "optimizer.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/qlora/trainer.h"

#define CUT_VALUES  (64u * 1024)
#define CUTS_AHEAD  64   /* read ahead of a pass over a store: 16 MiB of each array */
#define CLIP_MARGIN 1e-6 /* torch's */

struct hm_optimizer_cut {
    size_t param, first, count;
};

struct update_pass {
    struct hm_optimizer *optimizer;
    struct hm_adamw_step step; /* weight_decay as for a parameter that decays */
};

static int maps_new(struct hm_optimizer *optimizer, struct hm_error *err)
{
    if (!optimizer->config.coded)
        return HM_OK;
    optimizer->map8 = hm_alloc_array(HM_MEM_OPTIMIZER, 2, sizeof(*optimizer->map8));
    if (!optimizer->map8)
        return hm_fail_nomem(err, "for the maps of 8-bit moments");
    hm_map8_init(false, &optimizer->map8[0]);
    hm_map8_init(true, &optimizer->map8[1]);
    return HM_OK;
}

/* Beside the adapter's values. */
static void *array_new(const struct hm_optimizer *optimizer, size_t count, size_t size)
{
    struct hm_scratch *store = optimizer->adapter->config.store;

    return store ? hm_scratch_take(store, count * size) : hm_calloc(HM_MEM_OPTIMIZER, count, size);
}

/* False when memory is out. */
static bool moments_new(const struct hm_optimizer *optimizer, size_t count, struct hm_moments *ret)
{
    size_t blocks = hm_units(count, HM_BLOCK8);

    if (!optimizer->config.coded || count < HM_MOMENTS8_MIN) {
        ret->first = array_new(optimizer, count, sizeof(float));
        ret->second = array_new(optimizer, count, sizeof(float));
        return ret->first && ret->second;
    }
    ret->coded = (struct hm_moments8){
        .m_map = &optimizer->map8[1],
        .v_map = &optimizer->map8[0],
        .m = array_new(optimizer, count, 1),
        .v = array_new(optimizer, count, 1),
        .m_absmax = array_new(optimizer, blocks, sizeof(float)),
        .v_absmax = array_new(optimizer, blocks, sizeof(float)),
    };
    return ret->coded.m && ret->coded.v && ret->coded.m_absmax && ret->coded.v_absmax;
}

static int all_moments_new(struct hm_optimizer *optimizer, struct hm_error *err)
{
    const struct hm_adapter *adapter = optimizer->adapter;

    HM_TRY(maps_new(optimizer, err));
    for (size_t i = 0; i < adapter->n_params; i++) {
        size_t count = hm_param_values(&adapter->param[i]);
        if (!moments_new(optimizer, count, &optimizer->moments[i]))
            return hm_fail_nomem(err, "for the optimizer state of %s", adapter->param[i].name);
        optimizer->n_cuts += hm_units(count, CUT_VALUES);
    }
    return HM_OK;
}

static void moments_release(struct hm_moments *moments)
{
    hm_free(moments->first);
    hm_free(moments->second);
    hm_free(moments->coded.m);
    hm_free(moments->coded.v);
    hm_free(moments->coded.m_absmax);
    hm_free(moments->coded.v_absmax);
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
            status = all_moments_new(optimizer, err);
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
    bool on_heap = !optimizer->adapter->config.store;
    for (size_t i = 0; on_heap && optimizer->moments && i < optimizer->adapter->n_params; i++)
        moments_release(&optimizer->moments[i]);
    hm_free(optimizer->moments);
    hm_free(optimizer->map8);
    hm_free(optimizer->cut);
    hm_free(optimizer->cut_sum);
    hm_free(optimizer);
}

/* --- passes over a store: what comes is read ahead, what is done gives its memory back ---------
 */

typedef void hint_fn(const struct hm_scratch *scratch, const void *data, size_t bytes);

static void grad_hint(const struct hm_optimizer *optimizer, size_t index, hint_fn *hint)
{
    const struct hm_scratch *store = optimizer->adapter->config.store;

    if (!store || index >= optimizer->n_cuts)
        return;
    const struct hm_optimizer_cut *cut = &optimizer->cut[index];
    hint(store, optimizer->adapter->param[cut->param].grad + cut->first,
         cut->count * sizeof(float));
}

static void cut_hint(const struct hm_optimizer *optimizer, size_t index, hint_fn *hint)
{
    const struct hm_scratch *store = optimizer->adapter->config.store;

    if (!store || index >= optimizer->n_cuts)
        return;
    const struct hm_optimizer_cut *cut = &optimizer->cut[index];
    const struct hm_moments *moments = &optimizer->moments[cut->param];
    size_t bytes = cut->count * sizeof(float);
    grad_hint(optimizer, index, hint);
    hint(store, optimizer->adapter->param[cut->param].value + cut->first, bytes);
    if (moments->first) {
        hint(store, moments->first + cut->first, bytes);
        hint(store, moments->second + cut->first, bytes);
        return;
    }
    hint(store, moments->coded.m + cut->first, cut->count);
    hint(store, moments->coded.v + cut->first, cut->count);
    bytes = hm_units(cut->count, HM_BLOCK8) * sizeof(float);
    hint(store, moments->coded.m_absmax + cut->first / HM_BLOCK8, bytes);
    hint(store, moments->coded.v_absmax + cut->first / HM_BLOCK8, bytes);
}

/* --- the passes --------------------------------------------------------------------------------
 */

static void norm_unit(void *context, size_t index, int worker)
{
    struct hm_optimizer *optimizer = context;
    const struct hm_optimizer_cut *cut = &optimizer->cut[index];
    const float *grad = optimizer->adapter->param[cut->param].grad + cut->first;

    (void)worker;
    grad_hint(optimizer, index + CUTS_AHEAD, hm_scratch_fetch);
    optimizer->cut_sum[index] = optimizer->kernels->sum_squares(grad, cut->count);
    grad_hint(optimizer, index, hm_scratch_drop);
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

uint64_t hm_train_moments_bytes(const struct hm_adapter *adapter, bool coded)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < adapter->n_params; i++) {
        uint64_t count = hm_param_values(&adapter->param[i]);
        bool is_coded = coded && count >= HM_MOMENTS8_MIN;
        bytes += 2 * (is_coded ? count + hm_units(count, HM_BLOCK8) * sizeof(float)
                               : count * sizeof(float));
    }
    return bytes;
}

uint64_t hm_train_store_bytes(const struct hm_adapter *adapter, bool coded)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < adapter->n_params; i++) {
        uint64_t count = hm_param_values(&adapter->param[i]);
        uint64_t values = hm_scratch_room(count * sizeof(float));
        uint64_t scales = hm_scratch_room(hm_units(count, HM_BLOCK8) * sizeof(float));
        bytes += 2 * values +
                 2 * (coded && count >= HM_MOMENTS8_MIN ? hm_scratch_room(count) + scales : values);
    }
    return bytes;
}

uint64_t hm_train_store_window_bytes(int threads)
{
    return (uint64_t)(threads > 0 ? threads : hm_threads()) * 4 * CUT_VALUES * sizeof(float);
}

static bool decays(const struct hm_optimizer *optimizer, const struct hm_param *param)
{
    return optimizer->config.decay_all || param->kind == HM_PARAM_LORA_A ||
           param->kind == HM_PARAM_LORA_B;
}

static void cut_update(const struct update_pass *pass, const struct hm_optimizer_cut *cut)
{
    const struct hm_optimizer *optimizer = pass->optimizer;
    const struct hm_param *param = &optimizer->adapter->param[cut->param];
    const struct hm_moments *moments = &optimizer->moments[cut->param];
    struct hm_adamw_step step = pass->step;
    float *value = param->value + cut->first, *grad = param->grad + cut->first;

    if (!decays(optimizer, param))
        step.weight_decay = 0;
    if (moments->first) {
        optimizer->kernels->adamw(value, grad, moments->first + cut->first,
                                  moments->second + cut->first, cut->count, &step);
        return;
    }
    struct hm_moments8 coded = moments->coded;
    coded.m += cut->first;
    coded.v += cut->first;
    coded.m_absmax += cut->first / HM_BLOCK8;
    coded.v_absmax += cut->first / HM_BLOCK8;
    optimizer->kernels->adamw8(value, grad, &coded, cut->count, &step);
}

static void update_unit(void *context, size_t index, int worker)
{
    const struct update_pass *pass = context;
    const struct hm_optimizer *optimizer = pass->optimizer;

    (void)worker;
    cut_hint(optimizer, index + CUTS_AHEAD, hm_scratch_fetch);
    cut_update(pass, &optimizer->cut[index]);
    cut_hint(optimizer, index, hm_scratch_drop);
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
