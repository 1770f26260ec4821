/* SPDX-License-Identifier: MIT */
/*
 * The recorded 24 steps of torch, peft and bitsandbytes: loss, aux, gradient norm and rate of every
 * step, and the final adapter, for each objective and both roundings of the frozen weights. Limits:
 * 20 times the recorded f32-f64 difference.
 */
#include <math.h>

#include "train_fixture.h"

#define MARGIN 20

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    assert_true(json_is_number(value));
    return json_number_value(value);
}

static double mean(const json_t *object, const char *key)
{
    const json_t *list = json_object_get(object, key);
    double sum = 0;

    assert_int_equal(json_array_size(list), 2);
    for (size_t i = 0; i < 2; i++)
        sum += json_number_value(json_array_get(list, i)) / 2;
    return sum;
}

static void assert_near(uint64_t step, const char *what, double found, double want, double limit)
{
    if (!(fabs(found - want) <= limit))
        fail_msg("step %u: %s is %.9g, recorded %.9g, limit %.2g", (unsigned)step, what, found,
                 want, limit);
}

static void check_steps(const struct train_run *run, const json_t *variant)
{
    const json_t *truth = json_object_get(variant, "f64");
    const json_t *limits = json_object_get(variant, "largest_difference_f32_f64");

    assert_int_equal(json_array_size(truth), TRAIN_STEPS);
    for (uint64_t step = 1; step <= TRAIN_STEPS; step++) {
        const json_t *want = json_array_get(truth, step - 1);
        const struct hm_train_metrics *found = &run->log[step];
        assert_int_equal((uint64_t)number(want, "step"), found->step);
        assert_near(step, "loss", found->loss, number(want, "step_lm_loss"),
                    MARGIN * number(limits, "micro_lm_loss"));
        assert_near(step, "aux", found->aux, mean(want, "micro_aux_loss"),
                    MARGIN * number(limits, "micro_aux_loss"));
        assert_near(step, "gradient norm", found->grad_norm, number(want, "grad_norm"),
                    MARGIN * number(limits, "grad_norm"));
        assert_near(step, "lr", found->lr, number(want, "lr"), 1e-15);
    }
}

/* The update of each tensor, final minus initial, against the recorded one. */
static void check_final(const struct train_run *run, const char *name, const json_t *variant)
{
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(run->model);
    double limit =
        MARGIN * number(json_object_get(variant, "final_update_difference"), "worst_rel_rms");
    struct hm_adapter *first = NULL, *last = NULL;
    struct hm_error err = { 0 };
    char path[64];
    double worst = 0;

    snprintf(path, sizeof(path), "train/%s.final_adapter", name);
    assert_ok(hm_adapter_load(golden_path("train/initial_adapter"), ckpt, false, &first, &err),
              err);
    assert_ok(hm_adapter_load(golden_path(path), ckpt, false, &last, &err), err);
    assert_int_equal(last->n_params, run->adapter->n_params);
    for (size_t i = 0; i < last->n_params; i++) {
        size_t count = hm_param_values(&last->param[i]);
        double difference = 0, update = 0;
        assert_string_equal(last->param[i].name, run->adapter->param[i].name);
        for (size_t k = 0; k < count; k++) {
            double want = last->param[i].value[k];
            difference += pow(run->adapter->param[i].value[k] - want, 2);
            update += pow(want - first->param[i].value[k], 2);
        }
        double found = sqrt(difference / update);
        if (!(found <= limit))
            fail_msg("%s: update of %s differs by %.3g, limit %.3g", name, last->param[i].name,
                     found, limit);
        worst = fmax(worst, found);
    }
    print_message("%s with %s: worst update difference %.2g, limit %.2g\n", name, run->kernels.name,
                  worst, limit);
    hm_adapter_free(first);
    hm_adapter_free(last);
}

static void check_variant(const char *name, enum hm_loss_norm norm, double aux_coef,
                          enum hm_round round, const struct hm_kernels *kernels)
{
    struct hm_error err = { 0 };
    struct train_run run;
    json_t *results = NULL;
    char *dir = tmp_new();

    assert_ok(hm_json_load(golden_path("train/results.json"), 1u << 22, &results, &err), err);
    const json_t *variant = json_object_get(results, name);
    train_open(&run, golden_path("bnb4bit/dq_gate16bit"), round, kernels, dir);
    run.job.config.loss_norm = norm;
    run.job.config.aux_coef = aux_coef;
    assert_ok(train_go(&run, &err), err);
    check_steps(&run, variant);
    check_final(&run, name, variant);
    train_close(&run);
    json_decref(results);
    tmp_release(dir);
}

/* Every path of this machine, the reference first. */
static void check_all_paths(const char *name, enum hm_loss_norm norm, double aux_coef,
                            enum hm_round round)
{
    struct hm_kernels tables[8];
    size_t count = hm_kernels_all(tables, 8);

    assert_true(count >= 1);
    for (size_t i = 0; i < count; i++) {
        tables[i].frozen_forward = NULL; /* all were recorded with products in f32 */
        check_variant(name, norm, aux_coef, round, &tables[i]);
    }
}

static void test_tokens(void **state)
{
    (void)state;
    check_all_paths("tokens", HM_LOSS_TOKENS, 0, HM_ROUND_NONE);
}

static void test_micro(void **state)
{
    (void)state;
    check_all_paths("micro", HM_LOSS_MICRO, 0, HM_ROUND_NONE);
}

static void test_micro_aux(void **state)
{
    (void)state;
    check_all_paths("micro_aux", HM_LOSS_MICRO, 0.02, HM_ROUND_NONE);
}

static void test_micro_w_bf16(void **state)
{
    (void)state;
    check_all_paths("micro_w_bf16", HM_LOSS_MICRO, 0, HM_ROUND_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_micro),
        cmocka_unit_test(test_micro_aux),
        cmocka_unit_test(test_micro_w_bf16),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
