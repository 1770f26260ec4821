/* SPDX-License-Identifier: MIT */
/*
 * hanmix.json of an adapter folder: what PEFT's configuration cannot say. Private to model/.
 * Thread class: pure.
 */
#ifndef HANMIX_MODEL_PEFT_RECORD_H
#define HANMIX_MODEL_PEFT_RECORD_H

#include "hanmix/model/adapter.h"

/*
 * Refines config (rows trained, dropout) and tells where new rows begin. No file: nothing
 * changes. Another vocabulary than the base's: HM_ERR_FORMAT with both.
 */
int hm_peft_record_read(const char *dir, const struct hm_checkpoint *ckpt,
                        struct hm_adapter_config *config, uint64_t *ret_old_vocab,
                        struct hm_error *err);
int hm_peft_record_write(const char *dir, const struct hm_adapter *adapter,
                         const struct hm_checkpoint *ckpt, struct hm_error *err);

#endif
