/* SPDX-License-Identifier: MIT */
/*
 * The settings of qlora.train and what follows from them: the adapter's configuration, the
 * trainer's, the number of steps, the plan.
 */
#ifndef HANMIX_RECIPES_TRAIN_CONFIG_H
#define HANMIX_RECIPES_TRAIN_CONFIG_H

#include "hanmix/qlora/trainer.h"
#include "stage_model.h"

struct train_settings {
    uint64_t rank, micro_batch, accumulate, steps, tokens, eval_every, save_every, keep, ram,
        dump_gradients;
    double alpha, dropout, epochs, lr, warmup, min_lr, eps, weight_decay, clip, aux_coef,
        time_limit;
    bool rslora, train_gate, train_all, recompute, shuffle, allow_kernel_change;
    int train_embeddings, train_head, compute, optimizer, state, lr_schedule, decay, loss_norm,
        attention;
    struct hm_text_list targets, betas;
    struct hm_text_map rank_pattern, alpha_pattern;
};

#define HM_TRAIN_N_FIELDS 40
extern const struct hm_field hm_train_fields[HM_TRAIN_N_FIELDS];

/* n of the n x n products that measure the peak for gemm_peak_fraction, and their memory. */
#define STAGE_PEAK_SIZE    1024u
#define STAGE_PEAK_SECONDS 0.3
#define STAGE_PEAK_BYTES   (3ull * STAGE_PEAK_SIZE * STAGE_PEAK_SIZE * 4)

int hm_train_settings_check(const struct hm_stage_run *run, struct hm_error *err);
/* samples, seq_len: of the data; micro_rows: rows of one micro-batch that the data fixes, or 0. */
int hm_train_job_config(const struct hm_stage_run *run, uint64_t samples, uint32_t seq_len,
                        uint32_t micro_rows, struct hm_train_config *ret_config,
                        struct hm_error *err);
/* in.data or in.ids, packed or ids. */
int hm_train_data_open(const struct hm_stage_run *run, struct hm_sample_source **ret_source,
                       struct hm_error *err);
int hm_train_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                  struct hm_error *err);
/* smaller() of the stage. */
bool hm_train_smaller(const struct hm_stage_run *run, size_t index, uint64_t limit_bytes,
                      char text[HM_SMALLER_BYTES]);

/* What a run will be like, from what exists and what earlier plans foretold. */
struct train_forecast {
    struct stage_model model;         /* model.known false: everything below is zero */
    struct hm_adapter_config adapter; /* owned */
    struct hm_train_config config;
    struct hm_memory_plan memory;
    uint64_t parameters, saved_bytes; /* trained values; one state as it is saved */
    uint64_t store_bytes;             /* of the scratch file; 0: memory */
    uint64_t store_read, store_write; /* of it in a step, where the page cache keeps nothing */
    uint64_t side_bytes;              /* digests of a state, later the peak measurement */
    uint64_t data_bytes;              /* of training and evaluation sets */
    uint32_t seq_len, longest;        /* of a training sample; of the longest evaluated, too */
    uint32_t eval_seq_len;            /* longest window of the evaluation sets; 0 without */
    uint64_t eval_windows, n_eval;    /* in all evaluation sets together; number of sets */
};
int hm_train_forecast(const struct hm_stage_run *run, struct train_forecast *ret_forecast,
                      struct hm_error *err);
void hm_train_forecast_release(struct train_forecast *forecast);

#endif
