/* SPDX-License-Identifier: MIT */
/*
 * Greedy continuations of stories260K, dense and Mixtral-shaped, against transformers' generate:
 * the same 120 ids, log-probabilities within 1e-3; the cache path against one pass over the whole
 * text; sampling repeats by seed.
 */
#include "recorded.h"

#include <math.h>

#include "hanmix/base/json.h"
#include "hanmix/model/generate.h"

#define MOST 512

static struct hm_kernels kernels;

struct heard {
    int32_t id[MOST];
    double logprob[MOST];
    size_t count, stop_after;
};

static int hear(void *context, int32_t id, double logprob)
{
    struct heard *heard = context;

    assert_true(heard->count < MOST);
    heard->id[heard->count] = id;
    heard->logprob[heard->count++] = logprob;
    return heard->count == heard->stop_after;
}

static int setup(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    return 0;
}

static size_t ids_of(const json_t *run, const char *key, int32_t *ids)
{
    const json_t *list = json_object_get(run, key);

    assert_true(json_array_size(list) > 0 && json_array_size(list) <= MOST);
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return json_array_size(list);
}

/* One recorded run: ids, log-probabilities, and the same log-probabilities from a single forward
 * pass. */
static void check_run(struct hm_model *model, const char *name, size_t n, const json_t *run,
                      const struct hm_safetensors *file)
{
    struct hm_error err = { 0 };
    int32_t prompt[MOST], wanted[MOST];
    size_t n_prompt = ids_of(run, "prompt_ids", prompt), n_new = ids_of(run, "new_ids", wanted);
    struct hm_generate_options options = { .max_tokens = (uint32_t)n_new,
                                           .top_p = 1,
                                           .eos_id = -1 };
    struct heard heard = { 0 };
    struct outputs out;
    char tensor[96];

    assert_ok(hm_generate(model, prompt, n_prompt, &options, hear, &heard, NULL, &err), err);
    assert_int_equal(heard.count, n_new);
    snprintf(tensor, sizeof tensor, "%s.%zu.logprobs_f64", name, n);
    float *truth = recorded_f32(file, tensor, n_new);
    for (size_t i = 0; i < n_new; i++) {
        assert_int_equal(heard.id[i], wanted[i]);
        assert_true(fabs(heard.logprob[i] - (double)truth[i]) < 1e-3);
    }
    memcpy(prompt + n_prompt, wanted, n_new * sizeof *wanted);
    struct hm_batch batch = { .rows = 1, .seq_len = (uint32_t)(n_prompt + n_new), .ids = prompt };
    forward_run(model, &batch, &out);
    double sum = 0;
    for (size_t i = 0; i < n_new; i++)
        sum += heard.logprob[i];
    struct hm_batch head = { .rows = 1, .seq_len = (uint32_t)n_prompt, .ids = prompt };
    struct outputs head_out;
    forward_run(model, &head, &head_out);
    assert_true(fabs(out.result.loss_sum - head_out.result.loss_sum + sum) < 1e-3);
    outputs_release(model, &out);
    outputs_release(model, &head_out);
    hm_free(truth);
}

static void test_greedy(void **state)
{
    struct hm_error err = { 0 };
    struct hm_safetensors file = { 0 };
    json_t *root = NULL;
    const char *name;
    json_t *runs;

    (void)state;
    assert_ok(hm_json_load(golden_path("generate_text/results.json"), 1 << 20, &root, &err), err);
    assert_ok(hm_safetensors_open(golden_path("generate_text/logprobs.safetensors"), &file, &err),
              err);
    json_object_foreach(json_object_get(root, "models"), name, runs)
    {
        char path[96];
        snprintf(path, sizeof path, "models/%s", name);
        struct hm_model *model = model_opened(golden_path(path), &kernels, HM_ROUND_NONE);
        for (size_t n = 0; n < json_array_size(runs); n++)
            check_run(model, name, n, json_array_get(runs, n), &file);
        hm_model_free(model);
    }
    hm_safetensors_close(&file);
    json_decref(root);
}

static void sampled(struct hm_model *model, double temperature, double top_p, uint64_t seed,
                    struct heard *ret_heard)
{
    const int32_t prompt[] = { 1, 403, 407, 261, 378 };
    struct hm_generate_options options = {
        .max_tokens = 60, .temperature = temperature, .top_p = top_p, .seed = seed, .eos_id = -1
    };
    struct hm_error err = { 0 };

    *ret_heard = (struct heard){ 0 };
    assert_ok(hm_generate(model, prompt, 5, &options, hear, ret_heard, NULL, &err), err);
}

static void test_sampling(void **state)
{
    struct hm_model *model =
        model_opened(golden_path("models/stories260K-llama-hf"), &kernels, HM_ROUND_NONE);
    struct heard greedy, narrow, first, again, other;

    (void)state;
    sampled(model, 0, 1, 0, &greedy);
    sampled(model, 1.0, 1e-9, 7, &narrow); /* the nucleus is one token */
    assert_memory_equal(greedy.id, narrow.id, greedy.count * sizeof(int32_t));
    sampled(model, 1.0, 0.95, 7, &first);
    sampled(model, 1.0, 0.95, 7, &again);
    sampled(model, 1.0, 0.95, 8, &other);
    assert_memory_equal(first.id, again.id, first.count * sizeof(int32_t));
    assert_memory_not_equal(first.id, other.id, first.count * sizeof(int32_t));
    hm_model_free(model);
}

/* With an adapter each new id is the most likely one of a single pass over the text so far. */
static void test_adapter(void **state)
{
    struct hm_model *model = model_opened(golden_path("mixtral/model"), &kernels, HM_ROUND_NONE);
    struct hm_generate_options options = { .max_tokens = 24, .top_p = 1, .eos_id = -1 };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };
    struct heard plain = { 0 }, adapted = { 0 };
    int32_t ids[29] = { 1, 17, 250, 3, 99 };
    struct hm_batch batch = { .rows = 1, .seq_len = 29, .ids = ids };
    struct outputs out;

    (void)state;
    assert_ok(hm_generate(model, ids, 5, &options, hear, &plain, NULL, &err), err);
    assert_ok(hm_adapter_load(golden_path("peft/adapter"), hm_model_checkpoint(model), false,
                              &adapter, &err),
              err);
    hm_model_attach(model, adapter);
    assert_ok(hm_generate(model, ids, 5, &options, hear, &adapted, NULL, &err), err);
    assert_memory_not_equal(plain.id, adapted.id, 24 * sizeof(int32_t));
    memcpy(ids + 5, adapted.id, 24 * sizeof(int32_t));
    forward_run(model, &batch, &out);
    size_t vocab = hm_model_arch(model)->vocab_size;
    for (size_t n = 4; n + 1 < 29; n++)
        for (size_t v = 0; v < vocab; v++)
            assert_true(out.logits[n * vocab + v] <=
                        out.logits[n * vocab + (size_t)ids[n + 1]] + 1e-4f);
    outputs_release(model, &out);
    hm_adapter_free(adapter);
    hm_model_free(model);
}

static void test_stops(void **state)
{
    struct hm_model *model =
        model_opened(golden_path("models/stories260K-llama-hf"), &kernels, HM_ROUND_NONE);
    const int32_t prompt[] = { 1, 403 }, wrong[] = { 1, 512 };
    volatile sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    struct hm_generate_options options = { .max_tokens = 20, .top_p = 1, .eos_id = -1 };
    struct heard heard = { .stop_after = 3 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_generate(model, prompt, 2, &options, hear, &heard, NULL, &err), err);
    assert_int_equal(heard.count, 3);
    options.eos_id = heard.id[1];
    heard = (struct heard){ 0 };
    assert_ok(hm_generate(model, prompt, 2, &options, hear, &heard, NULL, &err), err);
    assert_int_equal(heard.count, 2);
    assert_fails(hm_generate(model, prompt, 2, &options, hear, &heard, &ctl, &err), HM_ERR_STOPPED,
                 "stopped", err);
    assert_fails(hm_generate(model, prompt, 0, &options, hear, &heard, NULL, &err), HM_ERR_USAGE,
                 "empty", err);
    assert_fails(hm_generate(model, wrong, 2, &options, hear, &heard, NULL, &err), HM_ERR_FORMAT,
                 "512", err);
    hm_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_stops),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
