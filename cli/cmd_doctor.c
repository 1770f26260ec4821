/* SPDX-License-Identifier: MIT */
/*
 * The verb doctor: what this machine is and how fast: cores, instruction sets, memory and its
 * limits, disk, the kernel paths with what their trials found, and the rates of the two products
 * that training lives on.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "hanmix/base/cpu.h"
#include "hanmix/base/disk_rate.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/kernels/peak.h"

#define BENCH_SECONDS 0.5
#define GEMM_SIZE     2048u
#define REF_GEMM_SIZE 256u
#define DECODE_VALUES (1u << 20)
#define DISK_BYTES    (64u << 20)
#define BLOCK         64u

struct rates {
    double gflops, gvalues;
    uint32_t gemm_size;
    const char *kernels;
};

struct bench { /* one unit of work per worker */
    const struct hm_kernels *kernels;
    uint8_t *codes; /* shared */
    float *scale, *out;
};

static void decode_unit(void *context, size_t index, int worker)
{
    struct bench *bench = context;

    (void)worker;
    bench->kernels->nf4_decode(bench->codes, bench->scale, 0, DECODE_VALUES, BLOCK, HM_ROUND_NONE,
                               bench->out + index * DECODE_VALUES);
}

/* Decoded values a second over all threads, for about BENCH_SECONDS after one round of warming up.
 */
static double decode_rate(struct bench *bench)
{
    size_t threads = (size_t)hm_threads();
    uint64_t done = 0;

    hm_parallel_for(threads, decode_unit, bench);
    double start = hm_clock_seconds(), now = start;
    while (now - start < BENCH_SECONDS) {
        hm_parallel_for(threads, decode_unit, bench);
        done += threads;
        now = hm_clock_seconds();
    }
    return (double)done * DECODE_VALUES / (now - start);
}

/* The plain C loops need a smaller product to end in time. */
double hm_machine_gflops(const struct hm_kernels *kernels, uint32_t *ret_size)
{
    *ret_size = strcmp(kernels->name, "ref") == 0 ? REF_GEMM_SIZE : GEMM_SIZE;
    return hm_gemm_peak_gflops(kernels, *ret_size, BENCH_SECONDS);
}

static int measure(struct rates *ret_rates, struct hm_error *err)
{
    struct hm_kernels kernels;
    struct bench bench = { .kernels = &kernels };
    size_t threads = (size_t)hm_threads();
    int status = HM_OK;

    HM_TRY(hm_kernels_choose(&kernels, NULL, err));
    bench.codes = hm_calloc(HM_MEM_OTHER, DECODE_VALUES / 2, 1);
    bench.scale = hm_calloc(HM_MEM_OTHER, DECODE_VALUES / BLOCK, sizeof(float));
    bench.out = hm_calloc(HM_MEM_OTHER, threads * DECODE_VALUES, sizeof(float));
    if (bench.codes && bench.scale && bench.out) {
        ret_rates->gflops = hm_machine_gflops(&kernels, &ret_rates->gemm_size);
        ret_rates->gvalues = decode_rate(&bench) / 1e9;
        ret_rates->kernels = kernels.name;
    } else {
        status = hm_fail_nomem(err, "for the measurement");
    }
    hm_free(bench.codes);
    hm_free(bench.scale);
    hm_free(bench.out);
    return status;
}

/* Bytes a second of reading back a file in the working directory whose pages were dropped; NaN:
 * cannot be told. */
static double disk_rate(void)
{
    struct hm_disk_rates rates = { 0 };

    return hm_disk_rates_measure(".", DISK_BYTES, &rates, NULL) == HM_OK ? rates.read : NAN;
}

static const struct {
    unsigned flag;
    const char *name;
} flags[] = {
    { HM_CPU_AVX2, "avx2" },
    { HM_CPU_AVX512, "avx512" },
    { HM_CPU_AVX512VBMI, "avx512vbmi" },
    { HM_CPU_AVX512BF16, "avx512bf16" },
    { HM_CPU_AMX_BF16, "amx-bf16" },
};

static json_t *isa_json(void)
{
    json_t *array = json_array();

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (hm_cpu_flags() & flags[i].flag)
            (void)json_array_append_new(array, json_string(flags[i].name));
    return array;
}

/* Why this path: what hm_kernels_choose did, told from its trials. */
static const char *choice_reason(const char *chosen, const struct hm_path *paths, size_t count)
{
    const char *forced = getenv("HM_CPU");
    const char *highest = NULL;
    bool passed_over = false;

    for (size_t i = 0; i < count; i++) {
        if (paths[i].state == HM_PATH_GOOD)
            highest = paths[i].name;
        passed_over |= paths[i].state == HM_PATH_FAULTS || paths[i].state == HM_PATH_WRONG;
    }
    if (forced && *forced)
        return "the highest that works up to the one HM_CPU names";
    if (!highest)
        return "no faster path works here";
    if (strcmp(chosen, highest) != 0)
        return "faster by a quarter or more than the higher path";
    return passed_over ? "the highest that works; a path was passed over"
                       : "the highest usable here, no lower one is faster by a quarter";
}

static json_t *paths_json(const struct hm_path *paths, size_t count)
{
    json_t *array = json_array();

    for (size_t i = 0; i < count; i++)
        (void)json_array_append_new(
            array, json_pack("{s:s, s:s, s:o}", "name", paths[i].name, "state",
                             hm_path_state_text(&paths[i]), "nf4_gflops",
                             paths[i].gflops > 0 ? json_real(paths[i].gflops) : json_null()));
    return array;
}

static json_t *describe(const struct rates *rates, double disk)
{
    const char *slurm = getenv("SLURM_JOB_ID");
    struct hm_path paths[HM_PATHS_MAX];
    size_t n_paths = hm_kernels_paths(paths, HM_PATHS_MAX);

    return json_pack(
        "{s:s, s:s, s:i, s:i, s:o, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:o, s:b, s:f, s:i, "
        "s:f}",
        "hanmix", HM_VERSION, "cpu", hm_cpu_model(), "cores", hm_cpu_count(), "threads",
        hm_threads(), "isa", isa_json(), "amx", hm_cpu_amx_text(), "kernels", rates->kernels,
        "kernels_reason", choice_reason(rates->kernels, paths, n_paths), "paths",
        paths_json(paths, n_paths), "memory_bytes", (json_int_t)hm_memory_total_bytes(),
        "memory_limit_bytes", (json_int_t)hm_memory_limit_bytes(), "memory_available_bytes",
        (json_int_t)hm_memory_available_bytes(), "slurm_job",
        slurm ? json_string(slurm) : json_null(), "disk_read_bytes_per_s",
        isnan(disk) ? json_null() : json_real(disk), "mpi", 0, "gemm_gflops", rates->gflops,
        "gemm_size", (int)rates->gemm_size, "nf4_decode_gvalues_per_s", rates->gvalues);
}

static void print_paths(const json_t *facts)
{
    size_t i;
    json_t *path;

    printf("kernels  %s: %s\n", json_string_value(json_object_get(facts, "kernels")),
           json_string_value(json_object_get(facts, "kernels_reason")));
    json_array_foreach(json_object_get(facts, "paths"), i, path)
    {
        const json_t *rate = json_object_get(path, "nf4_gflops");
        printf("         %-11s", json_string_value(json_object_get(path, "name")));
        if (json_is_number(rate))
            printf("%.0f GFLOP/s, NF4 with bf16, 64 rows, one thread\n", json_number_value(rate));
        else
            printf("%s\n", json_string_value(json_object_get(path, "state")));
    }
}

static void print_text(const json_t *facts)
{
    char total[40], limit[40], available[40], disk[40];
    const json_t *rate_value = json_object_get(facts, "disk_read_bytes_per_s");
    size_t i;
    json_t *name;

    printf("cpu      %s\n", json_string_value(json_object_get(facts, "cpu")));
    printf("cores    %d usable, %d threads used\n", hm_cpu_count(), hm_threads());
    printf("isa     ");
    json_array_foreach(json_object_get(facts, "isa"), i, name)
        printf(" %s", json_string_value(name));
    printf("\namx      %s\n", json_string_value(json_object_get(facts, "amx")));
    print_paths(facts);
    printf(
        "memory   %s, this process may take %s (cgroup, Slurm and ulimit counted), %s available\n",
        hm_bytes_text(hm_memory_total_bytes(), total, sizeof(total)),
        hm_bytes_text(hm_memory_limit_bytes(), limit, sizeof(limit)),
        hm_bytes_text(hm_memory_available_bytes(), available, sizeof(available)));
    if (json_is_number(rate_value))
        printf("disk     %s/s read in this folder\n",
               hm_bytes_text((uint64_t)json_number_value(rate_value), disk, sizeof(disk)));
    else
        printf("disk     not measured: this folder cannot be written\n");
    printf("mpi      not built in; one process\n");
    printf("gemm     %.1f GFLOP/s f32, %d cubed, all threads\n",
           json_number_value(json_object_get(facts, "gemm_gflops")),
           (int)json_integer_value(json_object_get(facts, "gemm_size")));
    printf("nf4      %.2f G values/s decoded, all threads\n",
           json_number_value(json_object_get(facts, "nf4_decode_gvalues_per_s")));
    if (json_array_size(json_object_get(facts, "isa")) == 0)
        printf("advice   no AVX2: the reference kernels are used, which are slow\n");
    if (hm_memory_limit_bytes() < hm_memory_total_bytes())
        printf(
            "advice   memory is limited below what the machine has: compare with `hanmix plan`\n");
}

int hm_cmd_doctor(int argc, char **argv, struct hm_error *err)
{
    bool as_json = false, quiet = false;
    const struct hm_arg table[] = { { "json", HM_ARG_FLAG, &as_json },
                                    { "quiet", HM_ARG_FLAG, &quiet } };
    struct rates rates = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 0, 0, err));
    hm_threads_set(0);
    HM_TRY(measure(&rates, err));
    json_t *facts = describe(&rates, disk_rate());
    if (!facts)
        return hm_fail_nomem(err, "for the result");
    if (as_json)
        return hm_print_json(facts, err);
    print_text(facts);
    json_decref(facts);
    return hm_print_flush(err);
}
