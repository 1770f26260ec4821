/* SPDX-License-Identifier: MIT */
/*
 * Entries of 8-bit maps on AVX-512, exact, 64 codes at a time: their bits are looked up in parts
 * that fit the permutations, four bytes with VBMI, else two words, and joined. The map with sign is
 * looked up by magnitude: its entries 127 - k and 127 + k are opposite, 255 is 1. Part of adamw8.c.
 */
#ifndef HANMIX_KERNELS_X86_ADAMW8_ENTRIES_H
#define HANMIX_KERNELS_X86_ADAMW8_ENTRIES_H

#define XOR_OF_AND 0x78 /* of vpternlog: a ^ (b & c) */

#if defined(__AVX512VBMI__)
struct entries {
    __m512i part[4][4]; /* bytes from the lowest, of 64 entries each */
};

static inline struct entries entries_load(const struct hm_map8 *map, size_t first, size_t n)
{
    struct entries entries;
    uint8_t bytes[256];

    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < n; j++)
            bytes[j] = (uint8_t)(map->half[i / 2][first + j] >> (i % 2 * 8));
        for (size_t j = 0; j < n / 64; j++)
            entries.part[i][j] = _mm512_loadu_si512(bytes + 64 * j);
    }
    return entries;
}

/* 64 codes in the order that parts_join undoes. */
static inline __m512i codes_load(const uint8_t *code)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);

    return _mm512_permutexvar_epi32(order, _mm512_loadu_si512(code));
}

static inline void parts_join(const __m512i part[4], vf values[4])
{
    __m512i low[2] = { _mm512_unpacklo_epi8(part[0], part[1]),
                       _mm512_unpackhi_epi8(part[0], part[1]) };
    __m512i high[2] = { _mm512_unpacklo_epi8(part[2], part[3]),
                        _mm512_unpackhi_epi8(part[2], part[3]) };

    UNROLL for (size_t i = 0; i < 2; i++)
    {
        values[2 * i] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low[i], high[i]));
        values[2 * i + 1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low[i], high[i]));
    }
}

static inline __m512i bytes128_at(const __m512i table[2], __m512i index)
{
    return _mm512_permutex2var_epi8(table[0], index, table[1]);
}

static inline void entries_plain(const struct entries *entries, const uint8_t *code, vf values[4])
{
    __m512i index = codes_load(code), part[4];
    __mmask64 bit7 = _mm512_movepi8_mask(index);

    UNROLL for (size_t i = 0; i < 4; i++) part[i] = _mm512_mask_blend_epi8(
        bit7, bytes128_at(entries->part[i], index), bytes128_at(entries->part[i] + 2, index));
    parts_join(part, values);
}

static inline void entries_signed(const struct entries *entries, const uint8_t *code, vf values[4])
{
    __m512i index = codes_load(code), part[4];
    __m512i from_zero = _mm512_sub_epi8(index, _mm512_set1_epi8(127));
    __mmask64 one = _mm512_cmpeq_epi8_mask(index, _mm512_set1_epi8((char)255));

    index = _mm512_abs_epi8(from_zero);
    UNROLL for (size_t i = 0; i < 4; i++) part[i] = bytes128_at(entries->part[i], index);
    part[3] =
        _mm512_ternarylogic_epi32(part[3], from_zero, _mm512_set1_epi8((char)0x80), XOR_OF_AND);
    /* 128 found the zero */
    part[3] = _mm512_mask_mov_epi8(part[3], one, _mm512_set1_epi8(0x3f));
    part[2] = _mm512_mask_mov_epi8(part[2], one, _mm512_set1_epi8((char)0x80));
    parts_join(part, values);
}
#else
struct entries {
    __m512i part[2][8]; /* words from the lower, of 32 entries each */
};

static inline struct entries entries_load(const struct hm_map8 *map, size_t first, size_t n)
{
    struct entries entries;

    for (size_t i = 0; i < 2; i++)
        for (size_t j = 0; j < n / 32; j++)
            entries.part[i][j] = _mm512_loadu_si512(map->half[i] + first + 32 * j);
    return entries;
}

/* 32 codes as words, in the order that parts_join undoes. */
static inline __m512i codes_load(const uint8_t *code)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_loadu_si256((const __m256i *)code);

    return _mm512_cvtepu8_epi16(_mm256_permutevar8x32_epi32(bytes, order));
}

static inline void parts_join(__m512i low, __m512i high, vf values[2])
{
    values[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low, high));
    values[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low, high));
}

static inline __m512i words128_at(const __m512i table[4], __m512i index)
{
    __mmask32 bit6 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));

    return _mm512_mask_blend_epi16(bit6, _mm512_permutex2var_epi16(table[0], index, table[1]),
                                   _mm512_permutex2var_epi16(table[2], index, table[3]));
}

static inline __m512i words256_at(const __m512i table[8], __m512i index)
{
    __mmask32 bit7 = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));

    return _mm512_mask_blend_epi16(bit7, words128_at(table, index), words128_at(table + 4, index));
}

static inline void entries_plain(const struct entries *entries, const uint8_t *code, vf values[4])
{
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        __m512i index = codes_load(code + 32 * i);
        parts_join(words256_at(entries->part[0], index), words256_at(entries->part[1], index),
                   values + 2 * i);
    }
}

static inline void entries_signed(const struct entries *entries, const uint8_t *code, vf values[4])
{
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        __m512i from_zero = _mm512_sub_epi16(codes_load(code + 32 * i), _mm512_set1_epi16(127));
        __m512i index = _mm512_abs_epi16(from_zero);
        __mmask32 one = _mm512_cmpeq_epi16_mask(index, _mm512_set1_epi16(128));
        __m512i high = words128_at(entries->part[1], index);
        high = _mm512_mask_mov_epi16(high, one, _mm512_set1_epi16(0x3f80)); /* 128 found the zero */
        high = _mm512_ternarylogic_epi32(high, from_zero, _mm512_set1_epi16((short)0x8000),
                                         XOR_OF_AND);
        parts_join(words128_at(entries->part[0], index), high, values + 2 * i);
    }
}
#endif

#endif
