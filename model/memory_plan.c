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

#define BLAS_BYTES    ((uint64_t)3 << 20) /* OpenBLAS' packing buffers, per thread */
#define SLOT_BYTES    ((uint64_t)1 << 10) /* names, views and headers of one weight */
#define EVAL_RANK     64u                 /* room for an adapter that is attached for evaluation */
#define NF4_BLOCK     64u
#define EDGE_BYTES    ((uint64_t)32 << 20)
#define PROCESS_BYTES ((uint64_t)40 << 20) /* program, libraries, headers of the model's files */
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

int hm_memory_plan_generate(const struct hm_arch *arch, size_t n_prompt, uint32_t max_tokens,
                            bool packed, int threads, struct hm_memory_plan *ret_plan,
                            struct hm_error *err)
{
    struct hm_memory_plan plan = { 0 };
    const uint64_t context = n_prompt + max_tokens;
    const struct hm_shape shape = { .arch = *arch,
                                    .rows = 1,
                                    .seq_len = hm_prompt_rows(n_prompt),
                                    .context = (uint32_t)context,
                                    .rank = EVAL_RANK,
                                    .threads = threads > 0 ? threads : hm_threads(),
                                    .packed = packed };

    HM_TRY(hm_shape_check(&shape, err));
    plan_weights(arch, &plan);
    plan_workspace(&shape, &plan);
    plan.activations +=
        2 * sizeof(float) * context * arch->layers * (uint64_t)arch->kv_heads * arch->head_dim;
    plan.scratch += (uint64_t)arch->vocab_size * 2 * sizeof(double); /* candidates of sampling */
    *ret_plan = plan;
    return HM_OK;
}

/* --- under a limit ---------------------------------------------------------------------------- */

struct layer_bytes { /* what a pass reads */
    uint64_t all, largest, embed_row;
};

/* Layers and the head; norms are kept as values, the embedding is read by rows. */
static struct layer_bytes layer_bytes(const struct hm_arch *arch)
{
    struct layer_bytes sum = { 0 };
    uint64_t bytes = 0;
    uint32_t layer = 0;

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, i, &slot, name);
        bool ends = slot.kind == HM_WEIGHT_EMBED || slot.kind == HM_WEIGHT_HEAD;
        if (slot.kind == HM_WEIGHT_EMBED)
            sum.embed_row = (uint64_t)slot.cols * hm_dtype_bytes(arch->dtype);
        if (hm_weight_kind_is_norm(slot.kind) || (slot.kind == HM_WEIGHT_EMBED && !arch->tied))
            continue;
        if (ends || slot.layer != layer)
            bytes = 0;
        layer = slot.layer;
        bytes += slot_bytes(arch, &slot, name);
        sum.all += slot_bytes(arch, &slot, name);
        sum.largest = bytes > sum.largest ? bytes : sum.largest;
        bytes = ends ? 0 : bytes;
    }
    return sum;
}

uint64_t hm_memory_plan_limit(struct hm_memory_plan *plan, const struct hm_arch *arch,
                              uint64_t tokens, bool backward, uint64_t beside_bytes,
                              uint64_t ram_bytes)
{
    const struct layer_bytes layer = layer_bytes(arch);
    const uint64_t page = 4096, rows = tokens < arch->vocab_size ? tokens : arch->vocab_size;
    const uint64_t embed = arch->tied ? 0 : rows * (layer.embed_row + 2 * page);
    uint64_t beside =
        hm_memory_plan_total(plan) - plan->weights_mapped + beside_bytes + PROCESS_BYTES + embed;
    /* units do not end at the blocks of weight_units.c */
    uint64_t edges = layer.largest / 8 < EDGE_BYTES ? layer.largest / 8 : EDGE_BYTES;
    uint64_t least = beside + layer.largest + edges;

    if (ram_bytes < least || ram_bytes - beside >= plan->weights_mapped)
        return least;
    plan->weights_budget = ram_bytes - beside;
    plan->weights_mapped = plan->weights_budget + embed;
    uint64_t absent = layer.all > plan->weights_budget ? layer.all - plan->weights_budget : 0;
    plan->weights_read = (backward ? 2 : 1) * absent;
    return least;
}
