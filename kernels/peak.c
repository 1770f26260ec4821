/* SPDX-License-Identifier: MIT */
/*
 * The measured peak of gemm_nt on all threads: row tiles of C, whole rows of B, ordinary random
 * data (products of zeros run faster than real ones).
 */
#include "hanmix/kernels/peak.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/kernels/kernels.h"

#define TILE_ROWS 512 /* of C: the library packs B again for every tile */

struct product {
    const struct hm_kernels *kernels;
    size_t n;
    const float *a, *b;
    float *c;
};

static void tile_run(void *context, size_t index, int worker)
{
    const struct product *p = context;
    size_t first = index * TILE_ROWS;
    size_t rows = p->n - first < TILE_ROWS ? p->n - first : TILE_ROWS;

    (void)worker;
    p->kernels->gemm_nt(rows, p->n, p->n, 1.0f, p->a + first * p->n, p->n, p->b, p->n, 0.0f,
                        p->c + first * p->n, p->n);
}

static double product_seconds(struct product *product)
{
    double begin = hm_clock_seconds();

    hm_parallel_for(hm_units(product->n, TILE_ROWS), tile_run, product);
    return hm_clock_seconds() - begin;
}

double hm_gemm_peak_gflops(const struct hm_kernels *kernels, size_t n, double seconds_budget)
{
    const struct hm_rng_key key = { .seed = 1 };
    float *a = hm_alloc_array(HM_MEM_SCRATCH, n * n, sizeof(*a));
    float *b = hm_alloc_array(HM_MEM_SCRATCH, n * n, sizeof(*b));
    float *c = hm_alloc_array(HM_MEM_SCRATCH, n * n, sizeof(*c));
    double flops = 2.0 * (double)n * (double)n * (double)n;
    double best = 0.0;

    if (!a || !b || !c)
        goto out;
    for (size_t i = 0; i < n * n; i++) /* normals of one period: drawing millions would cost more */
        a[i] = b[n * n - 1 - i] = i < 4096 ? (float)hm_rng_normal(key, i) : a[i - 4096] * 0.999f;
    struct product product = { kernels, n, a, b, c };
    product_seconds(&product);
    for (double spent = 0.0; spent <= seconds_budget;) {
        double seconds = product_seconds(&product);
        double rate = flops / seconds / 1e9;
        best = rate > best ? rate : best;
        spent += seconds;
    }
out:
    hm_free(a);
    hm_free(b);
    hm_free(c);
    return best;
}
