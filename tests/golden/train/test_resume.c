/* SPDX-License-Identifier: MIT */
/*
 * Bitwise repetition in f32 and bf16: stopped, killed and continued runs, thread counts, with and
 * without dropout and recomputation; rows of the old vocabulary stay as they were.
 */
#include "train_fixture.h"

#include "hanmix/base/parallel.h"

#define STORE_BYTES ((uint64_t)64 << 20)

static struct hm_kernels kernels;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    return test_dir_setup(state);
}

struct plan {
    enum hm_round round;
    double dropout;
    bool keep_activations; /* no recomputation */
    bool stored;           /* values, gradients and moments in a file */
    bool coded;            /* moments in 8 bits */
    int threads;
    uint64_t stop_after, kill_after, save_every; /* 0 never */
};

/* Run as planned, continuing from the states with a fresh process' worth of memory, until the end.
 */
static void run_to_end(const struct plan *plan, const char *name, char hex[HM_SHA256_HEX_BYTES])
{
    struct hm_error err = { 0 };
    char states[512];
    int status, starts = 0;

    snprintf(states, sizeof(states), "%s",
             tmp_path(test_dir, "%s.%d.%g.states", name, (int)plan->round, plan->dropout));
    hm_threads_set(plan->threads);
    do {
        struct train_run run;
        struct hm_scratch *store = NULL;
        if (plan->stored)
            assert_ok(hm_scratch_new(test_dir, STORE_BYTES, &store, &err), err);
        train_open_with(&run, golden_path("bnb4bit/dq_gate16bit"), plan->round, &kernels, states,
                        NULL, store);
        run.adapter->config.dropout = plan->dropout;
        run.job.config.coded_moments = plan->coded;
        run.job.config.recompute = !plan->keep_activations;
        run.job.config.loss_norm = HM_LOSS_TOKENS;
        run.job.config.save_every = plan->save_every;
        run.job.config.keep = 2;
        run.stop_after = starts == 0 ? plan->stop_after : 0;
        run.fail_after = starts == 0 ? plan->kill_after : 0;
        status = train_go(&run, &err);
        if (status == HM_OK)
            train_digest(&run, tmp_path(test_dir, "%s.adapter", name), hex);
        else
            assert_int_equal(status, plan->kill_after ? HM_ERR_IO : HM_ERR_STOPPED);
        train_close(&run);
        hm_scratch_free(store);
        starts++;
    } while (status < 0);
    assert_int_equal(starts, plan->stop_after || plan->kill_after ? 2 : 1);
    hm_threads_set(0);
}

static void assert_same(const struct plan *plan, const char *name, const char *want)
{
    char hex[HM_SHA256_HEX_BYTES];

    run_to_end(plan, name, hex);
    if (strcmp(hex, want) != 0)
        fail_msg("%s: adapter %.16s..., without a break %.16s...", name, hex, want);
}

static void check_repetition(enum hm_round round, double dropout, char whole[HM_SHA256_HEX_BYTES])
{
    const struct plan plain = { .round = round, .dropout = dropout, .threads = 1 };
    struct plan plan = plain;

    run_to_end(&plain, "whole", whole);
    plan.threads = 2;
    assert_same(&plan, "threads", whole);
    plan = plain;
    plan.stop_after = 10;
    assert_same(&plan, "stopped", whole);
    plan = plain;
    plan.kill_after = 13;
    plan.save_every = 5;
    plan.threads = 2;
    assert_same(&plan, "killed", whole);
    plan.stored = true;
    assert_same(&plan, "stored", whole);
    plan = plain;
    plan.keep_activations = true;
    assert_same(&plan, "kept", whole);
}

static void test_repetition(void **state)
{
    char f32[HM_SHA256_HEX_BYTES], bf16[HM_SHA256_HEX_BYTES];

    (void)state;
    check_repetition(HM_ROUND_NONE, 0, f32);
    check_repetition(HM_ROUND_BF16, 0, bf16);
    assert_string_not_equal(f32, bf16);
}

static void test_repetition_with_dropout(void **state)
{
    static const enum hm_round rounds[] = { HM_ROUND_NONE, HM_ROUND_BF16 };
    char dropped[HM_SHA256_HEX_BYTES], plain[HM_SHA256_HEX_BYTES];

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct plan plan = { .round = rounds[i], .threads = 1 };
        check_repetition(rounds[i], 0.1, dropped);
        run_to_end(&plan, "plain", plain);
        assert_string_not_equal(dropped, plain); /* it did something */
    }
}

static void test_repetition_with_coded_moments(void **state)
{
    const struct plan plain = { .threads = 1, .coded = true };
    struct plan plan = { .threads = 2, .coded = true, .kill_after = 13, .save_every = 5 };
    char coded[HM_SHA256_HEX_BYTES], other[HM_SHA256_HEX_BYTES];

    (void)state;
    run_to_end(&plain, "coded", coded);
    assert_same(&plan, "coded.killed", coded);
    plan.stored = true;
    assert_same(&plan, "coded.stored", coded);
    plan = (struct plan){ .threads = 1 };
    run_to_end(&plan, "f32", other);
    assert_string_not_equal(coded, other);
}

/* A copy of the model whose last eight rows count as new. */
static void grown_model(char *out, size_t size)
{
    struct hm_vocab_record record = { .old_vocab_size = 256,
                                      .new_vocab_size = 264,
                                      .present = true };
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };

    memset(record.old_tokenizer, 'a', 64);
    memset(record.new_tokenizer, 'b', 64);
    snprintf(out, size, "%s", tmp_path(test_dir, "model"));
    assert_ok(hm_dir_make(out, &err), err);
    assert_ok(hm_dir_list(golden_path("bnb4bit/dq_gate16bit"), &names, &err), err);
    for (size_t i = 0; i < names.count; i++) {
        char from[512];
        snprintf(from, sizeof(from), "%s/%s", golden_path("bnb4bit/dq_gate16bit"), names.item[i]);
        assert_ok(hm_file_copy(from, tmp_path(out, "%s", names.item[i]), &err), err);
    }
    hm_names_release(&names);
    assert_ok(hm_vocab_record_write(out, &record, &err), err);
}

static void check_rows(const struct hm_safetensors *saved, const struct hm_checkpoint *ckpt,
                       const char *name, const char *base_name)
{
    const struct hm_tensor *base = NULL, *tensor = NULL;
    struct hm_error err = { 0 };
    size_t cols = 64, changed = 0;

    assert_ok(hm_checkpoint_need(ckpt, base_name, &base, &err), err);
    assert_ok(hm_safetensors_need(saved, name, HM_DTYPE_F32, 2, base->shape, &tensor, &err), err);
    float *values = hm_alloc_array(HM_MEM_OTHER, base->count, sizeof(float));
    assert_ok(hm_dtype_to_f32(base->dtype, base->data, base->count, values, &err), err);
    assert_memory_equal(tensor->data, values, 256 * cols * sizeof(float));
    for (size_t row = 256; row < 264; row++)
        changed += memcmp(tensor->data + row * cols * sizeof(float), values + row * cols,
                          cols * sizeof(float)) != 0;
    assert_true(changed > 0);
    hm_free(values);
}

static void test_only_new_rows_move(void **state)
{
    char q_proj[] = "q_proj", w1[] = "w1";
    char *target[] = { q_proj, w1 };
    struct hm_adapter_config config = { .rank = 4,
                                        .alpha = 8,
                                        .target = target,
                                        .n_targets = 2,
                                        .embed = HM_ROWS_NEW,
                                        .head = HM_ROWS_NEW,
                                        .seed = 2 };
    struct hm_safetensors saved;
    struct train_run run;
    struct hm_error err = { 0 };
    char model[512], states[512], hex[HM_SHA256_HEX_BYTES];

    (void)state;
    grown_model(model, sizeof(model));
    snprintf(states, sizeof(states), "%s", tmp_path(test_dir, "rows.states"));
    train_open_with(&run, model, HM_ROUND_NONE, &kernels, states, &config, NULL);
    run.job.config.decay_all = true;
    run.job.config.steps = 6;
    assert_ok(train_go(&run, &err), err);
    train_digest(&run, tmp_path(test_dir, "rows.adapter"), hex);
    assert_ok(hm_safetensors_open(tmp_path(test_dir, "rows.adapter/adapter_model.safetensors"),
                                  &saved, &err),
              err);
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(run.model);
    check_rows(&saved, ckpt, "base_model.model.model.embed_tokens.weight",
               "model.embed_tokens.weight");
    check_rows(&saved, ckpt, "base_model.model.lm_head.weight", "lm_head.weight");
    hm_safetensors_close(&saved);
    train_close(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_repetition, setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_repetition_with_dropout, setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_repetition_with_coded_moments, setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_only_new_rows_move, setup, test_dir_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
