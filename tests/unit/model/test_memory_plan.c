/* SPDX-License-Identifier: MIT */
/*
 * The plan against what a step takes: heap by purpose is equal or below, never above, and close;
 * mapped weights cover the files; it grows with tokens and shrinks with recomputation; impossible
 * sizes are refused.
 */
#include "support/random_model.h"

#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/model/model.h"

static char q[] = "q_proj", w1[] = "w1", w2[] = "w2";
static char *target[] = { q, w1, w2 };

static struct hm_adapter_config config_of(bool all)
{
    return (struct hm_adapter_config){ .rank = 5,
                                       .alpha = 4,
                                       .target = target,
                                       .n_targets = 3,
                                       .embed = HM_ROWS_ALL,
                                       .all = all,
                                       .seed = 1 };
}

static uint64_t heap(enum hm_mem_tag tag)
{
    return hm_mem_peak_bytes(tag);
}

/* Peaks of a training step against its plan. */
static void check(const struct hm_arch *arch, bool all, bool recompute, bool packed)
{
    struct hm_adapter_config config = config_of(all);
    struct hm_kernels kernels;
    struct hm_model *model = NULL;
    struct hm_adapter *adapter = NULL;
    struct hm_workspace *workspace = NULL;
    struct hm_memory_plan plan;
    struct hm_step_result result;
    struct hm_error err = { 0 };
    int32_t ids[2 * 50];
    struct hm_batch batch = { .rows = 2, .seq_len = 50, .ids = ids };
    struct hm_step_options options = { .backward = true, .recompute = recompute, .loss_weight = 1 };
    char *dir = tmp_new();

    if (arch->experts == 1) /* its experts have other names */
        config.n_targets = 1;
    for (size_t i = 0; i < 100; i++)
        ids[i] = (int32_t)(i * 7 % 37);
    random_model_write(dir, arch, 4, 1.0);
    hm_mem_peak_reset();
    uint64_t before = heap(HM_MEM_ACTIVATION) + heap(HM_MEM_SCRATCH);
    hm_kernels_reference(&kernels); /* has products in bf16 */
    struct hm_model_options model_options = { &kernels, packed ? HM_ROUND_BF16 : HM_ROUND_NONE,
                                              true };
    assert_ok(hm_model_open(dir, &model_options, &model, &err), err);
    assert_ok(hm_adapter_new(hm_model_checkpoint(model), &config, true, &adapter, &err), err);
    hm_model_attach(model, adapter);
    assert_ok(hm_workspace_new(model, 2, 50, true, recompute, &workspace, &err), err);
    assert_ok(hm_model_step(model, workspace, &batch, &options, &result, &err), err);
    assert_ok(hm_memory_plan_train(hm_model_arch(model), &config, arch->vocab_size, 2, 50,
                                   recompute, packed, hm_threads(), &plan, &err),
              err);
    uint64_t taken = heap(HM_MEM_ACTIVATION) + heap(HM_MEM_SCRATCH) - before;
    assert_true(taken <= plan.activations + plan.scratch);
    assert_true(plan.activations + plan.scratch <= taken + taken / 50);
    uint64_t gradients = hm_adapter_param_count(adapter) * sizeof(float);
    assert_int_equal(plan.gradients, gradients);
    assert_int_equal(plan.optimizer, 2 * gradients);
    assert_true(heap(HM_MEM_ADAPTER) + heap(HM_MEM_GRADIENT) + heap(HM_MEM_WEIGHT) +
                    heap(HM_MEM_OTHER) <=
                plan.adapter + plan.gradients + plan.other);
    uint64_t file;
    assert_ok(hm_file_size(tmp_path(dir, "model.safetensors"), &file, &err), err);
    assert_true(plan.weights_mapped + plan.other > file && plan.weights_mapped <= file);
    assert_true(hm_memory_plan_total(&plan) > plan.activations + plan.weights_mapped);
    hm_workspace_free(workspace);
    hm_adapter_free(adapter);
    hm_model_free(model);
    tmp_release(dir);
}

static void test_plan_covers_step(void **state)
{
    struct hm_arch routed = random_arch(3, 4, 2), dense = random_arch(2, 1, 1);

    (void)state;
    for (int packed = 0; packed < 2; packed++) {
        check(&routed, false, true, packed);
        check(&routed, false, false, packed);
        check(&routed, true, true, packed);
        check(&dense, false, true, packed);
        check(&dense, true, false, packed);
    }
}

static void test_evaluation(void **state)
{
    struct hm_arch arch = random_arch(3, 4, 2);
    struct hm_memory_plan short_plan, long_plan, train;
    struct hm_adapter_config config = config_of(false);
    struct hm_error err = { 0 };

    (void)state;
    config.rank = 64; /* what evaluation makes room for */
    assert_ok(hm_memory_plan_eval(&arch, 1, 64, false, 2, &short_plan, &err), err);
    assert_ok(hm_memory_plan_eval(&arch, 1, 512, false, 2, &long_plan, &err), err);
    assert_ok(
        hm_memory_plan_train(&arch, &config, arch.vocab_size, 1, 512, true, false, 2, &train, &err),
        err);
    assert_true(short_plan.activations < long_plan.activations &&
                long_plan.activations < train.activations);
    assert_int_equal(short_plan.weights_mapped, train.weights_mapped);
    assert_int_equal(long_plan.gradients + long_plan.optimizer, 0);
    assert_fails(hm_memory_plan_eval(&arch, 0, 64, false, 2, &short_plan, &err), HM_ERR_USAGE,
                 "at least one", err);
    assert_fails(hm_memory_plan_eval(&arch, 1 << 20, 1 << 20, false, 2, &short_plan, &err),
                 HM_ERR_NOFIT, "too many", err);
}

/* Mixtral-8x7B in NF4 with double quantisation: 46.7 B values come to 23-25 GB of pages. */
static void test_mixtral_8x7b(void **state)
{
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };
    struct hm_arch arch = { .family = HM_FAMILY_MIXTRAL,
                            .hidden = 4096,
                            .ffn = 14336,
                            .layers = 32,
                            .heads = 32,
                            .kv_heads = 8,
                            .head_dim = 128,
                            .experts = 8,
                            .top_k = 2,
                            .vocab_size = 57000,
                            .max_positions = 32768,
                            .norm_eps = 1e-5,
                            .rope_theta = 1e6,
                            .dtype = HM_DTYPE_BF16,
                            .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 } };
    struct hm_adapter_config config = config_of(false);
    struct hm_memory_plan plan, kept;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_memory_plan_train(&arch, &config, 32000, 1, 2048, true, true, 16, &plan, &err),
              err);
    assert_ok(hm_memory_plan_train(&arch, &config, 32000, 1, 2048, false, true, 16, &kept, &err),
              err);
    assert_true(plan.weights_mapped > 23000000000u && plan.weights_mapped < 26000000000u);
    assert_true(plan.activations < 2500000000u && kept.activations > 5 * plan.activations);
}

/* A whole Mixtral in 12 GiB: the budget takes what is left, and less than the least changes
 * nothing. */
static void test_limit(void **state)
{
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };
    struct hm_arch arch = random_arch(32, 8, 2);
    struct hm_adapter_config config = config_of(false);
    struct hm_memory_plan plan, before;
    struct hm_error err = { 0 };
    const uint64_t gib = (uint64_t)1 << 30;

    (void)state;
    arch.hidden = 4096;
    arch.ffn = 14336;
    arch.heads = 32;
    arch.kv_heads = 8;
    arch.head_dim = 128;
    arch.vocab_size = 57000;
    arch.dtype = HM_DTYPE_BF16;
    arch.quant = (struct hm_quant_config){ true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 };
    config.embed = HM_ROWS_NONE;
    assert_ok(hm_memory_plan_train(&arch, &config, 57000, 1, 2048, true, true, 2, &plan, &err),
              err);
    before = plan;
    uint64_t least = hm_memory_plan_limit(&plan, &arch, 2048, true, 0, gib);
    assert_memory_equal(&plan, &before, sizeof plan);
    assert_true(least > gib && least < 5 * gib);
    assert_true(hm_memory_plan_limit(&plan, &arch, 2048, true, 0, 12 * gib) == least);
    assert_true(plan.weights_budget > 7 * gib && plan.weights_mapped >= plan.weights_budget);
    /* rows of the embedding are mapped beside the budget */
    assert_true(plan.weights_mapped - plan.weights_budget < gib / 8);
    assert_true(hm_memory_plan_total(&plan) <= 12 * gib);
    assert_true(hm_memory_plan_total(&plan) > 12 * gib - gib / 8);
    assert_true(plan.weights_read > 2 * (before.weights_mapped - 13 * gib) &&
                plan.weights_read < 2 * before.weights_mapped);
    plan = before;
    hm_memory_plan_limit(&plan, &arch, 2048, true, 0, 40 * gib); /* fits as it is */
    assert_memory_equal(&plan, &before, sizeof plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_covers_step),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_mixtral_8x7b),
        cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
