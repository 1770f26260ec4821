/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/weight_bind.c: a whole model.safetensors of a one-layer model; every weight that binds
 * is decoded to its last element.
 */
#include "fuzz/fuzz.h"

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/weight.h"

static const char config[] =
    "{\"model_type\": \"mixtral\", \"hidden_size\": 16, \"intermediate_size\": 8,"
    " \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"num_key_value_heads\": 1,"
    " \"num_local_experts\": 2, \"num_experts_per_tok\": 1, \"router_aux_loss_coef\": 0,"
    " \"vocab_size\": 4, \"max_position_embeddings\": 8, \"rms_norm_eps\": 1e-5}";

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_kernels kernels;
    float out[256]; /* the largest weight is 16 x 16 */

    (void)fuzz_folder_file((const uint8_t *)config, sizeof config - 1, "config.json");
    if (hm_checkpoint_open(fuzz_folder_file(data, size, "model.safetensors"), &ckpt, NULL) < 0)
        return 0;
    hm_kernels_reference(&kernels);
    for (size_t i = 0; i < hm_arch_slot_count(&ckpt.arch); i++) {
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt.arch, i, &slot, name);
        if (hm_weight_open(&ckpt, &slot, &weight, NULL) < 0)
            continue;
        hm_weight_decode(weight, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_BF16, out,
                         slot.cols);
        (void)hm_weight_is_finite(weight);
        hm_weight_drop_pages(weight);
        hm_weight_free(weight);
    }
    hm_checkpoint_close(&ckpt);
    return 0;
}
