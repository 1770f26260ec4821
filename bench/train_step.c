/* SPDX-License-Identifier: MIT */
/*
 * Speed of one training micro-batch (forward, recomputation, backward; LoRA on all linears) over a
 * random NF4 base: train_step [--preset tiny|small|wide1] [--tokens N] [--rank R] [--repeats N]
 * [--threads N] [--dropout P] [--keep] One CSV row per run: tokens/s, GFLOP/s by the formula 2 *
 * active weights * tokens * passes, its fraction of the best sgemm of this run (2048 and 4096
 * cubed, all threads), and the seconds of each phase.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/kernels/peak.h"
#include "hanmix/model/model.h"

#define PEAK_SECONDS 2.0

struct settings {
    const char *preset;
    uint32_t tokens, rank, repeats;
    double dropout;
    bool recompute;
    enum hm_round round;
};

struct bench {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_workspace *workspace;
    int32_t *ids;
    double peak; /* GFLOP/s */
};

static int adapter_make(struct bench *bench, const struct settings *settings, struct hm_error *err)
{
    static char q[] = "q_proj", k[] = "k_proj", v[] = "v_proj", o[] = "o_proj";
    static char w1[] = "w1", w2[] = "w2", w3[] = "w3";
    static char *target[] = { q, k, v, o, w1, w2, w3 };
    const struct hm_adapter_config config = { .rank = settings->rank,
                                              .alpha = 16,
                                              .dropout = settings->dropout,
                                              .target = target,
                                              .n_targets = 7,
                                              .seed = 1 };

    return hm_adapter_new(hm_model_checkpoint(bench->model), &config, true, &bench->adapter, err);
}

static int bench_open(struct bench *bench, const char *dir, const struct settings *settings,
                      struct hm_error *err)
{
    struct hm_model_options options = { &bench->kernels, settings->round, false };

    HM_TRY(hm_model_open(dir, &options, &bench->model, err));
    HM_TRY(adapter_make(bench, settings, err));
    hm_model_attach(bench->model, bench->adapter);
    HM_TRY(hm_workspace_new(bench->model, 1, settings->tokens, true, settings->recompute,
                            &bench->workspace, err));
    bench->ids = hm_alloc_array(HM_MEM_OTHER, settings->tokens, sizeof(int32_t));
    if (!bench->ids)
        return hm_fail_nomem(err, "for token ids");
    hm_synthetic_ids(hm_model_arch(bench->model)->vocab_size, 1, settings->tokens, bench->ids);
    return HM_OK;
}

static void bench_close(struct bench *bench)
{
    hm_workspace_free(bench->workspace);
    hm_adapter_free(bench->adapter);
    hm_model_free(bench->model);
    hm_free(bench->ids);
}

/* The best of 2048 and 4096 cubed, by this path's own products and by OpenBLAS. */
static void peak_measure(struct bench *bench)
{
    struct hm_kernels blas;

    hm_kernels_init(&blas, 0);
    for (size_t n = 2048; n <= 4096; n *= 2) {
        double own = hm_gemm_peak_gflops(&bench->kernels, n, PEAK_SECONDS);
        double theirs = hm_gemm_peak_gflops(&blas, n, PEAK_SECONDS);
        double found = own > theirs ? own : theirs;
        bench->peak = found > bench->peak ? found : bench->peak;
    }
}

/* Of all threads: unlike the clock it does not grow when others use the machine. */
static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void row_print(const struct bench *bench, const struct settings *settings, double seconds,
                      double cpu, const struct hm_step_result *result)
{
    double flops = hm_model_step_flops(hm_model_arch(bench->model), settings->tokens, true,
                                       settings->recompute);
    double rate = flops / seconds / 1e9;

    printf("%s,%u,%u,%d,%s,%.3f,%.3f,%.1f,%.1f,%.1f,%.3f", settings->preset, settings->tokens,
           settings->rank, hm_threads(), bench->kernels.name, seconds, cpu,
           settings->tokens / seconds, rate, bench->peak, rate / bench->peak);
    for (int phase = 0; phase < HM_PHASE_COUNT; phase++)
        printf(",%.3f", result->phase_seconds[phase]);
    printf("\n");
    fflush(stdout);
}

static int bench_run(const char *dir, const struct settings *settings, struct hm_error *err)
{
    struct bench bench = { .peak = 0 };
    struct hm_step_result result;
    int status;

    HM_TRY(hm_kernels_choose(&bench.kernels, NULL, err));
    status = bench_open(&bench, dir, settings, err);
    if (status < 0)
        goto out;
    const struct hm_batch batch = { .rows = 1, .seq_len = settings->tokens, .ids = bench.ids };
    const struct hm_step_options options = { .backward = true,
                                             .recompute = settings->recompute,
                                             .loss_weight = 1.0 / settings->tokens,
                                             .train = settings->dropout > 0 };
    printf("preset,tokens,rank,threads,kernels,seconds,cpu_seconds,tokens_s,gflops,sgemm_gflops,"
           "fraction,"
           "decode_s,product_s,attention_s,lora_s,head_s,other_s\n");
    for (uint32_t run = 0; run <= settings->repeats; run++) { /* the first one warms up */
        peak_measure(&bench);
        double start = hm_clock_seconds(), cpu = cpu_seconds();
        status = hm_model_step(bench.model, bench.workspace, &batch, &options, &result, err);
        if (status < 0)
            goto out;
        if (run > 0)
            row_print(&bench, settings, hm_clock_seconds() - start, cpu_seconds() - cpu, &result);
    }
out:
    bench_close(&bench);
    return status;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: train_step [--preset tiny|small|wide1] [--tokens N] [--rank R] [--repeats N]"
            " [--threads N] [--dropout P] [--keep-layers] [--dir FOLDER]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct settings settings = { "tiny", 512, 8, 3, 0, true, HM_ROUND_BF16 };
    char folder[] = "/tmp/hanmix-bench-XXXXXX";
    const char *dir = NULL;
    struct hm_error err = { 0 };
    struct hm_arch arch;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--keep-layers") == 0) {
            settings.recompute = false;
            continue;
        }
        if (i + 1 == argc)
            return usage();
        if (strcmp(argv[i], "--preset") == 0)
            settings.preset = value;
        else if (strcmp(argv[i], "--tokens") == 0)
            settings.tokens = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--rank") == 0)
            settings.rank = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--repeats") == 0)
            settings.repeats = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--threads") == 0)
            hm_threads_set((int)strtol(value, NULL, 10));
        else if (strcmp(argv[i], "--dropout") == 0)
            settings.dropout = strtod(value, NULL);
        else if (strcmp(argv[i], "--compute") == 0)
            settings.round = strcmp(value, "f32") == 0 ? HM_ROUND_NONE : HM_ROUND_BF16;
        else if (strcmp(argv[i], "--dir") == 0)
            dir = value;
        else
            return usage();
        i++;
    }
    bool temporary = dir == NULL;
    if (temporary && !(dir = mkdtemp(folder))) {
        perror(folder);
        return 6;
    }
    int status = bench_preset(settings.preset, &arch, &err);
    char config[4096];
    snprintf(config, sizeof config, "%s/config.json", dir);
    if (status == HM_OK && !hm_path_exists(config))
        status = hm_synthetic_make(dir, &arch, 1, NULL, &err);
    if (status == HM_OK)
        status = bench_run(dir, &settings, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    if (temporary)
        hm_dir_remove(dir, NULL);
    return hm_status_exit_code(status);
}
