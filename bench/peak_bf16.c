/* SPDX-License-Identifier: MIT */
/*
 * See peak_bf16.h. Operands are ordinary numbers: products of zeros can run faster than real ones.
 */
#include <stdint.h>

#include "hanmix/base/cpu.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

#include "peak_bf16.h"

#define ROUNDS 5 /* the best of */

static double best_rate(double work, size_t units, void (*unit)(void *, size_t, int), void *context)
{
    double best = 0;

    for (int i = 0; i < ROUNDS; i++) {
        double begin = hm_clock_seconds();
        hm_parallel_for(units, unit, context);
        double rate = work / (hm_clock_seconds() - begin) / 1e9;
        best = rate > best ? rate : best;
    }
    return best;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define STEPS 4000000u
#define SUMS  24

__attribute__((target("avx512f,avx512bf16"))) static void dpbf16_unit(void *context, size_t index,
                                                                      int worker)
{
    volatile float *sink = context;
    __m512 sum[SUMS];
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f813f7f),
             b = (__m512bh)_mm512_set1_epi32(0x3c233bc4);

    (void)worker;
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (unsigned step = 0; step < STEPS; step++) {
#pragma GCC unroll 24
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
        __asm__ volatile("" : "+v"(a), "+v"(b));
    }
    float all = 0;
#pragma GCC unroll 24
    for (int i = 0; i < SUMS; i++)
        all += _mm512_reduce_add_ps(sum[i]);
    sink[index] = all;
}

double bench_peak_dpbf16_gflops(void)
{
    float sink[1024];
    size_t threads = (size_t)hm_threads();

    if (!(hm_cpu_flags() & HM_CPU_AVX512BF16) || threads > 1024)
        return 0;
    return best_rate((double)threads * STEPS * SUMS * 64, threads, dpbf16_unit, sink);
}
#else
double bench_peak_dpbf16_gflops(void)
{
    return 0;
}
#endif

struct reading {
    const uint8_t *data;
    size_t n_bytes;
    volatile uint64_t sink[64];
};

#define PIECE ((size_t)1 << 20)

static void read_unit(void *context, size_t index, int worker)
{
    struct reading *reading = context;
    const uint64_t *at = (const uint64_t *)(const void *)(reading->data + index * PIECE);
    uint64_t sum[8] = { 0 };

    (void)worker;
    for (size_t i = 0; i < PIECE / 8; i += 8)
        for (size_t j = 0; j < 8; j++)
            sum[j] += at[i + j];
    reading->sink[index % 64] =
        sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

double bench_read_gbytes(const void *data, size_t n_bytes)
{
    struct reading reading = { .data = data, .n_bytes = n_bytes / PIECE * PIECE };

    return best_rate((double)reading.n_bytes, n_bytes / PIECE, read_unit, &reading);
}
