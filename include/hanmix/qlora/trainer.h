/* SPDX-License-Identifier: MIT */
/*
 * The training loop: data position, accumulation, schedule, clipping, AdamW, evaluation,
 * checkpoints, exact resume. It writes only its state folders and gradients file; what users see
 * goes through the callbacks to the stage.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_QLORA_TRAINER_H
#define HANMIX_QLORA_TRAINER_H

#include "hanmix/model/model.h"

enum hm_lr_schedule { HM_LR_CONSTANT, HM_LR_LINEAR, HM_LR_COSINE };
enum hm_loss_norm { HM_LOSS_TOKENS, HM_LOSS_MICRO };

/*
 * lr_schedule.c: rate of update `step` (0-based) of `steps`, by transformers' formulas: linear
 * warm-up from 0, then constant, or from lr down to min_lr along a line (its polynomial schedule of
 * power 1) or a half cosine (its cosine with min_lr).
 */
double hm_lr_at(enum hm_lr_schedule schedule, double lr, double min_lr, uint64_t warmup_steps,
                uint64_t steps, uint64_t step);

struct hm_eval_set {
    char *name;
    struct hm_sample_source *source;
};

/* Where samples come from: packed windows, or rows of a safetensors ids file. Implementations in
 * qlora/samples.c. */
struct hm_sample {
    const int32_t *ids, *labels;
    const uint8_t *mask, *doc_start;
    uint64_t utf8_bytes, chars;
};
struct hm_sample_source;
int hm_samples_open_packed(const char *path, bool shuffle, uint64_t seed, bool document_attention,
                           struct hm_sample_source **ret, struct hm_error *err);
int hm_samples_open_ids(
    const char *path, struct hm_sample_source **ret,
    struct hm_error *err); /* file order; dims [rows,T] or [micro-batches,rows,T] */
/* No id beyond the vocabulary of the model: else HM_ERR_FORMAT. */
int hm_samples_check(const struct hm_sample_source *source, const struct hm_arch *arch,
                     struct hm_error *err);
void hm_samples_close(struct hm_sample_source *source);
uint32_t hm_samples_seq_len(const struct hm_sample_source *source);
uint64_t hm_samples_count(const struct hm_sample_source *source);
/* SHA-256 of the tokenizer that made a packed file; "" of ids */
const char *hm_samples_tokenizer(const struct hm_sample_source *source);
/* rows of a [micro-batches,rows,T] file, else 0 */
uint32_t hm_samples_micro_rows(const struct hm_sample_source *source);
/* Sample at absolute position (epochs counted through: position / count). Views valid until the
 * next call with the same slot (0..). */
int hm_samples_get(struct hm_sample_source *source, uint64_t position, uint32_t slot,
                   struct hm_sample *ret, struct hm_error *err);

struct hm_train_config {
    double lr, min_lr, beta1, beta2, eps, weight_decay, clip; /* clip 0: none */
    bool decay_all;
    bool coded_moments; /* AdamW's moments in 8 bits */
    enum hm_lr_schedule lr_schedule;
    double warmup; /* < 1: share of steps, else steps */
    uint32_t micro_batch, accumulate;
    enum hm_loss_norm loss_norm;
    double aux_coef;
    uint64_t steps; /* resolved by the stage from steps/epochs/tokens */
    /* steps; 0: evaluate before and after only, save at the end only */
    uint64_t eval_every, save_every;
    uint64_t keep; /* newest states kept; 0 all */
    bool recompute;
    uint64_t seed;
    uint64_t dump_gradients; /* step, 0 none */
    double time_limit_seconds;
    bool allow_kernel_change;
};

struct hm_train_metrics {           /* one optimiser step */
    uint64_t step, tokens, targets; /* tokens seen so far */
    double loss, aux, grad_norm, lr, tokens_per_s, step_seconds;
    double phase_seconds[HM_PHASE_COUNT + 1]; /* + optimizer */
    uint64_t rss_bytes;
};
struct hm_eval_metrics {
    const char *set;
    uint64_t tokens, bytes;
    double nats_per_token, bits_per_byte; /* NaN when the data do not know their bytes */
};

struct hm_train_callbacks {
    void *context;
    int (*on_step)(void *context, const struct hm_train_metrics *metrics, struct hm_error *err);
    int (*on_eval)(void *context, uint64_t step, const struct hm_eval_metrics *sets, size_t n,
                   struct hm_error *err);
    /* Once before the first step: lines logged beyond `step` must be cut off; step 0 is a fresh
       start, all lines go. */
    int (*on_resume)(void *context, uint64_t step, struct hm_error *err);
};

struct hm_train_job {
    struct hm_model *model;           /* adapter attached, with gradients */
    const struct hm_kernels *kernels; /* the model's; its name goes into the states */
    struct hm_adapter *adapter;
    struct hm_sample_source *data;
    struct hm_eval_set *eval; /* may be NULL */
    size_t n_eval;
    struct hm_train_config config;
    const char *state_dir; /* state-<step>/ folders live here */
    /* gradients-<step>.safetensors goes here; NULL: the parent of state_dir */
    const char *gradients_dir;
    /* identity of settings and inputs; a state with another digest is refused */
    const char *config_digest;
    struct hm_train_callbacks callbacks;
};
struct hm_train_report {
    uint64_t steps, tokens, resumed_from;
    double final_loss, seconds, tokens_per_s, flops;
    double phase_seconds[HM_PHASE_COUNT + 1];
};
/*
 * Resumes from the newest complete state in state_dir. Stop request or time limit: the step under
 * way is given up, the state of the last complete one saved, HM_ERR_STOPPED. Non-finite loss or
 * gradient: HM_ERR_NUMERIC naming step and micro-batch; the last good state is saved.
 */
int hm_train(const struct hm_train_job *job, const struct hm_ctl *ctl,
             struct hm_train_report *ret_report, struct hm_error *err);
/* What the moments of a run over such parameters take. */
uint64_t hm_train_moments_bytes(const struct hm_adapter *adapter, bool coded);
/* What values, gradients and moments take of a scratch file. */
uint64_t hm_train_store_bytes(const struct hm_adapter *adapter, bool coded);
/* Of these in memory at once while the optimizer passes over them; threads 0: as many as there are.
 */
uint64_t hm_train_store_window_bytes(int threads);
/* Kernel path that the newest complete state was made with ("" when there is none): what a resumed
 * run must use. */
#define HM_KERNELS_NAME_BYTES 32
int hm_train_state_kernels(const char *state_dir, char ret_name[HM_KERNELS_NAME_BYTES],
                           struct hm_error *err);

#endif
