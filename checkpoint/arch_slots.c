/* SPDX-License-Identifier: MIT */
/*
 * The table of weights of an architecture: index -> kind, layer, expert, shape and disk name, in
 * the canonical order embed, layers (norm, attention, norm, gate, experts), norm, head. Names are
 * those of transformers 4 for the family; the head has no slot when it is tied.
 */
#include <inttypes.h>
#include <stdio.h>

#include "hanmix/checkpoint/model_arch.h"

static bool has_gate(const struct hm_arch *arch)
{
    return arch->family == HM_FAMILY_MIXTRAL;
}

/* Slots of one layer: two norms, four projections, the gate, three matrices an expert. */
static size_t layer_slots(const struct hm_arch *arch)
{
    return 6 + (has_gate(arch) ? 1 : 0) + 3 * (size_t)arch->experts;
}

size_t hm_arch_slot_count(const struct hm_arch *arch)
{
    return 2 + (size_t)arch->layers * layer_slots(arch) + (arch->tied ? 0 : 1);
}

static void set_shape(const struct hm_arch *arch, struct hm_weight_slot *slot)
{
    uint32_t q_dim = arch->heads * arch->head_dim;
    uint32_t kv_dim = arch->kv_heads * arch->head_dim;

    slot->cols = arch->hidden;
    switch (slot->kind) {
    case HM_WEIGHT_EMBED:
    case HM_WEIGHT_HEAD:
        slot->rows = arch->vocab_size;
        break;
    case HM_WEIGHT_Q:
        slot->rows = q_dim;
        break;
    case HM_WEIGHT_K:
    case HM_WEIGHT_V:
        slot->rows = kv_dim;
        break;
    case HM_WEIGHT_O:
        slot->rows = arch->hidden;
        slot->cols = q_dim;
        break;
    case HM_WEIGHT_GATE:
        slot->rows = arch->experts;
        break;
    case HM_WEIGHT_W1:
    case HM_WEIGHT_W3:
        slot->rows = arch->ffn;
        break;
    case HM_WEIGHT_W2:
        slot->rows = arch->hidden;
        slot->cols = arch->ffn;
        break;
    default:
        slot->rows = arch->hidden;
        slot->cols = 1;
        break;
    }
}

void hm_arch_slot(const struct hm_arch *arch, size_t i, struct hm_weight_slot *ret_slot,
                  char name[HM_SLOT_NAME_BYTES])
{
    struct hm_weight_slot slot = { 0 };
    size_t per_layer = layer_slots(arch);
    size_t in_layers = (size_t)arch->layers * per_layer;

    HM_BUG(i >= hm_arch_slot_count(arch));
    if (i == 0) {
        slot.kind = HM_WEIGHT_EMBED;
    } else if (i - 1 < in_layers) {
        size_t at = (i - 1) % per_layer;
        size_t fixed = per_layer - 3 * (size_t)arch->experts;
        slot.layer = (uint32_t)((i - 1) / per_layer);
        if (at < fixed) {
            slot.kind = (enum hm_weight_kind)(HM_WEIGHT_INPUT_NORM + at);
        } else {
            slot.kind = (enum hm_weight_kind)(HM_WEIGHT_W1 + (at - fixed) % 3);
            slot.expert = (uint32_t)((at - fixed) / 3);
        }
    } else {
        slot.kind = i - 1 == in_layers ? HM_WEIGHT_NORM : HM_WEIGHT_HEAD;
    }
    set_shape(arch, &slot);
    *ret_slot = slot;
    hm_arch_slot_name(arch, &slot, name);
}

void hm_arch_slot_name(const struct hm_arch *arch, const struct hm_weight_slot *slot,
                       char name[HM_SLOT_NAME_BYTES])
{
    const char *leaf = hm_weight_kind_name(arch, slot->kind);

    switch (slot->kind) {
    case HM_WEIGHT_HEAD:
        snprintf(name, HM_SLOT_NAME_BYTES, "%s", leaf);
        break;
    case HM_WEIGHT_EMBED:
    case HM_WEIGHT_NORM:
        snprintf(name, HM_SLOT_NAME_BYTES, "model.%s", leaf);
        break;
    case HM_WEIGHT_Q:
    case HM_WEIGHT_K:
    case HM_WEIGHT_V:
    case HM_WEIGHT_O:
        snprintf(name, HM_SLOT_NAME_BYTES, "model.layers.%" PRIu32 ".self_attn.%s", slot->layer,
                 leaf);
        break;
    case HM_WEIGHT_GATE:
        snprintf(name, HM_SLOT_NAME_BYTES, "model.layers.%" PRIu32 ".block_sparse_moe.%s",
                 slot->layer, leaf);
        break;
    case HM_WEIGHT_W1:
    case HM_WEIGHT_W2:
    case HM_WEIGHT_W3:
        if (has_gate(arch))
            snprintf(name, HM_SLOT_NAME_BYTES,
                     "model.layers.%" PRIu32 ".block_sparse_moe.experts.%" PRIu32 ".%s",
                     slot->layer, slot->expert, leaf);
        else
            snprintf(name, HM_SLOT_NAME_BYTES, "model.layers.%" PRIu32 ".mlp.%s", slot->layer,
                     leaf);
        break;
    default:
        snprintf(name, HM_SLOT_NAME_BYTES, "model.layers.%" PRIu32 ".%s", slot->layer, leaf);
        break;
    }
}

const char *hm_weight_kind_name(const struct hm_arch *arch, enum hm_weight_kind kind)
{
    static const char *const names[HM_WEIGHT_KINDS] = {
        [HM_WEIGHT_EMBED] = "embed_tokens",
        [HM_WEIGHT_INPUT_NORM] = "input_layernorm",
        [HM_WEIGHT_Q] = "q_proj",
        [HM_WEIGHT_K] = "k_proj",
        [HM_WEIGHT_V] = "v_proj",
        [HM_WEIGHT_O] = "o_proj",
        [HM_WEIGHT_POST_NORM] = "post_attention_layernorm",
        [HM_WEIGHT_GATE] = "gate",
        [HM_WEIGHT_W1] = "w1",
        [HM_WEIGHT_W2] = "w2",
        [HM_WEIGHT_W3] = "w3",
        [HM_WEIGHT_NORM] = "norm",
        [HM_WEIGHT_HEAD] = "lm_head",
    };

    HM_BUG((unsigned)kind >= HM_WEIGHT_KINDS);
    if (!has_gate(arch) && kind >= HM_WEIGHT_W1 && kind <= HM_WEIGHT_W3)
        return kind == HM_WEIGHT_W1 ? "gate_proj" : kind == HM_WEIGHT_W2 ? "down_proj" : "up_proj";
    return names[kind];
}

bool hm_weight_kind_is_norm(enum hm_weight_kind kind)
{
    return kind == HM_WEIGHT_INPUT_NORM || kind == HM_WEIGHT_POST_NORM || kind == HM_WEIGHT_NORM;
}

bool hm_weight_kind_is_linear(enum hm_weight_kind kind)
{
    return kind != HM_WEIGHT_EMBED && !hm_weight_kind_is_norm(kind);
}
