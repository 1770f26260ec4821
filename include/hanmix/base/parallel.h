/* SPDX-License-Identifier: MIT */
/*
 * Data-parallel loops over OpenMP with results that do not depend on the number of threads.
 *
 * The caller cuts the work into `count` units by a fixed grain; units write disjoint outputs, and
 * partial sums are joined by the caller in index order. Loops do not nest: a loop inside a loop
 * runs serially. Thread class: call from the owner thread.
 */
#ifndef HANMIX_BASE_PARALLEL_H
#define HANMIX_BASE_PARALLEL_H

#include <stddef.h>

/* Threads used by later loops; 0 = OMP_NUM_THREADS or the cores this process may use. Returns the
 * number set. */
int hm_threads_set(int threads);
int hm_threads(void);

/* Units of `grain` that cover `count`, and the smaller of two sizes (a last unit's length). */
static inline size_t hm_units(size_t count, size_t grain)
{
    return (count + grain - 1) / grain;
}
static inline size_t hm_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Run unit(context, index, worker) for index 0..count-1 in any order; worker is 0..hm_threads()-1.
 */
void hm_parallel_for(size_t count, void (*unit)(void *context, size_t index, int worker),
                     void *context);

#endif
