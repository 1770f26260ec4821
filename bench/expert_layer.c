/* SPDX-License-Identifier: MIT */
/*
 * Speed of one expert layer of Mixtral's size (hidden 4096, FFN 14336, 8 experts, top 2, NF4, LoRA
 * on all three projections) without what surrounds it: expert_layer [--tokens N] [--rank R]
 * [--repeats N] [--compute bf16|f32] [--dir FOLDER]. Every token goes to two different experts,
 * every expert gets the same number of rows. One CSV row a pass: median and best seconds, GFLOP/s
 * by 2 * tokens * 2 * 3 * hidden * ffn, the same for the backward pass (activations kept, gradients
 * of input, router and adapters). The rival is rivals/expert_kt.py, whose rows have the same
 * columns.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/file.h"
#include "hanmix/base/rng.h"
#include "model/internal.h"

#define MAX_REPEATS 100u

struct bench {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_workspace *workspace;
    float *h, *out, *dout, *dh, *gamma;
    int32_t *ids;
};

struct times {
    double forward[MAX_REPEATS], backward[MAX_REPEATS];
};

static int bench_open(struct bench *bench, const char *dir, uint32_t tokens, uint32_t rank,
                      enum hm_round round, struct hm_error *err)
{
    static char w1[] = "w1", w2[] = "w2", w3[] = "w3";
    static char *target[] = { w1, w2, w3 };
    const struct hm_adapter_config config = {
        .rank = rank, .alpha = 16, .target = target, .n_targets = 3, .seed = 1
    };
    struct hm_model_options options = { &bench->kernels, round, false };

    HM_TRY(hm_kernels_choose(&bench->kernels, NULL, err));
    HM_TRY(hm_model_open(dir, &options, &bench->model, err));
    HM_TRY(hm_adapter_new(hm_model_checkpoint(bench->model), &config, true, &bench->adapter, err));
    hm_model_attach(bench->model, bench->adapter);
    HM_TRY(hm_workspace_new(bench->model, 1, tokens, true, false, &bench->workspace, err));
    const struct hm_arch *arch = hm_model_arch(bench->model);
    size_t values = (size_t)tokens * arch->hidden;
    const struct hm_rng_key key = { .seed = 2 };
    bench->ids = hm_calloc(HM_MEM_OTHER, tokens, sizeof(int32_t));
    bench->h = hm_alloc_array(HM_MEM_OTHER, values, sizeof(float));
    bench->out = hm_calloc(HM_MEM_OTHER, values, sizeof(float));
    bench->dout = hm_alloc_array(HM_MEM_OTHER, values, sizeof(float));
    bench->dh = hm_calloc(HM_MEM_OTHER, values, sizeof(float));
    bench->gamma = hm_calloc(HM_MEM_OTHER, bench->workspace->buffer[HM_BUF_GAMMA].rows,
                             bench->workspace->buffer[HM_BUF_GAMMA].cols * sizeof(float));
    if (!bench->ids || !bench->h || !bench->out || !bench->dout || !bench->dh || !bench->gamma)
        return hm_fail_nomem(err, "for %u tokens", tokens);
    for (size_t i = 0; i < values; i++) {
        bench->h[i] = (float)hm_rng_normal(key, 2 * i);
        bench->dout[i] = (float)hm_rng_normal(key, 2 * i + 1);
    }
    return HM_OK;
}

static void bench_close(struct bench *bench)
{
    hm_free(bench->ids);
    hm_free(bench->h);
    hm_free(bench->out);
    hm_free(bench->dout);
    hm_free(bench->dh);
    hm_free(bench->gamma);
    hm_workspace_free(bench->workspace);
    hm_adapter_free(bench->adapter);
    hm_model_free(bench->model);
}

/* Token t goes to experts t and t + 1 + t / E, which are never the same. */
static void route(const struct hm_step *step)
{
    const uint32_t experts = step->arch->experts;
    struct hm_routing routing = hm_routing_of(step, 0);

    for (uint32_t t = 0; t < step->N; t++) {
        routing.id[2 * t] = (int32_t)(t % experts);
        routing.id[2 * t + 1] = (int32_t)((t + 1 + t / experts % (experts - 1)) % experts);
        routing.weight[2 * t] = 0.6f;
        routing.weight[2 * t + 1] = 0.4f;
    }
}

static void passes_time(struct bench *bench, const struct hm_batch *batch, uint32_t repeats,
                        struct times *times)
{
    const struct hm_step_options options = { .backward = true, .loss_weight = 1, .train = true };
    struct hm_layer_view view;
    struct hm_step step;

    hm_step_init(bench->model, bench->workspace, batch, &options, &step);
    route(&step);
    for (uint32_t run = 0; run <= repeats; run++) { /* the first one warms up */
        hm_adapter_zero_grad(bench->adapter);
        hm_weights_pass_begin(&step, HM_PASS_FORWARD, HM_PASS_BACKWARD);
        hm_layer_acquire(bench->model, 0, &view);
        double begin = hm_clock_seconds();
        hm_moe_forward(&step, 0, bench->h, bench->out);
        double middle = hm_clock_seconds();
        hm_layer_release(bench->model, 0);
        hm_weights_pass_begin(&step, HM_PASS_BACKWARD, HM_PASS_FORWARD);
        hm_layer_acquire(bench->model, 0, &view);
        double again = hm_clock_seconds();
        hm_moe_backward(&step, 0, bench->h, bench->dout, bench->dh, bench->gamma);
        double end = hm_clock_seconds();
        hm_layer_release(bench->model, 0);
        if (run > 0) {
            times->forward[run - 1] = middle - begin;
            times->backward[run - 1] = end - again;
        }
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void row_print(const struct bench *bench, const char *pass, uint32_t tokens, uint32_t rank,
                      double *seconds, uint32_t repeats)
{
    const struct hm_arch *arch = hm_model_arch(bench->model);
    double gflop = 2e-9 * tokens * arch->top_k * 3.0 * arch->hidden * arch->ffn;

    qsort(seconds, repeats, sizeof *seconds, ascending);
    printf("hanmix-%s,%u,%u,%d,%s,%.4f,%.1f,%.1f\n", bench->kernels.name, tokens, rank,
           hm_threads(), pass, seconds[repeats / 2], gflop / seconds[repeats / 2],
           gflop / seconds[0]);
}

static int bench_run(const char *dir, uint32_t tokens, uint32_t rank, uint32_t repeats,
                     enum hm_round round, struct hm_error *err)
{
    struct bench bench = { .model = NULL };
    struct times times;
    int status = bench_open(&bench, dir, tokens, rank, round, err);

    if (status == HM_OK) {
        const struct hm_batch batch = { .rows = 1, .seq_len = tokens, .ids = bench.ids };
        passes_time(&bench, &batch, repeats, &times);
        printf("program,tokens,rank,threads,pass,median_s,gflops,best_gflops\n");
        row_print(&bench, "forward", tokens, rank, times.forward, repeats);
        row_print(&bench, "backward", tokens, rank, times.backward, repeats);
    }
    bench_close(&bench);
    return status;
}

int main(int argc, char **argv)
{
    uint32_t tokens = 512, rank = 8, repeats = 5;
    const char *dir = NULL, *compute = "bf16";
    const struct bench_option option[] = {
        { "--tokens", .number = &tokens },   { "--rank", .number = &rank },
        { "--repeats", .number = &repeats }, { "--compute", .text = &compute },
        { "--dir", .text = &dir },
    };
    struct bench_folder folder = { 0 };
    struct hm_error err = { 0 };
    struct hm_arch arch;
    int status = bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, &err);

    if (status < 0 || tokens == 0 || rank == 0 || repeats == 0 || repeats > MAX_REPEATS) {
        fprintf(stderr,
                "usage: expert_layer [--tokens N] [--rank R] [--repeats 1..%u]"
                " [--compute bf16|f32] [--dir FOLDER]\n",
                MAX_REPEATS);
        return 2;
    }
    enum hm_round round = strcmp(compute, "f32") == 0 ? HM_ROUND_NONE : HM_ROUND_BF16;
    status = bench_preset("wide1", &arch, &err);
    if (status == HM_OK)
        status = bench_folder_open(&folder, dir, &arch, &err);
    if (status == HM_OK)
        status = bench_run(folder.dir, tokens, rank, repeats, round, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    bench_folder_close(&folder);
    return hm_status_exit_code(status);
}
