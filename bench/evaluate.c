/* SPDX-License-Identifier: MIT */
/*
 * What evaluation gains by rows side by side: evaluate [--preset NAME] [--layers N] [--tokens N]
 * [--rows N] [--threads N] [--dir FOLDER]. Losses of --rows windows of --tokens tokens over random
 * NF4 weights, one window after the other and then as eval.loss runs them (hm_eval_sequence), the
 * best of three. One CSV row: tokens/s of both, their ratio, and the difference of the mean losses
 * (rotations by later positions round differently, and a router may turn at a tie).
 */
#include <math.h>
#include <stdio.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/eval/eval.h"

#define REPEATS 3

struct settings {
    const char *preset, *dir;
    uint64_t layers, tokens, rows, threads;
};

/* All windows, `side_by_side` in a sequence; best tokens/s. */
static int rate(struct hm_model *model, const struct settings *settings, const int32_t *ids,
                uint64_t side_by_side, double *loss, double *ret_rate, struct hm_error *err)
{
    const uint64_t n = settings->rows * settings->tokens, most = side_by_side * settings->tokens;
    struct hm_workspace *workspace = NULL;
    uint8_t *starts = hm_calloc(HM_MEM_OTHER, n, 1);
    int r = starts ? HM_OK : hm_fail_nomem(err, "for a benchmark");

    for (uint64_t t = 0; starts && t < n; t += settings->tokens)
        starts[t] = 1;
    if (r == HM_OK)
        r = hm_workspace_new(model, 1, (uint32_t)most, false, false, &workspace, err);
    *ret_rate = 0;
    for (int repeat = 0; repeat < REPEATS && r == HM_OK; repeat++) {
        double began = hm_clock_seconds();
        for (uint64_t at = 0; at < n && r == HM_OK; at += most) {
            const struct hm_batch batch = { .rows = 1,
                                            .seq_len = (uint32_t)(n - at < most ? n - at : most),
                                            .ids = ids + at,
                                            .doc_start = starts + at };
            const struct hm_step_options options = { .token_loss_out = loss + at };
            struct hm_step_result result;
            r = hm_model_step(model, workspace, &batch, &options, &result, err);
        }
        *ret_rate = fmax(*ret_rate, (double)n / (hm_clock_seconds() - began));
    }
    hm_workspace_free(workspace);
    hm_free(starts);
    return r;
}

static int run(const struct settings *settings, const char *dir, struct hm_error *err)
{
    const uint64_t n = settings->rows * settings->tokens;
    const uint64_t together = hm_eval_sequence((uint32_t)settings->tokens) / settings->tokens;
    int32_t *ids = hm_alloc_array(HM_MEM_OTHER, n, sizeof(*ids));
    double *one = hm_calloc(HM_MEM_OTHER, n, sizeof(*one));
    double *many = hm_calloc(HM_MEM_OTHER, n, sizeof(*many));
    double one_rate = 0, many_rate = 0, apart = 0;
    struct hm_kernels kernels;
    struct hm_model *model = NULL;
    int r = ids && one && many ? HM_OK : hm_fail_nomem(err, "for a benchmark");

    if (r == HM_OK)
        r = hm_kernels_choose(&kernels, NULL, err);
    const struct hm_model_options options = { .kernels = &kernels, .round = HM_ROUND_BF16 };
    if (r == HM_OK)
        r = hm_model_open(dir, &options, &model, err);
    if (r == HM_OK) {
        hm_synthetic_ids(hm_model_arch(model)->vocab_size, 1, n, ids);
        r = rate(model, settings, ids, 1, one, &one_rate, err);
    }
    if (r == HM_OK)
        r = rate(model, settings, ids, together, many, &many_rate, err);
    for (uint64_t t = 0; r == HM_OK && t < n; t++)
        if ((t + 1) % settings->tokens != 0) /* the last of a window has no target of its own */
            apart += (many[t] - one[t]) / (double)(n - settings->rows);
    if (r == HM_OK)
        printf("preset,layers,kernels,threads,rows,tokens,together,one_tokens_s,tokens_s,ratio,"
               "mean_loss_apart\n%s,%u,%s,%d,%llu,%llu,%llu,%.1f,%.1f,%.2f,%.2g\n",
               settings->preset, hm_model_arch(model)->layers, kernels.name, hm_threads(),
               (unsigned long long)settings->rows, (unsigned long long)settings->tokens,
               (unsigned long long)together, one_rate, many_rate, many_rate / one_rate, apart);
    hm_model_free(model);
    hm_free(ids);
    hm_free(one);
    hm_free(many);
    return r;
}

int main(int argc, char **argv)
{
    struct settings settings = { .preset = "wide1", .tokens = 128, .rows = 32 };
    const struct bench_option option[] = {
        { "--preset", .text = &settings.preset },  { "--dir", .text = &settings.dir },
        { "--layers", .count = &settings.layers }, { "--tokens", .count = &settings.tokens },
        { "--rows", .count = &settings.rows },     { "--threads", .count = &settings.threads }
    };
    struct bench_folder folder = { 0 };
    struct hm_arch arch = { 0 };
    struct hm_error err = { 0 };
    int r = bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, &err);

    if (r == HM_OK && (settings.tokens < 2 || settings.tokens > 1 << 16 || settings.rows < 1 ||
                       settings.rows > 1 << 16))
        r = hm_fail(&err, HM_ERR_USAGE, "--tokens from 2, --rows from 1, both up to 65536");
    if (r == HM_OK)
        r = bench_preset(settings.preset, &arch, &err);
    if (settings.layers > 0)
        arch.layers = (uint32_t)settings.layers;
    if (settings.threads > 0)
        hm_threads_set((int)settings.threads);
    if (r == HM_OK)
        r = bench_folder_open(&folder, settings.dir, &arch, &err);
    if (r == HM_OK) {
        r = run(&settings, folder.dir, &err);
        bench_folder_close(&folder);
    }
    if (r < 0)
        fprintf(stderr, "evaluate: %s\n", err.text);
    return r < 0;
}
