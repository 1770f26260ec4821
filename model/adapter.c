/* SPDX-License-Identifier: MIT */
/*
 * Life of an adapter: a new one with its initial values, gradients, counts, sizes for `plan`.
 *
 * Initial values are PEFT's: A uniform in +-1/sqrt(in) (kaiming_uniform with a = sqrt 5), B zero; a
 * value depends on the seed, the parameter's name and its index alone. Which parameters there are
 * is adapter_layout.c's; the folders they come from and go to are peft_read.c's and peft_write.c's.
 */
#include "hanmix/model/adapter.h"

#include <math.h>
#include <string.h>

#include "adapter_layout.h"
#include "adapter_rules.h"
#include "hanmix/base/hash.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/weight.h"

enum { INIT_GRAIN = 1 << 16, COPY_ROWS = 256 }; /* values and rows per unit of a loop */

struct init_job {
    struct hm_rng_key key;
    float *value;
    size_t count;
    double bound;
};

/* Four values per counter: uniform on a grid of 2^32 midpoints in (-bound, bound). */
static void init_unit(void *context, size_t index, int worker)
{
    const struct init_job *job = context;
    size_t first = index * INIT_GRAIN;
    size_t end = first + INIT_GRAIN < job->count ? first + INIT_GRAIN : job->count;

    (void)worker;
    for (size_t i = first; i < end; i += 4) {
        uint32_t bits[4];
        hm_rng_block(job->key, i / 4, bits);
        for (size_t j = i; j < end && j < i + 4; j++)
            job->value[j] =
                (float)(job->bound * (((double)bits[j - i] + 0.5) / 2147483648.0 - 1.0));
    }
}

static void init_factor(struct hm_param *param, uint64_t seed)
{
    struct init_job job = {
        .key = { seed, hm_hash64(param->name, strlen(param->name), 0) },
        .value = param->value,
        .count = hm_param_values(param),
        .bound = 1.0 / sqrt(param->cols),
    };
    hm_parallel_for(hm_units(job.count, INIT_GRAIN), init_unit, &job);
}

struct copy_job {
    const struct hm_weight *weight;
    const struct hm_kernels *kernels;
    struct hm_param *param;
};

static void copy_unit(void *context, size_t index, int worker)
{
    const struct copy_job *job = context;
    const struct hm_param *param = job->param;
    uint32_t row = (uint32_t)index * COPY_ROWS;
    uint32_t n = param->rows - row < COPY_ROWS ? param->rows - row : COPY_ROWS;

    (void)worker;
    hm_weight_decode(job->weight, job->kernels, param->first_row + row, n, 0, param->cols,
                     HM_ROUND_NONE, param->value + (size_t)row * param->cols, param->cols);
}

/* Values of one full matrix (rows from first_row on) out of the base. */
static int copy_base(const struct hm_checkpoint *ckpt, struct hm_param *param, struct hm_error *err)
{
    struct hm_weight_slot slot;
    struct hm_weight *weight = NULL;
    struct hm_kernels kernels;
    char module[HM_SLOT_NAME_BYTES];
    struct copy_job job = { .kernels = &kernels, .param = param };
    int status = HM_OK;

    hm_arch_slot(&ckpt->arch, param->slot, &slot, module);
    HM_TRY(hm_weight_open(ckpt, &slot, &weight, err));
    if (hm_weight_is_nf4(weight)) {
        status = hm_fail(
            err, HM_ERR_USAGE,
            "'%s': '%s' is 4-bit in this model and cannot be trained in full: quantise with "
            "it among the skipped modules, or leave it out",
            ckpt->dir, module);
    } else {
        hm_kernels_reference(&kernels);
        job.weight = weight;
        hm_parallel_for(hm_units(param->rows, COPY_ROWS), copy_unit, &job);
        hm_weight_drop_pages(weight);
    }
    hm_weight_free(weight);
    return status;
}

int hm_adapter_old_vocabulary(const struct hm_checkpoint *ckpt,
                              const struct hm_adapter_config *config, uint64_t *ret_old,
                              struct hm_error *err)
{
    struct hm_vocab_record record = { 0 };

    *ret_old = ckpt->arch.vocab_size;
    if (config->embed != HM_ROWS_NEW && config->head != HM_ROWS_NEW)
        return HM_OK;
    HM_TRY(hm_vocab_record_read(ckpt->dir, ckpt->arch.vocab_size, &record, err));
    *ret_old = record.old_vocab_size;
    return HM_OK;
}

int hm_adapter_make(const struct hm_checkpoint *ckpt, const struct hm_adapter_config *config,
                    bool every_target, bool with_gradients, struct hm_adapter **ret_adapter,
                    struct hm_error *err)
{
    struct hm_adapter *adapter = NULL;
    uint64_t old_vocab;
    int status;

    HM_TRY(hm_adapter_old_vocabulary(ckpt, config, &old_vocab, err));
    HM_TRY(hm_adapter_lay_out(&ckpt->arch, config, old_vocab, every_target, &adapter, err));
    status = hm_adapter_allocate(adapter, with_gradients, err);
    for (size_t i = 0; i < adapter->n_params && status == HM_OK; i++) {
        struct hm_param *param = &adapter->param[i];
        if (param->kind == HM_PARAM_LORA_A)
            init_factor(param, config->seed);
        else if (param->kind != HM_PARAM_LORA_B)
            status = copy_base(ckpt, param, err);
        hm_adapter_param_done(adapter, param);
    }
    if (status < 0)
        hm_adapter_free(adapter);
    else
        *ret_adapter = adapter;
    return status;
}

int hm_adapter_new(const struct hm_checkpoint *ckpt, const struct hm_adapter_config *config,
                   bool with_gradients, struct hm_adapter **ret_adapter, struct hm_error *err)
{
    return hm_adapter_make(ckpt, config, true, with_gradients, ret_adapter, err);
}

void hm_adapter_free(struct hm_adapter *adapter)
{
    if (!adapter)
        return;
    for (size_t i = 0; i < adapter->n_params; i++) {
        hm_free(adapter->param[i].name);
        hm_adapter_values_free(adapter, &adapter->param[i]);
    }
    hm_free(adapter->param);
    hm_free(adapter->lora);
    hm_free(adapter->lora_of_slot);
    hm_free(adapter->full_of_slot);
    hm_adapter_config_release(&adapter->config);
    hm_free(adapter);
}

uint64_t hm_adapter_param_count(const struct hm_adapter *adapter)
{
    uint64_t count = 0;

    for (size_t i = 0; i < adapter->n_params; i++)
        count += hm_param_values(&adapter->param[i]);
    return count;
}

uint64_t hm_adapter_plan_bytes(const struct hm_arch *arch, const struct hm_adapter_config *config,
                               bool with_gradients, uint64_t old_vocab)
{
    struct hm_adapter *adapter = NULL;
    uint64_t bytes;

    if (hm_adapter_lay_out(arch, config, old_vocab, false, &adapter, NULL) < 0)
        return 0;
    bytes = hm_adapter_param_count(adapter) * sizeof(float) * (with_gradients ? 2 : 1);
    hm_adapter_free(adapter);
    return bytes;
}

int hm_adapter_plan(const struct hm_arch *arch, const struct hm_adapter_config *config,
                    uint64_t old_vocab, struct hm_adapter **ret_adapter, struct hm_error *err)
{
    return hm_adapter_lay_out(arch, config, old_vocab, false, ret_adapter, err);
}

int hm_adapter_config_check(const struct hm_arch *arch, const struct hm_adapter_config *config,
                            uint64_t old_vocab, struct hm_error *err)
{
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_adapter_lay_out(arch, config, old_vocab, true, &adapter, err));
    hm_adapter_free(adapter);
    return HM_OK;
}
