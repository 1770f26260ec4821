/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/model_arch.c and arch_config.c: configs of both families in old and new spelling,
 * every refusal by name, and configs written again.
 */
#include "support/support.h"

#include "hanmix/checkpoint/model_arch.h"

static const char mixtral_text[] =
    "{\"architectures\": [\"MixtralForCausalLM\"], \"model_type\": \"mixtral\", \"vocab_size\": "
    "32000,"
    " \"hidden_size\": 4096, \"intermediate_size\": 14336, \"num_hidden_layers\": 32,"
    " \"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"max_position_embeddings\": 32768,"
    " \"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0, \"hidden_act\": \"silu\","
    " \"bos_token_id\": 1, \"eos_token_id\": 2, \"tie_word_embeddings\": false,"
    " \"torch_dtype\": \"bfloat16\", \"num_local_experts\": 8, \"num_experts_per_tok\": 2,"
    " \"router_aux_loss_coef\": 0.02, \"output_router_logits\": false, \"sliding_window\": null,"
    " \"attention_dropout\": 0.0, \"initializer_range\": 0.02, \"use_cache\": true}";

/* The Mixtral config with members replaced (null value: removed) by those of `change`. */
static json_t *changed(const char *change)
{
    struct hm_error err = { 0 };
    json_t *config = NULL, *with = NULL, *value;
    const char *key;

    assert_ok(hm_json_parse(hm_str_of(mixtral_text), "c", &config, &err), err);
    assert_ok(hm_json_parse(hm_str_of(change), change, &with, &err), err);
    json_object_foreach(with, key, value)
    {
        if (json_is_string(value) && strcmp(json_string_value(value), "-") == 0)
            json_object_del(config, key);
        else
            json_object_set(config, key, value);
    }
    json_decref(with);
    return config;
}

static void parse(const char *change, struct hm_arch *arch)
{
    struct hm_error err = { 0 };
    json_t *config = changed(change);

    assert_ok(hm_arch_parse(config, "config.json", arch, &err), err);
    json_decref(config);
}

static void test_mixtral(void **state)
{
    struct hm_arch arch;

    (void)state;
    parse("{}", &arch);
    assert_int_equal(arch.family, HM_FAMILY_MIXTRAL);
    assert_int_equal(arch.hidden, 4096);
    assert_int_equal(arch.ffn, 14336);
    assert_int_equal(arch.layers, 32);
    assert_int_equal(arch.heads, 32);
    assert_int_equal(arch.kv_heads, 8);
    assert_int_equal(arch.head_dim, 128);
    assert_int_equal(arch.experts, 8);
    assert_int_equal(arch.top_k, 2);
    assert_int_equal(arch.vocab_size, 32000);
    assert_int_equal(arch.max_positions, 32768);
    assert_int_equal(arch.sliding_window, 0);
    assert_true(arch.norm_eps == 1e-5 && arch.rope_theta == 1e6 && arch.aux_coef == 0.02);
    assert_false(arch.tied);
    assert_int_equal(arch.bos_id, 1);
    assert_int_equal(arch.eos_id, 2);
    assert_int_equal(arch.dtype, HM_DTYPE_BF16);
    assert_false(arch.quant.present);
    hm_arch_release(&arch);
}

/* Spellings of transformers 5, nulls, lists, and what may be absent. */
static void test_vocab_check(void **state)
{
    struct hm_error err = { 0 };
    struct hm_arch arch;

    (void)state;
    parse("{}", &arch);
    assert_ok(hm_arch_vocab_check(&arch, 32000, "t.model", &err), err);
    assert_ok(hm_arch_vocab_check(&arch, 1, "t.model", &err), err);
    assert_fails(hm_arch_vocab_check(&arch, 32001, "t.model", &err), HM_ERR_FORMAT,
                 "'t.model' has a vocabulary of 32001 pieces, the model embeds 32000", err);
    hm_arch_release(&arch);
}

static void test_spellings(void **state)
{
    struct hm_arch arch;

    (void)state;
    parse(
        "{\"rope_theta\": \"-\", \"torch_dtype\": \"-\", \"dtype\": \"float16\", \"head_dim\": 64,"
        " \"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"},"
        " \"eos_token_id\": [7, 8], \"bos_token_id\": null, \"sliding_window\": 13}",
        &arch);
    assert_true(arch.rope_theta == 5e5);
    assert_int_equal(arch.dtype, HM_DTYPE_F16);
    assert_int_equal(arch.head_dim, 64);
    assert_int_equal(arch.eos_id, 7);
    assert_int_equal(arch.bos_id, -1);
    assert_int_equal(arch.sliding_window, 13);
    parse("{\"rope_theta\": \"-\", \"torch_dtype\": \"-\", \"head_dim\": null, \"architectures\": "
          "\"-\"}",
          &arch);
    assert_true(arch.rope_theta == 1e6);
    assert_int_equal(arch.dtype, HM_DTYPE_F32);
    assert_int_equal(arch.head_dim, 128);
    parse("{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"rope_theta\": "
          "\"-\","
          " \"num_key_value_heads\": \"-\", \"tie_word_embeddings\": true, \"rope_scaling\": null,"
          " \"attention_bias\": false, \"mlp_bias\": false, \"pretraining_tp\": 1}",
          &arch);
    assert_int_equal(arch.family, HM_FAMILY_LLAMA);
    assert_true(arch.rope_theta == 1e4 && arch.tied);
    assert_int_equal(arch.kv_heads, 32);
    assert_int_equal(arch.experts, 1);
    assert_int_equal(arch.top_k, 1);
}

static void test_refused(void **state)
{
    static const char *const cases[][2] = {
        { "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\"}",
          "the family 'GPT2LMHeadModel' (model_type 'gpt2') is not supported" },
        { "{\"architectures\": [\"LlamaForCausalLM\"]}",
          "'LlamaForCausalLM' (model_type 'mixtral')" },
        { "{\"architectures\": \"-\", \"model_type\": \"-\"}", "names the model's family" },
        { "{\"architectures\": [\"DeepseekForCausalLM\"], \"model_type\": \"deepseek\"}",
          "deepseek" },
        { "{\"hidden_size\": \"-\"}", "'hidden_size' is missing" },
        { "{\"hidden_size\": 0}", "'hidden_size' is 0, expected 1 to" },
        { "{\"hidden_size\": 4096.0}", "'hidden_size' must be a non-negative integer" },
        { "{\"num_hidden_layers\": 4097}", "'num_hidden_layers' is 4097" },
        { "{\"vocab_size\": 4294967297}", "'vocab_size' is 4294967297" },
        { "{\"num_key_value_heads\": 7}", "num_attention_heads 32 is no multiple of" },
        { "{\"num_key_value_heads\": \"-\"}", "'num_key_value_heads' is missing" },
        { "{\"hidden_size\": 4097}", "hidden_size 4097 is no multiple of num_attention_heads 32" },
        { "{\"head_dim\": 7}", "the head dimension is 7, expected an even number" },
        { "{\"num_local_experts\": 1}", "'num_experts_per_tok' is 2, expected 1 to 1" },
        { "{\"num_local_experts\": \"-\"}", "'num_local_experts' is missing" },
        { "{\"router_aux_loss_coef\": -1}", "'router_aux_loss_coef' is -1" },
        { "{\"sliding_window\": 0}", "'sliding_window' is 0" },
        { "{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}}",
          "rope scaling ('rope_scaling' of type 'linear') is not supported" },
        { "{\"rope_scaling\": {\"rope_type\": \"llama3\"}}", "of type 'llama3'" },
        { "{\"rope_scaling\": {\"factor\": 2.0}}", "rope scaling" },
        { "{\"rope_parameters\": {\"rope_type\": \"yarn\"}}", "'rope_parameters' of type 'yarn'" },
        { "{\"partial_rotary_factor\": 0.5}", "'partial_rotary_factor' 0.5 is not supported" },
        { "{\"rope_theta\": 0}", "'rope_theta' is 0" },
        { "{\"attention_bias\": true}", "'attention_bias' true is not supported" },
        { "{\"mlp_bias\": true}", "'mlp_bias' true is not supported" },
        { "{\"attention_dropout\": 0.1}", "'attention_dropout' 0.1 is not supported" },
        { "{\"router_jitter_noise\": 0.01}", "'router_jitter_noise' 0.01 is not supported" },
        { "{\"hidden_act\": \"gelu\"}", "'hidden_act' \"gelu\" is not supported" },
        { "{\"rms_norm_eps\": \"-\"}", "'rms_norm_eps' is missing" },
        { "{\"rms_norm_eps\": -1}", "'rms_norm_eps' is -1" },
        { "{\"torch_dtype\": \"float12\"}", "'torch_dtype' is the unknown type 'float12'" },
        { "{\"eos_token_id\": \"x\"}", "'eos_token_id' must be a token id" },
        { "{\"tie_word_embeddings\": 1}", "'tie_word_embeddings' must be true or false" },
        { "{\"quantization_config\": {\"quant_method\": \"gptq\"}}", "quantised by 'gptq'" },
        { "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true}}",
          "without load_in_4bit" },
        { "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}}",
          "'bnb_4bit_quant_type' \"fp4\" is not supported" },
        { "{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true,"
          " \"bnb_4bit_quant_type\": \"nf4\", \"llm_int8_skip_modules\": [\"a\", 1]}}",
          "'llm_int8_skip_modules' holds no plain names" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hm_arch arch = { .hidden = 77 };
        json_t *config = changed(cases[i][0]);
        assert_fails(hm_arch_parse(config, "config.json", &arch, &err), HM_ERR_FORMAT, cases[i][1],
                     err);
        assert_non_null(strstr(err.text, "'config.json'"));
        assert_int_equal(arch.hidden, 77);
        json_decref(config);
    }
    json_t *list = json_array();
    struct hm_arch arch;
    assert_fails(hm_arch_parse(list, "config.json", &arch, &err), HM_ERR_FORMAT, "JSON object",
                 err);
    json_decref(list);
}

static const char quant_text[] =
    "{\"_load_in_4bit\": true, \"_load_in_8bit\": false, \"bnb_4bit_compute_dtype\": \"bfloat16\","
    " \"bnb_4bit_quant_storage\": \"uint8\", \"bnb_4bit_quant_type\": \"nf4\","
    " \"bnb_4bit_use_double_quant\": true, \"llm_int8_enable_fp32_cpu_offload\": false,"
    " \"llm_int8_has_fp16_weight\": false, \"llm_int8_skip_modules\": [\"lm_head\", \"gate\"],"
    " \"llm_int8_threshold\": 6.0, \"load_in_4bit\": true, \"load_in_8bit\": false,"
    " \"quant_method\": \"bitsandbytes\"}";

static void test_quant(void **state)
{
    char change[2048];
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };
    struct hm_arch arch;
    json_t *written = NULL;

    (void)state;
    snprintf(change, sizeof change, "{\"quantization_config\": %s}", quant_text);
    parse(change, &arch);
    assert_true(arch.quant.present && arch.quant.double_quant);
    assert_int_equal(arch.quant.compute_dtype, HM_DTYPE_BF16);
    assert_int_equal(arch.quant.storage_dtype, HM_DTYPE_U8);
    assert_int_equal(arch.quant.n_skip, 2);
    assert_string_equal(arch.quant.skip[1], "gate");
    json_t *plain = changed("{}");
    assert_ok(hm_arch_config(plain, &arch, &written, &err), err);
    assert_ok(hm_json_dump(json_object_get(written, "quantization_config"), &text, &err), err);
    assert_string_equal(text.ptr, quant_text); /* members in transformers' order */
    assert_null(json_object_get(plain, "quantization_config"));
    hm_buf_release(&text);
    json_decref(written);
    json_decref(plain);
    hm_arch_release(&arch);
    parse("{\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"_load_in_4bit\": true,"
          " \"bnb_4bit_quant_type\": \"nf4\"}}",
          &arch);
    assert_false(arch.quant.double_quant);
    assert_int_equal(arch.quant.compute_dtype, HM_DTYPE_F32);
    assert_null(arch.quant.skip);
    hm_arch_release(&arch);
}

static void assert_same(const struct hm_arch *a, const struct hm_arch *b)
{
    const uint32_t left[] = { a->family, a->hidden,     a->ffn,           a->layers,
                              a->heads,  a->kv_heads,   a->head_dim,      a->experts,
                              a->top_k,  a->vocab_size, a->max_positions, a->sliding_window,
                              a->tied,   a->dtype,      a->quant.present };
    const uint32_t right[] = { b->family, b->hidden,     b->ffn,           b->layers,
                               b->heads,  b->kv_heads,   b->head_dim,      b->experts,
                               b->top_k,  b->vocab_size, b->max_positions, b->sliding_window,
                               b->tied,   b->dtype,      b->quant.present };

    assert_memory_equal(left, right, sizeof left);
    assert_int_equal(a->bos_id, b->bos_id);
    assert_int_equal(a->eos_id, b->eos_id);
    assert_true(a->norm_eps == b->norm_eps && a->rope_theta == b->rope_theta &&
                a->aux_coef == b->aux_coef);
}

/* v5 keys become flat, unknown keys stay, what the caller changed is changed. */
static void test_config_again(void **state)
{
    json_t *config =
        changed("{\"rope_theta\": \"-\", \"torch_dtype\": \"-\", \"dtype\": \"float16\","
                " \"rope_parameters\": {\"rope_theta\": 5e5, \"rope_type\": \"default\"},"
                " \"head_dim\": null, \"my_key\": [1]}");
    struct hm_error err = { 0 };
    struct hm_arch arch, again;
    json_t *written = NULL;

    (void)state;
    assert_ok(hm_arch_parse(config, "c", &arch, &err), err);
    arch.vocab_size = 57000;
    arch.dtype = HM_DTYPE_F32;
    arch.quant.present = false;
    assert_ok(hm_arch_config(config, &arch, &written, &err), err);
    assert_null(json_object_get(written, "rope_parameters"));
    assert_null(json_object_get(written, "dtype"));
    assert_null(json_object_get(written, "head_dim"));
    assert_non_null(json_object_get(written, "my_key"));
    assert_string_equal(json_string_value(json_object_get(written, "torch_dtype")), "float32");
    assert_ok(hm_arch_parse(written, "w", &again, &err), err);
    assert_same(&arch, &again);
    json_decref(written);
    json_decref(config);
}

static void test_config_new(void **state)
{
    static const char *const changes[] = {
        "{\"sliding_window\": 13, \"head_dim\": 64}",
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
        " \"tie_word_embeddings\": true, \"eos_token_id\": \"-\"}",
    };
    char *dir = tmp_new();
    struct hm_error err = { 0 };
    struct hm_arch arch, again;
    json_t *made = NULL, *read = NULL;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        parse(changes[i], &arch);
        assert_ok(hm_arch_config_new(&arch, &made, &err), err);
        assert_ok(hm_config_write(made, dir, &err), err);
        assert_ok(hm_json_load(tmp_path(dir, "config.json"), 1 << 20, &read, &err), err);
        assert_ok(hm_arch_parse(read, "n", &again, &err), err);
        assert_same(&arch, &again);
        json_decref(made);
        json_decref(read);
    }
    tmp_release(dir);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_arch arch;
    json_t *config = NULL, *written = NULL, *made = NULL;

    HM_TRY(hm_json_parse(hm_str_of(context), "c", &config, err));
    int status = hm_arch_parse(config, "c", &arch, err);
    if (status == HM_OK) {
        status = hm_arch_config(config, &arch, &written, err);
        if (status == HM_OK)
            status = hm_arch_config_new(&arch, &made, err);
        hm_arch_release(&arch);
    }
    json_decref(config);
    json_decref(written);
    json_decref(made);
    return status;
}

static void test_oom(void **state)
{
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };
    char change[2048];

    (void)state;
    snprintf(change, sizeof change, "{\"quantization_config\": %s}", quant_text);
    json_t *config = changed(change);
    assert_ok(hm_json_dump(config, &text, &err), err);
    json_decref(config);
    char *plain = strdup(text.ptr);
    hm_buf_release(&text);
    assert_true(oom_sweep(attempt, plain) > 50);
    free(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtral),      cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_quant),
        cmocka_unit_test(test_config_again), cmocka_unit_test(test_config_new),
        cmocka_unit_test(test_vocab_check),  cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
