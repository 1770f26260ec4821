/* SPDX-License-Identifier: MIT */
/*
 * Training steps with the weights under a memory limit: stream --dir FOLDER [--ram 6G,8G,12G]
 * [--tokens N] [--rank R] [--repeats N] [--threads N] [--compute-dir FOLDER]. One CSV row for each
 * limit: tokens/s, what was read and at which rate, how long the passes waited for it, and the
 * ratio of the step to the larger of its parts: the disk alone (the same bytes read without work
 * beside it) and the work alone (FLOPs at the rate of steps on --compute-dir, a folder of fewer
 * layers that fits into memory; without it the seconds of the phases). Limits of 0 stream nothing.
 */
#include <stdio.h>
#include <string.h>

#include "bench_args.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/model/model.h"

#define MOST_LIMITS 8
#define CHUNK_BYTES ((uint64_t)100 << 20) /* an expert of Mixtral */

struct settings {
    const char *dir, *compute_dir;
    uint64_t ram[MOST_LIMITS];
    size_t n_ram;
    uint32_t tokens, rank, repeats;
};

struct bench {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_adapter_config config;
    struct hm_workspace *workspace;
    int32_t *ids;
};

static int bench_open(struct bench *bench, const char *dir, const struct settings *settings,
                      struct hm_error *err)
{
    static char q[] = "q_proj", k[] = "k_proj", v[] = "v_proj", o[] = "o_proj";
    static char w1[] = "w1", w2[] = "w2", w3[] = "w3";
    static char *target[] = { q, k, v, o, w1, w2, w3 };
    const struct hm_model_options options = { .kernels = &bench->kernels, .round = HM_ROUND_BF16 };

    bench->config = (struct hm_adapter_config){
        .rank = settings->rank, .alpha = 16, .target = target, .n_targets = 7, .seed = 1
    };
    HM_TRY(hm_model_open(dir, &options, &bench->model, err));
    HM_TRY(hm_adapter_new(hm_model_checkpoint(bench->model), &bench->config, true, &bench->adapter,
                          err));
    hm_model_attach(bench->model, bench->adapter);
    HM_TRY(hm_workspace_new(bench->model, 1, settings->tokens, true, true, &bench->workspace, err));
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

static int step(struct bench *bench, const struct settings *settings, double *ret_seconds,
                double *ret_work, struct hm_error *err)
{
    const struct hm_batch batch = { .rows = 1, .seq_len = settings->tokens, .ids = bench->ids };
    const struct hm_step_options options = { .backward = true,
                                             .recompute = true,
                                             .loss_weight = 1.0 / settings->tokens };
    struct hm_step_result result;
    double start = hm_clock_seconds();

    HM_TRY(hm_model_step(bench->model, bench->workspace, &batch, &options, &result, err));
    *ret_seconds = hm_clock_seconds() - start;
    *ret_work = 0;
    for (int phase = 0; phase < HM_PHASE_COUNT; phase++)
        *ret_work += result.phase_seconds[phase];
    return HM_OK;
}

/* GFLOP/s of a warm step on a folder that fits into memory; 0 without one. */
static int work_rate(struct bench *bench, const struct settings *settings, double *ret_rate,
                     struct hm_error *err)
{
    double seconds = 0, work = 0;

    *ret_rate = 0;
    if (!settings->compute_dir)
        return HM_OK;
    int status = bench_open(bench, settings->compute_dir, settings, err);
    for (int i = 0; i < 2 && status == HM_OK; i++) /* the first one reads the file */
        status = step(bench, settings, &seconds, &work, err);
    if (status == HM_OK)
        *ret_rate = hm_model_step_flops(hm_model_arch(bench->model), settings->tokens, true, true) /
                    seconds / 1e9;
    bench_close(bench);
    return status;
}

/* Bytes a second of the folder's files, read as the stream reads them, two rounds apart. */
static int disk_rate(const struct hm_checkpoint *ckpt, uint64_t bytes, double *ret_rate,
                     struct hm_error *err)
{
    double start = hm_clock_seconds();
    uint64_t done = 0;

    for (size_t f = 0; f < ckpt->n_files && done < bytes; f++) {
        const struct hm_map *map = &ckpt->file[f].map;
        for (uint64_t at = 0; at < map->size_bytes && done < bytes; at += CHUNK_BYTES) {
            HM_TRY(hm_map_fetch(map, ckpt->file[f].path, at, CHUNK_BYTES, err));
            hm_map_forget(map, at, CHUNK_BYTES);
            done += map->size_bytes - at < CHUNK_BYTES ? map->size_bytes - at : CHUNK_BYTES;
        }
    }
    *ret_rate = (double)done / (hm_clock_seconds() - start);
    return HM_OK;
}

static int limit_set(struct bench *bench, const struct settings *settings, uint64_t ram,
                     struct hm_memory_plan *plan, struct hm_error *err)
{
    const struct hm_arch *arch = hm_model_arch(bench->model);

    HM_TRY(hm_memory_plan_train(arch, &bench->config, arch->vocab_size, 1, settings->tokens, true,
                                hm_model_packs(&bench->kernels, HM_ROUND_BF16), hm_threads(), plan,
                                err));
    plan->optimizer = 0; /* there is none here */
    if (ram == 0)
        return HM_OK;
    uint64_t least = hm_memory_plan_limit(plan, arch, settings->tokens, true, 0, ram);
    if (least > ram)
        return hm_fail(err, HM_ERR_NOFIT, "at least %.1f MiB are needed", (double)least / 1048576);
    return plan->weights_budget > 0 ? hm_model_stream(bench->model, plan->weights_budget, err)
                                    : HM_OK;
}

static int run(const struct settings *settings, uint64_t ram, double rate, struct hm_error *err)
{
    struct bench bench = { .model = NULL };
    struct hm_memory_plan plan;
    struct hm_stream_counts before, after;
    double seconds = 0, work = 0, disk = 0;

    HM_TRY(hm_kernels_choose(&bench.kernels, NULL, err));
    int status = bench_open(&bench, settings->dir, settings, err);
    hm_rss_peak_reset();
    if (status == HM_OK)
        status = limit_set(&bench, settings, ram, &plan, err);
    for (uint32_t i = 0; i <= settings->repeats && status == HM_OK; i++) {
        hm_model_stream_counts(bench.model, &before);
        status = step(&bench, settings, &seconds, &work, err);
        if (status < 0 || (i == 0 && settings->repeats > 0)) /* the first one fills the memory */
            continue;
        hm_model_stream_counts(bench.model, &after);
        uint64_t read = after.read_bytes - before.read_bytes, peak = hm_rss_peak_bytes();
        const struct hm_arch *arch = hm_model_arch(bench.model);
        double flops = hm_model_step_flops(arch, settings->tokens, true, true) / 1e9;
        if (read > 0)
            status = disk_rate(hm_model_checkpoint(bench.model), read, &disk, err);
        double disk_alone = disk > 0 ? (double)read / disk : 0;
        double work_alone = rate > 0 ? flops / rate : work;
        double larger = disk_alone > work_alone ? disk_alone : work_alone;
        printf("%u,%u,%u,%d,%s,%.0f,%.0f,%.0f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,%.3f\n",
               arch->layers, settings->tokens, settings->rank, hm_threads(), bench.kernels.name,
               (double)ram / 1048576, (double)plan.weights_budget / 1048576, (double)peak / 1048576,
               seconds, settings->tokens / seconds, flops / seconds, (double)read / 1e9,
               after.read_seconds - before.read_seconds, after.wait_seconds - before.wait_seconds,
               disk_alone, work_alone, seconds / larger);
        fflush(stdout);
    }
    bench_close(&bench);
    return status;
}

static int limits_parse(const char *list, struct settings *settings, struct hm_error *err)
{
    char copy[256], *save = NULL;

    snprintf(copy, sizeof copy, "%s", list);
    for (char *one = strtok_r(copy, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        if (settings->n_ram == MOST_LIMITS)
            return hm_fail(err, HM_ERR_USAGE, "--ram: at most %d limits", MOST_LIMITS);
        HM_TRY(hm_parse_size(one, &settings->ram[settings->n_ram++], err));
    }
    return HM_OK;
}

static int arguments(int argc, char **argv, struct settings *settings, struct hm_error *err)
{
    const char *ram = "";
    uint64_t threads = 0;
    const struct bench_option option[] = {
        { "--dir", .text = &settings->dir },
        { "--compute-dir", .text = &settings->compute_dir },
        { "--ram", .text = &ram },
        { "--tokens", .number = &settings->tokens },
        { "--rank", .number = &settings->rank },
        { "--repeats", .number = &settings->repeats },
        { "--threads", .count = &threads },
    };

    HM_TRY(bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, err));
    HM_TRY(limits_parse(ram, settings, err));
    hm_threads_set((int)threads);
    if (!settings->dir)
        return hm_fail(err, HM_ERR_USAGE,
                       "usage: stream --dir FOLDER [--ram SIZE,...] [--tokens N] [--rank R] "
                       "[--repeats N] [--threads N] [--compute-dir FOLDER]");
    return HM_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = { .tokens = 2048, .rank = 8, .repeats = 1 };
    struct bench bench = { .model = NULL };
    struct hm_error err = { 0 };
    double rate = 0;
    int status = arguments(argc, argv, &settings, &err);

    if (status == HM_OK)
        status = hm_kernels_choose(&bench.kernels, NULL, &err);
    if (status == HM_OK)
        status = work_rate(&bench, &settings, &rate, &err);
    printf("layers,tokens,rank,threads,kernels,ram_mib,weights_mib,peak_rss_mib,seconds,tokens_s,"
           "gflops,read_gb,read_s,wait_s,disk_alone_s,work_alone_s,ratio\n");
    for (size_t i = 0; i < settings.n_ram && status == HM_OK; i++)
        status = run(&settings, settings.ram[i], rate, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    return hm_status_exit_code(status);
}
