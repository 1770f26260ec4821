/* SPDX-License-Identifier: MIT */
/*
 * The only door to the weights of a model: binds every slot at open, checks finiteness, and hands
 * out layers and experts through acquire/release in an order known when a pass begins. The views
 * borrow from mapped files; under a memory limit weight_stream.c sees to it that what is acquired
 * is resident.
 *
 * Norm vectors are decoded once here (they are small and read by every row). A view joins the
 * frozen weight with what the attached adapter trains on it; which of the two is read is decided
 * here and nowhere else.
 */

#include "weight_stream.h"

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
    hm_stream_close(weights->stream);
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

static uint32_t head_index(const struct hm_model *model)
{
    const uint32_t *index = model->weights.index;

    return model->ckpt.arch.tied || index[END_HEAD] == NO_SLOT ? index[END_EMBED] : index[END_HEAD];
}

void hm_embed_view(const struct hm_model *model, struct hm_linear *ret_view)
{
    linear_view(model, model->weights.index[END_EMBED], ret_view);
}

void hm_head_view(const struct hm_model *model, struct hm_linear *ret_view)
{
    linear_view(model, head_index(model), ret_view);
}

void hm_final_norm_view(const struct hm_model *model, struct hm_norm *ret_view)
{
    norm_view(model, model->weights.index[END_NORM], ret_view);
}

/* --- resident within a limit ------------------------------------------------------------------ */

static size_t unit_of(const struct hm_model *model, uint32_t layer)
{
    return (size_t)layer * (model->ckpt.arch.experts + 1);
}

static void unit_need(struct hm_model *model, size_t unit)
{
    if (model->weights.stream)
        hm_stream_need(model->weights.stream, unit);
}

static void unit_done(struct hm_model *model, size_t unit)
{
    if (model->weights.stream)
        hm_stream_done(model->weights.stream, unit);
}

/* Appends the weights of slots index[0..n); not those that are trained whole and read from there.
 */
static void unit_add(const struct hm_model *model, const uint32_t *index, size_t n,
                     const struct hm_weight **weight, size_t *count)
{
    for (size_t i = 0; i < n; i++) {
        if (index[i] == NO_SLOT)
            continue;
        const struct hm_param *full = full_of(model, index[i]);
        const struct hm_weight *frozen = model->weights.weight[index[i]];
        if (!full || full->rows != hm_weight_rows(frozen))
            weight[(*count)++] = frozen;
    }
}

int hm_model_stream(struct hm_model *model, uint64_t budget_bytes, struct hm_error *err)
{
    static const size_t rest[] = { INDEX_Q, INDEX_K, INDEX_V, INDEX_O, INDEX_GATE };
    const struct hm_arch *arch = &model->ckpt.arch;
    const uint32_t head = head_index(model), embed = model->weights.index[END_EMBED];
    size_t units = HM_STREAM_UNITS(arch->layers, arch->experts), n = 0, unit = 0;
    const struct hm_weight **weight =
        hm_alloc_array(HM_MEM_WEIGHT, model->weights.n_slots + 1, sizeof *weight);
    size_t *first = hm_alloc_array(HM_MEM_WEIGHT, units + 1, sizeof *first);
    struct hm_stream *stream = NULL;
    int status = weight && first ? HM_OK : hm_fail_nomem(err, "for the order of the weights");

    for (uint32_t layer = 0; layer < arch->layers && status == HM_OK; layer++) {
        const uint32_t *index = model->weights.index + ENDS + layer * layer_stride(arch);
        first[unit++] = n;
        for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]); i++)
            unit_add(model, &index[rest[i]], 1, weight, &n);
        for (uint32_t e = 0; e < arch->experts; e++) {
            first[unit++] = n;
            unit_add(model, &index[INDEX_EXPERTS + (size_t)3 * e], 3, weight, &n);
        }
    }
    if (status == HM_OK) {
        first[unit++] = n;
        unit_add(model, &head, 1, weight, &n);
        first[unit] = n;
        const struct hm_stream_plan plan = { arch->layers, arch->experts, weight, first,
                                             head == embed ? NULL : model->weights.weight[embed] };
        status = hm_stream_open(&model->ckpt, &plan, budget_bytes, &stream, err);
    }
    if (status == HM_OK) {
        hm_stream_close(model->weights.stream);
        model->weights.stream = stream;
    }
    hm_free(weight);
    hm_free(first);
    return status;
}

int hm_weights_check(const struct hm_model *model, struct hm_error *err)
{
    return model->weights.stream ? hm_stream_check(model->weights.stream, err) : HM_OK;
}

void hm_model_stream_counts(const struct hm_model *model, struct hm_stream_counts *ret_counts)
{
    *ret_counts = (struct hm_stream_counts){ 0 };
    if (model->weights.stream)
        hm_stream_counts(model->weights.stream, ret_counts);
}

/* --- the order of a pass ---------------------------------------------------------------------- */

/* Of N tokens with K experts each, most experts of a layer see some. */
static bool most_experts(const struct hm_step *step)
{
    return (uint64_t)step->N * step->arch->top_k >= (uint64_t)2 * step->arch->experts;
}

void hm_weights_pass_begin(const struct hm_step *step, enum hm_pass pass, enum hm_pass next)
{
    struct hm_weights *weights = &step->model->weights;

    weights->pass = pass;
    weights->layer = pass == HM_PASS_FORWARD ? 0 : (int64_t)step->arch->layers - 1;
    weights->layer_held = false;
    if (weights->stream)
        hm_stream_pass(weights->stream, pass, next, most_experts(step));
}

/* The trained values of this layer, and of the one after it in the pass. */
static void adapter_need(const struct hm_model *model, uint32_t layer)
{
    const uint32_t group = layer + 1;

    hm_adapter_group_fetch(model->adapter, group);
    hm_adapter_group_fetch(model->adapter,
                           model->weights.pass == HM_PASS_FORWARD ? group + 1 : group - 1);
}

void hm_layer_acquire(struct hm_model *model, uint32_t layer, struct hm_layer_view *ret_view)
{
    struct hm_weights *weights = &model->weights;
    const uint32_t *index = weights->index + ENDS + layer * layer_stride(&model->ckpt.arch);
    struct hm_layer_view view = { 0 };

    HM_BUG(weights->layer_held || weights->layer != layer);
    weights->layer_held = true;
    weights->expert = -1;
    unit_need(model, unit_of(model, layer));
    adapter_need(model, layer);
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
    unit_done(model, unit_of(model, layer));
    hm_adapter_group_done(model->adapter, layer + 1);
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
    unit_need(model, unit_of(model, layer) + 1 + expert);
    linear_view(model, index[0], &ret_view->w1);
    linear_view(model, index[1], &ret_view->w2);
    linear_view(model, index[2], &ret_view->w3);
}

void hm_expert_release(struct hm_model *model, uint32_t layer, uint32_t expert)
{
    HM_BUG(model->weights.layer != layer || model->weights.expert < (int64_t)expert);
    unit_done(model, unit_of(model, layer) + 1 + expert);
}

void hm_head_acquire(struct hm_model *model)
{
    unit_need(model, unit_of(model, model->ckpt.arch.layers));
}

void hm_head_release(struct hm_model *model)
{
    unit_done(model, unit_of(model, model->ckpt.arch.layers));
    hm_adapter_group_done(model->adapter, model->ckpt.arch.layers + 1);
    hm_adapter_group_done(model->adapter, 0); /* rows of the batch; a tied head */
}
