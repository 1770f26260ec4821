/* SPDX-License-Identifier: MIT */
/*
 * struct hm_arch -> config.json: the old flat keys that every release of transformers and llama.cpp
 * reads. What hanmix does not own is copied through from the source's config.
 */

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/checkpoint/model_arch.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "building config.json");
}

/* The block bitsandbytes 4-bit folders carry, keys as transformers sorts them. New reference, or
 * NULL. */
static json_t *quant_block(const struct hm_quant_config *quant)
{
    json_t *skip = quant->skip ? json_array() : json_null();

    for (size_t i = 0; skip && i < quant->n_skip; i++) {
        if (json_array_append_new(skip, json_string(quant->skip[i])) < 0) {
            json_decref(skip);
            return NULL;
        }
    }
    if (!skip)
        return NULL;
    return json_pack("{s:b, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:o, s:f, s:b, s:b, s:s}",
                     "_load_in_4bit", 1, "_load_in_8bit", 0, "bnb_4bit_compute_dtype",
                     hm_dtype_hf_name(quant->compute_dtype), "bnb_4bit_quant_storage",
                     hm_dtype_hf_name(quant->storage_dtype), "bnb_4bit_quant_type", "nf4",
                     "bnb_4bit_use_double_quant", quant->double_quant ? 1 : 0,
                     "llm_int8_enable_fp32_cpu_offload", 0, "llm_int8_has_fp16_weight", 0,
                     "llm_int8_skip_modules", skip, "llm_int8_threshold", 6.0, "load_in_4bit", 1,
                     "load_in_8bit", 0, "quant_method", "bitsandbytes");
}

/* The keys that hanmix's stages change, and v5's spellings made flat. */
static int set_keys(json_t *config, const struct hm_arch *arch)
{
    static const char *const dropped[] = { "dtype", "rope_parameters", "quantization_config" };
    int failed = 0;

    for (size_t i = 0; i < sizeof dropped / sizeof dropped[0]; i++)
        json_object_del(config, dropped[i]);
    if (json_is_null(json_object_get(config, "head_dim")))
        json_object_del(config, "head_dim");
    failed |= json_object_set_new(config, "vocab_size", json_integer(arch->vocab_size));
    failed |= json_object_set_new(config, "rope_theta", json_real(arch->rope_theta));
    failed |=
        json_object_set_new(config, "torch_dtype", json_string(hm_dtype_hf_name(arch->dtype)));
    failed |= json_object_set_new(config, "tie_word_embeddings", json_boolean(arch->tied));
    if (arch->quant.present)
        failed |= json_object_set_new(config, "quantization_config", quant_block(&arch->quant));
    return failed;
}

int hm_arch_config(const json_t *config, const struct hm_arch *arch, json_t **ret_config,
                   struct hm_error *err)
{
    json_t *copy = json_deep_copy(config);

    if (!copy || set_keys(copy, arch) != 0) {
        json_decref(copy);
        return fail_nomem(err);
    }
    *ret_config = copy;
    return HM_OK;
}

int hm_arch_config_new(const struct hm_arch *arch, json_t **ret_config, struct hm_error *err)
{
    bool moe = arch->family == HM_FAMILY_MIXTRAL;
    json_t *config = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s}", "architectures",
        moe ? "MixtralForCausalLM" : "LlamaForCausalLM", "model_type", moe ? "mixtral" : "llama",
        "vocab_size", (json_int_t)arch->vocab_size, "hidden_size", (json_int_t)arch->hidden,
        "intermediate_size", (json_int_t)arch->ffn, "num_hidden_layers", (json_int_t)arch->layers,
        "num_attention_heads", (json_int_t)arch->heads, "num_key_value_heads",
        (json_int_t)arch->kv_heads, "max_position_embeddings", (json_int_t)arch->max_positions,
        "rms_norm_eps", arch->norm_eps, "hidden_act", "silu");
    int failed = config ? 0 : -1;

    if (config && arch->head_dim * arch->heads != arch->hidden)
        failed |= json_object_set_new(config, "head_dim", json_integer(arch->head_dim));
    if (config && arch->bos_id >= 0)
        failed |= json_object_set_new(config, "bos_token_id", json_integer(arch->bos_id));
    if (config && arch->eos_id >= 0)
        failed |= json_object_set_new(config, "eos_token_id", json_integer(arch->eos_id));
    if (config && moe) {
        failed |= json_object_set_new(config, "num_local_experts", json_integer(arch->experts));
        failed |= json_object_set_new(config, "num_experts_per_tok", json_integer(arch->top_k));
        failed |= json_object_set_new(config, "router_aux_loss_coef", json_real(arch->aux_coef));
        failed |= json_object_set_new(config, "output_router_logits", json_false());
        failed |= json_object_set_new(config, "sliding_window",
                                      arch->sliding_window ? json_integer(arch->sliding_window)
                                                           : json_null());
    }
    if (failed || set_keys(config, arch) != 0) {
        json_decref(config);
        return fail_nomem(err);
    }
    *ret_config = config;
    return HM_OK;
}

int hm_config_write(const json_t *config, const char *dir, struct hm_error *err)
{
    return hm_json_save_in(dir, "config.json", config, err);
}
