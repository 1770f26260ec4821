/* SPDX-License-Identifier: MIT */
/*
 * Left operands of products with frozen matrices, rounded to bf16 and ordered as frozen.h says:
 * lanes forward, rows backward.
 */
#include "frozen_round.h"
#include "transpose.h"

/* 32 columns of n rows of a group; rows from n on are zeros. */
static void group_turn(const float *x, size_t ldx, size_t n, size_t n_cols, uint16_t *out)
{
    __m512 row[LANES];

    UNROLL for (size_t i = 0; i < LANES; i++) row[i] =
        i < n ? _mm512_castsi512_ps(row_round(x + i * ldx, n_cols)) : _mm512_setzero_ps();
    vf_transpose(row);
    UNROLL for (size_t i = 0; i < LANES; i++) _mm512_storeu_ps(out + i * PAIRS, row[i]);
}

/* 32 columns of 16 rows of a left operand as rows, width apart. */
static void rows_copy(const float *x, size_t ldx, size_t n, size_t n_cols, bool turned,
                      size_t width, uint16_t *out)
{
    __m512i row[LANES];

    if (turned)
        turn_round(x, ldx, n, n_cols, row);
    else
        for (size_t r = 0; r < LANES; r++)
            row[r] = r < n ? row_round(x + r * ldx, n_cols) : _mm512_setzero_si512();
    for (size_t r = 0; r < LANES; r++)
        _mm512_storeu_si512(out + r * width, row[r]);
}

static void few_copy(size_t m, size_t col0, size_t n_cols, const float *x, size_t ldx,
                     uint16_t *packed)
{
    for (size_t j = 0; j < n_cols; j += PAIRS)
        for (size_t i = 0; i < m; i++)
            _mm512_storeu_si512(packed + (col0 + j) * m + i * PAIRS,
                                row_round(x + i * ldx + j, n_cols - j));
}

void hm_frozen_pack_avx512bf16(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                               size_t col0, size_t n_cols, const float *x, size_t ldx,
                               uint16_t *packed)
{
    if (side == HM_PACK_FORWARD && m <= FEW) {
        few_copy(m, col0, n_cols, x, ldx, packed);
        return;
    }
    const bool turned = side == HM_PACK_BACKWARD_TURNED;
    for (size_t i = 0; i < n_rows; i += LANES)
        for (size_t j = 0; j < n_cols; j += PAIRS) {
            const float *from = turned ? x + j * ldx + i : x + i * ldx + j;
            size_t rows = least(LANES, n_rows - i), cols = n_cols - j, col = col0 + j;
            size_t width = chunk_width(k, col);
            uint16_t *out = packed + chunk_begin(m, col) + (row0 + i) * width;
            if (side == HM_PACK_FORWARD && rows == tail_rows(m) && row0 + i + rows == m)
                rows_copy(from, ldx, rows, least(cols, PAIRS), false, PAIRS,
                          out + col % CHUNK * LANES);
            else if (side == HM_PACK_FORWARD)
                group_turn(from, ldx, rows, cols, out + col % CHUNK * LANES);
            else
                rows_copy(from, ldx, rows, least(cols, PAIRS), turned, width, out + col % CHUNK);
        }
}
