/* SPDX-License-Identifier: MIT */
/*
 * The list of parameters of an adapter before it has values: what new, load and plan share. Private
 * to model/. Thread class: owner thread.
 */
#ifndef HANMIX_MODEL_ADAPTER_LAYOUT_H
#define HANMIX_MODEL_ADAPTER_LAYOUT_H

#include "hanmix/model/adapter.h"

/*
 * Names, shapes, ranks and scales of all parameters in canonical order; value and grad are NULL.
 * config is copied. old_vocab: rows from here on are "new". With every_target, a target or a key of
 * a pattern that matches nothing is HM_ERR_USAGE.
 */
int hm_adapter_lay_out(const struct hm_arch *arch, const struct hm_adapter_config *config,
                       uint64_t old_vocab, bool every_target, struct hm_adapter **ret_adapter,
                       struct hm_error *err);

/* Where new rows begin: at the base's record; without one there are none. */
int hm_adapter_old_vocabulary(const struct hm_checkpoint *ckpt,
                              const struct hm_adapter_config *config, uint64_t *ret_old,
                              struct hm_error *err);

/* hm_adapter_new, which demands every_target. */
int hm_adapter_make(const struct hm_checkpoint *ckpt, const struct hm_adapter_config *config,
                    bool every_target, bool with_gradients, struct hm_adapter **ret_adapter,
                    struct hm_error *err);

/* adapter_values.c: value (zeroed) and, with gradients, grad of every parameter. */
int hm_adapter_allocate(struct hm_adapter *adapter, bool with_gradients, struct hm_error *err);
void hm_adapter_values_free(const struct hm_adapter *adapter, struct hm_param *param);

#endif
