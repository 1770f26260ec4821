/* SPDX-License-Identifier: MIT */
/*
 * Matrix products of every path on one thread at the sizes the model asks for: decoded panels of a
 * frozen weight, low-rank factors, attention tiles, one token, and one large square.
 */
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/rng.h"
#include "hanmix/kernels/kernels.h"

#include "kernel_cases.h"

#define MAX_TABLES 8
#define SIDE       4096 /* rows and row stride of the arrays */
#define SECONDS    0.1  /* a case */

static const struct shape {
    const char *form;
    size_t m, n, k, lda, ldb, ldc;
} shapes[] = {
    { "nt", 2048, 256, 512, 4096, 512, 4096 },    { "nt", 512, 256, 512, 4096, 512, 4096 },
    { "nt", 128, 256, 512, 4096, 512, 4096 },     { "nt", 32, 256, 512, 4096, 512, 4096 },
    { "nt", 8, 256, 512, 4096, 512, 4096 },       { "nt", 4, 256, 512, 4096, 512, 4096 },
    { "nt", 1, 256, 512, 4096, 512, 4096 },       { "nn", 512, 256, 512, 4096, 256, 4096 },
    { "nt", 512, 16, 4096, 4096, 4096, 16 },      { "nn", 512, 256, 16, 16, 4096, 4096 },
    { "nn", 512, 16, 4096, 4096, 16, 16 },        { "tn", 16, 256, 512, 16, 4096, 4096 },
    { "tn", 256, 16, 512, 4096, 16, 16 },         { "tn", 512, 4096, 512, 4096, 4096, 4096 },
    { "nt", 64, 128, 128, 4096, 1024, 128 },      { "nn", 64, 128, 128, 128, 1024, 4096 },
    { "nt", 2048, 2048, 2048, 2048, 2048, 2048 },
};

/* Best GFLOP/s of repeated calls. */
static double shape_rate(const struct hm_kernels *k, const struct shape *s, const float *a,
                         const float *b, float *c)
{
    double best = INFINITY, spent = 0;

    for (double begin = bench_seconds(), after; spent < SECONDS; begin = after) {
        (strcmp(s->form, "nt") == 0 ? k->gemm_nt
         : strcmp(s->form, "nn") == 0
             ? k->gemm_nn
             : k->gemm_tn)(s->m, s->n, s->k, 1.0f, a, s->lda, b, s->ldb, 0.0f, c, s->ldc);
        after = bench_seconds();
        best = fmin(best, after - begin);
        spent += after - begin;
    }
    return 2e-9 * (double)s->m * (double)s->n * (double)s->k / best;
}

void bench_gemm_cases(FILE *out)
{
    const struct hm_rng_key key = { .seed = 1 };
    struct hm_kernels tables[MAX_TABLES];
    size_t n_tables = hm_kernels_all(tables, MAX_TABLES), count = (size_t)SIDE * SIDE;
    float *a = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*a));
    float *b = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*b));
    float *c = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*c));

    fprintf(out, "kernel,path,m,n,k,gflop_s\n");
    if (!a || !b || !c)
        goto out;
    for (size_t i = 0; i < count; i++)
        a[i] = b[count - 1 - i] = i < SIDE ? (float)hm_rng_normal(key, i) : a[i - SIDE] * 0.999f;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t t = 1; t < n_tables; t++) { /* the reference is no contender */
            const struct shape *shape = &shapes[s];
            double rate = shape_rate(&tables[t], shape, a, b, c);
            fprintf(out, "gemm_%s,%s,%zu,%zu,%zu,%.1f\n", shape->form, tables[t].name, shape->m,
                    shape->n, shape->k, rate);
            fflush(out);
        }
out:
    hm_free(a);
    hm_free(b);
    hm_free(c);
}
