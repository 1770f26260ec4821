/* SPDX-License-Identifier: MIT */
/*
 * Bootstrap of a ratio: every round is one unit of a parallel loop with its own stream of random
 * numbers.
 */
#include "bootstrap.h"

#include <stdlib.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"

#define BOOTSTRAP_BLOCKS 4096u
#define BOOTSTRAP_ROUNDS 1000u
#define BOOTSTRAP_SEED   0x626f6f74u
#define TAIL             0.025

struct rounds {
    const struct hm_scored *block;
    size_t n;
    double *ratio; /* [BOOTSTRAP_ROUNDS] */
};

static void round_unit(void *context, size_t index, int worker)
{
    struct rounds *rounds = context;
    struct hm_rng_key key = { BOOTSTRAP_SEED, index };
    double loss = 0, bytes = 0;

    (void)worker;
    for (size_t i = 0; i < rounds->n; i++) {
        const struct hm_scored *drawn = &rounds->block[hm_rng_below(key, i, rounds->n)];
        loss += drawn->loss;
        bytes += (double)drawn->bytes;
    }
    rounds->ratio[index] = bytes > 0 ? loss / bytes : 0;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y ? 1 : 0;
}

/* A draw of nothing but empty documents would have no ratio: they are left out. */
static size_t with_text(const struct hm_scored *scored, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += scored[i].bytes > 0;
    return count;
}

int hm_bootstrap_ratio(const struct hm_scored *scored, size_t n, double *ret_low, double *ret_high,
                       struct hm_error *err)
{
    size_t n_text = with_text(scored, n);
    size_t n_blocks = n_text < BOOTSTRAP_BLOCKS ? n_text : BOOTSTRAP_BLOCKS;
    struct hm_scored *block = hm_calloc(HM_MEM_OTHER, n_blocks, sizeof(*block));
    double *ratio = hm_calloc(HM_MEM_OTHER, BOOTSTRAP_ROUNDS, sizeof(*ratio));
    int status = HM_OK;

    if (!block || !ratio) {
        status = hm_fail_nomem(err, "for an interval over %zu documents", n);
        goto out;
    }
    for (size_t i = 0, at = 0; i < n; i++) {
        if (scored[i].bytes == 0)
            continue;
        struct hm_scored *to = &block[at++ * n_blocks / n_text];
        to->loss += scored[i].loss;
        to->bytes += scored[i].bytes;
    }
    struct rounds rounds = { block, n_blocks, ratio };
    hm_parallel_for(BOOTSTRAP_ROUNDS, round_unit, &rounds);
    qsort(ratio, BOOTSTRAP_ROUNDS, sizeof(*ratio), ascending);
    *ret_low = ratio[(size_t)(TAIL * BOOTSTRAP_ROUNDS)];
    *ret_high = ratio[BOOTSTRAP_ROUNDS - 1 - (size_t)(TAIL * BOOTSTRAP_ROUNDS)];
out:
    hm_free(block);
    hm_free(ratio);
    return status;
}
