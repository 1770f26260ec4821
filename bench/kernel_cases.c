/* SPDX-License-Identifier: MIT */
/*
 * See kernel_cases.h. One table of cases; every case works on the same few arrays, whose contents
 * stay ordinary numbers however often a kernel is repeated on them (denormals and infinities would
 * be measured instead).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/rng.h"
#include "hanmix/kernels/kernels.h"

#include "kernel_cases.h"

#define WIDTH      4096 /* of a row; head_dim 128, tile of keys 128 */
#define MAX_TABLES 8
#define SECONDS    0.06 /* a case */

enum array { X, Y, Z, W, P, ARRAYS };

struct work {
    size_t n; /* values, a multiple of WIDTH */
    float *array[ARRAYS];
    uint8_t *codes;
    uint16_t *narrow;
    int32_t *zeros, *keys; /* first_key or pos, end_key */
    float *rows[4];        /* one value a row */
    double *loss;
    struct hm_map8 map8[2]; /* without and with sign */
};

static void nf4_decode(const struct hm_kernels *k, struct work *w)
{
    k->nf4_decode(w->codes, w->array[W], 0, w->n, 64, HM_ROUND_NONE, w->array[Y]);
}

static void nf4_decode_bf16(const struct hm_kernels *k, struct work *w)
{
    k->nf4_decode(w->codes, w->array[W], 0, w->n, 64, HM_ROUND_BF16, w->array[Y]);
}

static void nf4_encode(const struct hm_kernels *k, struct work *w)
{
    k->nf4_encode(w->array[X], w->n, 64, w->codes, w->array[Z]);
}

static void bf16_to_f32(const struct hm_kernels *k, struct work *w)
{
    k->bf16_to_f32(w->narrow, w->n, w->array[Y]);
}

static void f16_to_f32(const struct hm_kernels *k, struct work *w)
{
    k->f16_to_f32(w->narrow, w->n, w->array[Y]);
}

static void f32_to_bf16(const struct hm_kernels *k, struct work *w)
{
    k->f32_to_bf16(w->array[X], w->n, w->narrow);
}

static void f32_round_bf16(const struct hm_kernels *k, struct work *w)
{
    k->f32_round_bf16(w->array[P], w->n);
}

static void rmsnorm(const struct hm_kernels *k, struct work *w)
{
    k->rmsnorm(w->array[X], w->array[W], w->n / WIDTH, WIDTH, 1e-5f, w->array[Y], w->rows[0]);
}

static void rmsnorm_backward(const struct hm_kernels *k, struct work *w)
{
    k->rmsnorm_backward(w->array[X], w->array[W], w->rows[3], w->array[Y], w->n / WIDTH, WIDTH,
                        w->array[Z], NULL);
}

static void rope(const struct hm_kernels *k, struct work *w)
{
    k->rope(w->array[P], w->n / WIDTH, WIDTH, WIDTH / 128, 128, w->array[W], w->array[X], w->zeros,
            1.0f);
}

static void softmax_tile(const struct hm_kernels *k, struct work *w)
{
    k->softmax_tile(w->array[P], w->n / 128, 128, 128, w->zeros, w->keys, 0.1f, w->rows[0],
                    w->rows[1], w->rows[2]);
}

static void prob_tile(const struct hm_kernels *k, struct work *w)
{
    k->prob_tile(w->array[P], w->n / 128, 128, 128, w->zeros, w->keys, 0.1f, w->rows[3]);
}

static void dscore_tile(const struct hm_kernels *k, struct work *w)
{
    k->dscore_tile(w->array[X], w->array[P], w->n / 128, 128, 128, 0.1f, w->rows[3]);
}

static void swiglu(const struct hm_kernels *k, struct work *w)
{
    k->swiglu(w->array[X], w->array[W], w->n, w->array[Y]);
}

static void swiglu_backward(const struct hm_kernels *k, struct work *w)
{
    k->swiglu_backward(w->array[X], w->array[W], w->array[P], w->n, w->array[Y], w->array[Z]);
}

static void xent(const struct hm_kernels *k, struct work *w)
{
    k->xent(w->array[P], 1, w->n, w->n, w->zeros, w->rows[3], true, w->loss);
}

static void xent_loss(const struct hm_kernels *k, struct work *w)
{
    k->xent(w->array[X], 1, w->n, w->n, w->zeros, w->rows[3], false, w->loss);
}

static void route(const struct hm_kernels *k, struct work *w)
{
    k->route(w->array[X], w->n / 8, 8, 2, w->array[Y], (int32_t *)w->codes, w->array[Z]);
}

static void adamw(const struct hm_kernels *k, struct work *w)
{
    const struct hm_adamw_step step = { 1e-6, 0.9, 0.999, 1e-8, 0.1, 0.5, 0.5, 1.0f };

    k->adamw(w->array[P], w->array[X], w->array[Y], w->array[Z], w->n, &step);
}

static void adamw8(const struct hm_kernels *k, struct work *w)
{
    const struct hm_adamw_step step = { 1e-6, 0.9, 0.999, 1e-8, 0.1, 0.5, 0.5, 1.0f };
    const struct hm_moments8 moments = { &w->map8[1],     &w->map8[0], w->codes,
                                         w->codes + w->n, w->array[Y], w->array[Z] };

    k->adamw8(w->array[P], w->array[X], &moments, w->n, &step);
}

static void sum_squares(const struct hm_kernels *k, struct work *w)
{
    w->loss[0] = k->sum_squares(w->array[X], w->n);
}

static void axpy(const struct hm_kernels *k, struct work *w)
{
    k->axpy(1e-9f, w->array[X], w->n, w->array[P]);
}

static void scale(const struct hm_kernels *k, struct work *w)
{
    k->scale(-1.0f, w->array[P], w->n);
}

static void add(const struct hm_kernels *k, struct work *w)
{
    k->add(w->array[W], w->n, w->array[P]);
}

static void dot(const struct hm_kernels *k, struct work *w)
{
    w->loss[0] = k->dot(w->array[X], w->array[W], w->n);
}

static const struct {
    const char *stem, *name;
    double bytes; /* read and written for one value */
    void (*run)(const struct hm_kernels *k, struct work *w);
} cases[] = {
    { "nf4", "nf4_decode", 4.5625, nf4_decode },
    { "nf4", "nf4_decode_bf16", 4.5625, nf4_decode_bf16 },
    { "nf4", "nf4_encode", 4.5625, nf4_encode },
    { "convert", "bf16_to_f32", 6, bf16_to_f32 },
    { "convert", "f16_to_f32", 6, f16_to_f32 },
    { "convert", "f32_to_bf16", 6, f32_to_bf16 },
    { "convert", "f32_round_bf16", 8, f32_round_bf16 },
    { "norm", "rmsnorm", 8, rmsnorm },
    { "norm", "rmsnorm_backward", 16, rmsnorm_backward },
    { "rope", "rope", 8, rope },
    { "attn", "softmax_tile", 8, softmax_tile },
    { "attn", "prob_tile", 8, prob_tile },
    { "attn", "dscore_tile", 12, dscore_tile },
    { "swiglu", "swiglu", 12, swiglu },
    { "swiglu", "swiglu_backward", 20, swiglu_backward },
    { "xent", "xent", 8, xent },
    { "xent", "xent_loss", 4, xent_loss },
    { "topk", "route", 10, route },
    { "adamw", "adamw", 28, adamw },
    { "adamw", "adamw8", 16.0625, adamw8 },
    { "adamw", "sum_squares", 4, sum_squares },
    { "vector", "axpy", 12, axpy },
    { "vector", "scale", 8, scale },
    { "vector", "add", 12, add },
    { "vector", "dot", 8, dot },
};

double bench_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *take(size_t count, size_t size)
{
    void *block = hm_calloc(HM_MEM_OTHER, count, size);

    if (!block) {
        fprintf(stderr, "out of memory\n");
        exit(6);
    }
    return block;
}

static void work_fill(struct work *w)
{
    static const double sigma[ARRAYS] = { [X] = 1, [Y] = 0, [Z] = 0, [W] = 1e-3, [P] = 1 };
    const struct hm_rng_key key = { .seed = 1 };

    for (int a = 0; a < ARRAYS; a++)
        for (size_t i = 0; i < w->n; i++)
            w->array[a][i] = (float)(sigma[a] * hm_rng_normal(key, i & 0xffff));
    for (size_t i = 0; i < w->n; i++) {
        w->codes[i] = (uint8_t)(i * 151);
        w->narrow[i] = hm_f32_to_bf16(w->array[X][i]);
        w->keys[i] = 128;
    }
    for (size_t i = 0; i < w->n; i++) {
        w->rows[0][i] = 0.0f;
        w->rows[1][i] = w->rows[3][i] = 1.0f;
    }
}

static void work_init(struct work *w, size_t n)
{
    w->n = n;
    hm_map8_init(false, &w->map8[0]);
    hm_map8_init(true, &w->map8[1]);
    for (int a = 0; a < ARRAYS; a++)
        w->array[a] = take(n, sizeof(float));
    for (int r = 0; r < 4; r++)
        w->rows[r] = take(n, sizeof(float));
    w->codes = take(4 * n, 1);
    w->narrow = take(n, sizeof(*w->narrow));
    w->zeros = take(n, sizeof(*w->zeros));
    w->keys = take(n, sizeof(*w->keys));
    w->loss = take(n / WIDTH, sizeof(*w->loss));
}

static void work_release(struct work *w)
{
    for (int a = 0; a < ARRAYS; a++)
        hm_free(w->array[a]);
    for (int r = 0; r < 4; r++)
        hm_free(w->rows[r]);
    hm_free(w->codes);
    hm_free(w->narrow);
    hm_free(w->zeros);
    hm_free(w->keys);
    hm_free(w->loss);
}

static double case_seconds(void (*run)(const struct hm_kernels *k, struct work *w),
                           const struct hm_kernels *table, struct work *work)
{
    double best = INFINITY, spent = 0;

    work_fill(work);
    run(table, work);
    for (double begin = bench_seconds(), after; spent < SECONDS; begin = after) {
        run(table, work);
        after = bench_seconds();
        best = fmin(best, after - begin);
        spent += after - begin;
    }
    return best;
}

int bench_kernel_cases(const char *stem, FILE *out)
{
    static const size_t sizes[] = { 16 * WIDTH, 1024 * WIDTH };
    struct hm_kernels tables[MAX_TABLES];
    size_t n_tables = hm_kernels_all(tables, MAX_TABLES);
    bool any = false;

    if (stem && strcmp(stem, "gemm") == 0) {
        bench_gemm_cases(out);
        return 0;
    }
    fprintf(out, "kernel,path,values,gvalues_s,gb_s\n");
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct work work;

        work_init(&work, sizes[s]);
        for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
            for (size_t t = 0; t < n_tables; t++) {
                bool same = t == 1; /* "portable" differs from "ref" in gemm alone */
                if ((stem && strcmp(stem, cases[c].stem) != 0) || same)
                    continue;
                double rate = (double)work.n / case_seconds(cases[c].run, &tables[t], &work) / 1e9;
                fprintf(out, "%s,%s,%zu,%.3f,%.2f\n", cases[c].name, tables[t].name, work.n, rate,
                        rate * cases[c].bytes);
                fflush(out);
                any = true;
            }
        work_release(&work);
    }
    return any ? 0 : 1;
}
