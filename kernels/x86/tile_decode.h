/* SPDX-License-Identifier: MIT */
/*
 * Pieces of a frozen matrix decoded to tiles of bf16, a unit of two rows by 64 columns at a time so
 * that the units go between tile products. Forward, a piece is 32 rows whose tiles have a row of W
 * in each row: [cols/32][2][16][32]. Backward, it is 64 columns whose tiles have rows n, n+1 of W
 * interleaved: [rows/32][4][16][16][2]; one table of 32 entries covers both rows. A value is
 * bf16(f32(code * absmax)); rows that are not there are rows of zeros backward and left alone
 * forward, where nobody reads what comes of them.
 */
#ifndef HANMIX_KERNELS_X86_TILE_DECODE_H
#define HANMIX_KERNELS_X86_TILE_DECODE_H

#include "frozen.h"
#include "tile.h"

#define PIECE_ROWS 32u /* forward: rows of W a piece */
#define PIECE_COLS 64u /* backward: columns of W a piece */

enum source { SOURCE_NF4, SOURCE_NF4_NESTED, SOURCE_BF16 };

/* Lines to prefetch, one for 64 bytes decoded: what follows this piece and those beside it. */
struct walk {
    const uint8_t *at;
    size_t stride; /* from one run of lines to the next, bytes */
    uint32_t line, n_lines;
};

struct piece {
    const struct hm_frozen *w;
    uint32_t row, n_rows; /* those that are there */
    uint32_t col, n_cols;
    uint16_t *out;
    uint32_t left;        /* units not yet decoded */
    uint32_t pair, block; /* place of the next unit: rows / 2 and columns / 64 of the piece */
    struct walk ahead;
};

INLINE void walk_line(struct walk *walk)
{
    _mm_prefetch((const char *)walk->at + (size_t)64 * walk->line, _MM_HINT_T1);
    if (++walk->line == walk->n_lines) {
        walk->line = 0;
        walk->at += walk->stride;
    }
}

INLINE __m512i words_of_dwords(uint32_t low, uint32_t high)
{
    return _mm512_set1_epi32((int)(high << 16 | low));
}

/* Dword i holds byte number i four times, for lookups of bytes. */
INLINE __m512i bytes_by_dword(void)
{
    const __m512i i = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);

    return _mm512_mullo_epi32(i, _mm512_set1_epi32(0x01010101));
}

INLINE float scale_at(const struct hm_frozen *w, enum source source, uint32_t row, uint32_t col)
{
    size_t blocks = w->cols / 64u, at = col / 64u;
    float absmax, map, outer;

    if (w->blocksize != 64u) {
        blocks = w->cols / w->blocksize;
        at = col / w->blocksize;
    }
    at += row * blocks;
    if (source == SOURCE_NF4) {
        memcpy(&absmax, w->absmax + 4 * at, sizeof(absmax));
        return absmax;
    }
    memcpy(&map, w->nested_map + 4 * (size_t)w->absmax[at], sizeof(map));
    memcpy(&outer, w->nested_absmax + at / 256 * 4, sizeof(outer));
    absmax = map * outer;
    return absmax + w->nested_offset;
}

/* 32 bf16: the code values times `low`, then times `high`. */
INLINE __m512i table32(float low, float high)
{
    const __m512 code = _mm512_loadu_ps(hm_nf4_code);

    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(code, _mm512_set1_ps(high)),
                                        _mm512_mul_ps(code, _mm512_set1_ps(low)));
}

INLINE __m512i two_halves(const uint8_t *low, const uint8_t *high)
{
    return _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)low)),
        _mm256_loadu_si256((const __m256i *)(const void *)high), 1);
}

/* Two rows of W to rows of two steps of tiles. */
INLINE void unit_forward(struct piece *p, enum source source)
{
    uint32_t first = p->row + 2 * p->pair, second = first + (2 * p->pair + 1 < p->n_rows);
    uint32_t col = p->col + 64 * p->block;
    size_t at0 = (size_t)first * p->w->cols + col, at1 = (size_t)second * p->w->cols + col;
    uint16_t *out =
        p->out + (size_t)p->block * 4 * TILE_BF16 + p->pair / 8 * TILE_BF16 + p->pair % 8 * 64;

    if (source == SOURCE_BF16) {
        const uint8_t *row0 = p->w->data + 2 * at0, *row1 = p->w->data + 2 * at1;
        UNROLL for (unsigned half = 0; half < 2; half++, out += 2 * TILE_BF16)
        {
            _mm512_store_si512(out, _mm512_loadu_si512(row0 + 64 * half));
            _mm512_store_si512(out + 32, _mm512_loadu_si512(row1 + 64 * half));
        }
    } else {
        float scale0 = scale_at(p->w, source, first, col);
        float scale1 = scale_at(p->w, source, second, col);
        __m512i table0 = table32(scale0, scale0), table1 = table32(scale1, scale1);
        __m512i codes = two_halves(p->w->data + at0 / 2, p->w->data + at1 / 2);
        const __m512i bytes = bytes_by_dword(), shift = words_of_dwords(4, 0);
        UNROLL for (unsigned quarter = 0; quarter < 4; quarter++)
        {
            __m512i index = _mm512_add_epi8(bytes, _mm512_set1_epi8((char)(16 * quarter)));
            __m512i nibble = _mm512_srlv_epi16(_mm512_permutexvar_epi8(index, codes), shift);
            _mm512_store_si512(out + quarter % 2 * 2 * TILE_BF16 + quarter / 2 * 32,
                               _mm512_permutexvar_epi16(nibble, quarter < 2 ? table0 : table1));
        }
    }
    p->left--;
    if (++p->block == p->n_cols / 64) {
        p->block = 0;
        p->pair++;
    }
}

/* Rows n, n+1 interleaved, 16 columns to each of four tiles. */
INLINE void bf16_pairs(const uint8_t *row0, const uint8_t *row1, uint16_t *out)
{
    UNROLL for (unsigned tile = 0; tile < 4; tile++)
    {
        const void *low = row0 + 32 * tile, *high = row1 + 32 * tile;
        __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)low));
        __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)high));
        _mm512_store_si512(out + tile * TILE_BF16,
                           _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

/* Even columns of two rows of codes in the low 32 bytes, odd ones in the high, row n in the low
 * nibble and row n+1 in the high. */
INLINE __m512i nibbles_pair(const uint8_t *row0, const uint8_t *row1)
{
    const __m256i low = _mm256_set1_epi8(0x0f);
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)row0);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)row1);
    /* 0xca: bits of the second where the first is set, else of the third */
    __m256i even = _mm256_ternarylogic_epi32(low, _mm256_srli_epi16(a, 4), b, 0xca);
    __m256i odd = _mm256_ternarylogic_epi32(low, a, _mm256_slli_epi16(b, 4), 0xca);

    return _mm512_inserti64x4(_mm512_castsi256_si512(even), odd, 1);
}

INLINE void nf4_pairs(__m512i codes, __m512i table, uint16_t *out)
{
    /* dword j of tile t: column 16 t + j, the byte of its pair of columns in the half by parity */
    const __m512i first =
        _mm512_set_epi32(0x27272727, 0x07070707, 0x26262626, 0x06060606, 0x25252525, 0x05050505,
                         0x24242424, 0x04040404, 0x23232323, 0x03030303, 0x22222222, 0x02020202,
                         0x21212121, 0x01010101, 0x20202020, 0x00000000);
    const __m512i shift = words_of_dwords(0, 4), upper = words_of_dwords(0, 16);
    const __m512i nibble = _mm512_set1_epi16(15);

    UNROLL for (unsigned tile = 0; tile < 4; tile++)
    {
        __m512i index = _mm512_add_epi8(first, _mm512_set1_epi8((char)(8 * tile)));
        __m512i code = _mm512_srlv_epi16(_mm512_permutexvar_epi8(index, codes), shift);
        code = _mm512_ternarylogic_epi32(nibble, code, upper, 0xca);
        _mm512_store_si512(out + tile * TILE_BF16, _mm512_permutexvar_epi16(code, table));
    }
}

INLINE void unit_backward(struct piece *p, enum source source)
{
    uint32_t first = 2 * p->pair, row = p->row + first;
    bool two = first + 1 < p->n_rows;
    size_t at0 = (size_t)row * p->w->cols + p->col, at1 = at0 + (two ? p->w->cols : 0);
    uint16_t *out = p->out + p->pair / 16 * 4 * TILE_BF16 + p->pair % 16 * 32;

    p->pair++;
    p->left--;
    if (first >= p->n_rows) {
        UNROLL for (unsigned tile = 0; tile < 4; tile++)
            _mm512_store_si512(out + tile * TILE_BF16, _mm512_setzero_si512());
    } else if (source == SOURCE_BF16) {
        static const uint8_t zeros[128];
        bf16_pairs(p->w->data + 2 * at0, two ? p->w->data + 2 * at1 : zeros, out);
    } else {
        float scale0 = scale_at(p->w, source, row, p->col);
        float scale1 = two ? scale_at(p->w, source, row + 1, p->col) : 0.0f;
        nf4_pairs(nibbles_pair(p->w->data + at0 / 2, p->w->data + at1 / 2), table32(scale0, scale1),
                  out);
    }
}

INLINE void unit_decode(struct piece *p, enum hm_pack side, enum source source)
{
    for (unsigned line = 0; line < (source == SOURCE_BF16 ? 4 : 1); line++)
        walk_line(&p->ahead);
    if (side == HM_PACK_FORWARD)
        unit_forward(p, source);
    else
        unit_backward(p, source);
}

#endif
