/* SPDX-License-Identifier: MIT */
/*
 * logits.safetensors of hm_eval_logits against transformers, bitsandbytes and the f64 reference:
 * logits, router logits, and losses computed from the recorded logits. Limits as for the forward
 * pass.
 */
#include "recorded.h"

#include <math.h>

#include "hanmix/eval/eval.h"

static struct hm_kernels kernels;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    kernels.frozen_forward = NULL; /* all was recorded with products in f32 */
    return test_dir_setup(state);
}

/* Losses of the ids of the batch out of recorded logits [B][T][V], in double. */
static void check_losses(const struct hm_safetensors *found, const struct hm_batch *batch,
                         const float *logits, size_t vocab)
{
    size_t n = (size_t)batch->rows * (batch->seq_len - 1);
    float *loss = recorded_f32(found, "loss", n);

    for (size_t i = 0; i < n; i++) {
        size_t row = i / (batch->seq_len - 1), t = i % (batch->seq_len - 1);
        size_t at = row * batch->seq_len + t;
        const float *line = logits + at * vocab;
        double max = line[0], sum = 0;
        for (size_t k = 1; k < vocab; k++)
            max = fmax(max, line[k]);
        for (size_t k = 0; k < vocab; k++)
            sum += exp(line[k] - max);
        double want = max + log(sum) - line[batch->ids[at + 1]];
        if (batch->mask && !batch->mask[at + 1])
            want = 0;
        if (!(fabs(loss[i] - want) < 2e-5))
            fail_msg("loss of row %zu position %zu: %.7g, from the logits %.7g", row, t,
                     (double)loss[i], want);
    }
    hm_free(loss);
}

/* truth may have router logits; `name` is its tensor of logits. */
static void check_folder(const char *model_dir, const char *batch_path, const char *truth_path,
                         const char *name, enum hm_round round, double limit)
{
    const char *out = tmp_path(test_dir, "logits.safetensors");
    struct hm_model *model = model_opened(model_dir, &kernels, round);
    const struct hm_arch *arch = hm_model_arch(model);
    struct hm_safetensors found, truth;
    struct recorded_batch batch;
    struct hm_error err = { 0 };
    char router[64];

    recorded_batch_read(golden_path(batch_path), &batch);
    size_t tokens = (size_t)batch.batch.rows * batch.batch.seq_len;
    assert_ok(hm_eval_logits(model, golden_path(batch_path), out, NULL, &err), err);
    assert_ok(hm_safetensors_open(out, &found, &err), err);
    assert_ok(hm_safetensors_open(golden_path(truth_path), &truth, &err), err);
    assert_int_equal(found.count, 2 + (arch->experts > 1 ? arch->layers : 0));
    float *a = recorded_f32(&found, "logits", tokens * arch->vocab_size);
    float *b = recorded_f32(&truth, name, tokens * arch->vocab_size);
    for (size_t i = 0; batch.mask && i < tokens; i++)
        if (!batch.mask[i]) /* padding is compared by nobody */
            memcpy(b + i * arch->vocab_size, a + i * arch->vocab_size,
                   arch->vocab_size * sizeof(float));
    assert_close(name, a, b, tokens * arch->vocab_size, limit);
    check_losses(&found, &batch.batch, b, arch->vocab_size);
    hm_free(a);
    hm_free(b);
    for (uint32_t l = 0; l < arch->layers && arch->experts > 1; l++) {
        snprintf(router, sizeof(router), "router_logits.%u", l);
        a = recorded_f32(&found, router, tokens * arch->experts);
        if (hm_safetensors_find(&truth, router)) {
            b = recorded_f32(&truth, router, tokens * arch->experts);
            assert_close(router, a, b, tokens * arch->experts, limit);
            hm_free(b);
        }
        hm_free(a);
    }
    hm_safetensors_close(&found);
    hm_safetensors_close(&truth);
    recorded_batch_release(&batch);
    hm_model_free(model);
}

static void test_mixtral(void **state)
{
    (void)state;
    check_folder(golden_path("mixtral/model"), "mixtral/batch.safetensors",
                 "mixtral/full.outputs_f32.safetensors", "logits", HM_ROUND_NONE, 9e-6);
    check_folder(golden_path("mixtral/model"), "mixtral/batch.safetensors",
                 "mixtral/full.outputs_f64.safetensors", "logits", HM_ROUND_NONE, 9e-6);
}

static void test_padding(void **state)
{
    (void)state;
    check_folder(golden_path("mixtral/model"), "mixtral/padded.safetensors",
                 "mixtral/padded.safetensors", "logits_f32", HM_ROUND_NONE, 9e-6);
}

static void test_4bit_folders(void **state)
{
    static const char *const names[] = { "dq_gate16bit", "dq_gate4bit", "plain_gate16bit",
                                         "plain_gate4bit" };

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        char folder[64], batch[64], truth[64];
        snprintf(folder, sizeof(folder), "bnb4bit/%s", names[i]);
        snprintf(batch, sizeof(batch), "bnb4bit/%s.batch.safetensors", names[i]);
        snprintf(truth, sizeof(truth), "bnb4bit/%s.logits.safetensors", names[i]);
        check_folder(golden_path(folder), batch, truth, "truth_w_f32", HM_ROUND_NONE, 1e-5);
        check_folder(golden_path(folder), batch, truth, "truth_w_bf16", HM_ROUND_BF16, 1e-5);
        check_folder(golden_path(folder), batch, truth, "bnb_f32", HM_ROUND_NONE, 1e-5);
    }
}

static void test_refusals(void **state)
{
    struct hm_model *model = model_opened(golden_path("mixtral/model"), &kernels, HM_ROUND_NONE);
    const char *out = tmp_path(test_dir, "out.safetensors");
    const char *ids = tmp_path(test_dir, "ids.safetensors");
    int64_t far[] = { 1, 2, 3, 264 };
    struct hm_tensor tensor = { .name = "ids",
                                .dtype = HM_DTYPE_I64,
                                .n_dims = 2,
                                .shape = { 2, 2 },
                                .data = (const uint8_t *)far };
    sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_eval_logits(model, tmp_path(test_dir, "none"), out, NULL, &err), HM_ERR_USAGE,
                 "does not exist", err);
    assert_ok(hm_safetensors_write(ids, &tensor, 1, NULL, &err), err);
    assert_fails(hm_eval_logits(model, ids, out, NULL, &err), HM_ERR_FORMAT, "row 1", err);
    assert_fails(hm_eval_logits(model, golden_path("mixtral/batch.safetensors"), out, &ctl, &err),
                 HM_ERR_STOPPED, "0 of 2 rows", err);
    assert_false(hm_path_exists(out)); /* nothing half-written */
    assert_fails(hm_eval_logits(model, golden_path("mixtral/batch.safetensors"),
                                "/proc/none/out.safetensors", NULL, &err),
                 HM_ERR_IO, "/proc/none", err);
    hm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mixtral, setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_padding, setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_4bit_folders, setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, test_dir_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
