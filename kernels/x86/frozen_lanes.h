/* SPDX-License-Identifier: MIT */
/*
 * Sums over the lanes of 16 vectors at once.
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_LANES_H
#define HANMIX_KERNELS_X86_FROZEN_LANES_H

#include "frozen.h"

/* Lane i becomes the sum of vector i. */
INLINE __m512 sums_of_lanes(const __m512 v[16])
{
    __m512 quad[4];

    UNROLL for (int e = 0; e < 4; e++)
    {
        __m512 a = _mm512_add_ps(_mm512_shuffle_f32x4(v[e], v[e + 4], 0x88),
                                 _mm512_shuffle_f32x4(v[e], v[e + 4], 0xdd));
        __m512 b = _mm512_add_ps(_mm512_shuffle_f32x4(v[e + 8], v[e + 12], 0x88),
                                 _mm512_shuffle_f32x4(v[e + 8], v[e + 12], 0xdd));
        quad[e] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    __m512d low = _mm512_castps_pd(
        _mm512_add_ps(_mm512_unpacklo_ps(quad[0], quad[1]), _mm512_unpackhi_ps(quad[0], quad[1])));
    __m512d high = _mm512_castps_pd(
        _mm512_add_ps(_mm512_unpacklo_ps(quad[2], quad[3]), _mm512_unpackhi_ps(quad[2], quad[3])));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
}

#endif
