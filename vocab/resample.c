/* SPDX-License-Identifier: MIT */
/*
 * Poisson bootstrap; see resample.h. Draws are exact inversions; the upper byte decides most of
 * them, so that a document costs microseconds for all resamples.
 */
#include "resample.h"

#include <stdlib.h>

#define LANES       4u /* resamples drawn by one block of random numbers */
#define UNIT_BLOCKS (HM_RESAMPLE_UNIT / LANES)
#define BLOCKS      (HM_RESAMPLES / LANES)
#define POISSON_MAX 12u

static uint64_t value_of(const struct hm_poisson *poisson, uint32_t bits)
{
    uint64_t value = 0;

    while (value < POISSON_MAX && bits >= poisson->below[value])
        value++;
    return value;
}

void hm_poisson_make(struct hm_poisson *ret_poisson)
{
    double term = 0.36787944117144233; /* exp(-1) */
    double sum = 0;

    for (size_t i = 0; i < POISSON_MAX; i++) {
        sum += term;
        ret_poisson->below[i] = (uint64_t)(sum * 4294967296.0);
        term /= (double)(i + 1);
    }
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint64_t least = value_of(ret_poisson, byte << 24);
        uint64_t most = value_of(ret_poisson, byte << 24 | 0xffffff);
        ret_poisson->by_byte[byte] = (int8_t)(least == most ? (int)least : -1);
    }
}

void hm_poisson_draw(const struct hm_poisson *poisson, struct hm_rng_key key, uint64_t document,
                     size_t unit, uint64_t times[HM_RESAMPLE_UNIT])
{
    for (size_t block = 0; block < UNIT_BLOCKS; block++) {
        uint32_t bits[LANES];
        hm_rng_block(key, document * BLOCKS + unit * UNIT_BLOCKS + block, bits);
        for (size_t lane = 0; lane < LANES; lane++) {
            int known = poisson->by_byte[bits[lane] >> 24];
            times[block * LANES + lane] =
                known >= 0 ? (uint64_t)known : value_of(poisson, bits[lane]);
        }
    }
}

static int double_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Quantile of sorted values, linear between neighbours. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t below = (size_t)at;

    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]);
}

void hm_resample_ratio(const uint64_t a[HM_RESAMPLES], const uint64_t b[HM_RESAMPLES],
                       double confidence, double *ret_low, double *ret_high)
{
    double value[HM_RESAMPLES];
    size_t n = 0;

    for (size_t i = 0; i < HM_RESAMPLES; i++) /* an empty resample says nothing */
        if (b[i])
            value[n++] = (double)a[i] / (double)b[i];
    if (n == 0)
        return;
    qsort(value, n, sizeof(*value), double_order);
    *ret_low = quantile(value, n, (1.0 - confidence) / 2.0);
    *ret_high = quantile(value, n, (1.0 + confidence) / 2.0);
}
