/* SPDX-License-Identifier: MIT */
/*
 * The vectors of simd.h in AVX2 with FMA and F16C: 8 floats, tails by masked moves, which never
 * touch what they leave out.
 */
#ifndef HANMIX_KERNELS_X86_SIMD_AVX2_H
#define HANMIX_KERNELS_X86_SIMD_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VW 8

typedef __m256 vf;
typedef __m256d vd; /* VW / 2 doubles */
typedef __m256i vi;

static inline __m256i mask8(size_t n)
{
    static const int32_t window[16] = { -1, -1, -1, -1, -1, -1, -1, -1 };

    return _mm256_loadu_si256((const __m256i *)(window + 8 - n));
}

static inline vf vf_set1(float a)
{
    return _mm256_set1_ps(a);
}

static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline vf vf_load_part(const float *p, size_t n, vf rest)
{
    __m256i mask = mask8(n);

    return _mm256_blendv_ps(rest, _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
}

static inline void vf_store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}

static inline void vf_store_part(float *p, vf a, size_t n)
{
    _mm256_maskstore_ps(p, mask8(n), a);
}

static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

static inline vf vf_sqrt(vf a)
{
    return _mm256_sqrt_ps(a);
}

static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}

/* a > b ? a : b: b when either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

static inline vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

static inline vf vf_nearest(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for whole n from -252 to 254, in two steps: gradual at both ends. */
static inline vf vf_ldexp(vf a, vf n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));

    return _mm256_mul_ps(_mm256_mul_ps(a, first), second);
}

static inline float vf_largest(vf a)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline float vf_sum(vf a)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

static inline vd vd_zero(void)
{
    return _mm256_setzero_pd();
}

static inline vd vd_low(vf a)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(a));
}

static inline vd vd_high(vf a)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
}

static inline vd vd_add(vd a, vd b)
{
    return _mm256_add_pd(a, b);
}

static inline vd vd_fma(vd a, vd b, vd c)
{
    return _mm256_fmadd_pd(a, b, c);
}

/* By halves, the order of ref.h. */
static inline double vd_join(vd a)
{
    __m128d c = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));

    return _mm_cvtsd_f64(_mm_add_sd(c, _mm_unpackhi_pd(c, c)));
}

/* Row i becomes column i. */
static inline void vf_transpose(vf row[VW])
{
    vf t[VW];

    for (int i = 0; i < VW; i += 2) {
        t[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < VW; i += 4)
        for (int j = 0; j < 2; j++) {
            vd a = _mm256_castps_pd(t[i + j]), b = _mm256_castps_pd(t[i + j + 2]);
            row[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            row[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int c = 0; c < 4; c++) { /* row[c] and row[c + 4] hold columns c, c + 4 of four rows */
        vf low = row[c], high = row[c + 4];
        row[c] = _mm256_permute2f128_ps(low, high, 0x20);
        row[c + 4] = _mm256_permute2f128_ps(low, high, 0x31);
    }
}

/* --- 16-bit floats --- */

/* The f32 whose upper half is bf16(a), NaN quieted. */
static inline vf vf_round_bf16(vf a)
{
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i near = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    __m256 result = _mm256_blendv_ps(_mm256_castsi256_ps(near), _mm256_castsi256_ps(quiet),
                                     _mm256_cmp_ps(a, a, _CMP_UNORD_Q));

    return _mm256_and_ps(result, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
}

static inline vf vf_from_bf16(const void *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline void vf_to_bf16(uint16_t *p, vf a)
{
    __m256i bits = _mm256_srli_epi32(_mm256_castps_si256(vf_round_bf16(a)), 16);
    __m128i low = _mm256_castsi256_si128(bits), high = _mm256_extracti128_si256(bits, 1);

    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(low, high));
}

static inline vf vf_from_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/* --- tables of 16 floats and their 4-bit indices --- */

struct table16 {
    vf part[2];
};

/* Indices from VW/2 bytes, the high nibble first; bits above the low four are of other indices. */
static inline vi vi_nibbles(const uint8_t *p)
{
    const vi shift = _mm256_set_epi32(24, 28, 16, 20, 8, 12, 0, 4);
    int32_t word;

    memcpy(&word, p, sizeof(word));
    return _mm256_srlv_epi32(_mm256_set1_epi32(word), shift);
}

static inline vf table16_at(const struct table16 *table, vi index)
{
    vf low = _mm256_permutevar8x32_ps(table->part[0], index);
    vf high = _mm256_permutevar8x32_ps(table->part[1], index);

    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
}

static inline vi vi_zero(void)
{
    return _mm256_setzero_si256();
}

/* The first eight floats of a table by indices 0..7. */
static inline vf table8_at(vf table, vi index)
{
    return _mm256_permutevar8x32_ps(table, index);
}

static inline vf table8_load(const float table[8])
{
    return _mm256_loadu_ps(table);
}

/* 2 index + (x > threshold) */
static inline vi vi_search(vi index, vf x, vf threshold)
{
    __m256i more = _mm256_castps_si256(_mm256_cmp_ps(x, threshold, _CMP_GT_OQ)); /* -1 */

    return _mm256_sub_epi32(_mm256_add_epi32(index, index), more);
}

/* Sixteen codes 0..15 as bytes, in order. */
static inline __m128i vi_bytes16(const vi index[16 / VW])
{
    __m128i low =
        _mm_packus_epi32(_mm256_castsi256_si128(index[0]), _mm256_extracti128_si256(index[0], 1));
    __m128i high =
        _mm_packus_epi32(_mm256_castsi256_si128(index[1]), _mm256_extracti128_si256(index[1], 1));

    return _mm_packus_epi16(low, high);
}

/* --- 32-bit integers --- */

static inline vi vi_set1(int32_t a)
{
    return _mm256_set1_epi32(a);
}

static inline vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

static inline vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}

static inline vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}

static inline vi vi_xor(vi a, vi b)
{
    return _mm256_xor_si256(a, b);
}

static inline vi vi_max(vi a, vi b)
{
    return _mm256_max_epi32(a, b);
}

static inline vi vi_shift_right(vi a, unsigned n)
{
    return _mm256_srl_epi32(a, _mm_cvtsi32_si128((int)n));
}

/* -1 where negative, else 0. */
static inline vi vi_sign_fill(vi a)
{
    return _mm256_srai_epi32(a, 31);
}

/* -1 where a < b, else 0. */
static inline vi vi_less(vi a, vi b)
{
    return _mm256_cmpgt_epi32(b, a);
}

static inline vi vi_from_bits(vf a)
{
    return _mm256_castps_si256(a);
}

/* VW bytes, widened. */
static inline vi vi_from_bytes(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

static inline vi vi_gather(const int32_t *table, vi index)
{
    return _mm256_i32gather_epi32(table, index, 4);
}

static inline vf vf_gather(const float *table, vi index)
{
    return _mm256_i32gather_ps(table, index, 4);
}

#endif
