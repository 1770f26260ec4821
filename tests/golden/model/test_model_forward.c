/* SPDX-License-Identifier: MIT */
/*
 * Logits, residual stream, router logits and losses against transformers (f32) and the independent
 * f64 reference: Mixtral full, sliding and padded; dense LLaMA tied and untied; NF4 folders under
 * both rounding policies. Limits: 20 times the f32-f64 distance that the READMEs state; 1e-5 for
 * the NF4 folders; losses 1e-5.
 */
#include "recorded.h"

#include <math.h>

#define MIXTRAL_LIMIT 9e-6
#define LLAMA_LIMIT   7.4e-6
#define NF4_LIMIT     1e-5
#define BF16_LIMIT    8e-3 /* operands with 8 bits; measured 4.1e-3 */
#define LOSS_LIMIT    1e-5

static struct hm_kernels kernels;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    return 0;
}

static void compare(const struct hm_safetensors *file, const char *name, const float *found,
                    size_t count, double limit)
{
    float *truth = recorded_f32(file, name, count);

    assert_close(name, found, truth, count, limit);
    hm_free(truth);
}

static void compare_outputs(const char *path, bool every, struct hm_model *model,
                            const struct hm_batch *batch, const struct outputs *out, double limit)
{
    const struct hm_arch *arch = hm_model_arch(model);
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    size_t tokens = (size_t)batch->rows * batch->seq_len, width = tokens * arch->hidden;
    char name[64];

    assert_ok(hm_safetensors_open(golden_path(path), &file, &err), err);
    compare(&file, "logits", out->logits, tokens * arch->vocab_size, limit);
    for (uint32_t l = 0; l < arch->layers && arch->experts > 1; l++) {
        snprintf(name, sizeof name, "router_logits.%u", l);
        compare(&file, name, out->router[l], tokens * arch->experts, limit);
    }
    for (uint32_t l = 0; l < arch->layers && every; l++) {
        snprintf(name, sizeof name, "hidden.layer.%u", l);
        compare(&file, name, out->hidden + (l + 1) * width, width, limit);
    }
    if (every) {
        compare(&file, "hidden.embed", out->hidden, width, limit);
        compare(&file, "hidden.final_norm", out->hidden + (arch->layers + 1) * width, width, limit);
    }
    hm_safetensors_close(&file);
}

static void mixtral(const char *variant, const char *dir)
{
    const char *lm[] = { variant, "f64", "lm_loss", NULL };
    const char *aux[] = { variant, "f64", "aux_loss", NULL };
    struct hm_model *model = model_opened(dir, &kernels, HM_ROUND_NONE);
    struct recorded_batch batch;
    struct outputs out;
    char path[64];

    recorded_batch_read(golden_path("mixtral/batch.safetensors"), &batch);
    forward_run(model, &batch.batch, &out);
    snprintf(path, sizeof path, "mixtral/%s.outputs_f64.safetensors", variant);
    compare_outputs(path, false, model, &batch.batch, &out, MIXTRAL_LIMIT);
    snprintf(path, sizeof path, "mixtral/%s.outputs_f32.safetensors", variant);
    compare_outputs(path, true, model, &batch.batch, &out, MIXTRAL_LIMIT);
    assert_true(fabs(out.result.loss_sum / (double)out.result.targets -
                     recorded_number(golden_path("mixtral/results.json"), lm)) < LOSS_LIMIT);
    assert_true(fabs(out.result.aux - recorded_number(golden_path("mixtral/results.json"), aux)) <
                LOSS_LIMIT);
    outputs_release(model, &out);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_mixtral_full(void **state)
{
    (void)state;
    mixtral("full", golden_path("mixtral/model"));
}

static void test_mixtral_sliding(void **state)
{
    char *dir = tmp_new();

    (void)state;
    mixtral("sliding", model_with_config(dir, golden_path("mixtral/model"), "sliding_window", 13));
    tmp_release(dir);
}

static void test_mixtral_padded(void **state)
{
    const char *aux[] = { "padded", "f64", "aux_loss", NULL };
    struct hm_model *model = model_opened(golden_path("mixtral/model"), &kernels, HM_ROUND_NONE);
    size_t vocab = hm_model_arch(model)->vocab_size;
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    struct recorded_batch batch;
    struct outputs out;

    (void)state;
    recorded_batch_read(golden_path("mixtral/padded.safetensors"), &batch);
    forward_run(model, &batch.batch, &out);
    assert_ok(hm_safetensors_open(golden_path("mixtral/padded.safetensors"), &file, &err), err);
    float *truth = recorded_f32(&file, "logits_f32", 0);
    for (size_t n = 0; n < (size_t)batch.batch.rows * batch.batch.seq_len; n++)
        if (batch.mask[n])
            assert_close("padded logits", out.logits + n * vocab, truth + n * vocab, vocab,
                         MIXTRAL_LIMIT);
    assert_true(fabs(out.result.aux - recorded_number(golden_path("mixtral/results.json"), aux)) <
                LOSS_LIMIT);
    hm_free(truth);
    hm_safetensors_close(&file);
    outputs_release(model, &out);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void llama(const char *variant)
{
    const char *lm[] = { variant, "f64", "lm_loss", NULL };
    struct recorded_batch batch;
    struct outputs out;
    char path[64];

    snprintf(path, sizeof path, "llama/%s-model", variant);
    struct hm_model *model = model_opened(golden_path(path), &kernels, HM_ROUND_NONE);
    snprintf(path, sizeof path, "llama/%s.batch.safetensors", variant);
    recorded_batch_read(golden_path(path), &batch);
    forward_run(model, &batch.batch, &out);
    snprintf(path, sizeof path, "llama/%s.outputs_f64.safetensors", variant);
    compare_outputs(path, false, model, &batch.batch, &out, LLAMA_LIMIT);
    snprintf(path, sizeof path, "llama/%s.outputs_f32.safetensors", variant);
    compare_outputs(path, true, model, &batch.batch, &out, LLAMA_LIMIT);
    assert_true(fabs(out.result.loss_sum / (double)out.result.targets -
                     recorded_number(golden_path("llama/results.json"), lm)) < LOSS_LIMIT);
    outputs_release(model, &out);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_llama(void **state)
{
    (void)state;
    llama("untied");
    llama("tied");
}

/* The recordings have rounded weights, but products in f32: `limit` is wider for products in bf16.
 */
static void nf4(const char *variant, enum hm_round round, const struct hm_kernels *table,
                double limit)
{
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    struct recorded_batch batch;
    struct outputs out;
    char path[64];

    snprintf(path, sizeof path, "bnb4bit/%s", variant);
    struct hm_model *model = model_opened(golden_path(path), table, round);
    snprintf(path, sizeof path, "bnb4bit/%s.batch.safetensors", variant);
    recorded_batch_read(golden_path(path), &batch);
    forward_run(model, &batch.batch, &out);
    snprintf(path, sizeof path, "bnb4bit/%s.logits.safetensors", variant);
    assert_ok(hm_safetensors_open(golden_path(path), &file, &err), err);
    size_t count =
        (size_t)batch.batch.rows * batch.batch.seq_len * hm_model_arch(model)->vocab_size;
    compare(&file, round == HM_ROUND_NONE ? "truth_w_f32" : "truth_w_bf16", out.logits, count,
            limit);
    if (round == HM_ROUND_NONE)
        compare(&file, "bnb_f32", out.logits, count, NF4_LIMIT);
    hm_safetensors_close(&file);
    outputs_release(model, &out);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_nf4(void **state)
{
    static const char *const variant[] = { "dq_gate16bit", "dq_gate4bit", "plain_gate16bit",
                                           "plain_gate4bit" };

    struct hm_kernels reference, products_f32 = kernels;

    (void)state;
    hm_kernels_reference(&reference);
    products_f32.frozen_forward = NULL;
    for (size_t i = 0; i < sizeof(variant) / sizeof(variant[0]); i++) {
        nf4(variant[i], HM_ROUND_NONE, &kernels, NF4_LIMIT);
        nf4(variant[i], HM_ROUND_BF16, &products_f32, NF4_LIMIT);
        nf4(variant[i], HM_ROUND_BF16, &reference, BF16_LIMIT);
        nf4(variant[i], HM_ROUND_BF16, &kernels, BF16_LIMIT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixtral_full),
        cmocka_unit_test(test_mixtral_sliding),
        cmocka_unit_test(test_mixtral_padded),
        cmocka_unit_test(test_llama),
        cmocka_unit_test(test_nf4),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
