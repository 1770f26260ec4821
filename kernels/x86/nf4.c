/* SPDX-License-Identifier: MIT */
/*
 * NF4 for x86. Decoding multiplies (and rounds) the 16 code values once per block and looks the
 * products up by nibble: the same bits as the reference, one permutation a vector. Encoding finds
 * the code by four steps of binary search in tables that grow with the known bits.
 */
#include "isa.h"
#include "simd.h"

static inline struct table16 block_table(float scale, enum hm_round round)
{
    struct table16 table;

    UNROLL for (size_t i = 0; i < 16 / VW; i++)
    {
        vf products = vf_mul(vf_load(hm_nf4_code + i * VW), vf_set1(scale));
        table.part[i] = round == HM_ROUND_BF16 ? vf_round_bf16(products) : products;
    }
    return table;
}

/* Less than a vector, or an odd beginning: through memory. */
static void values_few(const struct table16 *table, const uint8_t *codes, uint64_t at, size_t n,
                       float *out)
{
    float products[16];

    UNROLL for (size_t i = 0; i < 16 / VW; i++) vf_store(products + i * VW, table->part[i]);
    for (size_t i = 0; i < n; i++, at++)
        out[i] = products[at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15];
}

/* n values of one block from flat index `at`. */
static void values_run(const struct table16 *table, const uint8_t *codes, uint64_t at, size_t n,
                       float *out)
{
    if (at % 2 == 1 && n > 0) {
        values_few(table, codes, at, 1, out);
        at++, out++, n--;
    }
    const uint8_t *pairs = codes + at / 2;
    size_t i = 0;
    for (; i + VW <= n; i += VW)
        vf_store(out + i, table16_at(table, vi_nibbles(pairs + i / 2)));
    if (i < n)
        values_few(table, codes, at + i, n - i, out + i);
}

static inline void blocks64_decode(const uint8_t *pairs, const float *scale, size_t n_blocks,
                                   enum hm_round round, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, pairs += 32, out += 64) {
        struct table16 table = block_table(scale[b], round);
        UNROLL for (size_t i = 0; i < 64; i += VW)
            vf_store(out + i, table16_at(&table, vi_nibbles(pairs + i / 2)));
    }
}

void HM_ISA(hm_nf4_decode)(const uint8_t *codes, const float *scale, uint64_t first, size_t n,
                           uint32_t blocksize, enum hm_round round, float *out)
{
    if (blocksize == 64 && first % 64 == 0) {
        size_t n_blocks = n / 64;
        if (round == HM_ROUND_BF16)
            blocks64_decode(codes + first / 2, scale + first / 64, n_blocks, HM_ROUND_BF16, out);
        else
            blocks64_decode(codes + first / 2, scale + first / 64, n_blocks, HM_ROUND_NONE, out);
        first += n_blocks * 64;
        out += n_blocks * 64;
        n -= n_blocks * 64;
    }
    while (n > 0) {
        size_t left = blocksize - (size_t)(first % blocksize);
        size_t run = left < n ? left : n;
        struct table16 table = block_table(scale[first / blocksize], round);
        values_run(&table, codes, first, run, out);
        first += run, out += run, n -= run;
    }
}

struct search { /* thresholds still possible once 0, 1, 2 or 3 bits of the code are known */
    vf one, two, four, eight;
};

static inline struct search search_tables(void)
{
    const float *t = hm_nf4_threshold;
    float two[8] = { t[3], t[11] }, four[8] = { t[1], t[5], t[9], t[13] };
    float eight[8] = { t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14] };

    return (struct search){ vf_set1(t[7]), table8_load(two), table8_load(four),
                            table8_load(eight) };
}

static inline vi codes_find(const struct search *search, vf x)
{
    vi index = vi_search(vi_zero(), x, search->one);

    index = vi_search(index, x, table8_at(search->two, index));
    index = vi_search(index, x, table8_at(search->four, index));
    return vi_search(index, x, table8_at(search->eight, index));
}

/* Full blocks of a multiple of 16 values. */
static void block_encode(const struct search *search, const float *values, size_t n, uint8_t *codes,
                         float *absmax)
{
    const __m128i weights = _mm_set1_epi16(0x0110); /* high nibble first */
    const vf one = vf_set1(1.0f), minus_one = vf_set1(-1.0f);
    vf sizes = vf_set1(0.0f);

    for (size_t i = 0; i < n; i += VW)
        sizes = vf_max(vf_abs(vf_load(values + i)), sizes);
    float largest = vf_largest(sizes);
    vf inverse = vf_set1(1.0f / (largest > HM_NF4_ABSMAX_FLOOR ? largest : HM_NF4_ABSMAX_FLOOR));
    *absmax = largest;
    for (size_t i = 0; i < n; i += 16) {
        vi found[16 / VW];
        UNROLL for (size_t j = 0; j < 16 / VW; j++)
        {
            vf x = vf_mul(vf_load(values + i + j * VW), inverse);
            found[j] = codes_find(search, vf_min(one, vf_max(minus_one, x))); /* NaN is kept */
        }
        __m128i pairs = _mm_maddubs_epi16(vi_bytes16(found), weights);
        _mm_storel_epi64((__m128i *)(codes + i / 2), _mm_packus_epi16(pairs, pairs));
    }
}

void HM_ISA(hm_nf4_encode)(const float *values, size_t n, uint32_t blocksize, uint8_t *codes,
                           float *absmax)
{
    size_t n_blocks = blocksize % 16 == 0 ? n / blocksize : 0;
    size_t done = n_blocks * blocksize;
    struct search search = search_tables();

    for (size_t b = 0; b < n_blocks; b++)
        block_encode(&search, values + b * blocksize, blocksize, codes + b * blocksize / 2,
                     absmax + b);
    hm_nf4_encode_ref(values + done, n - done, blocksize, codes + done / 2, absmax + n_blocks);
}
