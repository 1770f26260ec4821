/* SPDX-License-Identifier: MIT */
/*
 * Panels of a frozen matrix as bf16, for AVX512-BF16. NF4 goes by table: the 16 code values times
 * the scale of a block, rounded, are one half of a vector; nibbles spread to words pick from it.
 * Two rows share one table of 32 entries where they are wanted interleaved, which then costs
 * nothing.
 */
#include "frozen.h"

static float f32_at(const uint8_t *base, uint64_t i)
{
    float value;

    memcpy(&value, base + i * sizeof(value), sizeof(value));
    return value;
}

/* The scales of n runs of 64 values from flat index 64 * first. */
static void scales_read(const struct hm_frozen *w, uint64_t first, size_t n, float *scale)
{
    const uint32_t runs = w->blocksize / 64;
    uint64_t block = first / runs;
    uint32_t left = runs - (uint32_t)(first % runs);

    if (runs == 1 && !w->nested_absmax) {
        memcpy(scale, w->absmax + block * sizeof(float), n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (w->nested_absmax) {
            float product =
                f32_at(w->nested_map, w->absmax[block]) * f32_at(w->nested_absmax, block / 256);
            scale[i] = product + w->nested_offset;
        } else
            scale[i] = f32_at(w->absmax, block);
        if (--left == 0) {
            block++;
            left = runs;
        }
    }
}

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

static void row_decode(const uint8_t *pairs, const float *scale, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i += 64, pairs += 32, out += 64, scale++) {
        __m512i table = table_make(*scale, *scale);
        _mm512_store_si512(out, _mm512_permutexvar_epi16(codes_in_order(pairs), table));
        _mm512_store_si512(out + 32, _mm512_permutexvar_epi16(codes_in_order(pairs + 16), table));
    }
}

void hm_frozen_panel_rows(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows, uint32_t col0,
                          uint32_t n_cols, struct frozen_scratch *scratch)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        uint64_t first = (uint64_t)(row0 + r) * w->cols + col0;
        uint16_t *out = scratch->panel + (size_t)r * CHUNK;
        if (w->layout == HM_FROZEN_BF16) {
            memcpy(out, w->data + 2 * first, 2 * (size_t)n_cols);
            continue;
        }
        scales_read(w, first / 64, n_cols / 64, scratch->scale[0]);
        row_decode(w->data + first / 2, scratch->scale[0], n_cols, out);
    }
}

/* Columns of a strip from two rows of codes: 16 bytes each. */
INLINE void strip_decode(const uint8_t *low, const uint8_t *high, __m512i table, uint16_t *out)
{
    const __m512i upper = _mm512_set1_epi32(0x00100000), nibbles = _mm512_set1_epi32(0x000f000f);
    __m512i a = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)low));
    __m512i b = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)high));
    __m512i both = _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
    __m512i even = _mm512_or_si512(_mm512_srli_epi16(both, 4), upper);
    __m512i odd = _mm512_ternarylogic_epi64(both, nibbles, upper, 0xea); /* a & b | c */

    _mm512_store_si512(out, _mm512_permutexvar_epi16(even, table));
    _mm512_store_si512(out + PAIRS, _mm512_permutexvar_epi16(odd, table));
}

INLINE void strip_copy(const uint8_t *low, const uint8_t *high, bool has_high, uint16_t *out)
{
    const __mmask32 odd_words = 0xaaaaaaaa;
    __m512i a = _mm512_loadu_si512(low);
    __m512i b = has_high ? _mm512_loadu_si512(high) : _mm512_setzero_si512();

    _mm512_store_si512(out, _mm512_mask_blend_epi16(odd_words, a, _mm512_slli_epi32(b, 16)));
    _mm512_store_si512(out + PAIRS,
                       _mm512_mask_blend_epi16(odd_words, _mm512_srli_epi32(a, 16), b));
}

void hm_frozen_panel_strips(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                            uint32_t col0, uint32_t n_cols, struct frozen_scratch *scratch)
{
    const size_t strip = (size_t)round_up(n_rows, 2) * 32;

    for (uint32_t r = 0; r < n_rows; r += 2) {
        const bool has_high = r + 1 < n_rows;
        uint64_t first = (uint64_t)(row0 + r) * w->cols + col0;
        uint64_t second = has_high ? first + w->cols : first;
        uint16_t *out = scratch->panel + (size_t)r * 32;
        if (w->layout == HM_FROZEN_BF16) {
            for (uint32_t j = 0; j < n_cols; j += 32, out += strip)
                strip_copy(w->data + 2 * (first + j), w->data + 2 * (second + j), has_high, out);
            continue;
        }
        scales_read(w, first / 64, n_cols / 64, scratch->scale[0]);
        memset(scratch->scale[1], 0, sizeof(scratch->scale[1]));
        if (has_high)
            scales_read(w, second / 64, n_cols / 64, scratch->scale[1]);
        for (uint32_t j = 0; j < n_cols; j += 64, out += 2 * strip) {
            const uint8_t *low = w->data + (first + j) / 2, *high = w->data + (second + j) / 2;
            __m512i table = table_make(scratch->scale[0][j / 64], scratch->scale[1][j / 64]);
            strip_decode(low, high, table, out);
            strip_decode(low + 16, high + 16, table, out + strip);
        }
    }
}
