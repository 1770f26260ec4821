/* SPDX-License-Identifier: MIT */
/*
 * What a training stage writes while it runs: metrics.jsonl, TensorBoard events, a line of
 * progress. After a resume everything beyond the resumed step is cut off, so that the logs are
 * those of an uninterrupted run.
 */
#ifndef HANMIX_RECIPES_TRAIN_LOG_H
#define HANMIX_RECIPES_TRAIN_LOG_H

#include "hanmix/qlora/trainer.h"
#include "hanmix/recipes/report.h"

#include "expert_load.h"

struct train_log {
    char *metrics_path, *board_dir; /* owned */
    struct hm_tb_writer *board;     /* owned */
    uint64_t steps;                 /* in all, for the progress line */
    const struct hm_ctl *ctl;
    struct expert_load *load; /* borrowed */
};

int hm_train_log_open(const char *out_dir, uint64_t steps, struct expert_load *load,
                      const struct hm_ctl *ctl, struct train_log *ret_log, struct hm_error *err);
/* Names of phase_seconds: enum hm_phase, then the optimizer. */
const char *hm_train_phase_name(size_t phase);
void hm_train_log_close(struct train_log *log);
struct hm_train_callbacks hm_train_log_callbacks(struct train_log *log);

#endif
