/* SPDX-License-Identifier: MIT */
/*
 * Speed of inference over random NF4 weights: generate [--preset NAME] [--layers N] [--prompt N]
 * [--tokens N] [--rank R] [--repeats N] [--threads N] [--compute bf16|f32] [--dir FOLDER]. One CSV
 * row a repeat: the prompt's rate beside that of a training forward pass over the same tokens, each
 * by its own floating-point operations; then single tokens: their rate, the bytes of weights that
 * one token reads as they are stored, and the rate of a plain read of memory in the same run. Rank
 * 0 runs without an adapter.
 * How threads wait is the environment's: `hanmix generate` sets OMP_WAIT_POLICY=passive and
 * GOMP_SPINCOUNT=5000.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/model/generate.h"

#define READ_BYTES ((size_t)1 << 30) /* far beyond any L3 */
#define READ_UNITS 256u
#define READ_RUNS  5u

struct settings {
    const char *preset, *dir, *compute;
    uint64_t layers, prompt, tokens, rank, repeats, threads;
};

struct bench {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_workspace *workspace;
    int32_t *ids;
    uint64_t *memory; /* [READ_BYTES / 8] */
    uint64_t unit_sum[READ_UNITS];
    double *heard; /* [tokens] when each new token came */
    size_t n_heard;
};

/* --- the bound: reading memory -------------------------------------------------------------- */

typedef uint64_t lanes __attribute__((vector_size(64)));

static void read_unit(void *context, size_t index, int worker)
{
    struct bench *bench = context;
    const size_t n = READ_BYTES / READ_UNITS / sizeof(lanes);
    const lanes *at = (const lanes *)(const void *)bench->memory + index * n;
    lanes sum[4] = { { 0 } };

    (void)worker;
    for (size_t i = 0; i < n; i += 4)
        for (size_t j = 0; j < 4; j++)
            sum[j] += at[i + j];
    sum[0] += sum[1] + sum[2] + sum[3];
    bench->unit_sum[index] = sum[0][0] + sum[0][7];
}

/* GB/s, the best of some passes. */
static double read_rate(struct bench *bench)
{
    double best = 0;

    for (unsigned run = 0; run < READ_RUNS; run++) {
        double start = hm_clock_seconds();
        hm_parallel_for(READ_UNITS, read_unit, bench);
        best = fmax(best, (double)READ_BYTES / 1e9 / (hm_clock_seconds() - start));
    }
    return best;
}

/* --- what one token costs ------------------------------------------------------------------- */

static double stored(const struct hm_arch *arch, double values)
{
    if (!arch->quant.present)
        return 2 * values;
    double scale = arch->quant.double_quant ? 1 + 4.0 / 256 : 4;
    return values / 2 + values / 64 * scale;
}

/* Bytes of attention, router, its experts and the head. */
static double token_bytes(const struct hm_arch *arch)
{
    double d = arch->hidden, q = (double)arch->heads * arch->head_dim;
    double kv = (double)arch->kv_heads * arch->head_dim;
    double linears = 2 * d * q + 2 * d * kv + 3.0 * arch->top_k * d * arch->ffn;

    return arch->layers * (stored(arch, linears) + 2 * d * arch->experts) +
           2 * d * arch->vocab_size;
}

/* --- runs ----------------------------------------------------------------------------------- */

static int adapter_make(struct bench *bench, uint64_t rank, struct hm_error *err)
{
    static char q[] = "q_proj", k[] = "k_proj", v[] = "v_proj", o[] = "o_proj";
    static char w1[] = "w1", w2[] = "w2", w3[] = "w3";
    static char *target[] = { q, k, v, o, w1, w2, w3 };
    const struct hm_adapter_config config = {
        .rank = (uint32_t)rank, .alpha = 16, .target = target, .n_targets = 7, .seed = 1
    };

    HM_TRY(hm_adapter_new(hm_model_checkpoint(bench->model), &config, false, &bench->adapter, err));
    hm_model_attach(bench->model, bench->adapter);
    return HM_OK;
}

static int bench_open(struct bench *bench, const struct settings *settings, struct hm_error *err)
{
    struct hm_model_options options = {
        .kernels = &bench->kernels,
        .round = strcmp(settings->compute, "f32") == 0 ? HM_ROUND_NONE : HM_ROUND_BF16,
    };

    HM_TRY(hm_model_open(settings->dir, &options, &bench->model, err));
    if (settings->rank > 0)
        HM_TRY(adapter_make(bench, settings->rank, err));
    HM_TRY(hm_workspace_new(bench->model, 1, (uint32_t)settings->prompt, false, false,
                            &bench->workspace, err));
    bench->ids = hm_alloc_array(HM_MEM_OTHER, settings->prompt, sizeof(*bench->ids));
    bench->heard = hm_alloc_array(HM_MEM_OTHER, settings->tokens, sizeof(*bench->heard));
    bench->memory = hm_alloc(HM_MEM_OTHER, READ_BYTES);
    if (!bench->ids || !bench->heard || !bench->memory)
        return hm_fail_nomem(err, "for token ids");
    memset(bench->memory, 1, READ_BYTES);
    hm_synthetic_ids(hm_model_arch(bench->model)->vocab_size, 1, settings->prompt, bench->ids);
    return HM_OK;
}

static void bench_close(struct bench *bench)
{
    hm_workspace_free(bench->workspace);
    hm_adapter_free(bench->adapter);
    hm_model_free(bench->model);
    hm_free(bench->ids);
    hm_free(bench->heard);
    hm_free(bench->memory);
}

static int hear(void *context, int32_t id, double logprob)
{
    struct bench *bench = context;

    (void)id;
    (void)logprob;
    bench->heard[bench->n_heard++] = hm_clock_seconds();
    return 0;
}

static int row_run(struct bench *bench, const struct settings *settings, struct hm_error *err)
{
    const struct hm_arch *arch = hm_model_arch(bench->model);
    const struct hm_batch batch = { .rows = 1,
                                    .seq_len = (uint32_t)settings->prompt,
                                    .ids = bench->ids };
    const struct hm_step_options forward = { .loss_weight = 1 };
    const struct hm_generate_options options = { .max_tokens = (uint32_t)settings->tokens,
                                                 .top_p = 1,
                                                 .eos_id = -1 };
    double head = 2.0 * arch->hidden * arch->vocab_size;
    double flops = hm_model_step_flops(arch, settings->prompt, false, false);
    double prompt_flops = flops - head * ((double)settings->prompt - 1);
    struct hm_step_result result;

    double read = read_rate(bench), start = hm_clock_seconds();
    HM_TRY(hm_model_step(bench->model, bench->workspace, &batch, &forward, &result, err));
    double forward_s = hm_clock_seconds() - start;
    bench->n_heard = 0;
    start = hm_clock_seconds();
    HM_TRY(
        hm_generate(bench->model, bench->ids, settings->prompt, &options, hear, bench, NULL, err));
    double prompt_s = bench->heard[0] - start;
    double token_s =
        (bench->heard[bench->n_heard - 1] - bench->heard[0]) / (double)(bench->n_heard - 1);
    read = fmax(read, read_rate(bench));
    double bytes = token_bytes(arch);
    printf("%s,%u,%llu,%s,%s,%d,%llu,%.1f,%.1f,%.1f,%.3f,%llu,%.2f,%.1f,%.2f,%.2f,%.3f\n",
           settings->preset, arch->layers, (unsigned long long)settings->rank, bench->kernels.name,
           settings->compute, hm_threads(), (unsigned long long)settings->prompt,
           (double)settings->prompt / prompt_s, prompt_flops / prompt_s / 1e9,
           flops / forward_s / 1e9, prompt_flops / prompt_s / (flops / forward_s),
           (unsigned long long)settings->tokens, 1 / token_s, bytes / 1e6, bytes / token_s / 1e9,
           read, bytes / token_s / 1e9 / read);
    fflush(stdout);
    return HM_OK;
}

static int bench_run(const struct settings *settings, struct hm_error *err)
{
    struct bench bench = { .n_heard = 0 };

    HM_TRY(hm_kernels_choose(&bench.kernels, NULL, err));
    int status = bench_open(&bench, settings, err);
    printf("preset,layers,rank,kernels,compute,threads,prompt,prompt_tokens_s,prompt_gflops,"
           "forward_gflops,prompt_ratio,tokens,tokens_s,token_mb,token_gb_s,read_gb_s,ratio\n");
    for (uint64_t run = 0; run < settings->repeats && status == HM_OK; run++)
        status = row_run(&bench, settings, err);
    bench_close(&bench);
    return status;
}

static int usage(void)
{
    fprintf(stderr, "usage: generate [--preset tiny|small|wide1|mixtral-8x7b] [--layers N] "
                    "[--prompt N] [--tokens N] [--rank R] [--repeats N] [--threads N] "
                    "[--compute bf16|f32] [--dir FOLDER]\n");
    return 2;
}

static int arguments(int argc, char **argv, struct settings *settings, struct hm_error *err)
{
    const struct bench_option option[] = {
        { "--preset", .text = &settings->preset },    { "--dir", .text = &settings->dir },
        { "--compute", .text = &settings->compute },  { "--layers", .count = &settings->layers },
        { "--prompt", .count = &settings->prompt },   { "--tokens", .count = &settings->tokens },
        { "--rank", .count = &settings->rank },       { "--repeats", .count = &settings->repeats },
        { "--threads", .count = &settings->threads },
    };

    HM_TRY(bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, err));
    if (settings->prompt < 1 || settings->prompt > 32768 || settings->tokens < 2 ||
        settings->tokens > 32768 || settings->layers > 1000 || settings->rank > 4096)
        return hm_fail(err, HM_ERR_USAGE, "1 to 32768 prompt tokens, 2 to 32768 new ones");
    return HM_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .preset = "tiny", .compute = "bf16", .prompt = 512, .tokens = 64, .repeats = 2
    };
    struct bench_folder folder = { 0 };
    struct hm_arch arch;
    struct hm_error err = { 0 };
    int status = arguments(argc, argv, &settings, &err);

    if (status < 0) {
        fprintf(stderr, "%s\n", err.text);
        return usage();
    }
    hm_threads_set((int)settings.threads);
    status = bench_preset(settings.preset, &arch, &err);
    if (settings.layers)
        arch.layers = (uint32_t)settings.layers;
    if (status == HM_OK)
        status = bench_folder_open(&folder, settings.dir, &arch, &err);
    settings.dir = folder.dir;
    if (status == HM_OK)
        status = bench_run(&settings, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    bench_folder_close(&folder);
    return hm_status_exit_code(status);
}
