/* SPDX-License-Identifier: MIT */
/*
 * NF4: the code book against its definition by quantiles, packing, ties, clamps and the rules of
 * partial blocks on the reference; every path must give the reference's bits.
 */
#include <math.h>

#include "check.h"

static void code_book(void)
{
    check_context("code book");
    for (size_t i = 0; i + 1 < 16; i++) {
        float middle = (hm_nf4_code[i] + hm_nf4_code[i + 1]) / 2;
        check_equal("threshold", &hm_nf4_threshold[i], &middle, 1);
    }
    /* The values are quantiles: erf gives back the probabilities, evenly spaced on each side. */
    const double offset = 0.9677083, top = 1.8481308; /* Phi^-1(offset) */
    for (size_t i = 0; i < 16; i++) {
        double p = 0.5 * (1 + erf(top * (double)hm_nf4_code[i] / sqrt(2)));
        double want = i <= 7 ? 1 - offset + (offset - 0.5) * (double)i / 7
                             : 0.5 + (offset - 0.5) * (double)(i - 7) / 8;
        check_that(fabs(p - want) < 1e-6, "code %zu is the quantile of %.8f, expected %.8f", i, p,
                   want);
    }
}

static void encode_one(const struct hm_kernels *ref, float x, bool full, unsigned want)
{
    float block[33] = { 1.0f };
    uint8_t codes[17];
    float absmax[2];
    size_t at = full ? 1 : 32;

    block[at] = x;
    block[32] = full ? 0.0f : x;
    ref->nf4_encode(block, 33, 32, codes, absmax);
    unsigned got = at % 2 == 0 ? codes[at / 2] >> 4 : codes[at / 2] & 15u;
    check_that(got == want, "%a has code %u, expected %u", (double)x, got, want);
}

static void values(const struct hm_kernels *ref)
{
    code_book();
    check_context("nf4_encode");
    for (unsigned i = 0; i < 15; i++) { /* absmax 1: x is the value itself */
        encode_one(ref, hm_nf4_threshold[i], true, i);
        encode_one(ref, nextafterf(hm_nf4_threshold[i], 2), true, i + 1);
        encode_one(ref, nextafterf(hm_nf4_threshold[i], -2), true, i);
    }
    for (unsigned i = 0; i < 16; i++)
        encode_one(ref, hm_nf4_code[i], true, i);
    encode_one(ref, NAN, true, 0);
    encode_one(ref, -3e-20f, false, 0); /* alone in a partial block: it is the absmax */
    encode_one(ref, 5.0f, false, 15);

    const float zeros[37] = { 0 };
    uint8_t codes[19];
    float absmax[2];
    ref->nf4_encode(zeros, 37, 32, codes, absmax);
    const float want_absmax[2] = { 0.0f, 1e-38f };
    check_equal("absmax of zeros", absmax, want_absmax, 2);
    for (size_t i = 0; i < 19; i++)
        check_that(codes[i] == 0x77, "zeros give byte 0x%02x, expected 0x77", codes[i]);

    const uint8_t packed[2] = { 0x0f, 0xe1 };
    const float scale = 3.0f;
    float out[4];
    ref->nf4_decode(packed, &scale, 0, 4, 64, HM_ROUND_NONE, out);
    const float want[4] = { -3.0f, 3.0f, hm_nf4_code[14] * 3.0f, hm_nf4_code[1] * 3.0f };
    check_equal("decoded", out, want, 4);
}

static void decode_path(const struct hm_kernels *ref, const struct hm_kernels *path, size_t n,
                        uint32_t blocksize, uint64_t first)
{
    uint64_t total = first + n;
    size_t n_blocks = (size_t)((total + blocksize - 1) / blocksize);
    uint8_t *codes = check_bytes((size_t)((total + 1) / 2));
    float *scale = check_normals(n_blocks, 0.05);

    for (size_t i = 0; i < (total + 1) / 2; i++)
        codes[i] = (uint8_t)check_below(256);
    if (check_below(4) == 0) /* denormal products, infinities and NaN are no special cases */
        scale[check_below(n_blocks)] = ((float[]){ 1e-39f, INFINITY, NAN, 0.0f })[check_below(4)];
    for (int round = HM_ROUND_NONE; round <= HM_ROUND_BF16; round++) {
        float *got = check_floats(n), *want = check_floats(n);
        ref->nf4_decode(codes, scale, first, n, blocksize, (enum hm_round)round, want);
        path->nf4_decode(codes, scale, first, n, blocksize, (enum hm_round)round, got);
        check_equal("decoded", got, want, n);
    }
}

static void encode_path(const struct hm_kernels *ref, const struct hm_kernels *path, size_t n,
                        uint32_t blocksize)
{
    size_t n_blocks = (n + blocksize - 1) / blocksize;
    float *w = check_normals(n, 0.02);
    uint8_t *got = check_bytes((n + 1) / 2), *want = check_bytes((n + 1) / 2);
    float *got_absmax = check_floats(n_blocks), *want_absmax = check_floats(n_blocks);

    if (check_below(2) == 0)
        w[check_below(n)] = ((float[]){ NAN, INFINITY, -INFINITY, 1e-39f, 50.0f })[check_below(5)];
    if (check_below(3) == 0) /* a block of zeros and one with its values on thresholds */
        for (size_t i = 0; i < n && i < blocksize; i++)
            w[i] = 0.0f;
    for (size_t i = blocksize + 1; i < n && i < 2 * blocksize; i++)
        w[i] = hm_nf4_threshold[i % 15];
    if (n > blocksize)
        w[blocksize] = 1.0f;
    ref->nf4_encode(w, n, blocksize, want, want_absmax);
    path->nf4_encode(w, n, blocksize, got, got_absmax);
    check_bytes_equal("codes", got, want, (n + 1) / 2);
    check_equal("absmax", got_absmax, want_absmax, n_blocks);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    static const uint32_t blocksizes[] = { 32, 64, 128, 256, 4096, 24 };

    for (size_t b = 0; b < sizeof(blocksizes) / sizeof(blocksizes[0]); b++)
        for (const size_t *n = check_sizes; *n; n++) {
            uint32_t size = blocksizes[b];
            uint64_t first = *n % 2 ? check_below(300) : check_below(5) * size;
            check_context("%s nf4_decode n %zu first %d blocksize %u", path->name, *n, (int)first,
                          size);
            decode_path(ref, path, *n, size, first);
            check_context("%s nf4_encode n %zu blocksize %u", path->name, *n, size);
            encode_path(ref, path, *n, size);
            check_release();
        }
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "nf4", values, path);
}
