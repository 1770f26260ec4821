/* SPDX-License-Identifier: MIT */
/*
 * LoRA beside frozen products, every path that has it against f64 sums over the same rounded
 * operands: values from packed operands of both sides, what they add to products with W, gradients
 * of both factors; ranks from 1 to beyond all blocks, few rows and many, ranges, rows apart, NaN in
 * outputs and scratch. The bound is a rounding error per term of the sum of |products|, plus one of
 * bf16 where values are rounded.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#if defined(HM_TILE_EMULATION)
#include "hanmix/base/cpu.h"

#include "kernels/x86/x86.h"
#endif

struct problem {
    const struct hm_kernels *k;
    size_t m;
    uint32_t rank, rows, cols; /* of W */
    float *a, *b;              /* [rank][cols], [rows][rank] */
    void *scratch;
};

static float value_at(const uint16_t *low, size_t m, uint32_t rank, size_t row)
{
    return hm_bf16_to_f32(low[rank / 2 * hm_low_ld(m) + 2 * row + rank % 2]);
}

/* Packed in blocks of 48 rows. */
static uint16_t *packed_new(const struct problem *p, enum hm_pack side, const float *x, size_t k)
{
    uint16_t *packed = check_bytes(hm_pack_values(p->m, k) * sizeof(uint16_t));

    for (size_t row = 0; row < p->m; row += 48)
        p->k->frozen_pack(side, p->m, k, row, p->m - row < 48 ? p->m - row : 48, 0, k, x + row * k,
                          k, packed);
    return packed;
}

/* Random values of all rows, with zeros where the layout has padding. */
static uint16_t *values_new(const struct problem *p)
{
    uint16_t *low = check_bytes(hm_low_values(p->m, p->rank) * sizeof(*low));
    float *random = check_normals(hm_low_values(p->m, p->rank), 1);

    for (size_t i = 0; i < hm_low_values(p->m, p->rank); i++) {
        size_t pair = i / hm_low_ld(p->m), row = i % hm_low_ld(p->m) / 2;
        bool inside = 2 * pair + i % 2 < p->rank && row < p->m;
        low[i] = inside ? hm_f32_to_bf16(random[i]) : 0;
    }
    return low;
}

static void near_check(const char *what, float got, double want, double size, size_t terms,
                       bool rounded)
{
    double bound = 6e-8 * (double)(terms + 4) * size + (rounded ? fabs(want) / 256 : 0) + 1e-30;

    check_that(fabs((double)got - want) <= bound, "%s is %.9g, expected %.9g", what, (double)got,
               want);
}

static void values_check(const struct problem *p, enum hm_pack side, const float *x,
                         const uint16_t *low)
{
    const bool forward = side == HM_PACK_FORWARD;
    const size_t k = forward ? p->cols : p->rows, ld = hm_low_ld(p->m);
    const float *factor = forward ? p->a : p->b;

    for (uint32_t r = 0; r < (p->rank + 1) / 2 * 2; r++)
        for (size_t i = 0; i < ld / 2; i++) {
            double sum = 0, size = 0;
            for (size_t j = 0; r < p->rank && i < p->m && j < k; j++) {
                float f = factor[forward ? r * k + j : j * p->rank + r];
                double term = (double)hm_round_bf16(x[i * k + j]) * (double)hm_round_bf16(f) / 2;
                sum += term;
                size += fabs(term);
            }
            near_check(forward ? "u" : "v", value_at(low, p->m, r, i), sum, size, k, true);
        }
}

/* Values of both sides in blocks of 32 rows, in one piece and by parts of 128 columns. */
static void project(const struct problem *p, enum hm_pack side)
{
    const bool forward = side == HM_PACK_FORWARD;
    const uint32_t k = forward ? p->cols : p->rows;
    const float *factor = forward ? p->a : p->b;
    const size_t step = p->m <= 12 ? p->m : 32, stride = hm_low_sums(p->m, p->rank);
    float *x = check_normals(p->m * k, 1);
    uint16_t *packed = packed_new(p, side, x, k);
    uint16_t *low = check_bytes(hm_low_values(p->m, p->rank) * sizeof(*low));
    float *sums = check_bytes((k + 127) / 128 * stride * sizeof(*sums));

    memset(low, 0xff, hm_low_values(p->m, p->rank) * sizeof(*low));
    for (size_t row = 0; row < p->m; row += step)
        p->k->low_project(side, factor, p->rank, 0.5f, packed, p->m, k, row,
                          p->m - row < step ? p->m - row : step, low + 2 * row, hm_low_ld(p->m),
                          p->scratch);
    values_check(p, side, x, low);
    if (p->m <= HM_PACK_ROWS || p->rank > HM_LOW_SUM_RANKS)
        return;
    memset(low, 0xff, hm_low_values(p->m, p->rank) * sizeof(*low));
    for (uint32_t col = 0; col < k; col += 128)
        p->k->low_sums(side, factor, p->rank, packed, p->m, k, col, k - col < 128 ? k - col : 128,
                       sums + col / 128 * stride, p->scratch);
    for (size_t row = 0; row < p->m; row += step)
        p->k->low_join(sums, stride, (k + 127) / 128, p->rank, 0.5f, row,
                       p->m - row < step ? p->m - row : step, low + 2 * row, hm_low_ld(p->m));
    values_check(p, side, x, low);
}

/* A product with W and the low-rank one, less what it is without. */
static void joined(const struct problem *p, enum hm_pack side)
{
    const bool forward = side == HM_PACK_FORWARD;
    const size_t k = forward ? p->cols : p->rows, outputs = forward ? p->rows : p->cols;
    const uint32_t first = forward ? check_below(p->rows) : 64 * check_below(p->cols / 64);
    const uint32_t n = (uint32_t)outputs - first;
    float *weight = check_normals((size_t)p->rows * p->cols, 0.05);
    uint16_t *w_data = check_bytes((size_t)p->rows * p->cols * sizeof(uint16_t));
    float *x = check_normals(p->m * k, 1), *out = check_normals(p->m * n, 1);
    float *before = check_copy(out, p->m * n * sizeof(*out));
    uint16_t *packed = packed_new(p, side, x, k), *value = values_new(p);
    const struct hm_low_rank low = { p->rank, forward ? p->b : p->a, value };

    for (size_t i = 0; i < (size_t)p->rows * p->cols; i++)
        w_data[i] = hm_f32_to_bf16(weight[i]);
    const struct hm_frozen w = {
        .layout = HM_FROZEN_BF16, .rows = p->rows, .cols = p->cols, .data = (const uint8_t *)w_data
    };
    (forward ? p->k->frozen_forward : p->k->frozen_backward)(&w, first, n, packed, p->m, &low, true,
                                                             out, n, p->scratch);
    for (size_t i = 0; i < p->m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = (double)before[i * n + j], size = fabs(sum);
            for (size_t l = 0; l < k; l++) {
                size_t at = forward ? (first + j) * k + l : l * p->cols + first + j;
                double term =
                    (double)hm_round_bf16(x[i * k + l]) * (double)hm_bf16_to_f32(w_data[at]);
                sum += term;
                size += fabs(term);
            }
            for (uint32_t r = 0; r < p->rank; r++) {
                float f = forward ? p->b[(first + j) * p->rank + r] : p->a[r * p->cols + first + j];
                double term = (double)value_at(value, p->m, r, i) * (double)hm_round_bf16(f);
                sum += term;
                size += fabs(term);
            }
            near_check(forward ? "y" : "dx", out[i * n + j], sum, size, k + p->rank, false);
        }
}

/* Up to three factors of different ranks at once. */
static void a_gradient(const struct problem *p)
{
    const size_t ldx = p->cols + check_below(3), ld = p->cols + check_below(3);
    const unsigned n_parts = 1 + (unsigned)check_below(HM_LOW_PARTS);
    float *x = check_normals((p->m - 1) * ldx + p->cols, 1), *before[HM_LOW_PARTS];
    struct hm_low_part part[HM_LOW_PARTS];

    for (unsigned i = 0; i < n_parts; i++) {
        struct problem one = *p;
        one.rank = i == 0 ? p->rank : 1 + (uint32_t)check_below(40);
        float *grad = check_normals((one.rank - 1) * ld + p->cols, 1);
        before[i] = check_copy(grad, ((one.rank - 1) * ld + p->cols) * sizeof(*grad));
        part[i] = (struct hm_low_part){ values_new(&one), one.rank, grad };
    }
    p->k->low_a_gradient(x, ldx, p->m, p->cols, part, n_parts, ld, p->scratch);
    for (unsigned n = 0; n < n_parts; n++)
        for (uint32_t r = 0; r < part[n].rank; r++)
            for (uint32_t j = 0; j < p->cols; j++) {
                double sum = (double)before[n][r * ld + j], size = fabs(sum);
                for (size_t i = 0; i < p->m; i++) {
                    double term = (double)value_at(part[n].value, p->m, r, i) *
                                  (double)hm_round_bf16(x[i * ldx + j]);
                    sum += term;
                    size += fabs(term);
                }
                near_check("dA", part[n].grad[r * ld + j], sum, size, p->m, false);
            }
}

static void b_gradient(const struct problem *p)
{
    const uint32_t col0 = 64 * check_below((p->rows + 63) / 64);
    const uint32_t n = 1 + check_below(p->rows - col0);
    float *dy = check_normals(p->m * p->rows, 1);
    float *grad = check_normals((size_t)n * p->rank, 1);
    float *before = check_copy(grad, (size_t)n * p->rank * sizeof(*grad));
    uint16_t *packed = packed_new(p, HM_PACK_BACKWARD, dy, p->rows), *value = values_new(p);

    p->k->low_b_gradient(packed, p->m, p->rows, col0, n, value, p->rank, grad, p->scratch);
    for (uint32_t j = 0; j < n; j++)
        for (uint32_t r = 0; r < p->rank; r++) {
            double sum = (double)before[(size_t)j * p->rank + r], size = fabs(sum);
            for (size_t i = 0; i < p->m; i++) {
                double term = (double)value_at(value, p->m, r, i) *
                              (double)hm_round_bf16(dy[i * p->rows + col0 + j]);
                sum += term;
                size += fabs(term);
            }
            near_check("dB", grad[(size_t)j * p->rank + r], sum, size, p->m, false);
        }
}

static void all(const struct hm_kernels *k)
{
    static const struct {
        size_t m;
        uint32_t rank, rows, cols;
    } cases[] = {
        { 1, 8, 70, 192 },    { 2, 1, 33, 64 },     { 7, 17, 47, 320 },  { 12, 64, 40, 128 },
        { 13, 3, 70, 192 },   { 16, 8, 129, 1088 }, { 33, 16, 600, 64 }, { 47, 5, 35, 640 },
        { 130, 8, 300, 320 }, { 65, 64, 81, 192 },  { 21, 256, 40, 64 }, { 17, 130, 530, 64 },
        { 259, 12, 70, 128 }, { 144, 9, 1, 576 },   { 20, 300, 30, 64 },
    };

    if (!k->low_project)
        return;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        struct problem p = { .k = k,
                             .m = cases[c].m,
                             .rank = cases[c].rank,
                             .rows = cases[c].rows,
                             .cols = cases[c].cols };
        p.a = check_normals((size_t)p.rank * p.cols, 0.1);
        p.b = check_normals((size_t)p.rows * p.rank, 0.1);
        p.scratch = aligned_alloc(64, HM_FROZEN_SCRATCH_BYTES);
        memset(p.scratch, 0xff, HM_FROZEN_SCRATCH_BYTES);
        check_context("%s low m %zu rank %u W %ux%u", k->name, p.m, p.rank, p.rows, p.cols);
        project(&p, HM_PACK_FORWARD);
        project(&p, HM_PACK_BACKWARD);
        joined(&p, HM_PACK_FORWARD);
        joined(&p, HM_PACK_BACKWARD);
        a_gradient(&p);
        b_gradient(&p);
        free(p.scratch);
        check_release();
    }
}

#if defined(HM_TILE_EMULATION)
static void emulated(const struct hm_kernels *ref)
{
    struct hm_kernels kernels = *ref;

    hm_kernels_init(&kernels, hm_cpu_flags() & ~(unsigned)HM_CPU_AMX_BF16);
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

    if ((hm_cpu_flags() & needed) != needed)
        return 77; /* what surrounds the tiles is not there */
    return check_main(argc, argv, "low", emulated, none);
}
#else
static void path(const struct hm_kernels *ref, const struct hm_kernels *path)
{
    (void)ref;
    all(path);
}

int main(int argc, char **argv)
{
    return check_main(argc, argv, "low", all, path);
}
#endif
