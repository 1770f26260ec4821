/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/llama2c.c: what is imported opens as a model folder with a weight for every slot.
 */
#include "fuzz/fuzz.h"

#include <stdio.h>

#include "hanmix/checkpoint/llama2c.h"
#include "hanmix/checkpoint/weight.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_checkpoint ckpt = { 0 };
    char path[256], out[256];
    const char *dir = fuzz_folder_file(data, size, "input.bin");

    snprintf(path, sizeof path, "%s/input.bin", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    if (hm_llama2c_import(path, NULL, out, NULL, NULL) < 0 ||
        hm_checkpoint_open(out, &ckpt, NULL) < 0)
        return 0;
    HM_BUG(ckpt.count != hm_arch_slot_count(&ckpt.arch));
    for (size_t i = 0; i < ckpt.count; i++) {
        struct hm_weight_slot slot;
        struct hm_weight *weight = NULL;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt.arch, i, &slot, name);
        int status = hm_weight_open(&ckpt, &slot, &weight, NULL);
        HM_BUG(status == HM_ERR_FORMAT || (weight && !hm_weight_is_finite(weight)));
        hm_weight_free(weight);
    }
    hm_checkpoint_close(&ckpt);
    return 0;
}
