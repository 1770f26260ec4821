/* SPDX-License-Identifier: MIT */
/*
 * What a training or evaluation step will take, before anything is taken: weights as file pages,
 * the adapter by its own layout, buffers by the table of workspace.c (the same one that allocates).
 * From the architecture alone. The estimate may exceed what is touched (an unbalanced router fills
 * buffers that a balanced one does not), never fall below it.
 */
#include <string.h>

#include "hanmix/checkpoint/nf4_format.h"
#include "internal.h"

#define BLAS_BYTES ((uint64_t)3 << 20) /* OpenBLAS' packing buffers, per thread */
#define SLOT_BYTES ((uint64_t)1 << 10) /* names, views and headers of one weight */
#define EVAL_RANK  64u                 /* room for an adapter that is attached for evaluation */
#define NF4_BLOCK  64u
#define NF4_TABLES_BYTES \
    ((uint64_t)2 << 10) /* quant_map, nested_quant_map, quant_state of one matrix */

static bool skipped(const struct hm_quant_config *quant, const char *name)
{
    for (size_t i = 0; i < quant->n_skip; i++)
        if (strstr(name, quant->skip[i]))
            return true;
    return false;
}

/* Pages of one weight in the file that `arch` describes. */
static uint64_t slot_bytes(const struct hm_arch *arch, const struct hm_weight_slot *slot,
                           const char *name)
{
    uint64_t values = (uint64_t)slot->rows * slot->cols;
    uint64_t blocks = (values + NF4_BLOCK - 1) / NF4_BLOCK;

    if (!arch->quant.present || !hm_weight_kind_is_linear(slot->kind) ||
        slot->kind == HM_WEIGHT_HEAD || skipped(&arch->quant, name))
        return values * hm_dtype_bytes(arch->dtype);
    if (!arch->quant.double_quant)
        return (values + 1) / 2 + blocks * sizeof(float) + NF4_TABLES_BYTES;
    return (values + 1) / 2 + blocks + (blocks / HM_NF4_NESTED_BLOCK + 1) * sizeof(float) +
           NF4_TABLES_BYTES;
}

uint64_t hm_memory_plan_weights(const struct hm_arch *arch)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, i, &slot, name);
        bytes += slot_bytes(arch, &slot, name);
    }
    return bytes;
}

static void plan_weights(const struct hm_arch *arch, struct hm_memory_plan *plan)
{
    plan->weights_mapped = hm_memory_plan_weights(arch);
    plan->other += hm_arch_slot_count(arch) * SLOT_BYTES +
                   (2 * (uint64_t)arch->layers + 1) * arch->hidden * sizeof(float);
}

static void plan_workspace(const struct hm_shape *shape, struct hm_memory_plan *plan)
{
    struct hm_act table[HM_BUF_COUNT];

    hm_workspace_table(shape, table);
    for (int i = 0; i < HM_BUF_COUNT; i++) {
        uint64_t bytes = hm_act_bytes(&table[i]);
        if (hm_buffer_tag((enum hm_buffer)i) == HM_MEM_ACTIVATION)
            plan->activations += bytes;
        else
            plan->scratch += bytes;
    }
    plan->scratch +=
        sizeof(struct hm_workspace) + (uint64_t)shape->threads * HM_PHASE_COUNT * sizeof(double);
    plan->other += (uint64_t)shape->threads * BLAS_BYTES;
}

static uint32_t config_rank(const struct hm_adapter_config *config)
{
    uint32_t rank = config->rank;

    if (config->all || config->n_targets == 0)
        return 0;
    for (size_t i = 0; i < config->n_rank_pattern; i++)
        rank =
            config->rank_pattern[i].value > rank ? (uint32_t)config->rank_pattern[i].value : rank;
    return rank;
}

uint64_t hm_memory_plan_total(const struct hm_memory_plan *plan)
{
    return plan->weights_mapped + plan->adapter + plan->gradients + plan->optimizer +
           plan->activations + plan->scratch + plan->other;
}

int hm_memory_plan_train(const struct hm_arch *arch, const struct hm_adapter_config *config,
                         uint64_t old_vocab, uint32_t rows, uint32_t seq_len, bool recompute,
                         bool packed, int threads, struct hm_memory_plan *ret_plan,
                         struct hm_error *err)
{
    struct hm_memory_plan plan = { 0 };
    const struct hm_shape shape = { .arch = *arch,
                                    .rows = rows,
                                    .seq_len = seq_len,
                                    .context = seq_len,
                                    .rank = config_rank(config),
                                    .threads = threads > 0 ? threads : hm_threads(),
                                    .backward = true,
                                    .recompute = recompute,
                                    .packed = packed };

    HM_TRY(hm_shape_check(&shape, err));
    plan_weights(arch, &plan);
    plan_workspace(&shape, &plan);
    plan.adapter = hm_adapter_plan_bytes(arch, config, false, old_vocab);
    plan.gradients = hm_adapter_plan_bytes(arch, config, true, old_vocab) - plan.adapter;
    plan.optimizer = 2 * plan.gradients;
    *ret_plan = plan;
    return HM_OK;
}

int hm_memory_plan_eval(const struct hm_arch *arch, uint32_t rows, uint32_t seq_len, bool packed,
                        int threads, struct hm_memory_plan *ret_plan, struct hm_error *err)
{
    struct hm_memory_plan plan = { 0 };
    const struct hm_shape shape = { .arch = *arch,
                                    .rows = rows,
                                    .seq_len = seq_len,
                                    .context = seq_len,
                                    .rank = EVAL_RANK,
                                    .threads = threads > 0 ? threads : hm_threads(),
                                    .packed = packed };

    HM_TRY(hm_shape_check(&shape, err));
    plan_weights(arch, &plan);
    plan_workspace(&shape, &plan);
    *ret_plan = plan;
    return HM_OK;
}
