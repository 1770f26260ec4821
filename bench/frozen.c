/* SPDX-License-Identifier: MIT */
/*
 * Speed of products with frozen matrices: frozen [--m M] [--shape ROWSxCOLS] [--side forward|
 * backward] [--seconds S] [--no-dense]. One CSV row per cell: NF4 with nested scales, f32 operand
 * packed inside the call, f32 output, all threads over the cuts of model/linear.c, the best call of
 * S seconds; codes are cold (copies that the caches cannot hold take turns). peak_share is of the
 * register-resident vdpbf16ps rate of this run, read_share of its memory reading rate. decode_share
 * is the time of the same cell with one row by that with m: at most this goes into reading and
 * decoding W. dense_gflop_s: the cell with W dense in bf16, such as the output head. Rows "mean"
 * are weighted by FLOPs.
 */
#include <stdio.h>
#include <string.h>

#include "bench_args.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/cpu.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/kernels/kernels.h"

#include "peak_bf16.h"

#define POOL_BYTES  ((size_t)320 << 20) /* of weights: several times the last-level cache */
#define BLOCKSIZE   64u
#define CUT         256u
#define PACK_BLOCK  64u /* rows packed at once, 1024 columns */
#define PACK_WIDTH  1024u
#define MAX_M       2048u
#define MAX_WIDTH   14336u
#define MAX_THREADS 256

struct settings {
    uint64_t m;
    uint32_t rows, cols;
    const char *side;
    double seconds;
    bool dense;
};

struct bench {
    struct hm_kernels kernels;
    double peak, reading;
    uint8_t *pool, *absmax, *nested, *map;
    float *x, *y;
    uint16_t *packed;
    uint8_t *scratch[MAX_THREADS];
};

struct cell {
    const struct bench *bench;
    struct hm_frozen w;
    enum hm_pack side;
    size_t m, depth, width; /* depth: inner size */
};

static void pack_unit(void *context, size_t index, int worker)
{
    const struct cell *cell = context;
    size_t per_row = hm_units(cell->depth, PACK_WIDTH);
    size_t row = index / per_row * PACK_BLOCK, col = index % per_row * PACK_WIDTH;

    (void)worker;
    cell->bench->kernels.frozen_pack(
        cell->side, cell->m, cell->depth, row, hm_least(PACK_BLOCK, cell->m - row), col,
        hm_least(PACK_WIDTH, cell->depth - col), cell->bench->x + row * cell->depth + col,
        cell->depth, cell->bench->packed);
}

static void product_unit(void *context, size_t index, int worker)
{
    const struct cell *cell = context;
    const struct bench *bench = cell->bench;
    uint32_t first = (uint32_t)index * CUT;
    uint32_t n = (uint32_t)hm_least(CUT, cell->width - first);

    if (cell->side == HM_PACK_FORWARD)
        bench->kernels.frozen_forward(&cell->w, first, n, bench->packed, cell->m, NULL, false,
                                      bench->y + first, cell->width, bench->scratch[worker]);
    else
        bench->kernels.frozen_backward(&cell->w, first, n, bench->packed, cell->m, NULL, false,
                                       bench->y + first, cell->width, bench->scratch[worker]);
}

static double cell_seconds(struct cell *cell, double budget)
{
    size_t bytes = (size_t)cell->w.rows * cell->w.cols;
    bytes = cell->w.layout == HM_FROZEN_BF16 ? bytes * 2 : bytes / 2;
    size_t copies = POOL_BYTES / bytes;
    double best = 1e30, spent = 0;

    for (size_t call = 0; call < 4 || spent < budget; call++) {
        cell->w.data = cell->bench->pool + call % copies * bytes;
        double begin = hm_clock_seconds();
        hm_parallel_for(hm_units(cell->m, PACK_BLOCK) * hm_units(cell->depth, PACK_WIDTH),
                        pack_unit, cell);
        hm_parallel_for(hm_units(cell->width, CUT), product_unit, cell);
        double seconds = hm_clock_seconds() - begin;
        best = call > 0 && seconds < best ? seconds : best; /* the first one warms up */
        spent += seconds;
    }
    return best;
}

static struct cell cell_make(const struct bench *bench, const struct settings *settings,
                             enum hm_pack side)
{
    bool forward = side == HM_PACK_FORWARD;

    return (struct cell){ .bench = bench,
                          .w = { .rows = settings->rows,
                                 .cols = settings->cols,
                                 .blocksize = BLOCKSIZE,
                                 .absmax = bench->absmax,
                                 .nested_absmax = bench->nested,
                                 .nested_map = bench->map,
                                 .nested_offset = 0.02f },
                          .side = side,
                          .m = settings->m,
                          .depth = forward ? settings->cols : settings->rows,
                          .width = forward ? settings->rows : settings->cols };
}

enum variant { NF4, DENSE, ONE_ROW, VARIANTS };

static void row_print(const struct bench *bench, const char *side, const char *shape, size_t m,
                      double values, const double seconds[VARIANTS])
{
    double flops = 2 * values * (double)m / 1e9, rate = flops / seconds[NF4];
    double codes = values * (0.5 + 1.0 / BLOCKSIZE) / seconds[NF4] / 1e9;

    printf("%s,%s,%zu,%s,%d,%.1f,%.3f,%.1f,%.1f,%.3f,%.3f", side, shape, m, bench->kernels.name,
           hm_threads(), rate, bench->peak > 0 ? rate / bench->peak : 0,
           values / seconds[NF4] / 1e9, codes, codes / bench->reading,
           seconds[ONE_ROW] / seconds[NF4]);
    if (seconds[DENSE] > 0)
        printf(",%.1f\n", flops / seconds[DENSE]);
    else
        printf(",\n");
    fflush(stdout);
}

/* All wanted shapes of one side and one m. */
static void side_run(const struct bench *bench, struct settings settings, enum hm_pack side)
{
    static const uint32_t shapes[][2] = {
        { 14336, 4096 }, { 4096, 14336 }, { 4096, 4096 }, { 1024, 4096 }
    };
    const uint32_t rows = settings.rows, cols = settings.cols;
    const char *name = side == HM_PACK_FORWARD ? "forward" : "backward";
    double all[VARIANTS] = { 0 }, values = 0;

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        double seconds[VARIANTS] = { 0 };
        char shape[32];
        settings.rows = shapes[i][0];
        settings.cols = shapes[i][1];
        if (rows && (rows != settings.rows || cols != settings.cols))
            continue;
        struct cell cell = cell_make(bench, &settings, side);
        seconds[NF4] = cell_seconds(&cell, settings.seconds);
        if (settings.dense) {
            cell.w.layout = HM_FROZEN_BF16;
            seconds[DENSE] = cell_seconds(&cell, settings.seconds);
            cell.w.layout = HM_FROZEN_NF4;
        }
        cell.m = 1;
        seconds[ONE_ROW] = settings.m == 1 ? seconds[NF4] : cell_seconds(&cell, settings.seconds);
        snprintf(shape, sizeof(shape), "%ux%u", settings.rows, settings.cols);
        double n = (double)settings.rows * settings.cols;
        row_print(bench, name, shape, settings.m, n, seconds);
        values += n;
        for (int v = 0; v < VARIANTS; v++)
            all[v] += seconds[v];
    }
    if (!rows)
        row_print(bench, name, "mean", settings.m, values, all);
}

static int bench_open(struct bench *bench)
{
    const struct hm_rng_key key = { .seed = 1 };
    const size_t n_blocks = (size_t)MAX_WIDTH * 4096 / BLOCKSIZE;
    float *map, *nested;

    bench->pool = hm_alloc_array(HM_MEM_OTHER, POOL_BYTES, 1);
    bench->absmax = hm_alloc_array(HM_MEM_OTHER, n_blocks, 1);
    nested = hm_alloc_array(HM_MEM_OTHER, n_blocks / 256 + 1, sizeof(float));
    map = hm_alloc_array(HM_MEM_OTHER, 256, sizeof(float));
    bench->nested = (uint8_t *)nested;
    bench->map = (uint8_t *)map;
    bench->x = hm_alloc_array(HM_MEM_OTHER, (size_t)MAX_M * MAX_WIDTH, sizeof(float));
    bench->y = hm_alloc_array(HM_MEM_OTHER, (size_t)MAX_M * MAX_WIDTH, sizeof(float));
    bench->packed = hm_alloc_array(HM_MEM_OTHER, hm_pack_values(MAX_M, MAX_WIDTH), 2);
    if (!bench->pool || !bench->absmax || !nested || !map || !bench->x || !bench->y ||
        !bench->packed || hm_threads() > MAX_THREADS)
        return -1;
    for (int i = 0; i < hm_threads(); i++)
        if (!(bench->scratch[i] = hm_alloc_array(HM_MEM_OTHER, HM_FROZEN_SCRATCH_BYTES, 1)))
            return -1;
    for (size_t i = 0; i < POOL_BYTES; i += 2) { /* bf16 of size 1/64 to 1, or any codes */
        uint64_t bits = (i * 0x9e3779b97f4a7c15u) >> 40;
        uint16_t value = (uint16_t)((bits & 0x81ff) | 0x3c00);
        memcpy(bench->pool + i, &value, 2);
    }
    for (size_t i = 0; i < n_blocks; i++)
        bench->absmax[i] = (uint8_t)hm_rng_below(key, i, 256);
    for (size_t i = 0; i < 256; i++)
        map[i] = (float)i / 255;
    for (size_t i = 0; i < n_blocks / 256 + 1; i++)
        nested[i] = 0.01f;
    for (size_t i = 0; i < (size_t)MAX_M * MAX_WIDTH; i++)
        bench->x[i] = i < 4096 ? (float)hm_rng_normal(key, i) : bench->x[i - 4096] * 0.999f;
    memset(bench->y, 0, (size_t)MAX_M * MAX_WIDTH * sizeof(float));
    return 0;
}

static int settings_read(struct settings *settings, int argc, char **argv, struct hm_error *err)
{
    const char *shape = NULL;
    bool no_dense = false;
    const struct bench_option option[] = {
        { "--m", .count = &settings->m },
        { "--side", .text = &settings->side },
        { "--seconds", .real = &settings->seconds },
        { "--shape", .text = &shape },
        { "--no-dense", .flag = &no_dense },
    };

    HM_TRY(bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, err));
    settings->dense = !no_dense;
    if (shape && sscanf(shape, "%ux%u", &settings->rows, &settings->cols) != 2)
        return hm_fail(err, HM_ERR_USAGE, "--shape '%s' is not ROWSxCOLS", shape);
    return settings->m > MAX_M ? hm_fail(err, HM_ERR_USAGE, "--m: at most %d", MAX_M) : HM_OK;
}

int main(int argc, char **argv)
{
    static const size_t m_sizes[] = { 1, 8, 16, 32, 64, 128, 256, 512, 2048 };
    struct settings settings = { .seconds = 0.1 };
    static struct bench bench;
    struct hm_error err = { 0 };

    if (settings_read(&settings, argc, argv, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        fprintf(stderr, "usage: frozen [--m M] [--shape ROWSxCOLS] [--side forward|backward]"
                        " [--seconds S] [--no-dense]\n");
        return 2;
    }
    if (hm_kernels_choose(&bench.kernels, NULL, &err) != HM_OK || !bench.kernels.frozen_forward ||
        bench_open(&bench) != 0) {
        fprintf(stderr, "frozen: no such products on this path, or no memory\n");
        return 1;
    }
    bench.peak = bench_peak_dpbf16_gflops();
    bench.reading = bench_read_gbytes(bench.pool, POOL_BYTES);
    printf("# %s, %d threads, vdpbf16ps %.0f GFLOP/s, reads %.1f GB/s\n", hm_cpu_model(),
           hm_threads(), bench.peak, bench.reading);
    printf("side,shape,m,path,threads,gflop_s,peak_share,gvalues_s,code_gb_s,read_share,"
           "decode_share,dense_gflop_s\n");
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < sizeof(m_sizes) / sizeof(m_sizes[0]); i++) {
            const char *name = side == 0 ? "forward" : "backward";
            struct settings one = settings;
            if (settings.side && strcmp(settings.side, name) != 0)
                continue;
            if (settings.m && settings.m != m_sizes[i])
                continue;
            one.m = m_sizes[i];
            side_run(&bench, one, side == 0 ? HM_PACK_FORWARD : HM_PACK_BACKWARD);
        }
    return 0;
}
