/* SPDX-License-Identifier: MIT */
/*
 * A model folder of random weights in the layout of Hugging Face, for trials and measurements
 * without the weights: make_model --out FOLDER [--preset tiny|small|wide1|mixtral-8x7b] [--layers
 * N]
 * [--vocab N] [--dtype nf4|bf16] [--seed S] [--threads N]. nf4 is what bitsandbytes writes, double
 * quantised; bf16 is an unquantised checkpoint. The same arguments give the same bytes. Prints one
 * CSV row: bytes, seconds and the rate of writing, with the peak of this process's memory.
 */
#include <stdio.h>
#include <string.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/synthetic.h"

struct settings {
    const char *out, *preset, *dtype;
    uint64_t layers, vocab, seed, threads; /* 0: the preset's, or all */
};

static int usage(void)
{
    fprintf(stderr,
            "usage: make_model --out FOLDER [--preset tiny|small|wide1|mixtral-8x7b] [--layers N] "
            "[--vocab N] [--dtype nf4|bf16] [--seed S] [--threads N]\n");
    return 2;
}

static int arguments(int argc, char **argv, struct settings *settings, struct hm_error *err)
{
    const struct bench_option option[] = {
        { "--out", .text = &settings->out },          { "--preset", .text = &settings->preset },
        { "--dtype", .text = &settings->dtype },      { "--layers", .count = &settings->layers },
        { "--vocab", .count = &settings->vocab },     { "--seed", .count = &settings->seed },
        { "--threads", .count = &settings->threads },
    };

    HM_TRY(bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, err));
    if (!settings->out)
        return hm_fail(err, HM_ERR_USAGE, "--out is missing");
    if (strcmp(settings->dtype, "nf4") != 0 && strcmp(settings->dtype, "bf16") != 0)
        return hm_fail(err, HM_ERR_USAGE, "--dtype is nf4 or bf16, not '%s'", settings->dtype);
    if (settings->layers > 1000 || settings->vocab > 10000000)
        return hm_fail(err, HM_ERR_USAGE, "at most 1000 layers and 10000000 tokens");
    return HM_OK;
}

static int folder_bytes(const char *dir, uint64_t *ret_bytes, struct hm_error *err)
{
    struct hm_names names = { 0 };
    uint64_t sum = 0;

    HM_TRY(hm_dir_list(dir, &names, err));
    int status = HM_OK;
    for (size_t i = 0; i < names.count && status == HM_OK; i++) {
        char *path = NULL;
        uint64_t bytes = 0;
        status = hm_path_join(&path, dir, names.item[i], err);
        if (status == HM_OK)
            status = hm_file_size(path, &bytes, err);
        sum += bytes;
        hm_free(path);
    }
    hm_names_release(&names);
    *ret_bytes = sum;
    return status;
}

static int make(const struct settings *settings, struct hm_error *err)
{
    struct hm_arch arch;
    uint64_t bytes = 0;
    double start = hm_clock_seconds();

    HM_TRY(bench_preset(settings->preset, &arch, err));
    if (settings->layers)
        arch.layers = (uint32_t)settings->layers;
    if (settings->vocab)
        arch.vocab_size = (uint32_t)settings->vocab;
    if (strcmp(settings->dtype, "bf16") == 0)
        arch.quant = (struct hm_quant_config){ 0 };
    HM_TRY(hm_synthetic_make(settings->out, &arch, settings->seed, NULL, err));
    HM_TRY(folder_bytes(settings->out, &bytes, err));
    double seconds = hm_clock_seconds() - start;
    printf("preset,layers,vocab,dtype,seed,bytes,seconds,mb_s,peak_rss_mib\n");
    printf("%s,%u,%u,%s,%llu,%llu,%.1f,%.0f,%.0f\n", settings->preset, arch.layers, arch.vocab_size,
           settings->dtype, (unsigned long long)settings->seed, (unsigned long long)bytes, seconds,
           (double)bytes / 1e6 / seconds, (double)hm_rss_peak_bytes() / 1048576);
    return HM_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = { .preset = "mixtral-8x7b", .dtype = "nf4", .seed = 1 };
    struct hm_error err = { 0 };
    int status = arguments(argc, argv, &settings, &err);

    if (status < 0) {
        fprintf(stderr, "%s\n", err.text);
        return usage();
    }
    hm_threads_set((int)settings.threads);
    status = make(&settings, &err);
    if (status < 0)
        fprintf(stderr, "%s\n", err.text);
    return hm_status_exit_code(status);
}
