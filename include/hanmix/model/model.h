/* SPDX-License-Identifier: MIT */
/*
 * A decoder of the LLaMA line over mapped weights: forward, loss, backward, one micro-batch at a
 * time.
 *
 * Frozen weights stay mapped views and are decoded in panels; layers and experts are reached
 * through acquire/release with the order of both passes known ahead (model/weights.c), so that
 * under a memory limit they are read ahead and dropped behind. Activations and gradients are f32.
 * Arithmetic, order of sums and tolerances: docs/NUMERICS.md. Thread class: owner thread; a step
 * runs parallel loops inside. Results do not depend on the thread count.
 */
#ifndef HANMIX_MODEL_MODEL_H
#define HANMIX_MODEL_MODEL_H

#include "hanmix/base/ctl.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/model/adapter.h"

struct hm_model; /* opaque */

struct hm_model_options {
    const struct hm_kernels *kernels; /* borrowed */
    enum hm_round round; /* BF16: frozen 4-bit weights are rounded in both passes, and where the
                            kernels can, products with frozen weights are made in bf16 */
    bool check_finite;   /* scan all weights for NaN/Inf at open: HM_ERR_FORMAT naming the tensor */
};
int hm_model_open(const char *dir, const struct hm_model_options *options,
                  struct hm_model **ret_model, struct hm_error *err);
/* The first `layers` of it (at least 1) between its own embedding and head, as a model of that many
 * layers: what is timed in place of the whole. */
int hm_model_open_first(const char *dir, const struct hm_model_options *options, uint32_t layers,
                        struct hm_model **ret_model, struct hm_error *err);
void hm_model_free(struct hm_model *model);
const struct hm_checkpoint *hm_model_checkpoint(const struct hm_model *model);
const struct hm_arch *hm_model_arch(const struct hm_model *model);
/* Attach (borrow) an adapter; NULL detaches. Shapes were checked against the checkpoint by
 * hm_adapter_*. */
void hm_model_attach(struct hm_model *model, struct hm_adapter *adapter);

/*
 * Keep at most budget_bytes of the weights resident from now on: a thread reads experts and layers
 * ahead of the passes and drops what they use last. Results do not change. After hm_model_attach.
 * HM_ERR_NOFIT when one layer with its experts, or the head, is larger.
 */
int hm_model_stream(struct hm_model *model, uint64_t budget_bytes, struct hm_error *err);
struct hm_stream_counts {
    uint64_t read_bytes;
    double read_seconds; /* of the reading thread, in reading */
    double wait_seconds; /* of the passes, for the reading thread */
};
/* Since hm_model_stream; zeros without it. */
void hm_model_stream_counts(const struct hm_model *model, struct hm_stream_counts *ret_counts);

#define HM_LABEL_IGNORE (-100)

struct hm_batch {          /* views */
    uint32_t rows;         /* B sequences */
    uint32_t seq_len;      /* T */
    const int32_t *ids;    /* [B][T], 0 <= id < V (checked) */
    const int32_t *labels; /* [B][T] or NULL = ids; position t predicts labels[t+1]; -100 ignored */
    const uint8_t *mask;   /* [B][T] 1 = real token, NULL = all; padding keys are not seen, padded
                              rows are left out of aux */
    const uint8_t *doc_start; /* [B][T] 1 where a document begins: attention stays inside it; NULL =
                                 plain causal */
};

struct hm_step_options {
    bool backward;      /* accumulate into adapter gradients */
    bool recompute;     /* keep only layer inputs, recompute each layer in the backward pass */
    double loss_weight; /* d(objective)/d(sum of target losses) */
    double aux_weight;  /* d(objective)/d(aux); 0: exactly no gradient */
    bool want_aux;      /* compute the auxiliary loss value */
    bool train;         /* dropout active */
    /* dropout key: mask depends on (seed, step, module, sample, position) only */
    uint64_t dropout_seed, step, sample;
    float *logits_out;      /* [B*T][V] or NULL */
    double *token_loss_out; /* [B*T] loss of the target of position t (0 where ignored) or NULL */
    float **router_logits_out; /* [L] pointers to [B*T][E], or NULL */
    /* [(L+2)][B*T][D]: embedding, after each block, final norm; tests; or NULL */
    float *hidden_out;
};

/* Where the time of a step goes: decoding 4-bit weights, products with frozen weights, attention,
 * low-rank products, the output layer and its loss, the rest. */
enum hm_phase {
    HM_PHASE_DECODE,
    HM_PHASE_PRODUCT,
    HM_PHASE_ATTENTION,
    HM_PHASE_LORA,
    HM_PHASE_HEAD,
    HM_PHASE_OTHER,
    HM_PHASE_COUNT
};

struct hm_step_result {
    double loss_sum; /* sum of -log p over targets, nats */
    uint64_t targets;
    double aux;                           /* HF load_balancing_loss_func, uncoefficiented */
    double phase_seconds[HM_PHASE_COUNT]; /* mean over threads */
};

/*
 * Workspace for micro-batches up to B x T; planned once, reused. Make it after hm_threads_set and
 * hm_model_attach: its size depends on threads and on the largest rank. Steps with backward must
 * ask for the same `recompute`; steps without may use any workspace.
 */
struct hm_workspace;
int hm_workspace_new(struct hm_model *model, uint32_t rows, uint32_t seq_len, bool backward,
                     bool recompute, struct hm_workspace **ret, struct hm_error *err);
void hm_workspace_free(struct hm_workspace *workspace);

/* One micro-batch. A non-finite loss is HM_ERR_NUMERIC (the caller names step and batch). */
int hm_model_step(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step_result *ret_result, struct hm_error *err);
/* Tokens per (layer, expert) since the last call with reset; [L*E]. */
void hm_model_expert_counts(struct hm_model *model, uint64_t *counts, bool reset);
/* Floating-point operations of one step by the stated formula: 2 * active linear weights * tokens *
 * passes. */
double hm_model_step_flops(const struct hm_arch *arch, uint64_t tokens, bool backward,
                           bool recompute);

/* Whether steps pack activations in bf16 for the products of these kernels: it decides sizes. */
bool hm_model_packs(const struct hm_kernels *kernels, enum hm_round round);

struct hm_memory_plan {      /* bytes by purpose; computed with the code that later allocates */
    uint64_t weights_mapped; /* file pages resident at once */
    uint64_t weights_budget; /* for hm_model_stream; 0: all weights stay */
    uint64_t weights_read;   /* bytes that a micro-batch reads again under the budget */
    uint64_t adapter, gradients, optimizer, activations, scratch, other;
};
uint64_t hm_memory_plan_total(const struct hm_memory_plan *plan);
/* Bytes of all weights as a folder of this architecture holds them: NF4 with its scales where
 * arch.quant says so. */
uint64_t hm_memory_plan_weights(const struct hm_arch *arch);
/* From the architecture alone (weights need not exist): `weights_mapped` estimated from arch.quant.
   Evaluation has room for the low-rank products of an adapter up to rank 64, not for the adapter
   itself. */
int hm_memory_plan_train(const struct hm_arch *arch, const struct hm_adapter_config *config,
                         uint64_t old_vocab, uint32_t rows, uint32_t seq_len, bool recompute,
                         bool packed, int threads, struct hm_memory_plan *ret_plan,
                         struct hm_error *err);
int hm_memory_plan_eval(const struct hm_arch *arch, uint32_t rows, uint32_t seq_len, bool packed,
                        int threads, struct hm_memory_plan *ret_plan, struct hm_error *err);

/* hm_generate: prompt and max_tokens with their cache; room for an adapter as in evaluation. */
int hm_memory_plan_generate(const struct hm_arch *arch, size_t n_prompt, uint32_t max_tokens,
                            bool packed, int threads, struct hm_memory_plan *ret_plan,
                            struct hm_error *err);
/*
 * Fit the plan into a process of ram_bytes by streaming the weights: the budget is what all else
 * leaves (`beside_bytes`: memory that the plan does not know). Returns the least ram_bytes that
 * would do; when it is more than ram_bytes the plan is unchanged.
 */
uint64_t hm_memory_plan_limit(struct hm_memory_plan *plan, const struct hm_arch *arch,
                              uint64_t tokens, bool backward, uint64_t beside_bytes,
                              uint64_t ram_bytes);

#endif
