/* SPDX-License-Identifier: MIT */
/*
 * NF4 to bf16 in registers: the 16 code values times the scale of a block, rounded, are one half of
 * a vector, and nibbles spread to words pick from it (a permutation of words by words).
 */
#ifndef HANMIX_KERNELS_X86_FROZEN_DECODE_H
#define HANMIX_KERNELS_X86_FROZEN_DECODE_H

#include "frozen.h"

INLINE __m512i table_make(float low, float high)
{
    __m512 code = _mm512_loadu_ps(hm_nf4_code);

    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(code, _mm512_set1_ps(high)),
                                        _mm512_mul_ps(code, _mm512_set1_ps(low)));
}

/* Words whose low nibbles are 32 codes in order; what stands above them picks no other entry of a
 * table that holds its 16 values twice. */
INLINE __m512i codes_in_order(const uint8_t *pairs)
{
    const __m512i spread = _mm512_set_epi64(
        0x800f800f800e800e, 0x800d800d800c800c, 0x800b800b800a800a, 0x8009800980088008,
        0x8007800780068006, 0x8005800580048004, 0x8003800380028002, 0x8001800180008000);
    __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)pairs));

    return _mm512_srlv_epi16(_mm512_shuffle_epi8(bytes, spread), _mm512_set1_epi32(4));
}

#endif
