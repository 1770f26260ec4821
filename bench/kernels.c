/* SPDX-License-Identifier: MIT */
/*
 * The speed of every kernel on every path of this machine, and the peak of matrix products: csv on
 * the standard output. `kernels [stem]` measures one stem (nf4, attn, ..., gemm for the peak
 * alone).
 */
#include <string.h>

#include "hanmix/base/cpu.h"
#include "hanmix/base/parallel.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/kernels/peak.h"

#include "kernel_cases.h"

#define PEAK_SECONDS 1.0

static void peak_print(void)
{
    static const size_t sizes[] = { 2048, 4096 };
    struct hm_kernels kernels;

    hm_kernels_init(&kernels, hm_cpu_flags());
    printf("kernel,threads,n,gflop_s\n");
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        double rate = hm_gemm_peak_gflops(&kernels, sizes[i], PEAK_SECONDS);
        printf("peak,%d,%zu,%.1f\n", hm_threads(), sizes[i], rate);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    const char *stem = argc > 1 ? argv[1] : NULL;

    fprintf(stderr, "# %s, %d threads\n", hm_cpu_model(), hm_threads());
    if (!stem || strcmp(stem, "peak") == 0)
        peak_print();
    if (!stem)
        bench_gemm_cases(stdout);
    return stem && strcmp(stem, "peak") == 0 ? 0 : bench_kernel_cases(stem, stdout);
}
