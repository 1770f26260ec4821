/* SPDX-License-Identifier: MIT */
/*
 * The adapter of a training run, opened and planned. Thread class: owner thread.
 */
#ifndef HANMIX_RECIPES_TRAIN_ADAPTER_H
#define HANMIX_RECIPES_TRAIN_ADAPTER_H

#include "train_config.h"

/* The file that set.state asks for, of the size that the run needs; NULL for memory. */
int hm_train_store_open(const struct hm_stage_run *run, const struct hm_checkpoint *ckpt,
                        struct hm_scratch **ret_store, struct hm_error *err);
/* A new one, or that of in.adapter with the settings that were written beside it. */
int hm_train_adapter_open(const struct hm_stage_run *run, const struct hm_checkpoint *ckpt,
                          struct hm_scratch *store, struct hm_adapter **ret_adapter,
                          struct hm_error *err);
/* What it will be like. Free with hm_adapter_config_release. */
int hm_train_adapter_plan(const struct hm_stage_run *run, const struct hm_arch *arch,
                          uint64_t old_vocab, struct hm_adapter_config *ret_config,
                          struct hm_error *err);
/* The same for plans of stages that read the adapter. */
int hm_train_adapter_foretell(struct hm_stage_plan *plan, const struct hm_adapter_config *config,
                              struct hm_error *err);

#endif
