/* SPDX-License-Identifier: MIT */
/*
 * 16-bit floats: every code of both formats there and back, every midpoint between neighbours and
 * the f32 numbers beside it; every path must give the reference's bits from any byte alignment.
 */
#include <math.h>

#include "check.h"

/* Midpoints between neighbours round to the even one, the numbers beside them to the nearer. */
static void rounding(const char *what, uint16_t (*narrow)(float), float (*widen)(uint16_t),
                     unsigned infinity)
{
    check_context("%s", what);
    for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000)
        for (unsigned code = 0; code < infinity; code++) {
            unsigned low = sign | code, high = low + 1;
            double a = (double)widen((uint16_t)low);
            /* Past the largest number the next step would be as wide as the one before. */
            double b = code + 1 < infinity ? (double)widen((uint16_t)high)
                                           : 2 * a - (double)widen((uint16_t)(low - 1));
            float middle = (float)(a / 2 + b / 2);
            float below = nextafterf(middle, (float)a), above = nextafterf(middle, (float)b);
            check_that(narrow((float)a) == low, "%a does not come back", a);
            check_that(narrow(middle) == (low % 2 ? high : low), "%a is not rounded to even",
                       (double)middle);
            if (below != (float)a)
                check_that(narrow(below) == low, "%a must round to 0x%04x", (double)below, low);
            if (above != (float)b)
                check_that(narrow(above) == high, "%a must round to 0x%04x", (double)above, high);
        }
    check_that(narrow(INFINITY) == infinity && narrow(-INFINITY) == (infinity | 0x8000),
               "infinity is lost");
    check_that(isnan(widen(narrow(hm_f32_from_bits(0x7f800001u)))), "NaN becomes a number");
    for (unsigned code = infinity + 1; code < 0x8000; code++)
        check_that(isnan(widen((uint16_t)code)), "0x%04x is not NaN", code);
}

static float bf16_widen(uint16_t bits)
{
    return hm_bf16_to_f32(bits);
}

static uint16_t bf16_narrow(float value)
{
    return hm_f32_to_bf16(value);
}

static void values(const struct hm_kernels *ref)
{
    rounding("f16", hm_f32_to_f16, hm_f16_to_f32, 0x7c00);
    rounding("bf16", bf16_narrow, bf16_widen, 0x7f80);
    for (unsigned code = 0; code < 0x8000; code++) { /* f16 by its formula */
        double fraction = code & 0x3ff;
        int exponent = (int)(code >> 10);
        float want =
            (float)(exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
        if (exponent < 31)
            check_that(hm_f16_to_f32((uint16_t)code) == want, "0x%04x is not %a", code,
                       (double)want);
    }
    check_context("f32_round_bf16");
    float x[3] = { 1.0f + 0x1p-8f, 1.0f + 0x1.8p-7f, -0x1.fffffep127f };
    const float want[3] = { 1.0f, 1.0f + 0x1p-6f, -INFINITY };
    ref->f32_round_bf16(x, 3);
    check_equal("rounded", x, want, 3);
}

/* All codes of a 16-bit format in one odd array. */
static void every_code(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    const size_t n = 65536 + 5;
    uint8_t *in = check_bytes(2 * n + 1);
    float *got = check_floats(n), *want = check_floats(n);

    for (size_t i = 0; i < n; i++) {
        in[2 * i] = (uint8_t)i;
        in[2 * i + 1] = (uint8_t)(i >> 8);
    }
    in[2 * n] = 0;
    for (size_t offset = 0; offset < 2; offset++) { /* odd addresses too */
        check_context("%s bf16_to_f32 offset %zu", path->name, offset);
        ref->bf16_to_f32(in + offset, n, want);
        path->bf16_to_f32(in + offset, n, got);
        check_equal("f32", got, want, n);
        check_context("%s f16_to_f32 offset %zu", path->name, offset);
        ref->f16_to_f32(in + offset, n, want);
        path->f16_to_f32(in + offset, n, got);
        check_equal("f32", got, want, n);
    }
}

static void narrow_path(const struct hm_kernels *ref, const struct hm_kernels *path, size_t n)
{
    float *x = check_floats(n);
    uint16_t *got = check_bytes(2 * n), *want = check_bytes(2 * n);

    for (size_t i = 0; i < n; i++) { /* any bits, every third one a tie */
        uint32_t bits = (uint32_t)check_below((size_t)1 << 32);
        x[i] = hm_f32_from_bits(i % 3 ? bits : (bits & 0xffff0000u) | 0x8000u);
    }
    ref->f32_to_bf16(x, n, want);
    path->f32_to_bf16(x, n, got);
    check_bytes_equal("bf16", got, want, 2 * n);
    float *again = check_copy(x, n * sizeof(*x));
    ref->f32_round_bf16(x, n);
    path->f32_round_bf16(again, n);
    check_equal("rounded", again, x, n);
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    every_code(ref, path);
    check_release();
    for (const size_t *n = check_sizes; *n; n++) {
        uint8_t *in = check_bytes(2 * *n);
        float *got = check_floats(*n), *want = check_floats(*n);

        check_context("%s convert n %zu", path->name, *n);
        for (size_t i = 0; i < 2 * *n; i++)
            in[i] = (uint8_t)check_below(256);
        ref->bf16_to_f32(in, *n, want);
        path->bf16_to_f32(in, *n, got);
        check_equal("bf16_to_f32", got, want, *n);
        ref->f16_to_f32(in, *n, want);
        path->f16_to_f32(in, *n, got);
        check_equal("f16_to_f32", got, want, *n);
        narrow_path(ref, path, *n);
        check_release();
    }
    check_context("%s f32_to_bf16", path->name);
    narrow_path(ref, path, 100003);
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "convert", values, path);
}
