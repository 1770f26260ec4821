/* SPDX-License-Identifier: MIT */
/*
 * model/adapter.c, adapter_layout.c, adapter_rules.c: what is adapted, initial values, counts,
 * rows, full-parameter mode, refusals, allocation failures.
 */
#include "support/support.h"

#include "bases.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/model/adapter.h"

/* A configuration over up to four targets, separated by spaces in `targets`. */
struct setting {
    struct hm_adapter_config config;
    char text[256];
    char *target[4];
};

static struct hm_adapter_config *set(struct setting *s, const char *targets)
{
    *s = (struct setting){ .config = { .rank = 4, .alpha = 8, .seed = 1 } };
    snprintf(s->text, sizeof s->text, "%s", targets);
    for (char *at = strtok(s->text, " "); at; at = strtok(NULL, " "))
        s->target[s->config.n_targets++] = at;
    s->config.target = s->target;
    return &s->config;
}

static struct hm_adapter *make(const struct hm_checkpoint *base,
                               const struct hm_adapter_config *config)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(base, config, true, &adapter, &err), err);
    return adapter;
}

static const struct hm_param *find(const struct hm_adapter *adapter, const char *name)
{
    for (size_t i = 0; i < adapter->n_params; i++)
        if (strcmp(adapter->param[i].name, name) == 0)
            return &adapter->param[i];
    fail_msg("no parameter '%s'", name);
    return NULL;
}

static void test_targets(void **state)
{
    static const struct {
        const char *targets;
        uint32_t q, gate, w1, head;
    } cases[] = {
        { "q_proj", 2, 0, 0, 0 },
        { "self_attn.q_proj w1", 2, 0, 8, 0 },
        { "model.layers.1.self_attn.q_proj", 1, 0, 0, 0 },
        { "all-linear", 2, 2, 8, 0 },
        { "lm_head gate", 0, 2, 0, 1 },
        { ".*layers\\.0\\..*(w1|q_proj)", 1, 0, 4, 0 },
        { "experts.3.w1", 0, 0, 2, 0 },
        { ".*\\.experts\\.[02]\\.w\\d q_proj", 2, 0, 4, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct setting s;
        struct hm_adapter *adapter = make(&ckpt, set(&s, cases[i].targets));
        assert_int_equal(adapter->matched[HM_WEIGHT_Q], cases[i].q);
        assert_int_equal(adapter->matched[HM_WEIGHT_GATE], cases[i].gate);
        assert_int_equal(adapter->matched[HM_WEIGHT_W1], cases[i].w1);
        assert_int_equal(adapter->matched[HM_WEIGHT_HEAD], cases[i].head);
        hm_adapter_free(adapter);
    }
}

static void expect_usage(const struct hm_checkpoint *base, const struct hm_adapter_config *config,
                         const char *part)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_fails(hm_adapter_new(base, config, true, &adapter, &err), HM_ERR_USAGE, part, err);
    assert_null(adapter);
}

static void test_refusals(void **state)
{
    struct setting s;

    (void)state;
    expect_usage(
        &ckpt, set(&s, "q_proj up_proj"),
        "'up_proj' matches no linear of the model that is not already trained in full: there are "
        "q_proj, k_proj, v_proj, o_proj, gate, w1, w2, w3, lm_head");
    expect_usage(&tied, set(&s, "w1"),
                 "there are q_proj, k_proj, v_proj, o_proj, gate_proj, down_proj, up_proj");
    expect_usage(&ckpt, set(&s, "embed_tokens"), "not a linear");
    expect_usage(&ckpt, set(&s, ".*norm"), "not a linear");
    expect_usage(&ckpt, set(&s, "q_proj(?=x)"), "look-around");
    expect_usage(&ckpt, set(&s, ""), "trains nothing");
    set(&s, "q_proj")->rank = 0;
    expect_usage(&ckpt, &s.config, "a rank is a whole number");
    set(&s, "q_proj")->dropout = 1;
    expect_usage(&ckpt, &s.config, "dropout");
    set(&s, "q_proj")->alpha = NAN;
    expect_usage(&ckpt, &s.config, "alpha");
    set(&s, "q_proj")->embed = HM_ROWS_NEW;
    expect_usage(&ckpt, &s.config, "hold none beyond the old vocabulary of 264");
    set(&s, "gate")->gate = true;
    expect_usage(&ckpt, &s.config, "'gate' matches no linear");
    set(&s, "q_proj")->gate = true;
    expect_usage(&tied, &s.config, "no router");
    set(&s, "q_proj")->head = HM_ROWS_ALL;
    expect_usage(&tied, &s.config, "tie_word_embeddings");
}

static void test_four_bit_in_full(void **state)
{
    struct hm_checkpoint quantised = { 0 };
    struct setting s;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_checkpoint_open(golden_path("bnb4bit/dq_gate4bit"), &quantised, &err), err);
    set(&s, "q_proj")->gate = true;
    expect_usage(&quantised, &s.config, "4-bit in this model and cannot be trained in full");
    set(&s, "")->all = true;
    expect_usage(&quantised, &s.config, "4-bit in this model");
    hm_checkpoint_close(&quantised);
}

static void test_patterns(void **state)
{
    char o_proj[] = "o_proj", layer[] = "layers\\.1\\..*", any[] = ".*";
    struct hm_pattern rank[] = { { o_proj, 16 }, { layer, 2 } };
    struct hm_pattern alpha[] = { { layer, 5 }, { any, 3 } };
    struct setting s;
    struct hm_adapter_config *config = set(&s, "o_proj v_proj");
    struct hm_adapter *adapter;

    (void)state;
    config->rank_pattern = rank;
    config->alpha_pattern = alpha;
    config->n_rank_pattern = config->n_alpha_pattern = 2;
    adapter = make(&ckpt, config);
    assert_int_equal(adapter->n_lora, 4);
    static const uint32_t ranks[] = { 4, 16, 2, 16 }; /* v, o of layer 0 and 1 */
    static const double alphas[] = { 3, 3, 5, 5 };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(adapter->lora[i].rank, ranks[i]);
        assert_true(adapter->lora[i].scale == (float)(alphas[i] / ranks[i]));
        assert_int_equal(adapter->param[adapter->lora[i].a].rows, ranks[i]);
        assert_int_equal(adapter->param[adapter->lora[i].b].cols, ranks[i]);
    }
    hm_adapter_free(adapter);
}

static void test_initial_values(void **state)
{
    struct setting s;
    struct hm_adapter *one, *two;
    const struct hm_param *q, *k;
    double sum = 0, squares = 0, bound = 1.0 / sqrt(64);
    int threads = hm_threads();

    (void)state;
    set(&s, "q_proj k_proj w2")->rank = 64;
    hm_threads_set(1);
    one = make(&ckpt, &s.config);
    hm_threads_set(2);
    two = make(&ckpt, &s.config);
    hm_threads_set(threads);
    for (size_t i = 0; i < one->n_params; i++) {
        const struct hm_param *p = &one->param[i];
        size_t count = (size_t)p->rows * p->cols;
        assert_memory_equal(p->value, two->param[i].value, count * sizeof(float));
        for (size_t j = 0; j < count; j++) {
            assert_true(p->kind == HM_PARAM_LORA_A
                            ? fabsf(p->value[j]) <= 1.0F / sqrtf((float)p->cols)
                            : p->value[j] == 0);
            assert_true(p->grad[j] == 0);
        }
    }
    q = find(one, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    k = find(one, "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight");
    assert_memory_not_equal(q->value, k->value, 64 * sizeof(float));
    for (size_t j = 0; j < 4096; j++) {
        sum += q->value[j];
        squares += (double)q->value[j] * q->value[j];
    }
    assert_true(fabs(sum / 4096) < 4 * bound / sqrt(3.0 * 4096)); /* four standard errors */
    assert_true(fabs(squares / 4096 / (bound * bound / 3) - 1) < 0.06);
    hm_adapter_free(two);
    s.config.seed = 2;
    two = make(&ckpt, &s.config);
    assert_memory_not_equal(one->param[0].value, two->param[0].value, 64 * sizeof(float));
    one->param[1].grad[5] = 3;
    hm_adapter_zero_grad(one);
    assert_true(one->param[1].grad[5] == 0);
    hm_adapter_free(one);
    hm_adapter_free(two);
}

static void test_counts(void **state)
{
    struct setting s;
    struct hm_adapter_config *config = set(&s, "q_proj w1");
    struct hm_adapter *adapter;
    uint64_t values;

    (void)state;
    config->embed = config->head = HM_ROWS_ALL;
    config->gate = true;
    adapter = make(&ckpt, config);
    values = 2 * 264 * 64 + 2 * (4 * 64) + 2 * 4 * (64 + 64) + 8 * 4 * (64 + 128);
    assert_int_equal(hm_adapter_param_count(adapter), values);
    assert_int_equal(hm_adapter_plan_bytes(&ckpt.arch, config, true, 264), 8 * values);
    assert_int_equal(hm_adapter_plan_bytes(&ckpt.arch, config, false, 264), 4 * values);
    config->embed = HM_ROWS_NEW;
    assert_int_equal(hm_adapter_plan_bytes(&ckpt.arch, config, false, 200),
                     4 * (values - 200 * 64));
    assert_int_equal(hm_adapter_plan_bytes(&ckpt.arch, config, false, 264), 0);
    assert_int_equal(adapter->param[0].kind, HM_PARAM_EMBED);
    assert_int_equal(adapter->full_of_slot[0], 0);
    assert_int_equal(adapter->lora_of_slot[0], -1);
    assert_string_equal(adapter->param[adapter->n_params - 1].name,
                        "base_model.model.lm_head.weight");
    assert_int_equal(
        find(adapter, "base_model.model.model.layers.1.block_sparse_moe.gate.weight")->kind,
        HM_PARAM_GATE);
    hm_adapter_free(adapter);
}

static void compare_tensor(const struct hm_tensor *a, const struct hm_tensor *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->n_dims, b->n_dims);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_memory_equal(a->data, b->data, a->size_bytes);
}

static void check_full(const struct hm_checkpoint *base, const char *name)
{
    struct setting s;
    struct hm_adapter *adapter;
    struct hm_checkpoint saved = { 0 };
    struct hm_error err = { 0 };

    set(&s, "")->all = true;
    adapter = make(base, &s.config);
    assert_int_equal(adapter->n_params, hm_arch_slot_count(&base->arch));
    assert_int_equal(adapter->param[0].kind, HM_PARAM_FULL);
    assert_string_equal(adapter->param[0].name, "model.embed_tokens.weight");
    assert_ok(hm_adapter_save_model(adapter, base, tmp_path(test_dir, "%s", name), &err), err);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", name), &saved, &err), err);
    assert_int_equal(saved.count, base->count);
    for (size_t i = 0; i < saved.count; i++)
        compare_tensor(saved.tensor[i], base->tensor[i]);
    hm_checkpoint_close(&saved);
    hm_adapter_free(adapter);
}

static void test_full_parameters(void **state)
{
    (void)state;
    check_full(&ckpt, "full");
    check_full(&tied, "full-tied");
}

static int new_adapter(void *context, struct hm_error *err)
{
    const struct hm_adapter_config *config = context;
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_adapter_new(&ckpt, config, true, &adapter, err));
    hm_adapter_free(adapter);
    return HM_OK;
}

static void test_oom(void **state)
{
    char key[] = "q_proj";
    struct hm_pattern pattern = { key, 2 };
    struct setting s;
    struct hm_adapter_config *config = set(&s, "q_proj .*v_proj");

    (void)state;
    config->rank_pattern = config->alpha_pattern = &pattern;
    config->n_rank_pattern = config->n_alpha_pattern = 1;
    config->embed = HM_ROWS_ALL;
    assert_true(oom_sweep(new_adapter, config) > 20);
    hm_adapter_free(NULL);
    hm_adapter_config_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets),          cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_four_bit_in_full), cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_initial_values),   cmocka_unit_test(test_counts),
        cmocka_unit_test(test_full_parameters),  cmocka_unit_test(test_oom),
    };
    return cmocka_run_group_tests_name("adapter", tests, bases_setup, bases_teardown);
}
