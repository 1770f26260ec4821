/* SPDX-License-Identifier: MIT */
/*
 * y = x W^T for few rows of x, such as the one of a decoding step: the speed of reading W. The
 * lanes are values of k, a row of W is decoded into registers and meets all rows of x there; sums
 * over the lanes are taken at the end. x lies in pieces of 32 columns, [k / 32][m][32], and is met
 * in ranges of k that L1 keeps.
 */
#include "frozen.h"
#include "frozen_decode.h"
#include "frozen_lanes.h"

#define RANGE      8192u /* values of k at most */
#define X_IN_CACHE 20480u

struct few {
    const struct hm_frozen *w;
    const uint16_t *x;
    uint32_t col, n_cols; /* the range */
    bool add;             /* to y, which the first range may not read */
    float *y;
    size_t ldy;
};

/* Sums of m rows of x and `rows` rows of W, of which n exist. */
INLINE void sums_store(size_t m, size_t rows, size_t n, const __m512 *sum, const struct few *few,
                       uint32_t row)
{
    float joined[32];

    UNROLL for (size_t first = 0; first < m * rows; first += 16)
    {
        __m512 part[16];
        UNROLL for (size_t i = 0; i < 16; i++) part[i] =
            first + i < m * rows ? sum[first + i] : _mm512_setzero_ps();
        _mm512_storeu_ps(joined + first, sums_of_lanes(part));
    }
    for (size_t r = 0; r < n; r++)
        UNROLL for (size_t i = 0; i < m; i++)
        {
            float *to = few->y + i * few->ldy + row + r;
            *to = few->add ? *to + joined[r * m + i] : joined[r * m + i];
        }
}

/* Scales [rows][n_cols / 64] of rows from `first` on, at once where they lie together, and those
 * after the next rows on their way: a row's are too few to be fetched unasked. */
INLINE void scales_read(const struct few *few, size_t rows, size_t n, uint64_t first, float *scale)
{
    const struct hm_frozen *w = few->w;
    const size_t width = few->n_cols / 64, next = 2 * rows * (w->cols / 64);
    const size_t value = w->nested_absmax ? 1 : sizeof(float), runs = w->blocksize / 64;
    const bool whole = few->n_cols == w->cols && n == rows;

    for (size_t r = 0; r < (whole ? 1 : rows); r++)
        hm_frozen_scales(w, (first + (r < n ? r : n - 1) * w->cols + few->col) / 64,
                         whole ? rows * width : width, scale + r * width);
    for (size_t r = 0; r < rows; r++)
        fetch((uintptr_t)w->absmax + ((first + r * w->cols + few->col) / 64 + next) / runs * value);
}

/* W is met once: from memory into L1. */
INLINE void fetch_near(const uint8_t *at)
{
    _mm_prefetch((const char *)at, _MM_HINT_T0);
}

/* Words first, first + 2, ... of two vectors. */
INLINE __m512i every_second(uint16_t first)
{
    uint16_t at[PAIRS];

    UNROLL for (uint16_t i = 0; i < PAIRS; i++) at[i] = (uint16_t)(2 * i + first);
    return _mm512_loadu_si512(at);
}

/* `rows` rows of W from row0 + row, of which n exist: others repeat the last. */
INLINE void rows_run(bool nf4, size_t m, size_t rows, size_t n, uint32_t row0, uint32_t row,
                     const struct few *few, float *scale)
{
    const size_t step = nf4 ? 32 : 128; /* bytes of 64 values */
    const struct hm_frozen *w = few->w;
    const uint8_t *from[4];
    const uint16_t *x = few->x + few->col * m;
    const size_t ahead = rows * (w->cols / 64) * step;
    const bool apart = nf4 && m == 1; /* both codes of a byte without spreading it */
    __m512 sum[24];

    UNROLL for (size_t r = 0; r < rows; r++)
    {
        uint64_t at = (uint64_t)(row0 + row + (r < n ? r : n - 1)) * w->cols + few->col;
        from[r] = w->data + at / 64 * step;
    }
    if (nf4)
        scales_read(few, rows, n, (uint64_t)(row0 + row) * w->cols, scale);
    UNROLL for (size_t i = 0; i < m * rows; i++) sum[i] = _mm512_setzero_ps();
    const __m512i evens = every_second(0), odds = every_second(1);
    for (size_t k = 0; k < few->n_cols / 64; k++) {
        __m512i table[4];
        UNROLL for (size_t r = 0; r < rows; r++)
        {
            if (nf4)
                table[r] = table_make(scale[r * (few->n_cols / 64) + k],
                                      scale[r * (few->n_cols / 64) + k]);
            for (size_t i = 0; i < step; i += 64)
                fetch_near(from[r] + ahead + i);
        }
        if (apart) {
            __m512i low = _mm512_loadu_si512(x), high = _mm512_loadu_si512(x + PAIRS);
            __m512bh even = (__m512bh)_mm512_permutex2var_epi16(low, evens, high);
            __m512bh odd = (__m512bh)_mm512_permutex2var_epi16(low, odds, high);
            UNROLL for (size_t r = 0; r < rows; r++)
            {
                __m512i pair = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)from[r]));
                sum[r] = _mm512_dpbf16_ps(
                    sum[r], even,
                    (__m512bh)_mm512_permutexvar_epi16(_mm512_srli_epi16(pair, 4), table[r]));
                sum[r] = _mm512_dpbf16_ps(sum[r], odd,
                                          (__m512bh)_mm512_permutexvar_epi16(pair, table[r]));
            }
            x += 2 * PAIRS;
        }
        UNROLL for (size_t half = apart ? 2 : 0; half < 2; half++, x += m * PAIRS)
        {
            __m512bh value[4];
            UNROLL for (size_t r = 0; r < rows; r++) value[r] =
                (__m512bh)(nf4 ? _mm512_permutexvar_epi16(codes_in_order(from[r] + half * 16),
                                                          table[r])
                               : _mm512_loadu_si512(from[r] + half * 64));
            UNROLL for (size_t i = 0; i < m; i++)
            {
                __m512bh left = (__m512bh)_mm512_loadu_si512(x + i * PAIRS);
                UNROLL for (size_t r = 0; r < rows; r++) sum[r * m + i] =
                    _mm512_dpbf16_ps(sum[r * m + i], left, value[r]);
            }
        }
        UNROLL for (size_t r = 0; r < rows; r++) from[r] += step;
    }
    sums_store(m, rows, n, sum, few, row);
}

INLINE void range_run(bool nf4, size_t m, uint32_t row0, uint32_t n_rows, const struct few *few,
                      float *scale)
{
    const uint32_t rows = m <= 4 ? 4 : 2;

    for (uint32_t row = 0; row < n_rows; row += rows)
        rows_run(nf4, m, rows, least(rows, n_rows - row), row0, row, few, scale);
}

#define CASE(nf4, count)                                 \
    case count:                                          \
        range_run(nf4, count, row0, n_rows, few, scale); \
        break;
#define CASES(nf4) \
    CASE(nf4, 1)   \
    CASE(nf4, 2)   \
    CASE(nf4, 3)   \
    CASE(nf4, 4)   \
    CASE(nf4, 5)   \
    CASE(nf4, 6)   \
    CASE(nf4, 7)   \
    CASE(nf4, 8) CASE(nf4, 9) CASE(nf4, 10) CASE(nf4, 11) CASE(nf4, 12)

static __attribute__((noinline)) void range_codes(size_t m, uint32_t row0, uint32_t n_rows,
                                                  const struct few *few, float *scale)
{
    switch (m) {
        CASES(true)
    }
}

static __attribute__((noinline)) void range_dense(size_t m, uint32_t row0, uint32_t n_rows,
                                                  const struct few *few, float *scale)
{
    switch (m) {
        CASES(false)
    }
}

_Static_assert(FEW == 12, "a case for each number of rows");

void hm_frozen_forward_few(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                           const uint16_t *x, size_t m, bool add, float *y, size_t ldy,
                           struct frozen_scratch *scratch)
{
    const uint32_t most = (uint32_t)least(RANGE, X_IN_CACHE / m / CHUNK * CHUNK);
    const uint32_t width = (uint32_t)round_up(units(w->cols, units(w->cols, most)), CHUNK);

    for (uint32_t col = 0; col < w->cols; col += width) {
        const struct few few = { w, x,  col, (uint32_t)least(width, w->cols - col), add || col > 0,
                                 y, ldy };
        (w->layout == HM_FROZEN_NF4 ? range_codes : range_dense)(m, row0, n_rows, &few,
                                                                 scratch->sum);
    }
}
