/* SPDX-License-Identifier: MIT */
/*
 * Small random model folders; see random_model.h.
 */
#include "support/random_model.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"

struct hm_arch random_arch(uint32_t layers, uint32_t experts, uint32_t top_k)
{
    return (struct hm_arch){ .family = experts > 1 ? HM_FAMILY_MIXTRAL : HM_FAMILY_LLAMA,
                             .hidden = 24,
                             .ffn = 20,
                             .layers = layers,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 6,
                             .experts = experts,
                             .top_k = top_k,
                             .vocab_size = 37,
                             .max_positions = 512,
                             .norm_eps = 1e-5,
                             .rope_theta = 1e4,
                             .aux_coef = 0.02,
                             .bos_id = 1,
                             .eos_id = 2,
                             .dtype = HM_DTYPE_F32 };
}

/* In the dtype of the model: F32 or BF16. */
static void *values_new(const struct hm_arch *arch, const struct hm_weight_slot *slot,
                        uint64_t seed, size_t index, double deviation)
{
    size_t count = (size_t)slot->rows * slot->cols;
    struct hm_rng_key key = { seed, index };
    float *values = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));

    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        double draw = hm_rng_normal(key, i);
        values[i] = (float)(slot->cols == 1 ? 1.0 + 0.2 * draw
                                            : deviation * draw / sqrt((double)slot->cols));
    }
    struct hm_error err = { 0 };
    void *stored = hm_alloc(HM_MEM_OTHER, count * hm_dtype_bytes(arch->dtype));
    assert_non_null(stored);
    assert_ok(hm_dtype_from_f32(arch->dtype, values, count, stored, &err), err);
    hm_free(values);
    return stored;
}

void random_model_write(const char *dir, const struct hm_arch *arch, uint64_t seed,
                        double deviation)
{
    struct hm_error err = { 0 };
    size_t slots = hm_arch_slot_count(arch);
    struct hm_tensor *tensor = hm_calloc(HM_MEM_OTHER, slots, sizeof *tensor);
    char(*name)[168] = hm_calloc(HM_MEM_OTHER, slots, sizeof *name);
    json_t *config = NULL;

    assert_non_null(tensor);
    assert_non_null(name);
    for (size_t i = 0; i < slots; i++) {
        struct hm_weight_slot slot;
        hm_arch_slot(arch, i, &slot, name[i]);
        strcat(name[i], ".weight");
        tensor[i] = (struct hm_tensor){ .name = name[i],
                                        .dtype = arch->dtype,
                                        .n_dims = slot.cols == 1 ? 1 : 2,
                                        .shape = { slot.rows, slot.cols },
                                        .count = (uint64_t)slot.rows * slot.cols };
        tensor[i].size_bytes = tensor[i].count * hm_dtype_bytes(arch->dtype);
        tensor[i].data = values_new(arch, &slot, seed, i, deviation);
    }
    assert_ok(hm_safetensors_write(tmp_path(dir, "model.safetensors"), tensor, slots, NULL, &err),
              err);
    assert_ok(hm_arch_config_new(arch, &config, &err), err);
    assert_ok(hm_json_save(tmp_path(dir, "config.json"), config, &err), err);
    json_decref(config);
    for (size_t i = 0; i < slots; i++)
        hm_free((void *)(uintptr_t)tensor[i].data);
    hm_free(tensor);
    hm_free(name);
}
