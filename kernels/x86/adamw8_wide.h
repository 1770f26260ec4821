/* SPDX-License-Identifier: MIT */
/*
 * Blocks of 8-bit moments on AVX-512. Codes are computed (struct hm_map8_runs), and looked up where
 * they are not certain. A block is coded while its successor is updated: divisions of the one
 * beside permutations of the other, and its largest values are long known. Part of adamw8.c.
 */
#ifndef HANMIX_KERNELS_X86_ADAMW8_WIDE_H
#define HANMIX_KERNELS_X86_ADAMW8_WIDE_H

#include "adamw8_entries.h"

#define CHUNK       64         /* values that are updated or coded at a time */
#define AHEAD       16         /* blocks between use and prefetch */
#define INFINITE    0x7f800000 /* its bits: those of a number are below */
#define LINE_FLOATS 16
#define SELECT      0xca /* of vpternlog: bits of the first say: the second, else the third */

/* --- to codes --------------------------------------------------------------------------------- */

struct runs { /* struct hm_map8_runs in registers */
    vf turn[2], scale, offset, most, least;
    vi run[2];
};

static inline struct runs runs_load(const struct hm_map8 *map)
{
    const struct hm_map8_runs *r = &map->runs;

    return (struct runs){ { vf_load(r->turn), vf_load(r->turn + 16) },
                          vf_load(r->scale),
                          vf_load(r->offset),
                          vf_load(r->most),
                          vf_set1(r->least),
                          { _mm512_loadu_si512(r->run), _mm512_loadu_si512(r->run + 16) } };
}

/* Of numbers. */
static inline vf larger_magnitude(vf a, vf b)
{
    return _mm512_range_ps(a, b, 0x0b);
}

/* Bits that hold the codes of magnitudes; *certain loses lanes that are not. */
static inline vi magnitude_codes(const struct runs *runs, vf a, bool with_sign, __mmask16 *certain)
{
    vi exponent = vi_shift_right(vi_from_bits(a), 23);
    vf turn = _mm512_permutex2var_ps(runs->turn[0], exponent, runs->turn[1]);
    vi run = _mm512_permutex2var_epi32(runs->run[0], exponent, runs->run[1]);
    run = _mm512_mask_add_epi32(run, _mm512_cmp_ps_mask(a, turn, _CMP_GT_OQ), run, vi_set1(1));
    vf at = vf_fma(a, _mm512_permutexvar_ps(run, runs->scale),
                   _mm512_permutexvar_ps(run, runs->offset));
    vi bits = vi_from_bits(vf_min(at, _mm512_permutexvar_ps(run, runs->most)));
    *certain = _mm512_mask_test_epi32_mask(*certain, bits, vi_set1(HM_MAP8_CERTAIN));
    if (with_sign)
        *certain = _mm512_mask_cmp_ps_mask(*certain, a, turn, _CMP_NEQ_UQ);
    return bits;
}

/* Bits 15 to 22 of four vectors as 64 bytes. */
static inline __m512i codes_pack(const vi bits[4])
{
    const __m512i four = _mm512_set4_epi32(0x0f0b0703, 0x0e0a0602, 0x0d090501, 0x0c080400);
    const __m512i turn = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i low = _mm512_ternarylogic_epi32(vi_set1(0xff00), _mm512_srli_epi32(bits[1], 7),
                                            _mm512_srli_epi32(bits[0], 15), SELECT);
    __m512i high =
        _mm512_ternarylogic_epi32(vi_set1((int32_t)0xff000000u), _mm512_slli_epi32(bits[3], 9),
                                  _mm512_slli_epi32(bits[2], 1), SELECT);
    __m512i all = _mm512_ternarylogic_epi32(vi_set1(0xffff), low, high, SELECT);

    return _mm512_permutexvar_epi32(turn, _mm512_shuffle_epi8(all, four));
}

/* Codes of CHUNK values times inverse. */
static inline void chunk_encode(const struct hm_map8 *map, const struct runs *runs, bool with_sign,
                                const float *values, vf inverse, uint8_t *code)
{
    __mmask16 certain = 0xffff;
    vf x[4];
    vi bits[4];

    UNROLL for (size_t j = 0; j < 4; j++)
    {
        x[j] = vf_mul(vf_load(values + j * VW), inverse);
        vf a = with_sign ? larger_magnitude(x[j], runs->least) : vf_max(x[j], runs->least);
        bits[j] = magnitude_codes(runs, a, with_sign, &certain);
    }
    if (certain != 0xffff) {
        values_look_up(map, values, CHUNK, inverse, code);
        return;
    }
    __m512i codes = codes_pack(bits);
    if (with_sign) {
        __mmask16 sign[4];
        UNROLL for (size_t j = 0; j < 4; j++) sign[j] = _mm512_movepi32_mask(vi_from_bits(x[j]));
        __mmask64 negative =
            _mm512_kunpackd(_mm512_kunpackw(sign[3], sign[2]), _mm512_kunpackw(sign[1], sign[0]));
        const __m512i last = _mm512_set1_epi8((char)254);
        codes = _mm512_mask_sub_epi8(codes, negative, last, _mm512_min_epu8(codes, last));
    }
    _mm512_storeu_si512(code, codes);
}

/* --- blocks ----------------------------------------------------------------------------------- */

struct block { /* updated, not yet coded */
    float m[HM_BLOCK8], v[HM_BLOCK8];
    vf m_inverse, v_inverse;
    uint8_t *m_code, *v_code;
};

struct pass {
    struct adamw constants;
    struct entries m_entries, v_entries;
    struct runs m_runs, v_runs;
    const struct hm_moments8 *moments;
};

/* Of magnitudes. A first moment that is NaN is not seen, but comes of a gradient or a scale: v of
   such a gradient is NaN, too. */
struct largest {
    vf m;
    vi v; /* bits: of NaN, and where v is negative, above INFINITE */
};

static inline void chunk_update(const struct pass *pass, float *param, const float *grad, size_t at,
                                vf m_scale, vf v_scale, struct block *to, struct largest *most)
{
    vf m[CHUNK / VW], v[CHUNK / VW];

    entries_signed(&pass->m_entries, to->m_code + at, m);
    entries_plain(&pass->v_entries, to->v_code + at, v);
    UNROLL for (size_t j = 0; j < CHUNK / VW; j++)
    {
        size_t k = at + j * VW;
        vf ms = vf_mul(m[j], m_scale), vs = vf_mul(v[j], v_scale);
        vf_store(param + k,
                 adamw_values(&pass->constants, vf_load(param + k), vf_load(grad + k), &ms, &vs));
        most->m = larger_magnitude(ms, most->m);
        most->v = _mm512_max_epu32(most->v, vi_from_bits(vs));
        vf_store(to->m + k, ms);
        vf_store(to->v + k, vs);
    }
}

/* Of the block AHEAD of `index`, a chunk at param and grad; codes are fetched by the CPU itself. */
static inline void chunk_prefetch(const float *param, const float *grad, size_t index, size_t at)
{
    size_t i = (index + AHEAD) * HM_BLOCK8 + at;

    for (size_t line = 0; line < CHUNK; line += LINE_FLOATS) {
        __builtin_prefetch(param + i + line, 1);
        __builtin_prefetch(grad + i + line, 0);
    }
}

static float largest_number(const float values[HM_BLOCK8])
{
    vf most = vf_set1(0.0f);

    for (size_t i = 0; i < HM_BLOCK8; i += VW)
        most = vf_max(vf_abs(vf_load(values + i)), most);
    return vf_largest(most);
}

/* The scales of a block that was updated; one whose moments may not all be numbers is coded here.
 */
static bool block_end(const struct hm_moments8 *moments, size_t index, const struct largest *most,
                      struct block *block)
{
    uint32_t v_bits = _mm512_reduce_max_epu32(most->v);
    float m_most = vf_largest(most->m), v_most;
    bool plain = isfinite(moments->m_absmax[index]) && isfinite(m_most) && v_bits < INFINITE;

    memcpy(&v_most, &v_bits, sizeof(v_most));
    moments->m_absmax[index] = plain ? m_most : largest_number(block->m);
    moments->v_absmax[index] = plain ? v_most : largest_number(block->v);
    block->m_inverse = vf_set1(scale_inverse(moments->m_absmax[index]));
    block->v_inverse = vf_set1(scale_inverse(moments->v_absmax[index]));
    if (!plain) {
        values_look_up(moments->m_map, block->m, HM_BLOCK8, block->m_inverse, block->m_code);
        values_look_up(moments->v_map, block->v, HM_BLOCK8, block->v_inverse, block->v_code);
    }
    return plain;
}

/* Block `index` is updated into `now` where that is not NULL, and `before` coded likewise. */
static inline bool block_step(const struct pass *pass, float *param, const float *grad,
                              size_t index, struct block *now, const struct block *before)
{
    const struct hm_moments8 *moments = pass->moments;
    struct largest most = { vf_set1(0.0f), vi_zero() };
    vf m_scale, v_scale;

    if (now) {
        now->m_code = moments->m + index * HM_BLOCK8;
        now->v_code = moments->v + index * HM_BLOCK8;
        m_scale = vf_set1(moments->m_absmax[index]);
        v_scale = vf_set1(moments->v_absmax[index]);
    }
    for (size_t at = 0; at < HM_BLOCK8; at += CHUNK) {
        if (now) {
            chunk_prefetch(param, grad, index, at);
            chunk_update(pass, param + index * HM_BLOCK8, grad + index * HM_BLOCK8, at, m_scale,
                         v_scale, now, &most);
        }
        if (before) {
            chunk_encode(moments->m_map, &pass->m_runs, true, before->m + at, before->m_inverse,
                         before->m_code + at);
            chunk_encode(moments->v_map, &pass->v_runs, false, before->v + at, before->v_inverse,
                         before->v_code + at);
        }
    }
    return now && block_end(moments, index, &most, now);
}

static void blocks_update(const struct adamw *constants, float *param, const float *grad,
                          const struct hm_moments8 *moments, size_t n_blocks)
{
    const struct pass pass = { *constants,
                               entries_load(moments->m_map, 127, 128),
                               entries_load(moments->v_map, 0, 256),
                               runs_load(moments->m_map),
                               runs_load(moments->v_map),
                               moments };
    struct block block[2];
    bool waits = false; /* block[(index + 1) % 2] is to be coded */

    for (size_t index = 0; index < n_blocks; index++) {
        struct block *now = &block[index % 2], *before = &block[(index + 1) % 2];
        waits = waits ? block_step(&pass, param, grad, index, now, before)
                      : block_step(&pass, param, grad, index, now, NULL);
    }
    if (waits)
        (void)block_step(&pass, param, grad, n_blocks, NULL, &block[(n_blocks + 1) % 2]);
}

#endif
