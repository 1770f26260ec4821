/* SPDX-License-Identifier: MIT */
/*
 * config.json of the supported families as plain numbers, checked; what is not supported is refused
 * by name. Reads old flat keys (rope_theta, torch_dtype) and v5's (rope_parameters, dtype); writes
 * the old flat ones.
 * Thread class: pure; an hm_arch is immutable after it is parsed.
 */
#ifndef HANMIX_CHECKPOINT_MODEL_ARCH_H
#define HANMIX_CHECKPOINT_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "hanmix/base/hash.h"
#include "hanmix/base/json.h"
#include "hanmix/checkpoint/dtype.h"

enum hm_family { HM_FAMILY_LLAMA, HM_FAMILY_MIXTRAL };

struct hm_quant_config { /* "quantization_config" of bitsandbytes 4-bit folders */
    bool present;
    bool double_quant;
    enum hm_dtype compute_dtype;
    enum hm_dtype storage_dtype;
    char **skip; /* llm_int8_skip_modules; NULL when null */
    size_t n_skip;
};

struct hm_arch {
    enum hm_family family;
    uint32_t hidden;   /* D */
    uint32_t ffn;      /* F, per expert */
    uint32_t layers;   /* L */
    uint32_t heads;    /* H */
    uint32_t kv_heads; /* Hkv */
    uint32_t head_dim;
    uint32_t experts;    /* E; 1 for dense */
    uint32_t top_k;      /* K; 1 for dense */
    uint32_t vocab_size; /* V: rows of embed_tokens */
    uint32_t max_positions;
    uint32_t sliding_window; /* 0 = none */
    double norm_eps;
    double rope_theta;
    double aux_coef;        /* router_aux_loss_coef */
    bool tied;              /* lm_head shares embed_tokens */
    int32_t bos_id, eos_id; /* -1 when absent; the first of a list */
    enum hm_dtype dtype;    /* torch_dtype; F32 when absent */
    struct hm_quant_config quant;
};

int hm_arch_parse(const json_t *config, const char *what, struct hm_arch *ret_arch,
                  struct hm_error *err);
void hm_arch_release(struct hm_arch *arch);
/* A tokenizer (or ids made with it) of `pieces` fits: HM_ERR_FORMAT naming `what` (a path) when the
 * model has fewer rows. More rows than pieces are fine. */
int hm_arch_vocab_check(const struct hm_arch *arch, uint64_t pieces, const char *what,
                        struct hm_error *err);
/* A copy of `config` with flat keys normalised, dtype, vocab_size and quantisation as given in arch
 * (dropped when absent). New reference. */
int hm_arch_config(const json_t *config, const struct hm_arch *arch, json_t **ret_config,
                   struct hm_error *err);
/* config.json of a model made from nothing (import.*). */
int hm_arch_config_new(const struct hm_arch *arch, json_t **ret_config, struct hm_error *err);

/* dir/config.json, written beside and renamed. */
int hm_config_write(const json_t *config, const char *dir, struct hm_error *err);

/*
 * The table of weights of an architecture: every tensor by canonical disk name, in canonical order.
 * Linears are the LoRA targets and what may be 4-bit.
 */
enum hm_weight_kind {
    HM_WEIGHT_EMBED,
    HM_WEIGHT_INPUT_NORM,
    HM_WEIGHT_Q,
    HM_WEIGHT_K,
    HM_WEIGHT_V,
    HM_WEIGHT_O,
    HM_WEIGHT_POST_NORM,
    HM_WEIGHT_GATE,
    HM_WEIGHT_W1,
    HM_WEIGHT_W2,
    HM_WEIGHT_W3,
    HM_WEIGHT_NORM,
    HM_WEIGHT_HEAD,
    HM_WEIGHT_KINDS
};
#define HM_SLOT_NAME_BYTES 160

struct hm_weight_slot {
    enum hm_weight_kind kind;
    uint32_t layer, expert; /* 0 where meaningless */
    uint32_t rows, cols;    /* norms: rows = D, cols = 1 */
};
size_t hm_arch_slot_count(const struct hm_arch *arch);
/* Slot i of the canonical order, and its module path without ".weight", such as
 * model.layers.0.self_attn.q_proj. */
void hm_arch_slot(const struct hm_arch *arch, size_t i, struct hm_weight_slot *ret_slot,
                  char name[HM_SLOT_NAME_BYTES]);
void hm_arch_slot_name(const struct hm_arch *arch, const struct hm_weight_slot *slot,
                       char name[HM_SLOT_NAME_BYTES]);
/* leaf: "q_proj", "w1" or "gate_proj" */
const char *hm_weight_kind_name(const struct hm_arch *arch, enum hm_weight_kind kind);
bool hm_weight_kind_is_linear(enum hm_weight_kind kind); /* q k v o gate w1 w2 w3 head */
bool hm_weight_kind_is_norm(enum hm_weight_kind kind);

#endif
