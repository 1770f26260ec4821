/* SPDX-License-Identifier: MIT */
/*
 * The vectors of simd.h in AVX-512 (F, BW, DQ, VL): 16 floats, tails by masks.
 */
#ifndef HANMIX_KERNELS_X86_SIMD_AVX512_H
#define HANMIX_KERNELS_X86_SIMD_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VW 16

typedef __m512 vf;
typedef __m512d vd; /* VW / 2 doubles */
typedef __m512i vi;

static inline __mmask16 mask16(size_t n)
{
    return (__mmask16)((1u << n) - 1u);
}

static inline vf vf_set1(float a)
{
    return _mm512_set1_ps(a);
}

static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline vf vf_load_part(const float *p, size_t n, vf rest)
{
    return _mm512_mask_loadu_ps(rest, mask16(n), p);
}

static inline void vf_store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}

static inline void vf_store_part(float *p, vf a, size_t n)
{
    _mm512_mask_storeu_ps(p, mask16(n), a);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

static inline vf vf_sqrt(vf a)
{
    return _mm512_sqrt_ps(a);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}

/* a > b ? a : b: b when either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

static inline vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}

static inline vf vf_nearest(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for whole n, gradual at both ends. */
static inline vf vf_ldexp(vf a, vf n)
{
    return _mm512_scalef_ps(a, n);
}

static inline float vf_largest(vf a)
{
    return _mm512_reduce_max_ps(a);
}

static inline float vf_sum(vf a)
{
    return _mm512_reduce_add_ps(a);
}

static inline vd vd_zero(void)
{
    return _mm512_setzero_pd();
}

static inline vd vd_low(vf a)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(a));
}

static inline vd vd_high(vf a)
{
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
}

static inline vd vd_add(vd a, vd b)
{
    return _mm512_add_pd(a, b);
}

static inline vd vd_fma(vd a, vd b, vd c)
{
    return _mm512_fmadd_pd(a, b, c);
}

/* By halves, the order of ref.h. */
static inline double vd_join(vd a)
{
    __m256d b = _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    __m128d c = _mm_add_pd(_mm256_castpd256_pd128(b), _mm256_extractf128_pd(b, 1));

    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

/* Row i becomes column i. */
static inline void vf_transpose(vf row[VW])
{
    vf t[VW];

    for (int i = 0; i < VW; i += 2) {
        t[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < VW; i += 4)
        for (int j = 0; j < 2; j++) {
            vd a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            row[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            row[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < VW; i += 8) /* row[i + c] holds columns c, c + 4, c + 8, c + 12 of four */
        for (int c = 0; c < 4; c++) {
            t[i + c] = _mm512_shuffle_f32x4(row[i + c], row[i + c + 4], 0x88);
            t[i + c + 4] = _mm512_shuffle_f32x4(row[i + c], row[i + c + 4], 0xdd);
        }
    for (int c = 0; c < 4; c++) {
        row[c] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0x88);
        row[c + 8] = _mm512_shuffle_f32x4(t[c], t[c + 8], 0xdd);
        row[c + 4] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0x88);
        row[c + 12] = _mm512_shuffle_f32x4(t[c + 4], t[c + 12], 0xdd);
    }
}

/* --- 16-bit floats --- */

/* The f32 whose upper half is bf16(a), NaN quieted. */
static inline vf vf_round_bf16(vf a)
{
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);

    near = _mm512_mask_or_epi32(near, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_castsi512_ps(_mm512_and_si512(near, _mm512_set1_epi32((int)0xffff0000u)));
}

static inline vf vf_from_bf16(const void *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void vf_to_bf16(uint16_t *p, vf a)
{
    __m512i bits = _mm512_srli_epi32(_mm512_castps_si512(vf_round_bf16(a)), 16);

    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(bits));
}

static inline vf vf_from_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

/* --- tables of 16 floats and their 4-bit indices --- */

struct table16 {
    vf part[1];
};

/* Indices from VW/2 bytes, the high nibble first; bits above the low four are of other indices. */
static inline vi vi_nibbles(const uint8_t *p)
{
    const vi shift = _mm512_set_epi32(24, 28, 16, 20, 8, 12, 0, 4, 24, 28, 16, 20, 8, 12, 0, 4);
    vi first = _mm512_broadcastd_epi32(_mm_loadu_si32(p));
    vi both = _mm512_mask_broadcastd_epi32(first, 0xff00, _mm_loadu_si32(p + 4));

    return _mm512_srlv_epi32(both, shift);
}

static inline vf table16_at(const struct table16 *table, vi index)
{
    return _mm512_permutexvar_ps(index, table->part[0]);
}

static inline vi vi_zero(void)
{
    return _mm512_setzero_si512();
}

/* The first eight floats of a table by indices 0..7. */
static inline vf table8_at(vf table, vi index)
{
    return _mm512_permutexvar_ps(index, table);
}

static inline vf table8_load(const float table[8])
{
    return _mm512_broadcast_f32x8(_mm256_loadu_ps(table));
}

/* 2 index + (x > threshold) */
static inline vi vi_search(vi index, vf x, vf threshold)
{
    vi twice = _mm512_add_epi32(index, index);

    return _mm512_mask_add_epi32(twice, _mm512_cmp_ps_mask(x, threshold, _CMP_GT_OQ), twice,
                                 _mm512_set1_epi32(1));
}

/* Sixteen codes 0..15 as bytes, in order. */
static inline __m128i vi_bytes16(const vi index[16 / VW])
{
    return _mm512_cvtepi32_epi8(index[0]);
}

/* --- 32-bit integers --- */

static inline vi vi_set1(int32_t a)
{
    return _mm512_set1_epi32(a);
}

static inline vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

static inline vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}

static inline vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}

static inline vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
}

static inline vi vi_max(vi a, vi b)
{
    return _mm512_max_epi32(a, b);
}

static inline vi vi_shift_right(vi a, unsigned n)
{
    return _mm512_srl_epi32(a, _mm_cvtsi32_si128((int)n));
}

/* -1 where negative, else 0. */
static inline vi vi_sign_fill(vi a)
{
    return _mm512_srai_epi32(a, 31);
}

/* -1 where a < b, else 0. */
static inline vi vi_less(vi a, vi b)
{
    return _mm512_movm_epi32(_mm512_cmplt_epi32_mask(a, b));
}

static inline vi vi_from_bits(vf a)
{
    return _mm512_castps_si512(a);
}

/* VW bytes, widened. */
static inline vi vi_from_bytes(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}

static inline vi vi_gather(const int32_t *table, vi index)
{
    return _mm512_i32gather_epi32(index, table, 4);
}

#endif
