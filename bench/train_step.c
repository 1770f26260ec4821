/* SPDX-License-Identifier: MIT */
/*
 * Speed of one training step (forward, recomputation, backward, AdamW; LoRA on all linears) over a
 * random NF4 base: train_step [--preset tiny|small|wide1] [--tokens N] [--rank R] [--repeats N]
 * [--threads N] [--dropout P] [--keep-layers] [--compute bf16|f32] [--dir FOLDER]. One CSV row per
 * run: tokens/s, GFLOP/s by the formula 2 * active weights * tokens * passes, the rate of the same
 * products alone (frozen_rate.c; f32: the best sgemm of 2048 and 4096 cubed) and its fraction, and
 * the phases, which add up to the step: decode is the time saved if it were left out, measured on
 * the products alone; other holds everything else, waiting at the ends of loops included. LoRA
 * terms that join the sums of frozen products count at the time those take for as many terms;
 * lora_share and lora_flop_share are of the whole step.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "frozen_rate.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/kernels/peak.h"
#include "hanmix/model/model.h"
#include "qlora/optimizer.h"

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
    struct hm_optimizer *optimizer;
    int32_t *ids;
    double peak;         /* GFLOP/s */
    double decode_share; /* of the time of products */
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
    const struct hm_optimizer_config adamw = { .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8 };
    HM_TRY(hm_optimizer_new(bench->adapter, &bench->kernels, &adamw, &bench->optimizer, err));
    bench->ids = hm_alloc_array(HM_MEM_OTHER, settings->tokens, sizeof(int32_t));
    if (!bench->ids)
        return hm_fail_nomem(err, "for token ids");
    hm_synthetic_ids(hm_model_arch(bench->model)->vocab_size, 1, settings->tokens, bench->ids);
    return HM_OK;
}

static void bench_close(struct bench *bench)
{
    hm_optimizer_free(bench->optimizer);
    hm_workspace_free(bench->workspace);
    hm_adapter_free(bench->adapter);
    hm_model_free(bench->model);
    hm_free(bench->ids);
}

/* The best of 2048 and 4096 cubed, by this path's own products and by OpenBLAS. */
static void sgemm_measure(struct bench *bench)
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

static int peak_measure(struct bench *bench, const struct settings *settings, struct hm_error *err)
{
    struct frozen_rate rate;

    if (!hm_model_packs(&bench->kernels, settings->round)) {
        sgemm_measure(bench);
        return HM_OK;
    }
    HM_TRY(frozen_rate(hm_model_checkpoint(bench->model), &bench->kernels, settings->tokens, &rate,
                       err));
    double again = settings->recompute ? 1 : 0;
    bench->peak = rate.flops / rate.seconds / 1e9;
    bench->decode_share =
        (rate.decode + again * rate.forward_decode) / (rate.seconds + again * rate.forward_seconds);
    return HM_OK;
}

/* Of all threads: unlike the clock it does not grow when others use the machine. */
static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct low_flops {
    double all, joined; /* of these in the sums of frozen products: y += u B^T, dx += v A */
};

static struct low_flops low_flops(const struct bench *bench, const struct settings *settings)
{
    const struct hm_arch *arch = hm_model_arch(bench->model);
    const double d = arch->hidden, f = arch->ffn, q = (double)arch->heads * arch->head_dim,
                 kv = (double)arch->kv_heads * arch->head_dim;
    const double widths = 2 * (d + q) + 2 * (d + kv) + arch->top_k * 3 * (d + f); /* in + out */
    const double in = 3 * d + q + arch->top_k * (2 * d + f), out = widths - in;
    const double each = 2.0 * settings->rank * settings->tokens * arch->layers;
    const double again = settings->recompute ? 1 : 0;
    const bool joins = hm_model_packs(&bench->kernels, settings->round) &&
                       bench->kernels.low_project && settings->dropout == 0;

    return (struct low_flops){ each * (3 + again) * widths,
                               joins ? each * (in + (1 + again) * out) : 0 };
}

static void row_print(const struct bench *bench, const struct settings *settings, double seconds,
                      double cpu, double update, const struct hm_step_result *result)
{
    const double *phase = result->phase_seconds;
    double flops = hm_model_step_flops(hm_model_arch(bench->model), settings->tokens, true,
                                       settings->recompute);
    double rate = flops / seconds / 1e9,
           products = phase[HM_PHASE_DECODE] + phase[HM_PHASE_PRODUCT];
    bool packs = hm_model_packs(&bench->kernels, settings->round);
    double decode = packs ? bench->decode_share * products : phase[HM_PHASE_DECODE];
    const struct low_flops low = low_flops(bench, settings);
    double joined = (products - decode) * low.joined / (flops + low.joined);
    double lora = phase[HM_PHASE_LORA] + joined;
    double other = seconds - products - phase[HM_PHASE_ATTENTION] - phase[HM_PHASE_LORA] -
                   phase[HM_PHASE_HEAD] - update;

    printf("%s,%u,%u,%d,%s,%s,%s,%.3f,%.3f,%.1f,%.1f,%.1f,%.3f", settings->preset, settings->tokens,
           settings->rank, hm_threads(), settings->round == HM_ROUND_BF16 ? "bf16" : "f32",
           bench->kernels.name, settings->recompute ? "recomputed" : "kept", seconds, cpu,
           settings->tokens / seconds, rate, bench->peak, rate / bench->peak);
    printf(",%.3f,%.3f,%.3f,%.4f,%.3f,%.3f,%.3f,%.4f,%.4f\n", decode, products - decode - joined,
           phase[HM_PHASE_ATTENTION], lora, phase[HM_PHASE_HEAD], update, other, lora / seconds,
           low.all / (flops + low.all));
    fflush(stdout);
}

/* One step as the trainer makes it; seconds of the update. */
static int step_run(struct bench *bench, const struct hm_batch *batch,
                    const struct hm_step_options *options, struct hm_step_result *ret_result,
                    double *ret_update, struct hm_error *err)
{
    double norm;

    hm_adapter_zero_grad(bench->adapter);
    HM_TRY(hm_model_step(bench->model, bench->workspace, batch, options, ret_result, err));
    double begin = hm_clock_seconds();
    HM_TRY(hm_optimizer_norm(bench->optimizer, &norm, err));
    hm_optimizer_update(bench->optimizer, 1e-4, norm);
    *ret_update = hm_clock_seconds() - begin;
    return HM_OK;
}

static int bench_run(const char *dir, const struct settings *settings, struct hm_error *err)
{
    struct bench bench = { .peak = 0 };
    struct hm_step_result result;
    int status;

    HM_TRY(hm_kernels_choose(&bench.kernels, NULL, err));
    status = bench_open(&bench, dir, settings, err);
    if (status == HM_OK)
        status = peak_measure(&bench, settings, err);
    if (status < 0)
        goto out;
    const struct hm_batch batch = { .rows = 1, .seq_len = settings->tokens, .ids = bench.ids };
    const struct hm_step_options options = { .backward = true,
                                             .recompute = settings->recompute,
                                             .loss_weight = 1.0 / settings->tokens,
                                             .train = settings->dropout > 0 };
    printf("preset,tokens,rank,threads,compute,kernels,layers,seconds,cpu_seconds,tokens_s,gflops,"
           "kernel_gflops,fraction,decode_s,product_s,attention_s,lora_s,head_s,optimizer_s,"
           "other_s,lora_share,lora_flop_share\n");
    for (uint32_t run = 0; run <= settings->repeats; run++) { /* the first one warms up */
        double start = hm_clock_seconds(), cpu = cpu_seconds(), update;
        status = step_run(&bench, &batch, &options, &result, &update, err);
        if (status < 0)
            goto out;
        if (run > 0)
            row_print(&bench, settings, hm_clock_seconds() - start, cpu_seconds() - cpu, update,
                      &result);
    }
out:
    bench_close(&bench);
    return status;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: train_step [--preset tiny|small|wide1] [--tokens N] [--rank R] [--repeats N]"
            " [--threads N] [--dropout P] [--keep-layers] [--compute bf16|f32] [--dir FOLDER]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct settings settings = { .preset = "tiny", .tokens = 512, .rank = 8, .repeats = 3 };
    const char *dir = NULL, *compute = "bf16";
    bool keep_layers = false;
    uint64_t threads = 0;
    const struct bench_option option[] = {
        { "--preset", .text = &settings.preset },
        { "--tokens", .number = &settings.tokens },
        { "--rank", .number = &settings.rank },
        { "--repeats", .number = &settings.repeats },
        { "--threads", .count = &threads },
        { "--dropout", .real = &settings.dropout },
        { "--keep-layers", .flag = &keep_layers },
        { "--compute", .text = &compute },
        { "--dir", .text = &dir },
    };
    struct bench_folder folder = { 0 };
    struct hm_error err = { 0 };
    struct hm_arch arch;

    if (bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return usage();
    }
    settings.recompute = !keep_layers;
    settings.round = strcmp(compute, "f32") == 0 ? HM_ROUND_NONE : HM_ROUND_BF16;
    hm_threads_set((int)threads);
    int status = bench_preset(settings.preset, &arch, &err);
    if (status == HM_OK)
        status = bench_folder_open(&folder, dir, &arch, &err);
    if (status == HM_OK)
        status = bench_run(folder.dir, &settings, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    bench_folder_close(&folder);
    return hm_status_exit_code(status);
}
