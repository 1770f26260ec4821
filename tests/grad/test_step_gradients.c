/* SPDX-License-Identifier: MIT */
/*
 * Gradients of a step against central differences of the double-precision objective of reference.c,
 * tensor by tensor at scattered values: LoRA on every linear and the router, new rows, full
 * matrices, norms; sliding window, padding with holes, documents, dropout, tied head, experts
 * without tokens, auxiliary loss, recomputed and kept layers. Limit: 4e-5 of the tensor's root mean
 * square (f32 arithmetic; differences themselves are good to 1e-8).
 */
#include "reference.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "support/random_model.h"

#define LIMIT        4e-5
#define PROBES       5
#define OLD_VOCAB    30
#define LONGEST      16
#define AUX_WEIGHT   0.3
#define DROPOUT_SEED 99

struct grad_case {
    const char *name;
    uint32_t layers, experts, top_k, rows, seq_len, window;
    bool tied, all, gate, mask, documents, recompute;
    enum hm_rows embed, head;
    uint32_t rank;
    double dropout, aux;
};

static const struct grad_case cases[] = {
    { "one dense layer, all weights", 1, 1, 1, 2, 7, 0, .all = true },
    { "two dense layers, tied, all weights", 2, 1, 1, 1, 9, 0, .all = true, .tied = true,
      .recompute = true },
    { "one layer of experts, all weights, auxiliary loss", 1, 4, 2, 2, 8, 0, .all = true,
      .aux = AUX_WEIGHT },
    { "low rank everywhere, new rows, auxiliary loss", 2, 4, 2, 2, 9, 0, .rank = 3,
      .embed = HM_ROWS_NEW, .head = HM_ROWS_NEW, .aux = AUX_WEIGHT, .recompute = true },
    { "low rank kept, trained router, all rows", 2, 4, 2, 2, 9, 0, .rank = 3, .gate = true,
      .embed = HM_ROWS_ALL, .head = HM_ROWS_ALL },
    { "sliding window, padding with holes", 2, 4, 2, 2, 11, 4, .rank = 2, .mask = true,
      .aux = AUX_WEIGHT, .recompute = true },
    { "documents", 2, 4, 2, 2, 12, 0, .rank = 2, .documents = true, .recompute = true },
    { "dropout", 2, 4, 2, 2, 9, 0, .rank = 3, .dropout = 0.4, .recompute = true },
    { "many experts, few tokens", 1, 16, 2, 1, 4, 0, .rank = 2, .gate = true, .recompute = true },
    { "tied, new rows", 1, 1, 1, 1, 9, 0, .rank = 2, .tied = true, .embed = HM_ROWS_NEW },
};

struct fixture {
    char *dir;
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    int32_t ids[2 * LONGEST], labels[2 * LONGEST];
    uint8_t mask[2 * LONGEST], doc_start[2 * LONGEST];
    struct hm_batch batch;
};

static void batch_fill(const struct grad_case *c, struct fixture *f)
{
    struct hm_rng_key key = { 5, 0 };

    for (uint32_t n = 0; n < c->rows * c->seq_len; n++) {
        f->ids[n] = (int32_t)hm_rng_below(key, n, 37);
        f->labels[n] = n % 5 == 3 ? HM_LABEL_IGNORE : f->ids[n];
        f->mask[n] =
            n != 2 && n % c->seq_len + 2 < c->seq_len; /* a hole, and padding on the right */
        f->doc_start[n] = n % c->seq_len == 0 || n % 5 == 2;
        if (c->mask && !f->mask[n])
            f->labels[n] = HM_LABEL_IGNORE;
    }
    f->batch = (struct hm_batch){ c->rows,
                                  c->seq_len,
                                  f->ids,
                                  f->labels,
                                  c->mask ? f->mask : NULL,
                                  c->documents ? f->doc_start : NULL };
}

static void adapter_make(const struct grad_case *c, struct fixture *f)
{
    static char q[] = "q_proj", k[] = "k_proj", v[] = "v_proj", o[] = "o_proj", g[] = "gate";
    static char w1[] = "w1", w2[] = "w2", w3[] = "w3";
    static char dense1[] = "gate_proj", dense2[] = "down_proj", dense3[] = "up_proj";
    char *routed[] = { q, k, v, o, w1, w2, w3, g };
    char *dense[] = { q, k, v, o, dense1, dense2, dense3 };
    struct hm_adapter_config config = { .rank = c->rank ? c->rank : 1,
                                        .alpha = 5,
                                        .dropout = c->dropout,
                                        .target = c->experts > 1 ? routed : dense,
                                        .n_targets = c->experts == 1 || c->gate ? 7 : 8,
                                        .embed = c->embed,
                                        .head = c->head,
                                        .gate = c->gate,
                                        .all = c->all,
                                        .seed = 3 };
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_new(hm_model_checkpoint(f->model), &config, true, &f->adapter, &err), err);
    for (size_t i = 0; i < f->adapter->n_params; i++) {
        struct hm_param *param = &f->adapter->param[i];
        struct hm_rng_key key = { 11, i };
        for (size_t j = 0; j < (size_t)param->rows * param->cols && param->kind == HM_PARAM_LORA_B;
             j++)
            param->value[j] = (float)(0.3 * hm_rng_normal(key, j));
    }
}

static void fixture_open(const struct grad_case *c, struct fixture *f)
{
    struct hm_vocab_record record = { .old_vocab_size = OLD_VOCAB,
                                      .new_vocab_size = 37,
                                      .present = true };
    struct hm_model_options options = { &f->kernels, HM_ROUND_NONE, true };
    struct hm_arch arch = random_arch(c->layers, c->experts, c->top_k);
    struct hm_error err = { 0 };

    memset(record.old_tokenizer, 'a', HM_SHA256_HEX_BYTES - 1);
    memset(record.new_tokenizer, 'b', HM_SHA256_HEX_BYTES - 1);
    arch.sliding_window = c->window;
    arch.tied = c->tied;
    f->dir = tmp_new();
    random_model_write(f->dir, &arch, 17, 1.2);
    assert_ok(hm_vocab_record_write(f->dir, &record, &err), err);
    assert_ok(hm_kernels_choose(&f->kernels, NULL, &err), err);
    assert_ok(hm_model_open(f->dir, &options, &f->model, &err), err);
    adapter_make(c, f);
    hm_model_attach(f->model, f->adapter);
    batch_fill(c, f);
}

static void fixture_close(struct fixture *f)
{
    hm_adapter_free(f->adapter);
    hm_model_free(f->model);
    tmp_release(f->dir);
}

static struct hm_step_options step_options(const struct grad_case *c)
{
    return (struct hm_step_options){ .backward = true,
                                     .recompute = c->recompute,
                                     .loss_weight = 0.25,
                                     .aux_weight = c->aux,
                                     .want_aux = true,
                                     .train = true,
                                     .dropout_seed = DROPOUT_SEED,
                                     .step = 7,
                                     .sample = 40 };
}

static void step_run(const struct grad_case *c, struct fixture *f,
                     struct hm_step_result *ret_result)
{
    const struct hm_step_options options = step_options(c);
    struct hm_workspace *workspace = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_workspace_new(f->model, c->rows, c->seq_len, true, c->recompute, &workspace, &err),
              err);
    hm_adapter_zero_grad(f->adapter);
    assert_ok(hm_model_step(f->model, workspace, &f->batch, &options, ret_result, &err), err);
    hm_workspace_free(workspace);
}

/* The largest value of the tensor's gradient and PROBES scattered ones. */
static void probe(const struct grad_case *c, struct fixture *f, struct reference *reference,
                  size_t index)
{
    const struct hm_param *param = &f->adapter->param[index];
    size_t count = (size_t)param->rows * param->cols, largest = 0;
    struct hm_rng_key key = { 23, index };
    double sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += (double)param->grad[i] * param->grad[i];
        largest = fabsf(param->grad[i]) > fabsf(param->grad[largest]) ? i : largest;
    }
    for (size_t i = 0; i <= PROBES; i++) {
        size_t at = i == 0 ? largest : (size_t)hm_rng_below(key, i, count);
        double truth =
            reference_gradient(reference, reference_value(reference, f->adapter, index, at));
        double found = (double)param->grad[at];
        double limit = LIMIT * (sqrt(sum / (double)count) + fabs(truth)) + 1e-9;
        if (!(fabs(found - truth) <= limit))
            fail_msg("%s: '%s'[%zu]: %.9g, central difference %.9g", c->name, param->name, at,
                     found, truth);
    }
}

static void check_case(const struct grad_case *c)
{
    struct fixture f = { 0 };
    struct reference reference;
    struct hm_step_result result;

    fixture_open(c, &f);
    reference_init(&reference, f.model, f.adapter);
    reference.batch = &f.batch;
    reference.loss_weight = 0.25;
    reference.aux_weight = c->aux;
    reference.dropout = c->dropout;
    reference.dropout_seed = DROPOUT_SEED;
    reference.step = 7;
    reference.sample = 40;
    step_run(c, &f, &result);
    double truth = reference_objective(&reference);
    double found = 0.25 * result.loss_sum + c->aux * result.aux;
    if (!(fabs(found - truth) <= 1e-5 * fabs(truth)))
        fail_msg("%s: objective %.9g, reference %.9g", c->name, found, truth);
    assert_true(reference.margin > 1e-3); /* no choice that f32 or a difference could turn over */
    for (size_t i = 0; i < f.adapter->n_params; i++)
        probe(c, &f, &reference, i);
    reference_release(&reference);
    fixture_close(&f);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check_case(&cases[i]);
}

/* Gradients and loss are the same bytes for any number of threads, dropout included. */
static void test_threads(void **state)
{
    const struct grad_case *c = &cases[7];
    const int threads = hm_threads();
    struct fixture f = { 0 };
    struct hm_step_result result[2];
    float *kept[512];

    (void)state;
    fixture_open(c, &f);
    assert_true(f.adapter->n_params <= 512);
    hm_threads_set(1);
    step_run(c, &f, &result[0]);
    for (size_t i = 0; i < f.adapter->n_params; i++) {
        size_t bytes = (size_t)f.adapter->param[i].rows * f.adapter->param[i].cols * sizeof(float);
        kept[i] = hm_alloc(HM_MEM_OTHER, bytes);
        memcpy(kept[i], f.adapter->param[i].grad, bytes);
    }
    hm_threads_set(3);
    step_run(c, &f, &result[1]);
    assert_true(result[0].loss_sum == result[1].loss_sum && result[0].aux == result[1].aux);
    for (size_t i = 0; i < f.adapter->n_params; i++) {
        size_t bytes = (size_t)f.adapter->param[i].rows * f.adapter->param[i].cols * sizeof(float);
        assert_memory_equal(kept[i], f.adapter->param[i].grad, bytes);
        hm_free(kept[i]);
    }
    hm_threads_set(threads);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_cases),
                                        cmocka_unit_test(test_threads) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
