/* SPDX-License-Identifier: MIT */
/*
 * model/generate.c over 4-bit weights: a prompt in blocks gives what its tokens give one by one,
 * and any number of threads the same bytes, with an adapter and without, greedy and sampled.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/model/generate.h"

#define LONG  1100u /* more than one block of a prompt */
#define MADE  40u
#define VOCAB 700

static struct hm_kernels kernels;
static const char *dir;

struct heard {
    int32_t id[MADE];
    double logprob[MADE];
    size_t n;
};

static int hear(void *context, int32_t id, double logprob)
{
    struct heard *heard = context;

    assert_true(heard->n < MADE);
    heard->id[heard->n] = id;
    heard->logprob[heard->n++] = logprob;
    return 0;
}

static int setup(void **state)
{
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };
    const struct hm_arch arch = { .family = HM_FAMILY_MIXTRAL,
                                  .hidden = 128,
                                  .ffn = 256,
                                  .layers = 2,
                                  .heads = 8,
                                  .kv_heads = 2,
                                  .head_dim = 32,
                                  .experts = 4,
                                  .top_k = 2,
                                  .vocab_size = VOCAB,
                                  .max_positions = 2048,
                                  .norm_eps = 1e-5,
                                  .rope_theta = 1e4,
                                  .bos_id = 1,
                                  .eos_id = 2,
                                  .dtype = HM_DTYPE_BF16,
                                  .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 } };
    struct hm_error err = { 0 };

    (void)test_dir_setup(state);
    dir = tmp_path(test_dir, "model");
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    assert_ok(hm_synthetic_make(dir, &arch, 5, NULL, &err), err);
    return 0;
}

static struct hm_model *opened(enum hm_round round)
{
    const struct hm_model_options options = { &kernels, round, true };
    struct hm_model *model = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_model_open(dir, &options, &model, &err), err);
    return model;
}

static void ids_fill(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * i * 31 + i * 7 + 3) % VOCAB);
}

static void made(struct hm_model *model, const int32_t *ids, size_t n, uint32_t tokens,
                 double temperature, struct heard *ret_heard)
{
    const struct hm_generate_options options = { .max_tokens = tokens,
                                                 .temperature = temperature,
                                                 .top_k = 50,
                                                 .top_p = 0.95,
                                                 .seed = 3,
                                                 .eos_id = -1 };
    struct hm_error err = { 0 };

    *ret_heard = (struct heard){ .n = 0 };
    assert_ok(hm_generate(model, ids, n, &options, hear, ret_heard, NULL, &err), err);
    assert_int_equal(ret_heard->n, tokens);
}

/* Each token that was made with the cache is made again from a prompt that holds all before it. */
static void check_prompt(struct hm_model *model, size_t n, size_t stride)
{
    int32_t ids[LONG + MADE];
    struct heard cached, whole;

    ids_fill(ids, n);
    made(model, ids, n, MADE, 0, &cached);
    for (size_t i = 0; i < MADE; i++)
        ids[n + i] = cached.id[i];
    for (size_t i = 1; i < MADE; i += stride) {
        made(model, ids, n + i, 1, 0, &whole);
        assert_int_equal(whole.id[0], cached.id[i]);
        assert_true(fabs(whole.logprob[0] - cached.logprob[i]) < 1e-4);
    }
}

static void test_prompt_is_token_by_token(void **state)
{
    struct hm_model *model = opened(HM_ROUND_NONE);

    (void)state;
    check_prompt(model, 1, 1);
    check_prompt(model, 130, 7);
    check_prompt(model, LONG, 19);
    check_prompt(model, 1024 - 20, 5); /* the block's end lies among those made */
    hm_model_free(model);
}

/* LoRA on attention and experts, B not zero. */
static struct hm_adapter *adapter_made(struct hm_model *model)
{
    static char q[] = "q_proj", v[] = "v_proj", o[] = "o_proj", w1[] = "w1", w2[] = "w2";
    static char *target[] = { q, v, o, w1, w2 };
    const struct hm_adapter_config config = {
        .rank = 4, .alpha = 8, .target = target, .n_targets = 5, .seed = 1
    };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(hm_model_checkpoint(model), &config, false, &adapter, &err), err);
    for (size_t i = 0; i < adapter->n_params; i++) {
        const size_t n = (size_t)adapter->param[i].rows * adapter->param[i].cols;
        for (size_t j = 0; j < n; j++)
            adapter->param[i].value[j] += 0.02f * (float)(j % 7);
    }
    hm_model_attach(model, adapter);
    return adapter;
}

static void test_threads(void **state)
{
    int32_t ids[LONG];
    struct heard one, more, plain = { .n = 0 };

    (void)state;
    ids_fill(ids, LONG);
    for (int with = 0; with < 2; with++)
        for (int sampled = 0; sampled < 2; sampled++)
            for (int rounded = 0; rounded < 2; rounded++) {
                struct hm_model *model = opened(rounded ? HM_ROUND_BF16 : HM_ROUND_NONE);
                struct hm_adapter *adapter = with ? adapter_made(model) : NULL;
                size_t n = sampled ? 33 : LONG;
                hm_threads_set(1);
                made(model, ids, n, MADE, sampled, &one);
                for (int threads = 2; threads <= 5; threads += 3) {
                    hm_threads_set(threads);
                    made(model, ids, n, MADE, sampled, &more);
                    assert_memory_equal(&one, &more, sizeof(one));
                }
                if (!with && sampled && !rounded)
                    plain = one;
                if (with && sampled && !rounded)
                    assert_memory_not_equal(&plain, &one, sizeof(one));
                hm_model_free(model);
                hm_adapter_free(adapter);
            }
    hm_threads_set(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prompt_is_token_by_token),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, setup, test_dir_teardown);
}
