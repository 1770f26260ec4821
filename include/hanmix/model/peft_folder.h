/* SPDX-License-Identifier: MIT */
/*
 * A PEFT LoRA folder, mapped and checked against a base, its values not yet read: what
 * hm_adapter_load and a merge that must not hold the whole adapter share. Thread class: immutable
 * after open.
 */
#ifndef HANMIX_MODEL_PEFT_FOLDER_H
#define HANMIX_MODEL_PEFT_FOLDER_H

#include "hanmix/model/adapter.h"

struct hm_peft_folder {
    char *dir;
    struct hm_safetensors file;
    struct hm_adapter *layout;       /* parameters without values */
    const struct hm_tensor **tensor; /* [layout->n_params] F32, BF16 or F16; full matrices whole, of
                                        the weight's own shape */
};

/*
 * Every tensor of the file belongs to a parameter and every parameter has its tensor, of the base's
 * shape; else HM_ERR_FORMAT naming it with both numbers. Values may still be NaN: readers look.
 */
int hm_peft_open(const char *dir, const struct hm_checkpoint *ckpt,
                 struct hm_peft_folder *ret_folder, struct hm_error *err);
void hm_peft_close(struct hm_peft_folder *folder);

#endif
