/* SPDX-License-Identifier: MIT */
/*
 * model/weight_stream.c: under a budget of a third of the weights a step gives the same bytes,
 * stays within it, and reads less than everything twice; budgets that are too small and files that
 * shrink are errors with a sentence.
 */
#include "support/support.h"

#include <sys/mman.h>
#include <unistd.h>

#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/model/generate.h"
#include "hanmix/model/model.h"

#define TOKENS 40u
#define SLACK  ((uint64_t)512 << 10) /* a round of pages at the edges, rows of the embedding */

struct run { /* of some steps */
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_workspace *workspace;
    double loss[4];
    struct hm_stream_counts counts;
    uint64_t resident; /* of the mapping, at the end */
};

static struct hm_arch shape_of(uint32_t experts, bool tied)
{
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };

    return (struct hm_arch){ .family = experts > 1 ? HM_FAMILY_MIXTRAL : HM_FAMILY_LLAMA,
                             .hidden = 128,
                             .ffn = 512,
                             .layers = 6,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 32,
                             .experts = experts,
                             .top_k = experts > 1 ? 2 : 1,
                             .vocab_size = 700,
                             .max_positions = 128,
                             .norm_eps = 1e-5,
                             .rope_theta = 1e4,
                             .bos_id = 1,
                             .eos_id = 2,
                             .tied = tied,
                             .dtype = HM_DTYPE_BF16,
                             .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 } };
}

/* Resident bytes of all mappings of files below dir. */
static uint64_t mapped_resident(const char *dir)
{
    char line[4096];
    uint64_t sum = 0;
    unsigned long kib = 0;
    bool inside = false;
    FILE *file = fopen("/proc/self/smaps", "r");

    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
            inside = strstr(line, dir) != NULL;
        else if (inside && sscanf(line, "Rss: %lu", &kib) == 1)
            sum += kib * 1024;
    }
    fclose(file);
    return sum;
}

static void run_open(const char *dir, const struct hm_kernels *kernels, bool recompute,
                     struct run *run)
{
    static char q[] = "q_proj", w1[] = "w1", w2[] = "w2", gate_proj[] = "gate_proj";
    static char *target[] = { q, w1, w2, gate_proj };
    const struct hm_model_options options = { kernels, HM_ROUND_BF16, true };
    struct hm_error err = { 0 };

    *run = (struct run){ 0 };
    assert_ok(hm_model_open(dir, &options, &run->model, &err), err);
    bool routed = hm_model_arch(run->model)->experts > 1;
    struct hm_adapter_config config = { .rank = 4,
                                        .alpha = 8,
                                        .target = routed ? target : target + 3,
                                        .n_targets = routed ? 3 : 1,
                                        .seed = 1 };
    assert_ok(hm_adapter_new(hm_model_checkpoint(run->model), &config, true, &run->adapter, &err),
              err);
    for (size_t i = 0; i < run->adapter->n_params; i++) /* B is zero at the start */
        for (size_t j = 0; j < (size_t)run->adapter->param[i].rows * run->adapter->param[i].cols;
             j++)
            run->adapter->param[i].value[j] += 0.001f * (float)(j % 7);
    hm_model_attach(run->model, run->adapter);
    assert_ok(hm_workspace_new(run->model, 1, TOKENS, true, recompute, &run->workspace, &err), err);
}

static void run_close(struct run *run)
{
    hm_workspace_free(run->workspace);
    hm_model_free(run->model);
    hm_adapter_free(run->adapter);
}

/* Two steps, an evaluation between them, and one over a single token. */
static int run_steps(struct run *run, bool recompute, struct hm_error *err)
{
    int32_t ids[TOKENS];
    struct hm_step_result result;
    struct hm_batch batch = { .rows = 1, .seq_len = TOKENS, .ids = ids };

    for (size_t i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)(i * 131 % 700);
    for (int i = 0; i < 4; i++) {
        struct hm_step_options options = { .backward = i % 2 == 0,
                                           .recompute = recompute,
                                           .loss_weight = 1.0 / TOKENS };
        batch.seq_len = i == 3 ? 2 : TOKENS;
        HM_TRY(hm_model_step(run->model, run->workspace, &batch, &options, &result, err));
        run->loss[i] = result.loss_sum;
    }
    hm_model_stream_counts(run->model, &run->counts);
    return HM_OK;
}

static void compare(const struct run *a, const struct run *b)
{
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
    for (size_t i = 0; i < a->adapter->n_params; i++)
        assert_memory_equal(a->adapter->param[i].grad, b->adapter->param[i].grad,
                            (size_t)a->adapter->param[i].rows * a->adapter->param[i].cols * 4);
}

static void check_same(const struct hm_arch *arch, const struct hm_kernels *kernels, bool recompute)
{
    const char *dir = tmp_path(test_dir, "same");
    struct hm_error err = { 0 };
    struct run free_run, bound;

    assert_ok(hm_synthetic_make(dir, arch, 3, NULL, &err), err);
    uint64_t weights = hm_memory_plan_weights(arch), budget = weights * 2 / 5;
    for (int threads = 1; threads <= 2; threads++) {
        hm_threads_set(threads);
        run_open(dir, kernels, recompute, &free_run);
        assert_ok(run_steps(&free_run, recompute, &err), err);
        run_open(dir, kernels, recompute, &bound);
        uint64_t before = mapped_resident(dir);
        assert_ok(hm_model_stream(bound.model, budget, &err), err);
        assert_ok(run_steps(&bound, recompute, &err), err);
        uint64_t after = mapped_resident(dir);
        compare(&free_run, &bound);
        if (after > before + budget + SLACK)
            fail_msg("%llu bytes resident, %llu allowed", (unsigned long long)(after - before),
                     (unsigned long long)budget);
        /* 6 passes over the layers; what stays at the turns is not read again */
        assert_true(bound.counts.read_bytes > weights);
        assert_true(bound.counts.read_bytes < 6 * weights);
        assert_true(bound.counts.read_seconds > 0 && free_run.counts.read_bytes == 0);
        run_close(&bound);
        run_close(&free_run);
    }
    hm_dir_remove(dir, NULL);
}

static void test_same_bytes(void **state)
{
    struct hm_arch routed = shape_of(4, false), tied = shape_of(4, true),
                   dense = shape_of(1, false);
    struct hm_kernels kernels;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    check_same(&routed, &kernels, true);
    check_same(&routed, &kernels, false);
    check_same(&tied, &kernels, true);
    check_same(&dense, &kernels, true);
}

static int collect(void *context, int32_t id, double logprob)
{
    struct hm_buf *text = context;
    struct hm_error err = { 0 };

    return hm_buf_printf(text, &err, "%d %.17g\n", id, logprob) < 0;
}

static void test_generation(void **state)
{
    const char *dir = tmp_path(test_dir, "generate");
    struct hm_arch arch = shape_of(4, false);
    struct hm_generate_options options = { .max_tokens = 12, .eos_id = -1 };
    const int32_t prompt[] = { 1, 40, 300, 7 };
    struct hm_buf text[2] = { { 0 }, { 0 } };
    struct hm_kernels kernels;
    struct hm_error err = { 0 };
    struct run run;

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    assert_ok(hm_synthetic_make(dir, &arch, 3, NULL, &err), err);
    for (int bound = 0; bound < 2; bound++) {
        run_open(dir, &kernels, true, &run);
        if (bound)
            assert_ok(hm_model_stream(run.model, hm_memory_plan_weights(&arch) * 2 / 5, &err), err);
        assert_ok(hm_generate(run.model, prompt, 4, &options, collect, &text[bound], NULL, &err),
                  err);
        run_close(&run);
    }
    assert_string_equal(text[0].ptr, text[1].ptr);
    hm_buf_release(&text[0]);
    hm_buf_release(&text[1]);
}

static void test_too_little(void **state)
{
    const char *dir = tmp_path(test_dir, "little");
    struct hm_arch arch = shape_of(4, false);
    struct hm_kernels kernels;
    struct hm_error err = { 0 };
    struct run run;

    (void)state;
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    assert_ok(hm_synthetic_make(dir, &arch, 3, NULL, &err), err);
    run_open(dir, &kernels, true, &run);
    assert_fails(hm_model_stream(run.model, 100000, &err), HM_ERR_NOFIT,
                 "one layer and its experts", err);
    assert_ok(run_steps(&run, true, &err), err); /* as before */
    run_close(&run);
}

static void test_file_cut(void **state)
{
    const char *dir = tmp_path(test_dir, "cut");
    struct hm_arch arch = shape_of(4, false);
    struct hm_kernels kernels;
    struct hm_error err = { 0 };
    uint64_t bytes = 0;
    struct run run;

    (void)state;
    if (madvise((void *)4096, 4096, MADV_POPULATE_READ) == 0)
        skip(); /* nothing is mapped there: qemu-user answers without looking */
    assert_ok(hm_kernels_choose(&kernels, NULL, &err), err);
    assert_ok(hm_synthetic_make(dir, &arch, 3, NULL, &err), err);
    const char *file = tmp_path(test_dir, "cut/model.safetensors");
    assert_ok(hm_file_size(file, &bytes, &err), err);
    run_open(dir, &kernels, true, &run);
    assert_ok(hm_model_stream(run.model, hm_memory_plan_weights(&arch) * 2 / 5, &err), err);
    assert_int_equal(truncate(file, (off_t)(bytes * 4 / 5)), 0);
    assert_fails(run_steps(&run, true, &err), HM_ERR_FORMAT, "was cut from", err);
    assert_fails(run_steps(&run, true, &err), HM_ERR_FORMAT, "cut/model.safetensors", err);
    run_close(&run);
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_kernels kernels;
    const struct hm_model_options options = { &kernels, HM_ROUND_BF16, true };
    struct hm_model *model = NULL;

    HM_TRY(hm_kernels_choose(&kernels, NULL, err));
    HM_TRY(hm_model_open(context, &options, &model, err));
    int status = hm_model_stream(model, hm_memory_plan_weights(hm_model_arch(model)) / 2, err);
    hm_model_free(model);
    return status;
}

static void test_without_memory(void **state)
{
    const char *dir = tmp_path(test_dir, "oom");
    struct hm_arch arch = shape_of(4, false);
    struct hm_error err = { 0 };

    (void)state;
    arch.layers = 2;
    assert_ok(hm_synthetic_make(dir, &arch, 3, NULL, &err), err);
    assert_true(oom_sweep(attempt, (void *)(uintptr_t)dir) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes),     cmocka_unit_test(test_generation),
        cmocka_unit_test(test_too_little),     cmocka_unit_test(test_file_cut),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
