/* SPDX-License-Identifier: MIT */
/*
 * Trainable parameters over a frozen base: LoRA factors, full embedding/head matrices (or only
 * their new rows), the gate, or every weight (full-parameter training); and the PEFT folder they
 * are read from and written to. One place for training and evaluation alike. Names are PEFT's:
 * base_model.model.<module>.lora_A.weight ... Thread class: owner thread; values are read by
 * parallel kernels during a step.
 */
#ifndef HANMIX_MODEL_ADAPTER_H
#define HANMIX_MODEL_ADAPTER_H

#include "hanmix/base/scratch.h"
#include "hanmix/checkpoint/checkpoint.h"

#define HM_ADAPTER_RANK_MAX 65536

enum hm_param_kind {
    HM_PARAM_LORA_A,
    HM_PARAM_LORA_B,
    HM_PARAM_EMBED,
    HM_PARAM_HEAD,
    HM_PARAM_GATE,
    HM_PARAM_FULL
};
enum hm_rows { HM_ROWS_NONE, HM_ROWS_NEW, HM_ROWS_ALL };

struct hm_param {
    char *name; /* PEFT tensor name, or the plain weight name for HM_PARAM_FULL */
    enum hm_param_kind kind;
    size_t slot;         /* index of the weight it belongs to (hm_arch_slot) */
    uint32_t rows, cols; /* of value and grad */
    uint32_t group;      /* embeddings 0, layers from 1 on, what follows them layers + 1 */
    uint32_t first_row;  /* row of the full matrix that value row 0 is (HM_ROWS_NEW); else 0 */
    float *value;        /* f32, owned by the set or in config.store */
    float *grad;         /* the same; NULL when not training */
};
static inline size_t hm_param_values(const struct hm_param *param)
{
    return (size_t)param->rows * param->cols;
}

struct hm_lora { /* one adapted linear */
    uint32_t rank;
    float scale; /* alpha/r, or alpha/sqrt(r) with rslora */
    size_t a, b; /* indices into param[]: A [r, in], B [out, r] */
};

struct hm_pattern {
    char *key;
    double value;
}; /* rank_pattern / alpha_pattern: key = suffix or regex as peft matches */

struct hm_adapter_config {
    uint32_t rank; /* 8 */
    double alpha;  /* 16 */
    bool rslora;
    double dropout; /* 0 */
    char **target;  /* leaf or dotted-suffix names: q_proj ... w3; dense: gate_proj ...; an
                       expression over whole paths; "all-linear" */
    size_t n_targets;
    struct hm_pattern *rank_pattern, *alpha_pattern;
    size_t n_rank_pattern, n_alpha_pattern;
    enum hm_rows embed, head; /* of a tied model embed alone: the head follows */
    bool gate;                /* train the router in full */
    bool all;                 /* full-parameter training: everything above ignored */
    uint64_t seed;            /* of the initial A */
    /* Where values and gradients live: borrowed, longer than the adapter; NULL the heap. */
    struct hm_scratch *store;
};

struct hm_adapter {
    struct hm_adapter_config config;
    struct hm_param *param; /* canonical order: slot order, A before B; embed first, head last */
    size_t n_params;
    struct hm_lora *lora; /* indexed through lora_of_slot */
    size_t n_lora;
    int32_t *lora_of_slot; /* [slot count] -> lora index or -1 */
    int32_t *full_of_slot; /* [slot count] -> param index of a trained full matrix or -1 */
    uint32_t matched[HM_WEIGHT_KINDS]; /* adapted modules per kind */
};

/* Initial adapter: A uniform(-1/sqrt(in), 1/sqrt(in)) by counter-based RNG, B zero; full matrices
   copied from the base. A target that matches nothing is HM_ERR_USAGE listing the module names
   there are. with_gradients allocates grad. */
int hm_adapter_new(const struct hm_checkpoint *ckpt, const struct hm_adapter_config *config,
                   bool with_gradients, struct hm_adapter **ret_adapter, struct hm_error *err);
/* Names and shapes alone, for plans: no values, no gradients. */
int hm_adapter_plan(const struct hm_arch *arch, const struct hm_adapter_config *config,
                    uint64_t old_vocab, struct hm_adapter **ret_adapter, struct hm_error *err);
/* From a PEFT folder (F32/BF16/F16; rank_pattern, alpha_pattern, rslora, modules_to_save incl. the
   three-copies form). Wrong base or vocabulary, NaN: HM_ERR_FORMAT with both numbers. Matrices are
   kept whole unless the folder's hanmix.json says that only new rows were trained. */
int hm_adapter_load(const char *dir, const struct hm_checkpoint *ckpt, bool with_gradients,
                    struct hm_adapter **ret_adapter, struct hm_error *err);
/* Which members of a configuration a run that starts from an adapter asks for. */
enum hm_ask {
    HM_ASK_RANK = 1 << 0,
    HM_ASK_ALPHA = 1 << 1,
    HM_ASK_RSLORA = 1 << 2,
    HM_ASK_DROPOUT = 1 << 3,
    HM_ASK_TARGETS = 1 << 4,
    HM_ASK_RANK_PATTERN = 1 << 5,
    HM_ASK_ALPHA_PATTERN = 1 << 6,
    HM_ASK_EMBED = 1 << 7,
    HM_ASK_HEAD = 1 << 8,
    HM_ASK_GATE = 1 << 9,
};
/* config with these members of `asked` and its store, which it then borrows. */
void hm_adapter_config_ask(struct hm_adapter_config *config, const struct hm_adapter_config *asked,
                           unsigned which);
/* An adapter to train on, from a PEFT folder and what is asked beside it: a dropout of its own,
   full matrices that the folder lacks (copied from the base). Another rank, scale or choice of
   modules than the folder's is HM_ERR_USAGE naming the first module. */
int hm_adapter_start(const char *dir, const struct hm_checkpoint *ckpt,
                     const struct hm_adapter_config *asked, unsigned which,
                     struct hm_adapter **ret_adapter, struct hm_error *err);
/* The same checks without values; the joined configuration. */
int hm_adapter_start_plan(const char *dir, const struct hm_checkpoint *ckpt,
                          const struct hm_adapter_config *asked, unsigned which,
                          struct hm_adapter_config *ret_config, struct hm_error *err);
void hm_adapter_free(struct hm_adapter *adapter);
int hm_adapter_config_copy(const struct hm_adapter_config *config,
                           struct hm_adapter_config *ret_copy, struct hm_error *err);
void hm_adapter_config_release(struct hm_adapter_config *config);
/* HM_ERR_USAGE as hm_adapter_new would give, from the architecture alone. */
int hm_adapter_config_check(const struct hm_arch *arch, const struct hm_adapter_config *config,
                            uint64_t old_vocab, struct hm_error *err);
/* For a store (else nothing happens; adapter may be NULL): the values and gradients of a group, or
   of a parameter, will soon be needed; are not needed for a while, their memory is given back. */
void hm_adapter_group_fetch(const struct hm_adapter *adapter, uint32_t group);
void hm_adapter_group_done(const struct hm_adapter *adapter, uint32_t group);
void hm_adapter_param_done(const struct hm_adapter *adapter, const struct hm_param *param);
void hm_adapter_zero_grad(struct hm_adapter *adapter);
uint64_t hm_adapter_param_count(const struct hm_adapter *adapter); /* trainable values */
/* Bytes of values (and gradients); 0 when config does not fit arch. */
uint64_t hm_adapter_plan_bytes(const struct hm_arch *arch, const struct hm_adapter_config *config,
                               bool with_gradients, uint64_t old_vocab);

/* Values that are in memory at once when they lie in a store: of the largest group, or of the
   embeddings around the rows of `tokens`. */
uint64_t hm_adapter_window_values(const struct hm_adapter *adapter, const struct hm_arch *arch,
                                  uint64_t tokens);

/* A PEFT folder: adapter_config.json (indent 2, sorted keys, only the portable subset) and
   adapter_model.safetensors (F32). base_path goes into base_model_name_or_path; a record of base
   and vocabulary (hanmix.json) travels beside. save(load(x)) keeps tensors bit for bit. */
int hm_adapter_save(const struct hm_adapter *adapter, const struct hm_checkpoint *ckpt,
                    const char *base_path, const char *dir, struct hm_error *err);
/* Full-parameter result: a whole HF folder in the base's dtype. */
int hm_adapter_save_model(const struct hm_adapter *adapter, const struct hm_checkpoint *ckpt,
                          const char *dir, struct hm_error *err);

#endif
