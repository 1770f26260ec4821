/* SPDX-License-Identifier: MIT */
/*
 * model/peft_read.c, peft_config.c, peft_record.c, peft_write.c: folders that must be refused and
 * by which words, element types, trained rows, tied heads, allocation failures.
 */
#include "support/support.h"

#include "bases.h"

#include <math.h>

#include "hanmix/model/peft_folder.h"

/* --- folders made on the spot ----------------------------------------------------------------- */

#define Q0    "base_model.model.model.layers.0.self_attn.q_proj."
#define Q1    "base_model.model.model.layers.1.self_attn.q_proj."
#define EMBED "base_model.model.model.embed_tokens."
#define HEAD  "base_model.model.lm_head."

struct part {
    const char *name;
    enum hm_dtype dtype;
    uint64_t rows, cols;
    float value; /* of every element */
};

/* A folder of these tensors and this configuration; returns its path. */
static const char *put(const struct part *parts, size_t n, const char *config)
{
    struct hm_tensor tensors[8] = { 0 };
    struct hm_error err = { 0 };
    uint8_t *data[8];

    assert_true(n <= 8);
    for (size_t i = 0; i < n; i++) {
        uint64_t count = parts[i].rows * parts[i].cols;
        data[i] = hm_alloc(HM_MEM_OTHER, count * 8);
        for (uint64_t j = 0; j < count; j++) {
            float value = parts[i].value;
            if (parts[i].dtype == HM_DTYPE_I32)
                memset(data[i] + 4 * j, 0, 4);
            else
                assert_ok(hm_dtype_from_f32(parts[i].dtype, &value, 1,
                                            data[i] + hm_dtype_bytes(parts[i].dtype) * j, &err),
                          err);
        }
        tensors[i] = (struct hm_tensor){ .name = parts[i].name,
                                         .dtype = parts[i].dtype,
                                         .n_dims = 2,
                                         .shape = { parts[i].rows, parts[i].cols },
                                         .count = count,
                                         .size_bytes = count * hm_dtype_bytes(parts[i].dtype),
                                         .data = data[i] };
    }
    assert_ok(hm_dir_make(tmp_path(test_dir, "a"), &err), err);
    assert_ok(hm_safetensors_write(tmp_path(test_dir, "a/adapter_model.safetensors"), tensors, n,
                                   NULL, &err),
              err);
    for (size_t i = 0; i < n; i++)
        hm_free(data[i]);
    file_put(tmp_path(test_dir, "a/adapter_config.json"), config, strlen(config));
    return tmp_path(test_dir, "a");
}

static const struct part good[] = {
    { Q0 "lora_A.weight", HM_DTYPE_F32, 4, 64, 1 }, { Q0 "lora_B.weight", HM_DTYPE_BF16, 64, 4, 2 },
    { Q1 "lora_A.weight", HM_DTYPE_F16, 4, 64, 3 }, { Q1 "lora_B.weight", HM_DTYPE_F32, 64, 4, 4 },
    { EMBED "weight", HM_DTYPE_BF16, 264, 64, 5 },
};
#define GOOD_CONFIG \
    "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"target_modules\": [\"q_proj\"]"
#define WITH_EMBED ", \"modules_to_save\": [\"embed_tokens\"]}"

static void refuse(const struct hm_checkpoint *base, const char *path, int code, const char *part)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_fails(hm_adapter_load(path, base, false, &adapter, &err), code, part, err);
    assert_null(adapter);
}

static void test_types(void **state)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_adapter_load(put(good, 5, GOOD_CONFIG WITH_EMBED), &ckpt, true, &adapter, &err),
              err);
    assert_int_equal(adapter->n_params, 5);
    for (size_t i = 0; i < 5; i++) {
        static const float expected[] = { 5, 1, 2, 3, 4 }; /* the embedding comes first */
        const struct hm_param *p = &adapter->param[i];
        assert_true(p->value[0] == expected[i] && p->value[p->rows * p->cols - 1] == expected[i]);
        assert_true(p->grad[0] == 0);
    }
    assert_int_equal(adapter->config.embed, HM_ROWS_ALL);
    assert_true(adapter->lora[0].scale == 2);
    hm_adapter_free(adapter);
}

/* The good parts with one of them changed. */
static const char *put_changed(size_t at, struct part part)
{
    struct part parts[5];

    memcpy(parts, good, sizeof good);
    parts[at] = part;
    return put(parts, 5, GOOD_CONFIG WITH_EMBED);
}

static void test_tensors(void **state)
{
    struct part extra[6];

    (void)state;
    memcpy(extra, good, sizeof good);
    refuse(&ckpt, put_changed(4, (struct part){ EMBED "weight", HM_DTYPE_F32, 300, 64, 1 }),
           HM_ERR_FORMAT, "embed_tokens.weight' is [300, 64], but the model");
    refuse(&ckpt, put_changed(4, (struct part){ EMBED "weight", HM_DTYPE_F32, 300, 64, 1 }),
           HM_ERR_FORMAT, "make it [264, 64]");
    refuse(&ckpt, put_changed(0, (struct part){ Q0 "lora_A.weight", HM_DTYPE_F32, 8, 64, 1 }),
           HM_ERR_FORMAT, "[8, 64]");
    refuse(&ckpt, put_changed(0, (struct part){ Q0 "lora_A.weight", HM_DTYPE_F32, 4, 96, 1 }),
           HM_ERR_FORMAT, "[4, 96]");
    refuse(&ckpt, put_changed(1, (struct part){ Q0 "lora_B.weight", HM_DTYPE_F32, 4, 64, 1 }),
           HM_ERR_FORMAT, "make it [64, 4]");
    refuse(&ckpt, put_changed(0, (struct part){ Q0 "lora_A.weight", HM_DTYPE_I32, 4, 64, 1 }),
           HM_ERR_FORMAT, "type I32");
    refuse(&ckpt, put_changed(1, (struct part){ Q0 "lora_B.weight", HM_DTYPE_F32, 64, 4, NAN }),
           HM_ERR_FORMAT, "layers.0.self_attn.q_proj.lora_B.weight' holds NaN or Inf");
    refuse(&ckpt, put_changed(4, (struct part){ EMBED "weight", HM_DTYPE_BF16, 264, 64, INFINITY }),
           HM_ERR_FORMAT, "holds NaN or Inf");
    refuse(&ckpt, put(good, 3, GOOD_CONFIG "}"), HM_ERR_FORMAT,
           "layers.1.self_attn.q_proj.lora_B.weight' is missing");
    refuse(&ckpt, put(good, 4, GOOD_CONFIG WITH_EMBED), HM_ERR_FORMAT,
           "embed_tokens' is in modules_to_save");
    extra[5] = (struct part){ "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
                              HM_DTYPE_F32, 4, 64, 1 };
    refuse(&ckpt, put(extra, 6, GOOD_CONFIG WITH_EMBED), HM_ERR_FORMAT,
           "of 2 layers and 4 experts");
    extra[5] = (struct part){ EMBED "modules_to_save.weight", HM_DTYPE_BF16, 264, 64, 6 };
    refuse(&ckpt, put(extra, 6, GOOD_CONFIG WITH_EMBED), HM_ERR_FORMAT, "copy differ");
}

static void test_configs(void **state)
{
    static const struct {
        const char *config, *part;
    } cases[] = {
        { "[]", "peft_type" },
        { "{}", "'peft_type' is missing" },
        { "{\"peft_type\": \"IA3\"}", "expected LORA" },
        { GOOD_CONFIG ", \"bias\": \"all\"}", "bias" },
        { GOOD_CONFIG ", \"use_dora\": true}", "use_dora" },
        { GOOD_CONFIG ", \"target_parameters\": [\"x\"]}", "target_parameters" },
        { GOOD_CONFIG ", \"trainable_token_indices\": [1]}", "trainable_token_indices" },
        { GOOD_CONFIG ", \"init_lora_weights\": \"pissa_niter_16\"}", "changes the base" },
        { GOOD_CONFIG ", \"modules_to_save\": [\"classifier\"]}", "names no module" },
        { GOOD_CONFIG ", \"modules_to_save\": [\"norm\"]}", "only embed_tokens, lm_head and gate" },
        { GOOD_CONFIG ", \"modules_to_save\": \"lm_head\"}", "must be a list" },
        { GOOD_CONFIG ", \"rank_pattern\": {\"(\": 4}}", "pattern '(.*" },
        { GOOD_CONFIG ", \"rank_pattern\": {\"q_proj\": 1.5}}", "a rank is a whole number" },
        { GOOD_CONFIG ", \"rank_pattern\": {\"q_proj\": \"4\"}}", "must be a number" },
        { GOOD_CONFIG ", \"layers_to_transform\": [\"1\"]}", "layer numbers" },
        { GOOD_CONFIG ", \"lora_dropout\": 2}", "dropout" },
        { GOOD_CONFIG ", \"lora_alpha\": \"8\"}", "lora_alpha" },
        { "{\"peft_type\": \"LORA\", \"r\": 0, \"target_modules\": [\"q_proj\"]}", "r is 0" },
        { "{\"peft_type\": \"LORA\", \"r\": -4, \"target_modules\": [\"q_proj\"]}", "'r'" },
        { "{\"peft_type\": \"LORA\", \"target_modules\": [1]}", "names only" },
        { "{\"peft_type\": \"LORA\", \"target_modules\": [\"no\"]}", "trains nothing" },
        { "{\"peft_type\": \"LORA\", \"target_modules\": \"(\"}", "not closed" },
        { "{\"peft_type\": \"LORA\", \"target_modules\": [\"embed_tokens\"]}", "not a linear" },
        { "{\"peft_type\": \"LORA\", \"target_modules\": [\"v_proj\"]}", "is missing" },
        { "{\"peft_type\": \"LORA\"", "not JSON" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(&ckpt, put(good, 4, cases[i].config), HM_ERR_FORMAT, cases[i].part);
}

static void test_files(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    refuse(&ckpt, tmp_path(test_dir, "absent"), HM_ERR_USAGE, "adapter_model.safetensors");
    assert_ok(hm_dir_make(tmp_path(test_dir, "pickle"), &err), err);
    file_put(tmp_path(test_dir, "pickle/adapter_model.bin"), "x", 1);
    refuse(&ckpt, tmp_path(test_dir, "pickle"), HM_ERR_FORMAT, "pickled adapters are not read");
    put(good, 4, GOOD_CONFIG "}");
    file_put(tmp_path(test_dir, "a/adapter_model.safetensors"), "short", 5);
    refuse(&ckpt, tmp_path(test_dir, "a"), HM_ERR_FORMAT, "adapter_model.safetensors");
}

/* PEFT's ways of choosing modules end in the same two modules, or in one. */
static void test_selections(void **state)
{
    static const struct {
        const char *targets;
        size_t n, lora;
    } cases[] = {
        { "\".*q_proj\"", 4, 2 },
        { "[\"q_proj\", \"nowhere\", \".*v_proj\"]", 4, 2 },
        { "[\"model.layers.0.self_attn.q_proj\"]", 2, 1 },
        { "[\"q_proj\"], \"layers_to_transform\": 0", 2, 1 },
        { "[\"q_proj\"], \"layers_to_transform\": [0, 7], \"layers_pattern\": [\"layers\"]", 2, 1 },
        { "[\"q_proj\"], \"exclude_modules\": [\"layers.1.self_attn.q_proj\"]", 2, 1 },
        { "[\"q_proj\"], \"exclude_modules\": \".*1.*\"", 2, 1 },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hm_adapter *adapter = NULL;
        char config[512];
        snprintf(config, sizeof config,
                 "{\"peft_type\": \"LORA\", \"r\": 4, \"target_modules\": %s}", cases[i].targets);
        assert_ok(hm_adapter_load(put(good, cases[i].n, config), &ckpt, false, &adapter, &err),
                  err);
        assert_int_equal(adapter->n_lora, cases[i].lora);
        hm_adapter_free(adapter);
    }
}

/* --- rows ------------------------------------------------------------------------------------- */

static void test_new_rows(void **state)
{
    struct hm_vocab_record record = { .old_vocab_size = 200,
                                      .new_vocab_size = 264,
                                      .present = true };
    struct hm_checkpoint grown = { 0 };
    struct hm_adapter_config config = {
        .rank = 2, .alpha = 2, .dropout = 0.25, .embed = HM_ROWS_NEW
    };
    struct hm_adapter *adapter = NULL, *whole = NULL, *again = NULL;
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    memset(record.old_tokenizer, 'a', 64);
    memset(record.new_tokenizer, 'b', 64);
    assert_ok(hm_dir_make(tmp_path(test_dir, "grown"), &err), err);
    assert_ok(hm_dir_list(golden_path("mixtral/model"), &names, &err), err);
    for (size_t i = 0; i < names.count; i++) {
        char from[512];
        snprintf(from, sizeof from, "%s/%s", golden_path("mixtral/model"), names.item[i]);
        assert_ok(hm_file_copy(from, tmp_path(test_dir, "grown/%s", names.item[i]), &err), err);
    }
    hm_names_release(&names);
    assert_ok(hm_vocab_record_write(tmp_path(test_dir, "grown"), &record, &err), err);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "grown"), &grown, &err), err);

    assert_ok(hm_adapter_new(&grown, &config, false, &adapter, &err), err);
    assert_int_equal(adapter->n_params, 1);
    assert_int_equal(adapter->param[0].first_row, 200);
    assert_int_equal(adapter->param[0].rows, 64);
    config.embed = HM_ROWS_ALL;
    assert_ok(hm_adapter_new(&grown, &config, false, &whole, &err), err);
    assert_memory_equal(adapter->param[0].value, whole->param[0].value + 200 * 64,
                        64 * 64 * sizeof(float));
    adapter->param[0].value[7] = 42;
    assert_ok(hm_adapter_save(adapter, &grown, "base", tmp_path(test_dir, "rows"), &err), err);

    assert_ok(hm_adapter_load(tmp_path(test_dir, "rows"), &grown, false, &again, &err), err);
    assert_int_equal(again->config.embed, HM_ROWS_NEW);
    assert_true(again->config.dropout == 0.25);
    assert_int_equal(again->param[0].first_row, 200);
    assert_memory_equal(adapter->param[0].value, again->param[0].value, 64 * 64 * sizeof(float));
    hm_adapter_free(again);

    /* To PEFT it is a whole matrix: the base's rows, then the trained ones. */
    assert_ok(hm_file_write(tmp_path(test_dir, "rows/hanmix.json"), "{\"version\": 1}", 14, &err),
              err);
    assert_ok(hm_adapter_load(tmp_path(test_dir, "rows"), &grown, false, &again, &err), err);
    assert_int_equal(again->param[0].rows, 264);
    whole->param[0].value[200 * 64 + 7] = 42;
    assert_memory_equal(whole->param[0].value, again->param[0].value, 264 * 64 * sizeof(float));
    hm_adapter_free(again);

    /* Another tokenizer of the same size. */
    assert_ok(hm_adapter_save(adapter, &grown, "base", tmp_path(test_dir, "rows"), &err), err);
    memset(record.new_tokenizer, 'c', 64);
    assert_ok(hm_vocab_record_write(tmp_path(test_dir, "grown"), &record, &err), err);
    refuse(&grown, tmp_path(test_dir, "rows"), HM_ERR_FORMAT, "tokenizer bbbb");
    /* Another size. */
    static const char other[] = "{\"version\": 1, \"adapter\": {\"vocab_size\": 300}}";
    file_put(tmp_path(test_dir, "rows/hanmix.json"), other, sizeof other - 1);
    refuse(&grown, tmp_path(test_dir, "rows"), HM_ERR_FORMAT, "vocabulary of 300 pieces");
    hm_adapter_free(adapter);
    hm_adapter_free(whole);
    hm_checkpoint_close(&grown);
}

/* A tied head is saved twice, must come back equal, and may not be trained apart. */
static void test_tied(void **state)
{
    struct hm_adapter_config config = { .rank = 2, .alpha = 2, .embed = HM_ROWS_ALL };
    struct hm_adapter *adapter = NULL;
    struct hm_safetensors file = { 0 };
    struct hm_error err = { 0 };
    struct part parts[2] = { { EMBED "weight", HM_DTYPE_F32, 0, 0, 1 },
                             { HEAD "weight", HM_DTYPE_F32, 0, 0, 2 } };
    const char *both = "{\"peft_type\": \"LORA\", \"target_modules\": \"dummy-target-modules\", "
                       "\"modules_to_save\": [\"embed_tokens\", \"lm_head\"]}";

    (void)state;
    assert_ok(hm_adapter_new(&tied, &config, false, &adapter, &err), err);
    parts[0].rows = parts[1].rows = adapter->param[0].rows;
    parts[0].cols = parts[1].cols = adapter->param[0].cols;
    assert_ok(hm_adapter_save(adapter, &tied, "base", tmp_path(test_dir, "tied"), &err), err);
    hm_adapter_free(adapter);
    assert_ok(
        hm_safetensors_open(tmp_path(test_dir, "tied/adapter_model.safetensors"), &file, &err),
        err);
    assert_int_equal(file.count, 2);
    assert_memory_equal(file.tensor[0].data, file.tensor[1].data, file.tensor[0].size_bytes);
    hm_safetensors_close(&file);
    assert_ok(hm_adapter_load(tmp_path(test_dir, "tied"), &tied, false, &adapter, &err), err);
    assert_int_equal(adapter->n_params, 1);
    hm_adapter_free(adapter);
    adapter = NULL;
    refuse(&tied, put(parts, 2, both), HM_ERR_FORMAT, "ties lm_head");
    refuse(&tied, put(parts, 1, both), HM_ERR_FORMAT, "ties lm_head");
    parts[1].value = 1;
    assert_ok(hm_adapter_load(put(parts, 2, both), &tied, false, &adapter, &err), err);
    hm_adapter_free(adapter);
}

/* --- allocation failures ---------------------------------------------------------------------- */

static int load_and_save(void *context, struct hm_error *err)
{
    struct hm_adapter *adapter = NULL;
    int status;

    (void)context;
    HM_TRY(hm_adapter_load(tmp_path(test_dir, "a"), &ckpt, true, &adapter, err));
    status = hm_adapter_save(adapter, &ckpt, "base", tmp_path(test_dir, "saved"), err);
    hm_adapter_free(adapter);
    return status;
}

static void test_oom(void **state)
{
    (void)state;
    put(good, 5,
        GOOD_CONFIG ", \"rank_pattern\": {\"q_proj\": 4}, \"modules_to_save\": [\"embed_tokens\"], "
                    "\"exclude_modules\": \"x\"}");
    assert_true(oom_sweep(load_and_save, NULL) > 60);
    hm_peft_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),      cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_configs),    cmocka_unit_test(test_files),
        cmocka_unit_test(test_selections), cmocka_unit_test(test_new_rows),
        cmocka_unit_test(test_tied),       cmocka_unit_test(test_oom),
    };
    return cmocka_run_group_tests_name("peft_read", tests, bases_setup, bases_teardown);
}
