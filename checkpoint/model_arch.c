/* SPDX-License-Identifier: MIT */
/*
 * config.json -> struct hm_arch. A field that changes the arithmetic is either understood or
 * refused by name; nothing is guessed where the class defaults of transformers differ from
 * published files. Fields that change nothing (initializer_range, use_cache, pretraining_tp, ...)
 * are ignored. Writing lies in arch_config.c, the table of weights in arch_slots.c.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/model_arch.h"

#define DIM_MAX \
    (1u << 28) /* keeps every product of two dimensions within 64 bits, rows within 32 */

static int get_u32(const json_t *config, const char *key, const char *what, uint32_t min,
                   uint32_t max, uint32_t *ret, struct hm_error *err)
{
    uint64_t value = 0;

    HM_TRY(hm_json_u64(config, key, what, &value, err));
    if (value < min || value > max)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': '%s' is %" PRIu64 ", expected %" PRIu32 " to %" PRIu32, what, key,
                       value, min, max);
    *ret = (uint32_t)value;
    return HM_OK;
}

static int parse_family(const json_t *config, const char *what, enum hm_family *ret_family,
                        struct hm_error *err)
{
    static const struct {
        const char *class, *type;
        enum hm_family family;
    } families[] = {
        { "LlamaForCausalLM", "llama", HM_FAMILY_LLAMA },
        { "MixtralForCausalLM", "mixtral", HM_FAMILY_MIXTRAL },
    };
    const json_t *list = json_object_get(config, "architectures");
    const char *class = json_string_value(json_array_get(list, 0));
    const char *type = NULL;

    HM_TRY(hm_json_text_opt(config, "model_type", what, &type, err));
    if (!class && !type)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': neither 'architectures' nor 'model_type' names the model's family",
                       what);
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if ((!class || strcmp(class, families[i].class) == 0) &&
            (!type || strcmp(type, families[i].type) == 0)) {
            *ret_family = families[i].family;
            return HM_OK;
        }
    }
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s': the family '%s' (model_type '%s') is not supported; LlamaForCausalLM and "
                   "MixtralForCausalLM are",
                   what, class ? class : "?", type ? type : "?");
}

static int parse_sizes(const json_t *config, const char *what, struct hm_arch *arch,
                       struct hm_error *err)
{
    bool has_kv = !json_is_null(json_object_get(config, "num_key_value_heads")) &&
                  json_object_get(config, "num_key_value_heads");
    uint64_t head_dim = 0;

    HM_TRY(get_u32(config, "hidden_size", what, 1, DIM_MAX, &arch->hidden, err));
    HM_TRY(get_u32(config, "intermediate_size", what, 1, DIM_MAX, &arch->ffn, err));
    HM_TRY(get_u32(config, "num_hidden_layers", what, 1, 4096, &arch->layers, err));
    HM_TRY(get_u32(config, "num_attention_heads", what, 1, 65536, &arch->heads, err));
    HM_TRY(get_u32(config, "vocab_size", what, 1, DIM_MAX, &arch->vocab_size, err));
    HM_TRY(
        get_u32(config, "max_position_embeddings", what, 1, 1u << 30, &arch->max_positions, err));
    arch->kv_heads = arch->heads;
    if (has_kv || arch->family == HM_FAMILY_MIXTRAL)
        HM_TRY(get_u32(config, "num_key_value_heads", what, 1, 65536, &arch->kv_heads, err));
    if (arch->heads % arch->kv_heads != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': num_attention_heads %" PRIu32
                       " is no multiple of num_key_value_heads %" PRIu32,
                       what, arch->heads, arch->kv_heads);
    HM_TRY(hm_json_u64_opt(config, "head_dim", what, &head_dim, err));
    if (head_dim == 0 && arch->hidden % arch->heads != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': hidden_size %" PRIu32
                       " is no multiple of num_attention_heads %" PRIu32
                       " and 'head_dim' is absent",
                       what, arch->hidden, arch->heads);
    if (head_dim == 0)
        head_dim = arch->hidden / arch->heads;
    if (head_dim % 2 != 0 || head_dim > DIM_MAX / arch->heads)
        return hm_fail(
            err, HM_ERR_FORMAT,
            "'%s': the head dimension is %" PRIu64
            ", expected an even number (rotary embedding turns pairs) of at most %" PRIu32,
            what, head_dim, DIM_MAX / arch->heads);
    arch->head_dim = (uint32_t)head_dim;
    return HM_OK;
}

static int parse_experts(const json_t *config, const char *what, struct hm_arch *arch,
                         struct hm_error *err)
{
    uint64_t window = 0;
    const json_t *given = json_object_get(config, "sliding_window");

    arch->experts = 1;
    arch->top_k = 1;
    if (arch->family != HM_FAMILY_MIXTRAL)
        return HM_OK;
    HM_TRY(get_u32(config, "num_local_experts", what, 1, 4096, &arch->experts, err));
    HM_TRY(get_u32(config, "num_experts_per_tok", what, 1, arch->experts, &arch->top_k, err));
    HM_TRY(hm_json_f64(config, "router_aux_loss_coef", what, &arch->aux_coef, err));
    if (!(arch->aux_coef >= 0) || isinf(arch->aux_coef))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'router_aux_loss_coef' is %g, expected 0 or more",
                       what, arch->aux_coef);
    HM_TRY(hm_json_u64_opt(config, "sliding_window", what, &window, err));
    if (json_is_integer(given) && (window == 0 || window > UINT32_MAX))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': 'sliding_window' is %" PRIu64 ", expected null or a 32-bit number "
                       "of at least 1",
                       what, window);
    arch->sliding_window = (uint32_t)window;
    return HM_OK;
}

/* Rotary base: flat rope_theta, or v5's rope_parameters; any scaling is refused. */
static int parse_rope(const json_t *config, const char *what, struct hm_arch *arch,
                      struct hm_error *err)
{
    static const char *const keys[] = { "rope_scaling", "rope_parameters" };
    double rotated = 1;

    arch->rope_theta = arch->family == HM_FAMILY_MIXTRAL ? 1e6 : 1e4;
    HM_TRY(hm_json_f64_opt(config, "rope_theta", what, &arch->rope_theta, err));
    HM_TRY(hm_json_f64_opt(config, "partial_rotary_factor", what, &rotated, err));
    for (size_t i = 0; i < 2; i++) {
        const json_t *rope = json_object_get(config, keys[i]);
        const char *type = NULL;

        if (!rope || json_is_null(rope))
            continue;
        HM_TRY(hm_json_text_opt(rope, "type", what, &type, err));
        HM_TRY(hm_json_text_opt(rope, "rope_type", what, &type, err));
        if (i == 0 ? !type || strcmp(type, "default") != 0 : type && strcmp(type, "default") != 0)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': rope scaling ('%s' of type '%s') is not supported", what, keys[i],
                           type ? type : "?");
        HM_TRY(hm_json_f64_opt(rope, "rope_theta", what, &arch->rope_theta, err));
        HM_TRY(hm_json_f64_opt(rope, "partial_rotary_factor", what, &rotated, err));
    }
    if (rotated != 1)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'partial_rotary_factor' %g is not supported",
                       what, rotated);
    if (!(arch->rope_theta > 0) || isinf(arch->rope_theta))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'rope_theta' is %g, expected more than 0", what,
                       arch->rope_theta);
    return HM_OK;
}

/* Switches whose other setting would change what is computed. */
static int refuse_variants(const json_t *config, const char *what, struct hm_error *err)
{
    static const char *const false_only[] = { "attention_bias", "mlp_bias" };
    static const char *const zero_only[] = { "attention_dropout", "router_jitter_noise" };
    const char *act = "silu";

    HM_TRY(hm_json_text_opt(config, "hidden_act", what, &act, err));
    if (strcmp(act, "silu") != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': 'hidden_act' \"%s\" is not supported, \"silu\" is", what, act);
    for (size_t i = 0; i < 2; i++) {
        bool on = false;
        double value = 0;
        HM_TRY(hm_json_bool_opt(config, false_only[i], what, &on, err));
        if (on)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' true is not supported", what,
                           false_only[i]);
        HM_TRY(hm_json_f64_opt(config, zero_only[i], what, &value, err));
        if (value != 0)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' %g is not supported, 0 is", what,
                           zero_only[i], value);
    }
    return HM_OK;
}

/* An id, or the first of a list; -1 when absent. */
static int parse_id(const json_t *config, const char *key, const char *what, int32_t *ret_id,
                    struct hm_error *err)
{
    const json_t *value = json_object_get(config, key);

    if (json_is_array(value))
        value = json_array_get(value, 0);
    *ret_id = -1;
    if (!value || json_is_null(value))
        return HM_OK;
    if (!json_is_integer(value) || json_integer_value(value) < -1 ||
        json_integer_value(value) > INT32_MAX)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' must be a token id or a list of them", what,
                       key);
    *ret_id = (int32_t)json_integer_value(value);
    return HM_OK;
}

/* A dtype given by name under key; kept when absent. */
static int parse_dtype(const json_t *object, const char *key, const char *what,
                       enum hm_dtype *ret_dtype, struct hm_error *err)
{
    const char *name = NULL;

    HM_TRY(hm_json_text_opt(object, key, what, &name, err));
    if (!name)
        return HM_OK;
    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    if (hm_dtype_parse(name, ret_dtype, NULL) < 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' is the unknown type '%s'", what, key, name);
    return HM_OK;
}

static int parse_skip(const json_t *block, const char *what, struct hm_quant_config *quant,
                      struct hm_error *err)
{
    const json_t *list = json_object_get(block, "llm_int8_skip_modules");

    if (!list || json_is_null(list))
        return HM_OK;
    if (!json_is_array(list))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'llm_int8_skip_modules' must be a list", what);
    quant->skip = hm_calloc(HM_MEM_OTHER, json_array_size(list), sizeof *quant->skip);
    if (!quant->skip)
        return hm_fail_nomem(err, "reading '%s'", what);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': 'llm_int8_skip_modules' holds no plain names",
                           what);
        quant->skip[i] = hm_strdup(HM_MEM_OTHER, name);
        if (!quant->skip[i])
            return hm_fail_nomem(err, "reading '%s'", what);
        quant->n_skip = i + 1;
    }
    return HM_OK;
}

static int parse_quant(const json_t *config, const char *what, struct hm_quant_config *quant,
                       struct hm_error *err)
{
    const json_t *block = json_object_get(config, "quantization_config");
    const char *method = NULL;
    const char *type = "fp4"; /* transformers' default */
    bool in_4bit = false;

    if (!block || json_is_null(block))
        return HM_OK;
    HM_TRY(hm_json_text(block, "quant_method", what, &method, err));
    HM_TRY(hm_json_bool_opt(block, "_load_in_4bit", what, &in_4bit, err));
    HM_TRY(hm_json_bool_opt(block, "load_in_4bit", what, &in_4bit, err));
    if (strcmp(method, "bitsandbytes") != 0 || !in_4bit)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': quantised by '%s'%s; only bitsandbytes 4-bit is supported", what,
                       method, in_4bit ? "" : " without load_in_4bit");
    HM_TRY(hm_json_text_opt(block, "bnb_4bit_quant_type", what, &type, err));
    if (strcmp(type, "nf4") != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': 'bnb_4bit_quant_type' \"%s\" is not supported, \"nf4\" is", what,
                       type);
    quant->present = true;
    quant->compute_dtype = HM_DTYPE_F32;
    quant->storage_dtype = HM_DTYPE_U8;
    HM_TRY(hm_json_bool_opt(block, "bnb_4bit_use_double_quant", what, &quant->double_quant, err));
    HM_TRY(parse_dtype(block, "bnb_4bit_compute_dtype", what, &quant->compute_dtype, err));
    HM_TRY(parse_dtype(block, "bnb_4bit_quant_storage", what, &quant->storage_dtype, err));
    return parse_skip(block, what, quant, err);
}

static int parse_all(const json_t *config, const char *what, struct hm_arch *arch,
                     struct hm_error *err)
{
    if (!json_is_object(config))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': expected a JSON object", what);
    HM_TRY(parse_family(config, what, &arch->family, err));
    HM_TRY(parse_sizes(config, what, arch, err));
    HM_TRY(parse_experts(config, what, arch, err));
    HM_TRY(parse_rope(config, what, arch, err));
    HM_TRY(refuse_variants(config, what, err));
    HM_TRY(hm_json_f64(config, "rms_norm_eps", what, &arch->norm_eps, err));
    if (!(arch->norm_eps >= 0) || isinf(arch->norm_eps))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': 'rms_norm_eps' is %g, expected 0 or more", what,
                       arch->norm_eps);
    HM_TRY(hm_json_bool_opt(config, "tie_word_embeddings", what, &arch->tied, err));
    HM_TRY(parse_id(config, "bos_token_id", what, &arch->bos_id, err));
    HM_TRY(parse_id(config, "eos_token_id", what, &arch->eos_id, err));
    arch->dtype = HM_DTYPE_F32;
    HM_TRY(parse_dtype(config, "dtype", what, &arch->dtype, err));
    HM_TRY(parse_dtype(config, "torch_dtype", what, &arch->dtype, err));
    return parse_quant(config, what, &arch->quant, err);
}

int hm_arch_parse(const json_t *config, const char *what, struct hm_arch *ret_arch,
                  struct hm_error *err)
{
    struct hm_arch arch = { 0 };

    int status = parse_all(config, what, &arch, err);
    if (status == HM_OK)
        *ret_arch = arch;
    else
        hm_arch_release(&arch);
    return status;
}

void hm_arch_release(struct hm_arch *arch)
{
    if (!arch)
        return;
    for (size_t i = 0; i < arch->quant.n_skip; i++)
        hm_free(arch->quant.skip[i]);
    hm_free(arch->quant.skip);
    *arch = (struct hm_arch){ 0 };
}

int hm_arch_vocab_check(const struct hm_arch *arch, uint64_t pieces, const char *what,
                        struct hm_error *err)
{
    if (pieces <= arch->vocab_size)
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s' has a vocabulary of %" PRIu64 " pieces, the model embeds %u: they do not "
                   "belong together",
                   what, pieces, arch->vocab_size);
}
