/* SPDX-License-Identifier: MIT */
/*
 * model/adapter_start.c: values of the folder arrive, what it lacks is the base's, what disagrees
 * is refused, allocation failures.
 */
#include "support/support.h"

#include "bases.h"

#include "hanmix/model/adapter.h"

static struct hm_adapter *start(const struct hm_adapter_config *asked, unsigned which)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_start(golden_path("peft/adapter"), &ckpt, asked, which, &adapter, &err),
              err);
    return adapter;
}

static void test_values(void **state)
{
    struct hm_adapter_config asked = { .dropout = 0.25, .gate = true };
    struct hm_adapter *plain = NULL;
    struct hm_error err = { 0 };
    size_t gates = 0;

    (void)state;
    assert_ok(hm_adapter_load(golden_path("peft/adapter"), &ckpt, false, &plain, &err), err);
    struct hm_adapter *same = start(&asked, 0);
    assert_int_equal(same->n_params, plain->n_params);
    assert_true(same->config.dropout == plain->config.dropout);
    for (size_t i = 0; i < plain->n_params; i++) {
        assert_string_equal(same->param[i].name, plain->param[i].name);
        assert_non_null(same->param[i].grad);
        assert_memory_equal(same->param[i].value, plain->param[i].value,
                            hm_param_values(&plain->param[i]) * sizeof(float));
    }
    hm_adapter_free(same);

    struct hm_adapter *more = start(&asked, HM_ASK_DROPOUT | HM_ASK_GATE);
    assert_true(more->config.dropout == 0.25);
    for (size_t i = 0, p = 0; i < more->n_params; i++) {
        if (more->param[i].kind == HM_PARAM_GATE) {
            gates++;
            assert_true(more->param[i].value[0] != 0);
            continue;
        }
        assert_memory_equal(more->param[i].value, plain->param[p].value,
                            hm_param_values(&plain->param[p]) * sizeof(float));
        p++;
    }
    assert_int_equal(gates, ckpt.arch.layers);
    hm_adapter_free(more);
    hm_adapter_free(plain);
}

static void test_refusals(void **state)
{
    char q[] = "q_proj", all[] = "all-linear";
    char *one[] = { q }, *every[] = { all };
    struct hm_adapter_config asked = { .rank = 4, .alpha = 3, .target = one, .n_targets = 1 };
    static const struct {
        unsigned which;
        const char *part;
    } cases[] = {
        { HM_ASK_RANK, "its rank at 'model.layers.0.self_attn.q_proj' is 8" },
        { HM_ASK_ALPHA, "its scale (alpha over rank)" },
        { HM_ASK_TARGETS, "it holds factors of 'model.layers.0.self_attn.k_proj'" },
        { HM_ASK_EMBED, "it holds 'model.embed_tokens' in full" },
    };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(hm_adapter_start(golden_path("peft/adapter"), &ckpt, &asked, cases[i].which,
                                      &adapter, &err),
                     HM_ERR_USAGE, cases[i].part, err);
    asked.target = every; /* the router besides */
    assert_fails(hm_adapter_start(golden_path("peft/adapter"), &ckpt, &asked, HM_ASK_TARGETS,
                                  &adapter, &err),
                 HM_ERR_USAGE, "it holds no factors of 'model.layers.0.block_sparse_moe.gate'",
                 err);
    assert_null(adapter);
}

static int start_gate(void *context, struct hm_error *err)
{
    struct hm_adapter_config asked = { .gate = true };
    struct hm_adapter *adapter = NULL;

    (void)context;
    HM_TRY(
        hm_adapter_start(golden_path("peft/adapter"), &ckpt, &asked, HM_ASK_GATE, &adapter, err));
    hm_adapter_free(adapter);
    return HM_OK;
}

static void test_oom(void **state)
{
    (void)state;
    assert_true(oom_sweep(start_gate, NULL) > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_values),
                                        cmocka_unit_test(test_refusals),
                                        cmocka_unit_test(test_oom) };
    return cmocka_run_group_tests_name("adapter_start", tests, bases_setup, bases_teardown);
}
