/* SPDX-License-Identifier: MIT */
/*
 * f32 values rounded to vectors of bf16, and pairs of them.
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_ROUND_H
#define HANMIX_KERNELS_X86_FROZEN_ROUND_H

#include "frozen.h"
#include "simd_avx512.h"

/* 32 values, zeros from n on. */
INLINE __m512i row_round(const float *x, size_t n)
{
    __m512 low, high;

    if (n >= 32) {
        low = _mm512_loadu_ps(x);
        high = _mm512_loadu_ps(x + 16);
    } else {
        low = vf_load_part(x, least(n, 16), _mm512_setzero_ps());
        high = n > 16 ? vf_load_part(x + 16, n - 16, _mm512_setzero_ps()) : _mm512_setzero_ps();
    }
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* Word i of the lower half before word i of the upper one. */
INLINE __m512i halves_pair(__m512i words)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);

    return _mm512_permutexvar_epi16(order, words);
}

#endif
