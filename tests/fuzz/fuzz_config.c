/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/model_arch.c: a config that is accepted has a table of weights with sound shapes, and
 * is accepted again after it was written.
 */
#include "fuzz/fuzz.h"

#include "hanmix/checkpoint/model_arch.h"

static void check_slots(const struct hm_arch *arch)
{
    size_t count = hm_arch_slot_count(arch);
    struct hm_weight_slot slot;
    char name[HM_SLOT_NAME_BYTES];

    for (size_t i = 0; i < count; i += 1 + count / 1000) {
        hm_arch_slot(arch, i, &slot, name);
        HM_BUG(slot.rows == 0 || slot.cols == 0 || slot.layer >= arch->layers ||
               slot.expert >= arch->experts);
    }
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    json_t *config = NULL, *written = NULL;
    struct hm_arch arch, again;

    if (hm_json_parse((struct hm_str){ (const char *)data, size }, "input", &config, NULL) < 0)
        return 0;
    if (hm_arch_parse(config, "input", &arch, NULL) == HM_OK) {
        check_slots(&arch);
        if (hm_arch_config(config, &arch, &written, NULL) == HM_OK) {
            int status = hm_arch_parse(written, "written", &again, NULL);
            HM_BUG(status == HM_ERR_FORMAT);
            if (status == HM_OK) {
                HM_BUG(again.rope_theta != arch.rope_theta || again.dtype != arch.dtype);
                hm_arch_release(&again);
            }
        }
        hm_arch_release(&arch);
    }
    json_decref(written);
    json_decref(config);
    return 0;
}
