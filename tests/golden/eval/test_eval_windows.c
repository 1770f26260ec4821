/* SPDX-License-Identifier: MIT */
/*
 * Windowed loss on a real model: documents scored side by side against each window run alone,
 * padding and joining apart.
 */
#include "recorded.h"
#include "support/text_fixture.h"

#include <math.h>

#include "hanmix/eval/eval.h"

static const char *const text[] = {
    "a first text that needs several windows of the model to be scored whole, at any stride",
    "\xe4\xb8\xad\xe6\x96\x87\xe6\x96\x87\xe6\x9c\xac", "short", "another text of middling length"
};
#define N_TEXTS 4

/* Loss of tokens first_target.. of one window by itself. */
static double window_alone(struct hm_model *model, const int32_t *ids, uint32_t n,
                           uint32_t first_target)
{
    struct hm_workspace *workspace = NULL;
    struct hm_step_result result;
    struct hm_error err = { 0 };
    int32_t labels[128];
    struct hm_batch batch = { .rows = 1, .seq_len = n, .ids = ids, .labels = labels };

    for (uint32_t t = 0; t < n; t++)
        labels[t] = t < first_target ? HM_LABEL_IGNORE : ids[t];
    assert_ok(hm_workspace_new(model, 1, n, false, false, &workspace, &err), err);
    assert_ok(
        hm_model_step(model, workspace, &batch, &(struct hm_step_options){ 0 }, &result, &err),
        err);
    hm_workspace_free(workspace);
    assert_int_equal(result.targets, n - first_target);
    return result.loss_sum;
}

static double all_alone(struct hm_model *model, uint32_t window, uint32_t step)
{
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_error err = { 0 };
    double loss = 0;

    for (size_t i = 0; i < N_TEXTS; i++) {
        struct hm_ids ids = { 0 };
        size_t first = 0, end = 0, scored = 1;
        assert_ok(hm_ids_append(&ids, &encoder.bos_id, 1, &err), err);
        assert_ok(encoder.encode(encoder.context, hm_str_of(text[i]), &ids, &err), err);
        for (; end < ids.count; first += step) {
            end = ids.count - first < window ? ids.count : first + window;
            loss += window_alone(model, ids.id + first, (uint32_t)(end - first),
                                 (uint32_t)(scored - first));
            scored = end;
        }
        hm_ids_release(&ids);
    }
    return loss;
}

static void test_side_by_side(void **state)
{
    static const uint32_t cases[][2] = { { 100, 50 }, { 24, 12 }, { 24, 23 } };
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_kernels kernels;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    struct hm_model *model =
        model_opened(golden_path("bnb4bit/dq_gate16bit"), &kernels, HM_ROUND_NONE);
    for (size_t i = 0; i < 3; i++) {
        struct fixture_texts texts = { text, NULL, N_TEXTS, 0, 0 };
        struct hm_text_source source = fixture_source(&texts);
        struct hm_loss_set *sets = NULL;
        size_t n = 0;
        assert_ok(hm_eval_loss_text(model, &source, &encoder, cases[i][0], cases[i][1], NULL, &sets,
                                    &n, &err),
                  err);
        double found = sets[0].nats_per_token * (double)sets[0].tokens;
        double want = all_alone(model, cases[i][0], cases[i][1]);
        if (!(fabs(found - want) < 1e-5 * want))
            fail_msg("window %u: loss %.9g, one by one %.9g", cases[i][0], found, want);
        hm_loss_sets_free(sets, n);
    }
    hm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_side_by_side) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
