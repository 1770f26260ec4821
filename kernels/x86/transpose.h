/* SPDX-License-Identifier: MIT */
/*
 * Transposition of 16 vectors of 16 words of 32 bits, and of f32 blocks on their way to bf16.
 */
#ifndef HANMIX_KERNELS_X86_TRANSPOSE_H
#define HANMIX_KERNELS_X86_TRANSPOSE_H

#include "frozen.h"

/* Eklundh: blocks beside the diagonal change places, of 8, 4, 2 and 1 words. */
INLINE void transpose16(__m512i row[16])
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);

    UNROLL for (int size = 8; size > 0; size /= 2)
    {
        __m512i step = _mm512_set1_epi32(size);
        __mmask16 odd = _mm512_test_epi32_mask(lane, step);
        __m512i up = _mm512_mask_add_epi32(lane, odd, lane, _mm512_set1_epi32(16 - size));
        __m512i down =
            _mm512_mask_add_epi32(_mm512_add_epi32(lane, step), odd, lane, _mm512_set1_epi32(16));
        UNROLL for (int i = 0; i < 16; i++)
        {
            if (i & size)
                continue;
            __m512i a = row[i], b = row[i + size];
            row[i] = _mm512_permutex2var_epi32(a, up, b);
            row[i + size] = _mm512_permutex2var_epi32(a, down, b);
        }
    }
}

/* x[n_cols][n_rows], rows ldx apart, at most 32 x 16, as 16 rows of 32 bf16, zeros beyond. */
INLINE void turn_round(const float *x, size_t ldx, size_t n_rows, size_t n_cols, __m512i row[16])
{
    const __mmask16 mask = (__mmask16)((1u << n_rows) - 1u);
    __m512i low[16], high[16];

    UNROLL for (size_t j = 0; j < 16; j++)
    {
        low[j] = _mm512_maskz_loadu_epi32(j < n_cols ? mask : 0, x + j * ldx);
        high[j] = _mm512_maskz_loadu_epi32(16 + j < n_cols ? mask : 0, x + (16 + j) * ldx);
    }
    transpose16(low);
    transpose16(high);
    UNROLL for (int i = 0; i < 16; i++) row[i] =
        (__m512i)_mm512_cvtne2ps_pbh(_mm512_castsi512_ps(high[i]), _mm512_castsi512_ps(low[i]));
}

#endif
