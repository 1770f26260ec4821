/* SPDX-License-Identifier: MIT */
/*
 * The one parallel loop, over OpenMP. Which thread runs a unit is free (dynamic schedule, so that
 * uneven units balance); what a unit computes must not depend on it, and so the result does not
 * either.
 */
#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "hanmix/base/cpu.h"
#include "hanmix/base/parallel.h"

static _Atomic int threads_chosen; /* 0: not yet */

int hm_threads_set(int threads)
{
    if (threads <= 0) {
        const char *wanted = getenv("OMP_NUM_THREADS");
        threads = wanted && *wanted ? omp_get_max_threads() : hm_cpu_count();
    }
    atomic_store(&threads_chosen, threads);
    return threads;
}

int hm_threads(void)
{
    int threads = atomic_load(&threads_chosen);

    return threads > 0 ? threads : hm_threads_set(0);
}

void hm_parallel_for(size_t count, void (*unit)(void *context, size_t index, int worker),
                     void *context)
{
    int threads = hm_threads();

    if (threads == 1 || count <= 1 || omp_in_parallel()) {
        int worker =
            omp_in_parallel() ? omp_get_thread_num() : 0; /* a nested loop keeps its scratch */
        for (size_t i = 0; i < count; i++)
            unit(context, i, worker);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (size_t i = 0; i < count; i++)
        unit(context, i, omp_get_thread_num());
}
