/* SPDX-License-Identifier: MIT */
/*
 * Products with frozen matrices in bf16, every path that has them against f64 sums over the same
 * rounded operands: NF4 with f32 and nested scales, blocks of 64 and 128, dense bf16, unaligned
 * data, ranges of rows and columns, operands packed in blocks, stale and NaN-filled outputs and
 * scratch, rows and gaps that must stay untouched. The bound is a rounding error per term of the
 * sum of |x w|.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#if defined(HM_TILE_EMULATION)
#include "hanmix/base/cpu.h"

#include "kernels/x86/x86.h"
#endif

struct matrix { /* W and its values */
    struct hm_frozen w;
    float *value; /* [rows][cols], bf16 */
};

static uint8_t *unaligned(size_t bytes)
{
    return check_bytes(bytes + 1); /* ends at a page: even sizes begin at an odd address */
}

static void scales_fill(struct hm_frozen *w, size_t n_blocks, bool nested)
{
    uint8_t *absmax = unaligned(n_blocks * 4);

    w->absmax = absmax;
    if (!nested) {
        float *scale = check_normals(n_blocks, 0.05);
        memcpy(absmax, scale, n_blocks * sizeof(float));
        return;
    }
    float *map = check_normals(256, 1), *outer = check_normals(n_blocks / 256 + 1, 0.01);
    uint8_t *map_bytes = unaligned(1024), *outer_bytes = unaligned((n_blocks / 256 + 1) * 4);
    memcpy(map_bytes, map, 1024);
    memcpy(outer_bytes, outer, (n_blocks / 256 + 1) * sizeof(float));
    for (size_t i = 0; i < n_blocks; i++)
        absmax[i] = (uint8_t)check_below(256);
    w->nested_map = map_bytes;
    w->nested_absmax = outer_bytes;
    w->nested_offset = 0.04f;
}

static float nf4_value(const struct hm_frozen *w, size_t i)
{
    size_t block = i / w->blocksize;
    float scale, map, outer;

    if (w->nested_absmax) {
        memcpy(&map, w->nested_map + 4 * (size_t)w->absmax[block], 4);
        memcpy(&outer, w->nested_absmax + block / 256 * 4, 4);
        float product = map * outer;
        scale = product + w->nested_offset;
    } else
        memcpy(&scale, w->absmax + block * 4, 4);
    unsigned code = i % 2 == 0 ? w->data[i / 2] >> 4 : w->data[i / 2] & 15u;
    return hm_round_bf16(hm_nf4_code[code] * scale);
}

static struct matrix matrix_new(enum hm_frozen_layout layout, uint32_t rows, uint32_t cols,
                                uint32_t blocksize, bool nested)
{
    size_t count = (size_t)rows * cols;
    struct matrix matrix = { { .layout = layout, .rows = rows, .cols = cols }, NULL };
    uint8_t *data = unaligned(count * 2);

    matrix.value = check_normals(count, 0.05);
    matrix.w.data = data;
    if (layout == HM_FROZEN_BF16) {
        for (size_t i = 0; i < count; i++) {
            uint16_t bits = hm_f32_to_bf16(matrix.value[i]);
            memcpy(data + 2 * i, &bits, 2);
            matrix.value[i] = hm_bf16_to_f32(bits);
        }
        return matrix;
    }
    matrix.w.blocksize = blocksize;
    for (size_t i = 0; i < count / 2; i++)
        data[i] = (uint8_t)check_below(256);
    scales_fill(&matrix.w, count / blocksize, nested);
    for (size_t i = 0; i < count; i++)
        matrix.value[i] = nf4_value(&matrix.w, i);
    return matrix;
}

/* Packed in blocks of 48 rows and 64 columns, last ones first: their order must not matter. */
static uint16_t *packed_new(const struct hm_kernels *k, enum hm_pack side, const float *x, size_t m,
                            size_t depth, size_t ldx)
{
    uint16_t *packed = check_bytes(hm_pack_values(m, depth) * sizeof(uint16_t));

    for (size_t row = (m - 1) / 48 * 48 + 48; row >= 48; row -= 48)
        for (size_t col = (depth - 1) / 64 * 64 + 64; col >= 64; col -= 64) {
            size_t r = row - 48, c = col - 64;
            k->frozen_pack(side, m, depth, r, m - r < 48 ? m - r : 48, c,
                           depth - c < 64 ? depth - c : 64, x + r * ldx + c, ldx, packed);
        }
    return packed;
}

/* The same operand by columns is packed to the same bytes. */
static void turned_check(const struct hm_kernels *k, const float *x, size_t m, size_t depth,
                         size_t ldx, const uint16_t *packed)
{
    size_t ld = m + check_below(3), n = hm_pack_values(m, depth);
    float *turned = check_normals((depth - 1) * ld + m, 1);
    uint16_t *got = check_bytes(n * sizeof(uint16_t));

    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < depth; j++)
            turned[j * ld + i] = x[i * ldx + j];
    for (size_t row = 0; row < m; row += 48)
        for (size_t col = 0; col < depth; col += 64)
            k->frozen_pack(HM_PACK_BACKWARD_TURNED, m, depth, row, m - row < 48 ? m - row : 48, col,
                           depth - col < 64 ? depth - col : 64, turned + col * ld + row, ld, got);
    check_that(memcmp(got, packed, n * sizeof(uint16_t)) == 0, "operands by columns differ");
}

static void output_check(const char *what, const float *got, const float *before, size_t m,
                         size_t n, size_t ld, bool add, const double *sum, const double *size,
                         size_t depth)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double old = add ? (double)before[i * ld + j] : 0;
            double want = sum[i * n + j] + old;
            double bound = 6e-8 * ((double)(depth + 2) * size[i * n + j] + 2 * fabs(old)) + 1e-30;
            check_that(fabs((double)got[i * ld + j] - want) <= bound,
                       "%s[%zu][%zu] is %.9g, expected %.9g", what, i, j, (double)got[i * ld + j],
                       want);
        }
    for (size_t i = 0; i + 1 < m; i++)
        for (size_t j = n; j < ld; j++)
            check_equal("gap", &got[i * ld + j], &before[i * ld + j], 1);
}

/* y or dx of a range of outputs [first, first + n): W's rows forward, its columns backward. */
static void product(const struct hm_kernels *k, const struct matrix *matrix, enum hm_pack side,
                    size_t m, size_t first, size_t n, bool add)
{
    bool forward = side == HM_PACK_FORWARD;
    size_t cols = matrix->w.cols, depth = forward ? cols : matrix->w.rows;
    size_t ldx = depth + check_below(3), ld = n + check_below(3), size_out = (m - 1) * ld + n;
    float *x = check_normals((m - 1) * ldx + depth, 1);
    float *out = add ? check_normals(size_out, 1) : check_floats(size_out);
    float *before = check_copy(out, size_out * sizeof(*out));
    double *sum = calloc(m * n, sizeof(double)), *size = calloc(m * n, sizeof(double));
    uint16_t *packed = packed_new(k, side, x, m, depth, ldx);
    void *scratch = aligned_alloc(64, HM_FROZEN_SCRATCH_BYTES);

    if (!forward)
        turned_check(k, x, m, depth, ldx, packed);
    memset(scratch, 0xff, HM_FROZEN_SCRATCH_BYTES);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t l = 0; l < depth; l++) {
                size_t at = forward ? (first + j) * cols + l : l * cols + first + j;
                double term = (double)hm_round_bf16(x[i * ldx + l]) * (double)matrix->value[at];
                sum[i * n + j] += term;
                size[i * n + j] += fabs(term);
            }
    (forward ? k->frozen_forward : k->frozen_backward)(&matrix->w, (uint32_t)first, (uint32_t)n,
                                                       packed, m, NULL, add, out, ld, scratch);
    output_check(forward ? "y" : "dx", out, before, m, n, ld, add, sum, size, depth);
    free(scratch);
    free(sum);
    free(size);
}

/* Sizes that paths cut into several passes, groups and chunks. */
static void several(const struct hm_kernels *k)
{
    static const struct {
        uint32_t rows, cols;
        size_t m;
        enum hm_pack side;
    } cases[] = {
        { 270, 4160, 130, HM_PACK_FORWARD }, { 1100, 640, 130, HM_PACK_BACKWARD },
        { 70, 192, 300, HM_PACK_FORWARD },   { 70, 192, 300, HM_PACK_BACKWARD },
        { 40, 2240, 70, HM_PACK_FORWARD },   { 1090, 64, 70, HM_PACK_BACKWARD },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct matrix matrix = matrix_new(HM_FROZEN_NF4, cases[i].rows, cases[i].cols, 64, i % 2);
        bool forward = cases[i].side == HM_PACK_FORWARD;
        check_context("%s frozen %ux%u m %zu", k->name, cases[i].rows, cases[i].cols, cases[i].m);
        product(k, &matrix, cases[i].side, cases[i].m, 0, forward ? cases[i].rows : cases[i].cols,
                true);
        check_release();
    }
}

/* A value of one row that is no number, infinite, or becomes so when it is rounded: its row of the
 * result tells, the others do not know. */
static void overflowing(const struct hm_kernels *k)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY, 3.397e38f /* above the largest bf16 */ };
    static const size_t m_sizes[] = { 1, 7, 16, 50, 130 };
    enum { ROWS = 70, COLS = 192 };
    void *scratch = aligned_alloc(64, HM_FROZEN_SCRATCH_BYTES);

    for (size_t c = 0; c < 2 * 5 * 4; c++) {
        bool forward = c % 2;
        size_t m = m_sizes[c / 2 % 5], depth = forward ? COLS : ROWS, n = forward ? ROWS : COLS;
        enum hm_pack side = forward ? HM_PACK_FORWARD : HM_PACK_BACKWARD;
        struct matrix matrix =
            matrix_new(c % 3 ? HM_FROZEN_NF4 : HM_FROZEN_BF16, ROWS, COLS, 64, c % 3 == 1);
        float *x = check_normals(m * depth, 1),
              *y[2] = { check_floats(m * n), check_floats(m * n) };
        size_t row = check_below(m);
        check_context("%s frozen m %zu, row %zu holds %g", k->name, m, row, (double)bad[c / 10]);
        for (int i = 0; i < 2; i++) {
            uint16_t *packed = packed_new(k, side, x, m, depth, depth);
            (forward ? k->frozen_forward : k->frozen_backward)(&matrix.w, 0, (uint32_t)n, packed, m,
                                                               NULL, false, y[i], n, scratch);
            x[row * depth + check_below(depth)] = bad[c / 10];
        }
        for (size_t j = 0; j < n; j++)
            check_that(!isfinite(y[1][row * n + j]), "output %zu is %g", j,
                       (double)y[1][row * n + j]);
        check_equal("rows before", y[1], y[0], row * n);
        check_equal("rows after", y[1] + (row + 1) * n, y[0] + (row + 1) * n, (m - row - 1) * n);
        check_release();
    }
    free(scratch);
}

static void all(const struct hm_kernels *k)
{
    static const size_t m_sizes[] = { 1, 2, 3, 5, 8, 9, 15, 16, 17, 23, 27, 31, 40, 44, 65, 130 };
    static const struct {
        uint32_t rows, cols, blocksize;
        bool nested;
        enum hm_frozen_layout layout;
    } cases[] = {
        { 70, 192, 64, true, HM_FROZEN_NF4 },   { 33, 256, 128, false, HM_FROZEN_NF4 },
        { 129, 64, 64, true, HM_FROZEN_NF4 },   { 1, 128, 64, false, HM_FROZEN_NF4 },
        { 47, 320, 64, false, HM_FROZEN_BF16 }, { 300, 128, 64, true, HM_FROZEN_NF4 },
        { 40, 1088, 64, true, HM_FROZEN_NF4 },  { 600, 64, 0, false, HM_FROZEN_BF16 },
        { 25, 1536, 192, true, HM_FROZEN_NF4 }, { 1031, 128, 128, true, HM_FROZEN_NF4 },
    };

    if (!k->frozen_forward)
        return;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++)
        for (size_t i = 0; i < sizeof(m_sizes) / sizeof(m_sizes[0]); i++) {
            const uint32_t rows = cases[c].rows, cols = cases[c].cols;
            struct matrix matrix =
                matrix_new(cases[c].layout, rows, cols, cases[c].blocksize, cases[c].nested);
            size_t m = m_sizes[i], row0 = check_below(rows), col0 = 64 * check_below(cols / 64);
            size_t n_rows = 1 + check_below(rows - row0);
            size_t n_cols = 64 * (1 + check_below((cols - col0) / 64));
            check_context("%s frozen case %zu m %zu rows %zu+%zu columns %zu+%zu", k->name, c, m,
                          row0, n_rows, col0, n_cols);
            product(k, &matrix, HM_PACK_FORWARD, m, 0, rows, false);
            product(k, &matrix, HM_PACK_FORWARD, m, row0, n_rows, true);
            product(k, &matrix, HM_PACK_BACKWARD, m, 0, cols, false);
            product(k, &matrix, HM_PACK_BACKWARD, m, col0, n_cols, true);
            check_release();
        }
    several(k);
    overflowing(k);
}

#if defined(HM_TILE_EMULATION)
static void emulated(const struct hm_kernels *ref)
{
    struct hm_kernels kernels = *ref;

    hm_kernels_fill_emulated(&kernels);
    kernels.name = "amx emulated";
    all(&kernels);
}

static void none(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    (void)ref;
    (void)path;
}

int main(int argc, char **argv)
{
    const unsigned needed = HM_CPU_AVX512 | HM_CPU_AVX512VBMI | HM_CPU_AVX512BF16;

    if ((hm_cpu_flags() & needed) != needed) {
        fprintf(stderr, "this CPU lacks AVX512-BF16 or VBMI, which surround the tiles\n");
        return 77;
    }
    return check_main(argc, argv, "frozen", emulated, none);
}
#else
/* Beyond the blocks of rows, outputs and inner sizes that any path works in; one call a side. */
static void large(const struct hm_kernels *k)
{
    static const struct {
        size_t m;
        uint32_t rows, cols;
        enum hm_frozen_layout layout;
    } cases[] = {
        { 1, 30, 9216, HM_FROZEN_NF4 },   { 7, 35, 9216, HM_FROZEN_NF4 },
        { 11, 1100, 320, HM_FROZEN_NF4 }, { 12, 20, 2688, HM_FROZEN_BF16 },
        { 13, 270, 2368, HM_FROZEN_NF4 }, { 50, 290, 1088, HM_FROZEN_NF4 },
        { 65, 281, 640, HM_FROZEN_BF16 }, { 531, 1029, 64, HM_FROZEN_NF4 },
        { 1047, 37, 576, HM_FROZEN_NF4 },
    };

    if (!k->frozen_forward || strcmp(k->name, "ref") == 0)
        return;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct matrix matrix =
            matrix_new(cases[c].layout, cases[c].rows, cases[c].cols, 64, c % 2 == 0);
        check_context("%s frozen large case %zu", k->name, c);
        product(k, &matrix, HM_PACK_FORWARD, cases[c].m, 0, cases[c].rows, true);
        product(k, &matrix, HM_PACK_BACKWARD, cases[c].m, 0, cases[c].cols, false);
        check_release();
    }
}

static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    (void)ref;
    all(path);
    large(path);
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "frozen", all, path);
}
#endif
