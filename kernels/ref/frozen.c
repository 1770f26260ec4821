/* SPDX-License-Identifier: MIT */
/*
 * Products of activations in bf16 with a frozen matrix in bf16 or NF4, as plain loops: what the
 * paths are tested against. Packed operands are row-major [m][k], padded with zeros. A decoded
 * value is bf16(f32(code * absmax)), what bitsandbytes computes in bf16; sums are f32 in order of
 * the inner index.
 */
#include "ref.h"

void hm_frozen_pack_ref(enum hm_pack side, size_t m, size_t k, size_t row0, size_t n_rows,
                        size_t col0, size_t n_cols, const float *x, size_t ldx, uint16_t *packed)
{
    size_t ld = round_up(k, HM_PACK_COLS);
    size_t end_row = row0 + round_up(n_rows, HM_PACK_ROWS);
    size_t end_col = col0 + n_cols == k ? ld : col0 + n_cols;
    const bool turned = side == HM_PACK_BACKWARD_TURNED;

    (void)m;
    for (size_t i = row0; i < end_row; i++)
        for (size_t j = col0; j < end_col; j++) {
            bool inside = i < row0 + n_rows && j < col0 + n_cols;
            size_t at = turned ? (j - col0) * ldx + i - row0 : (i - row0) * ldx + j - col0;
            packed[i * ld + j] = inside ? hm_f32_to_bf16(x[at]) : 0;
        }
}

static float load_f32(const uint8_t *base, uint64_t i)
{
    float value;

    memcpy(&value, base + i * sizeof value, sizeof value);
    return value;
}

static float value_at(const struct hm_frozen *w, uint32_t row, uint32_t col)
{
    uint64_t i = (uint64_t)row * w->cols + col, block;
    float absmax;

    if (w->layout == HM_FROZEN_BF16) {
        uint16_t bits;
        memcpy(&bits, w->data + i * sizeof bits, sizeof bits);
        return hm_bf16_to_f32(bits);
    }
    block = i / w->blocksize;
    if (w->nested_absmax) {
        float product =
            load_f32(w->nested_map, w->absmax[block]) * load_f32(w->nested_absmax, block / 256);
        absmax = product + w->nested_offset;
    } else
        absmax = load_f32(w->absmax, block);
    unsigned code = i % 2 == 0 ? w->data[i / 2] >> 4 : w->data[i / 2] & 15u;
    return hm_round_bf16(hm_nf4_code[code] * absmax);
}

/* Outputs [first, first + n): rows of W forward, its columns backward. */
static void product(enum hm_pack side, const struct hm_frozen *w, uint32_t first, uint32_t n,
                    const uint16_t *x, size_t m, const struct hm_low_rank *low, bool add,
                    float *out, size_t ld)
{
    const bool forward = side == HM_PACK_FORWARD;
    const uint32_t depth = forward ? w->cols : w->rows;
    const size_t ldx = round_up(depth, HM_PACK_COLS);

    for (uint32_t j = 0; j < n; j++)
        for (size_t i = 0; i < m; i++) {
            float sum = 0.0f;
            for (uint32_t l = 0; l < depth; l++)
                sum += hm_bf16_to_f32(x[i * ldx + l]) *
                       (forward ? value_at(w, first + j, l) : value_at(w, l, first + j));
            out[i * ld + j] = add ? out[i * ld + j] + sum : sum;
        }
    hm_low_add_ref(low, side, first, w->cols, m, n, out, ld);
}

void hm_frozen_forward_ref(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows,
                           const uint16_t *x, size_t m, const struct hm_low_rank *low, bool add,
                           float *y, size_t ldy, void *scratch)
{
    (void)scratch;
    product(HM_PACK_FORWARD, w, row0, n_rows, x, m, low, add, y, ldy);
}

void hm_frozen_backward_ref(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                            const uint16_t *dy, size_t m, const struct hm_low_rank *low, bool add,
                            float *dx, size_t lddx, void *scratch)
{
    (void)scratch;
    product(HM_PACK_BACKWARD, w, col0, n_cols, dy, m, low, add, dx, lddx);
}
