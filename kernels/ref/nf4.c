/* SPDX-License-Identifier: MIT */
/*
 * NF4 values (QLoRA, Dettmers et al. 2023, appendix E) to and from 4-bit codes, as bitsandbytes
 * does it. Files, double quantisation and shapes belong to checkpoint/. The tables are given by
 * their bits: the same f32 numbers as bitsandbytes', whatever the compiler thinks of decimals.
 */
#include "ref.h"

/* clang-format off */
const float hm_nf4_code[16] = {
    -0x1p+0f,         -0x1.647362p-1f,  -0x1.0cd66p-1f,   -0x1.94654p-2f,
    -0x1.23449ap-2f,  -0x1.7a6a7ep-3f,  -0x1.74f0e2p-4f,  0.0f,
    0x1.45f5fep-4f,   0x1.4995c6p-3f,   0x1.f809bap-3f,   0x1.5a0674p-2f,
    0x1.c3497p-2f,    0x1.200f56p-1f,   0x1.722766p-1f,   0x1p+0f,
};
const float hm_nf4_threshold[15] = {
    -0x1.b239bp-1f,   -0x1.38a4ep-1f,   -0x1.d709p-2f,   -0x1.5bd4ecp-2f,
    -0x1.e079d8p-3f,  -0x1.1a7178p-3f,   -0x1.74f0e2p-5f,  0x1.45f5fep-5f,
    0x1.ec90c4p-4f,   0x1.a0cfcp-3f,    0x1.2b05a8p-2f,   0x1.8ea7f2p-2f,
    0x1.00da08p-1f,   0x1.491b5ep-1f,   0x1.b913b4p-1f,
};
/* clang-format on */

static unsigned code_at(const uint8_t *codes, uint64_t i)
{
    return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
}

void hm_nf4_decode_ref(const uint8_t *codes, const float *scale, uint64_t first, size_t n,
                       uint32_t blocksize, enum hm_round round, float *out)
{
    for (size_t i = 0; i < n; i++) {
        float value = hm_nf4_code[code_at(codes, first + i)] * scale[(first + i) / blocksize];
        out[i] = round == HM_ROUND_BF16 ? hm_round_bf16(value) : value;
    }
}

/* Thresholds strictly below x; NaN counts none. */
static unsigned code_of(float x)
{
    unsigned code = 0;

    for (size_t i = 0; i < 15; i++)
        code += x > hm_nf4_threshold[i];
    return code;
}

static void block_encode(const float *values, size_t n, bool full, uint8_t *codes, float *absmax)
{
    float largest = 0.0f;

    for (size_t i = 0; i < n; i++) {
        float size = __builtin_fabsf(values[i]);
        largest = size > largest ? size : largest;
    }
    float floored = largest > HM_NF4_ABSMAX_FLOOR ? largest : HM_NF4_ABSMAX_FLOOR;
    float inverse = 1.0f / floored;
    *absmax = full ? largest : floored;
    for (size_t i = 0; i < n; i++) {
        float x = full ? values[i] * inverse : values[i] / floored;
        x = x > 1.0f ? 1.0f : x < -1.0f ? -1.0f : x;
        unsigned code = code_of(x);
        if (i % 2 == 0)
            codes[i / 2] = (uint8_t)(code << 4 | 7); /* 7 pads an odd count */
        else
            codes[i / 2] = (uint8_t)((codes[i / 2] & 0xf0) | code);
    }
}

void hm_nf4_encode_ref(const float *values, size_t n, uint32_t blocksize, uint8_t *codes,
                       float *absmax)
{
    for (size_t begin = 0; begin < n; begin += blocksize) {
        size_t left = n - begin < blocksize ? n - begin : blocksize;
        block_encode(values + begin, left, left == blocksize, codes + begin / 2,
                     absmax + begin / blocksize);
    }
}
