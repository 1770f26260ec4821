/* SPDX-License-Identifier: MIT */
/*
 * A training job over the recorded model, adapter and batches, with its log kept in memory.
 */
#ifndef HANMIX_TESTS_TRAIN_FIXTURE_H
#define HANMIX_TESTS_TRAIN_FIXTURE_H

#include "hanmix/qlora/trainer.h"
#include "support/support.h"

#define TRAIN_STEPS 24

struct train_run {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_sample_source *data;
    struct hm_train_job job;
    struct hm_train_report report;
    struct hm_train_metrics log[TRAIN_STEPS + 1]; /* by step */
    volatile sig_atomic_t stop;
    struct hm_ctl ctl;
    uint64_t stop_after, fail_after; /* steps; 0 never */
};

/* The recorded recipe in f32; callers change job.config and adapter before train_run. */
void train_open(struct train_run *run, const char *model_dir, enum hm_round round,
                const struct hm_kernels *kernels, const char *state_dir);
/* With an adapter of the caller's making instead of the recorded initial one, unless config is
   NULL; this may live in a store. */
void train_open_with(struct train_run *run, const char *model_dir, enum hm_round round,
                     const struct hm_kernels *kernels, const char *state_dir,
                     const struct hm_adapter_config *config, struct hm_scratch *store);
void train_close(struct train_run *run);
int train_go(struct train_run *run, struct hm_error *err);

/* SHA-256 of the adapter as it would be saved. */
void train_digest(const struct train_run *run, const char *dir, char hex[HM_SHA256_HEX_BYTES]);

#endif
