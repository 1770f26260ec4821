/* SPDX-License-Identifier: MIT */
/*
 * The only door to the weights of a model: binds every slot at open, checks finiteness, and hands
 * out layers and experts through acquire/release in an order known when a pass begins. Today the
 * views borrow from mapped files; a streamer under a memory cap can take this file's place without
 * a change elsewhere.
 *
 * Norm vectors are decoded once here (they are small and read by every row). A view joins the
 * frozen weight with what the attached adapter trains on it; which of the two is read is decided
 * here and nowhere else.
 */

#include "internal.h"

enum {
    INDEX_INPUT_NORM,
    INDEX_Q,
    INDEX_K,
    INDEX_V,
    INDEX_O,
    INDEX_POST_NORM,
    INDEX_GATE,
    INDEX_EXPERTS
};
#define NO_SLOT UINT32_MAX

/* index[]: three ends, then per layer INDEX_EXPERTS entries and E times w1, w2, w3. */
enum { END_EMBED, END_NORM, END_HEAD, ENDS };

static size_t layer_stride(const struct hm_arch *arch)
{
    return INDEX_EXPERTS + (size_t)3 * arch->experts;
}

static size_t index_of(const struct hm_arch *arch, const struct hm_weight_slot *slot)
{
    size_t layer = ENDS + slot->layer * layer_stride(arch);
    size_t expert = layer + INDEX_EXPERTS + (size_t)3 * slot->expert;

    switch (slot->kind) {
    case HM_WEIGHT_EMBED:
        return END_EMBED;
    case HM_WEIGHT_NORM:
        return END_NORM;
    case HM_WEIGHT_HEAD:
        return END_HEAD;
    case HM_WEIGHT_INPUT_NORM:
        return layer + INDEX_INPUT_NORM;
    case HM_WEIGHT_Q:
        return layer + INDEX_Q;
    case HM_WEIGHT_K:
        return layer + INDEX_K;
    case HM_WEIGHT_V:
        return layer + INDEX_V;
    case HM_WEIGHT_O:
        return layer + INDEX_O;
    case HM_WEIGHT_POST_NORM:
        return layer + INDEX_POST_NORM;
    case HM_WEIGHT_GATE:
        return layer + INDEX_GATE;
    case HM_WEIGHT_W1:
        return expert;
    case HM_WEIGHT_W2:
        return expert + 1;
    case HM_WEIGHT_W3:
        return expert + 2;
    case HM_WEIGHT_KINDS:
        break;
    }
    HM_BUG(true);
    return 0;
}

struct finite_scan {
    const struct hm_weights *weights;
    bool *finite; /* [n_slots] */
};

static void finite_unit(void *context, size_t slot, int worker)
{
    struct finite_scan *scan = context;
    const struct hm_weight *weight = scan->weights->weight[slot];

    (void)worker;
    scan->finite[slot] = hm_weight_is_finite(weight);
    hm_weight_drop_pages(weight);
}

static int weights_check_finite(const struct hm_model *model, struct hm_error *err)
{
    const struct hm_weights *weights = &model->weights;
    struct finite_scan scan = { weights, hm_calloc(HM_MEM_OTHER, weights->n_slots, sizeof(bool)) };
    int status = HM_OK;

    if (!scan.finite)
        return hm_fail_nomem(err, "checking %zu weights", weights->n_slots);
    hm_parallel_for(weights->n_slots, finite_unit, &scan);
    for (size_t i = 0; i < weights->n_slots && status == HM_OK; i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        if (scan.finite[i])
            continue;
        hm_arch_slot(&model->ckpt.arch, i, &slot, name);
        status = hm_fail(err, HM_ERR_FORMAT,
                         "'%s': tensor '%s.weight' holds NaN or infinity; the model is damaged",
                         model->ckpt.dir, name);
    }
    hm_free(scan.finite);
    return status;
}

static int tables_new(struct hm_model *model, struct hm_error *err)
{
    const struct hm_arch *arch = &model->ckpt.arch;
    struct hm_weights *weights = &model->weights;
    size_t n_index = ENDS + arch->layers * layer_stride(arch);

    weights->n_slots = hm_arch_slot_count(arch);
    weights->weight = hm_calloc(HM_MEM_WEIGHT, weights->n_slots, sizeof(struct hm_weight *));
    weights->norm_of_slot = hm_calloc(HM_MEM_WEIGHT, weights->n_slots, sizeof(uint32_t));
    weights->index = hm_alloc_array(HM_MEM_WEIGHT, n_index, sizeof(uint32_t));
    weights->norms = hm_calloc(HM_MEM_WEIGHT, (size_t)2 * arch->layers + 1,
                               (size_t)arch->hidden * sizeof(float));
    if (!weights->weight || !weights->norm_of_slot || !weights->index || !weights->norms)
        return hm_fail_nomem(err, "for the table of %zu weights", weights->n_slots);
    for (size_t i = 0; i < n_index; i++)
        weights->index[i] = NO_SLOT;
    return HM_OK;
}

int hm_weights_open(struct hm_model *model, bool check_finite, struct hm_error *err)
{
    const struct hm_arch *arch = &model->ckpt.arch;
    struct hm_weights *weights = &model->weights;
    uint32_t n_norms = 0;

    HM_TRY(tables_new(model, err));
    for (size_t i = 0; i < weights->n_slots; i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, i, &slot, name);
        HM_TRY(hm_weight_open(&model->ckpt, &slot, &weights->weight[i], err));
        weights->index[index_of(arch, &slot)] = (uint32_t)i;
        if (hm_weight_kind_is_norm(slot.kind)) {
            float *out = weights->norms + (size_t)n_norms * arch->hidden;
            weights->norm_of_slot[i] = n_norms++;
            hm_weight_decode(weights->weight[i], model->kernels, 0, arch->hidden, 0, 1,
                             HM_ROUND_NONE, out, 1);
        }
    }
    return check_finite ? weights_check_finite(model, err) : HM_OK;
}

void hm_weights_release(struct hm_weights *weights)
{
    for (size_t i = 0; weights->weight && i < weights->n_slots; i++)
        hm_weight_free(weights->weight[i]);
    hm_free(weights->weight);
    hm_free(weights->norm_of_slot);
    hm_free(weights->index);
    hm_free(weights->norms);
    *weights = (struct hm_weights){ 0 };
}

/* --- views ------------------------------------------------------------------------------------ */

static struct hm_param *full_of(const struct hm_model *model, uint32_t slot)
{
    struct hm_adapter *adapter = model->adapter;

    if (!adapter || adapter->full_of_slot[slot] < 0)
        return NULL;
    return &adapter->param[adapter->full_of_slot[slot]];
}

static void linear_view(const struct hm_model *model, uint32_t slot, struct hm_linear *ret_view)
{
    struct hm_adapter *adapter = model->adapter;
    const struct hm_weight *weight = model->weights.weight[slot];
    struct hm_linear view = { .weight = weight,
                              .dense = hm_weight_f32_view(weight),
                              .full = full_of(model, slot),
                              .rows = hm_weight_rows(weight),
                              .cols = hm_weight_cols(weight),
                              .round = hm_weight_is_nf4(weight) ? model->round : HM_ROUND_NONE,
                              .module = slot };

    if (view.full && view.full->rows == view.rows)
        view.dense = view.full->value;
    if (!view.dense && hm_model_packs(model->kernels, model->round) &&
        hm_weight_frozen(weight, &view.frozen) && view.full)
        view.frozen.rows = view.full->first_row;
    if (adapter && adapter->lora_of_slot[slot] >= 0) {
        const struct hm_lora *lora = &adapter->lora[adapter->lora_of_slot[slot]];
        view.a = &adapter->param[lora->a];
        view.b = &adapter->param[lora->b];
        view.scale = lora->scale;
        view.rank = lora->rank;
    }
    *ret_view = view;
}

static void norm_view(const struct hm_model *model, uint32_t slot, struct hm_norm *ret_view)
{
    const struct hm_weights *weights = &model->weights;
    const float *frozen =
        weights->norms + (size_t)weights->norm_of_slot[slot] * model->ckpt.arch.hidden;

    ret_view->full = full_of(model, slot);
    ret_view->w = ret_view->full ? ret_view->full->value : frozen;
}

void hm_embed_view(const struct hm_model *model, struct hm_linear *ret_view)
{
    linear_view(model, model->weights.index[END_EMBED], ret_view);
}

void hm_head_view(const struct hm_model *model, struct hm_linear *ret_view)
{
    uint32_t slot = model->weights.index[END_HEAD];

    linear_view(model,
                model->ckpt.arch.tied || slot == NO_SLOT ? model->weights.index[END_EMBED] : slot,
                ret_view);
}

void hm_final_norm_view(const struct hm_model *model, struct hm_norm *ret_view)
{
    norm_view(model, model->weights.index[END_NORM], ret_view);
}

void hm_weights_pass_begin(struct hm_model *model, enum hm_pass pass)
{
    struct hm_weights *weights = &model->weights;

    weights->pass = pass;
    weights->layer = pass == HM_PASS_FORWARD ? 0 : (int64_t)model->ckpt.arch.layers - 1;
    weights->layer_held = false;
}

void hm_layer_acquire(struct hm_model *model, uint32_t layer, struct hm_layer_view *ret_view)
{
    struct hm_weights *weights = &model->weights;
    const uint32_t *index = weights->index + ENDS + layer * layer_stride(&model->ckpt.arch);
    struct hm_layer_view view = { 0 };

    HM_BUG(weights->layer_held || weights->layer != layer);
    weights->layer_held = true;
    weights->expert = -1;
    norm_view(model, index[INDEX_INPUT_NORM], &view.input_norm);
    norm_view(model, index[INDEX_POST_NORM], &view.post_norm);
    linear_view(model, index[INDEX_Q], &view.q);
    linear_view(model, index[INDEX_K], &view.k);
    linear_view(model, index[INDEX_V], &view.v);
    linear_view(model, index[INDEX_O], &view.o);
    if (index[INDEX_GATE] != NO_SLOT)
        linear_view(model, index[INDEX_GATE], &view.gate);
    view.gate.frozen.rows = 0; /* decisions are made in f32 */
    *ret_view = view;
}

void hm_layer_release(struct hm_model *model, uint32_t layer)
{
    struct hm_weights *weights = &model->weights;

    HM_BUG(!weights->layer_held || weights->layer != layer);
    weights->layer_held = false;
    weights->layer += weights->pass == HM_PASS_FORWARD ? 1 : -1;
}

void hm_expert_acquire(struct hm_model *model, uint32_t layer, uint32_t expert,
                       struct hm_expert_view *ret_view)
{
    struct hm_weights *weights = &model->weights;
    const struct hm_arch *arch = &model->ckpt.arch;
    const uint32_t *index =
        weights->index + ENDS + layer * layer_stride(arch) + INDEX_EXPERTS + (size_t)3 * expert;

    HM_BUG(!weights->layer_held || weights->layer != layer || (int64_t)expert <= weights->expert);
    weights->expert = expert;
    linear_view(model, index[0], &ret_view->w1);
    linear_view(model, index[1], &ret_view->w2);
    linear_view(model, index[2], &ret_view->w3);
}

void hm_expert_release(struct hm_model *model, uint32_t layer, uint32_t expert)
{
    HM_BUG(model->weights.layer != layer || model->weights.expert < (int64_t)expert);
}
