/* SPDX-License-Identifier: MIT */
/*
 * Panels of a frozen matrix as bf16, for AVX512-BF16. NF4 goes by table: the 16 code values times
 * the scale of a block, rounded, are one half of a vector; nibbles spread to words pick from it.
 * Two rows share one table of 32 entries where they are wanted interleaved, which then costs
 * nothing.
 */
#include "frozen.h"
#include "frozen_decode.h"

static float f32_at(const uint8_t *base, uint64_t i)
{
    float value;

    memcpy(&value, base + i * sizeof(value), sizeof(value));
    return value;
}

/* map[at] of 256 entries: gathers are slower than looking into all of it. */
INLINE __m512 map_read(const uint8_t *map, __m512i at)
{
    const __mmask16 bit5 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(32));
    const __mmask16 bit6 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(64));
    const __mmask16 bit7 = _mm512_test_epi32_mask(at, _mm512_set1_epi32(128));
    __m512 part[8];

    UNROLL for (size_t i = 0; i < 8; i++) part[i] = _mm512_permutex2var_ps(
        _mm512_loadu_ps(map + 128 * i), at, _mm512_loadu_ps(map + 128 * i + 64));
    UNROLL for (size_t i = 0; i < 4; i++) part[i] =
        _mm512_mask_blend_ps(bit5, part[2 * i], part[2 * i + 1]);
    UNROLL for (size_t i = 0; i < 2; i++) part[i] =
        _mm512_mask_blend_ps(bit6, part[2 * i], part[2 * i + 1]);
    return _mm512_mask_blend_ps(bit7, part[0], part[1]);
}

/* n blocks from `block`, of nested scales; 256 share an outer one. */
static void nested_read(const struct hm_frozen *w, uint64_t block, size_t n, float *scale)
{
    const __m512 offset = _mm512_set1_ps(w->nested_offset);

    while (n > 0) {
        const uint8_t *index = w->absmax + block;
        size_t run = least(n, 256 - block % 256);
        const float outer = f32_at(w->nested_absmax, block / 256);
        for (size_t i = 0; i < run; i += LANES) {
            const __mmask16 mask = (__mmask16)(0xffffu >> (LANES - least(LANES, run - i)));
            __m512i at = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, index + i));
            __m512 inner = map_read(w->nested_map, at);
            __m512 product = _mm512_mul_ps(inner, _mm512_set1_ps(outer));
            _mm512_mask_storeu_ps(scale + i, mask, _mm512_add_ps(product, offset));
        }
        block += run, scale += run, n -= run;
    }
}

void hm_frozen_scales(const struct hm_frozen *w, uint64_t first, size_t n, float *scale)
{
    const uint32_t runs = w->blocksize / 64;
    const uint64_t block = first / runs;
    const size_t skip = (size_t)(first % runs), n_blocks = units(skip + n, runs);

    if (w->nested_absmax)
        nested_read(w, block, n_blocks, scale);
    else
        memcpy(scale, w->absmax + block * sizeof(float), n_blocks * sizeof(float));
    for (size_t i = runs == 1 ? 0 : n; i-- > 0;) /* from the end: sources stand before */
        scale[i] = scale[(skip + i) / runs];
}

static float scale_at(const struct hm_frozen *w, uint64_t block)
{
    if (!w->nested_absmax)
        return f32_at(w->absmax, block);
    float product = f32_at(w->nested_map, w->absmax[block]) * f32_at(w->nested_absmax, block / 256);
    return product + w->nested_offset;
}

void hm_frozen_panel_scales(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                            uint32_t col0, uint32_t n_cols, float *scale)
{
    const uint64_t per_row = w->cols / 64, first = row0 * per_row + col0 / 64;
    const size_t n = n_cols / 64;

    if (w->layout == HM_FROZEN_BF16)
        return;
    if (n == per_row) {
        hm_frozen_scales(w, first, n_rows * n, scale);
        return;
    }
    for (uint32_t r = 0; r < n_rows; r++, scale += n) {
        uint64_t run = first + r * per_row;
        if (w->blocksize != 64 || n > 8) {
            hm_frozen_scales(w, run, n, scale);
            continue;
        }
        for (size_t i = 0; i < n; i++)
            scale[i] = scale_at(w, run + i);
    }
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
                          uint32_t n_cols, const float *scale, size_t scale_ld, uint16_t *panel)
{
    for (uint32_t r = 0; r < n_rows; r++, scale += scale_ld, panel += CHUNK) {
        uint64_t first = (uint64_t)(row0 + r) * w->cols + col0;
        if (w->layout == HM_FROZEN_BF16)
            memcpy(panel, w->data + 2 * first, 2 * (size_t)n_cols);
        else
            row_decode(w->data + first / 2, scale, n_cols, panel);
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
                            uint32_t col0, uint32_t n_cols, const float *scale, uint32_t ahead_rows,
                            uint16_t *panel)
{
    const size_t strip = round_up(n_rows, 2) * 32, n_scales = n_cols / 64;
    const size_t step = w->layout == HM_FROZEN_BF16 ? 64 : 16; /* bytes of 32 values */
    const size_t row_bytes = w->cols / 32 * step, ahead = ahead_rows * row_bytes;

    for (uint32_t r = 0; r < n_rows; r += 2, scale += 2 * n_scales) {
        const bool has_high = r + 1 < n_rows;
        const uint8_t *low = w->data + (row0 + r) * row_bytes + col0 / 32 * step;
        const uint8_t *high = has_high ? low + row_bytes : low;
        uint16_t *out = panel + (size_t)r * 32;
        for (size_t i = 0; ahead > 0 && i < n_cols / 32 * step; i += 64) {
            fetch((uintptr_t)low + ahead + i);
            fetch((uintptr_t)high + ahead + i);
        }
        if (w->layout == HM_FROZEN_BF16) {
            for (size_t i = 0; i < 2 * n_scales; i++, low += 64, high += 64, out += strip)
                strip_copy(low, high, has_high, out);
            continue;
        }
        for (size_t i = 0; i < n_scales; i++, low += 32, high += 32, out += 2 * strip) {
            __m512i table = table_make(scale[i], scale[n_scales + i]);
            strip_decode(low, high, table, out);
            strip_decode(low + 16, high + 16, table, out + strip);
        }
    }
}
