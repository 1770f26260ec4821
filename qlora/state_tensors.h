/* SPDX-License-Identifier: MIT */
/*
 * The tensors of a training state. Private to qlora/. Thread class: owner thread.
 */
#ifndef HANMIX_QLORA_STATE_TENSORS_H
#define HANMIX_QLORA_STATE_TENSORS_H

#include "hanmix/checkpoint/safetensors.h"
#include "optimizer.h"

/* What lies in the adapter's store gives its memory back once it is written. */
struct hm_tensor_written hm_state_then_drop(const struct hm_adapter *adapter);
/* last: nothing but the values is read afterwards; gradients, and moments that are written, give
 * back their place in a store, so that file and store need not be whole at once. */
int hm_state_tensors_save(const struct hm_optimizer *optimizer, const char *path, bool last,
                          struct hm_error *err);
/* Into parameters and moments; nothing is taken over unless all names and shapes are as expected,
 * else HM_ERR_FORMAT. */
int hm_state_tensors_load(struct hm_optimizer *optimizer, const char *path, struct hm_error *err);

#endif
