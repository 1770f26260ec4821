/* SPDX-License-Identifier: MIT */
/*
 * What the files of model/ share: the open model, views of its weights as the passes see them, the
 * workspace, and one step's context. Order of the file: weights, workspace, step, then the
 * functions by source file. Nothing here is visible outside model/.
 *
 * Dimensions: B rows, T positions, N = B*T tokens, D hidden, F ffn, H heads, Hkv kv heads, C
 * head_dim, E experts, K top_k, V vocabulary, L layers, R rank.
 */
#ifndef HANMIX_MODEL_INTERNAL_H
#define HANMIX_MODEL_INTERNAL_H

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/model/model.h"

/* --- weights.c: the weights as one pass sees them --------------------------------------------- */

struct hm_linear { /* y = x W^T + scale * (dropout(x) A^T) B^T */
    const struct hm_weight *weight;
    const float *dense; /* [rows][cols] f32 in place: trained in full or stored so; NULL: decode */
    struct hm_param *full; /* trained matrix: all rows, or the rows from first_row on; or NULL */
    struct hm_param *a;    /* [R][cols], NULL without LoRA */
    struct hm_param *b;    /* [rows][R] */
    float scale;
    uint32_t rank;       /* 0 without LoRA */
    uint32_t rows, cols; /* out, in */
    uint64_t module;     /* slot index: the module of the dropout key */
};

struct hm_norm {
    const float *w;        /* [D] */
    struct hm_param *full; /* or NULL */
};

struct hm_layer_view {
    struct hm_norm input_norm, post_norm;
    struct hm_linear q, k, v, o;
    struct hm_linear gate; /* rows 0 in dense models */
};

struct hm_expert_view {
    struct hm_linear w1, w2, w3;
};

enum hm_pass { HM_PASS_FORWARD, HM_PASS_BACKWARD };

struct hm_weights {
    struct hm_weight **weight; /* [n_slots] by hm_arch_slot */
    size_t n_slots;
    uint32_t *index; /* slot of (layer, kind) and (layer, expert, kind); see weights.c */
    float *norms;    /* [n_slots of norms][D], decoded once */
    uint32_t *norm_of_slot;
    enum hm_pass pass;
    int64_t layer; /* next to be acquired in this pass */
    bool layer_held;
    int64_t expert; /* last acquired of the layer */
};

struct hm_model {
    struct hm_checkpoint ckpt;
    const struct hm_kernels *kernels; /* borrowed */
    enum hm_round round;
    struct hm_weights weights;
    struct hm_adapter *adapter; /* borrowed; NULL: frozen */
    uint64_t *expert_counts;    /* [L][E] */
};

int hm_weights_open(struct hm_model *model, bool check_finite, struct hm_error *err);
void hm_weights_release(struct hm_weights *weights);

/*
 * The door to layers and experts. A pass visits layers in order (forward 0..L-1, backward L-1..0);
 * within a layer its experts ascend, each once per round. The order is known at begin, so that a
 * streamer may fetch ahead; it is checked.
 */
void hm_weights_pass_begin(struct hm_model *model, enum hm_pass pass);
void hm_layer_acquire(struct hm_model *model, uint32_t layer, struct hm_layer_view *ret_view);
void hm_layer_release(struct hm_model *model, uint32_t layer);
void hm_expert_acquire(struct hm_model *model, uint32_t layer, uint32_t expert,
                       struct hm_expert_view *ret_view);
void hm_expert_release(struct hm_model *model, uint32_t layer, uint32_t expert);
/* The ends are held for the life of the model. */
void hm_embed_view(const struct hm_model *model, struct hm_linear *ret_view); /* rows V, cols D */
void hm_head_view(const struct hm_model *model,
                  struct hm_linear *ret_view); /* the embedding when tied */
void hm_final_norm_view(const struct hm_model *model, struct hm_norm *ret_view);

#endif
