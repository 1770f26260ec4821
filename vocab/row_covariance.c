/* SPDX-License-Identifier: MIT */
/*
 * Mean and covariance of old rows as a distribution for new ones (Hewitt 2021, transformers'
 * mean_resizing). Centred rows meet in f32 products, block of rows by block of rows, whose results
 * are summed in f64; the lower triangle alone is made. The Cholesky factor is computed in place in
 * f64, right-looking by tiles, and handed out in f32. Tiles are the units of every loop and of a
 * fixed size, so the number of threads changes nothing.
 */
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/dtype.h"
#include "row_covariance.h"

#define CHUNK_ROWS 512u /* rows of one f32 product */
#define TILE       256u /* edge of a product's tile */
#define STEP       64u  /* edge of a tile of the factorisation */
/* A pivot below this share of its variance is rounding of f32 products. */
#define LEAST_PIVOT 1e-6

struct work {
    const struct hm_tensor *tensor;
    const double *mean;
    const struct hm_kernels *kernels;
    size_t dim; /* D */
    uint64_t first;
    size_t n;       /* rows of this chunk */
    float *chunk;   /* [CHUNK_ROWS][D] centred */
    float *product; /* [threads][TILE][TILE] */
    double *matrix; /* [D][D], lower triangle: C, then L */
    size_t step;    /* column at which the factorisation is */
};

/* --- covariance ------------------------------------------------------------------------------- */

static void centre_unit(void *context, size_t index, int worker)
{
    struct work *work = context;
    size_t row_bytes = work->dim * hm_dtype_bytes(work->tensor->dtype);
    float *row = work->chunk + index * work->dim;

    (void)worker;
    hm_floats_load(work->tensor->dtype, work->tensor->data + (work->first + index) * row_bytes,
                   work->dim, row);
    for (size_t d = 0; d < work->dim; d++)
        row[d] = (float)((double)row[d] - work->mean[d]);
}

/* Unit number -> tile (row, column) of a lower triangle. */
static void tile_of(size_t index, size_t *ret_row, size_t *ret_column)
{
    size_t row = 0;

    while ((row + 1) * (row + 2) / 2 <= index)
        row++;
    *ret_row = row;
    *ret_column = index - row * (row + 1) / 2;
}

static void product_unit(void *context, size_t index, int worker)
{
    struct work *work = context;
    float *product = work->product + (size_t)worker * TILE * TILE;
    size_t i, j;

    tile_of(index, &i, &j);
    i *= TILE;
    j *= TILE;
    size_t m = hm_least(TILE, work->dim - i);
    size_t n = hm_least(TILE, work->dim - j);
    work->kernels->gemm_tn(m, n, work->n, 1, work->chunk + i, work->dim, work->chunk + j, work->dim,
                           0, product, TILE);
    for (size_t r = 0; r < m; r++) {
        double *sum = work->matrix + (i + r) * work->dim + j;
        for (size_t c = 0; c < n; c++)
            sum[c] += (double)product[r * TILE + c];
    }
}

static int covariance_make(struct work *work, const struct hm_checkpoint *ckpt, uint64_t n_rows,
                           const struct hm_ctl *ctl, struct hm_error *err)
{
    size_t edge = hm_units(work->dim, TILE);
    size_t row_bytes = work->dim * hm_dtype_bytes(work->tensor->dtype);

    for (uint64_t row = 0; row < n_rows; row += CHUNK_ROWS) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "growing the vocabulary was stopped");
        work->first = row;
        work->n = n_rows - row < CHUNK_ROWS ? (size_t)(n_rows - row) : CHUNK_ROWS;
        hm_parallel_for(work->n, centre_unit, work);
        hm_parallel_for(edge * (edge + 1) / 2, product_unit, work);
        hm_checkpoint_drop(ckpt, work->tensor, row * row_bytes, work->n * row_bytes);
    }
    for (size_t i = 0; i < work->dim; i++)
        for (size_t j = 0; j <= i; j++)
            work->matrix[i * work->dim + j] /= (double)n_rows;
    return HM_OK;
}

/* --- Cholesky --------------------------------------------------------------------------------- */

/* The diagonal tile; false where a pivot is nothing beside its variance. */
static bool diagonal_factor(const struct work *work, const double *variance)
{
    size_t at = work->step;
    size_t end = at + hm_least(STEP, work->dim - at);

    for (size_t j = at; j < end; j++) {
        double *row_j = work->matrix + j * work->dim;
        double pivot = row_j[j];
        for (size_t p = at; p < j; p++)
            pivot -= row_j[p] * row_j[p];
        if (!(pivot > LEAST_PIVOT * variance[j]))
            return false;
        row_j[j] = sqrt(pivot);
        for (size_t i = j + 1; i < end; i++) {
            double *row_i = work->matrix + i * work->dim;
            double sum = row_i[j];
            for (size_t p = at; p < j; p++)
                sum -= row_i[p] * row_j[p];
            row_i[j] = sum / row_j[j];
        }
    }
    return true;
}

/* A row below the diagonal tile: x L^T = row. */
static void solve_unit(void *context, size_t index, int worker)
{
    struct work *work = context;
    size_t at = work->step;
    double *row = work->matrix + (at + STEP + index) * work->dim;

    (void)worker;
    for (size_t j = at; j < at + STEP; j++) {
        const double *row_j = work->matrix + j * work->dim;
        double sum = row[j];
        for (size_t p = at; p < j; p++)
            sum -= row[p] * row_j[p];
        row[j] = sum / row_j[j];
    }
}

/* A tile of the rest: C_ij -= L_i L_j^T over the columns of this step. */
static void update_unit(void *context, size_t index, int worker)
{
    struct work *work = context;
    size_t dim = work->dim;
    size_t rest = work->step + STEP;
    double turned[STEP][STEP]; /* [p][j], so that the innermost loop runs along rows */
    size_t i, j;

    (void)worker;
    tile_of(index, &i, &j);
    i = rest + i * STEP;
    j = rest + j * STEP;
    size_t m = hm_least(STEP, dim - i);
    size_t n = hm_least(STEP, dim - j);
    memset(turned, 0, sizeof(turned));
    for (size_t c = 0; c < n; c++)
        for (size_t p = 0; p < STEP; p++)
            turned[p][c] = work->matrix[(j + c) * dim + work->step + p];
    for (size_t r = 0; r < m; r++) {
        const double *left = work->matrix + (i + r) * dim + work->step;
        double sum[STEP] = { 0 };
        for (size_t p = 0; p < STEP; p++)
            for (size_t c = 0; c < STEP; c++)
                sum[c] += left[p] * turned[p][c];
        double *out = work->matrix + (i + r) * dim + j;
        for (size_t c = 0; c < n; c++)
            out[c] -= sum[c];
    }
}

static int factorise(struct work *work, const double *variance, const struct hm_ctl *ctl,
                     bool *ret_definite, struct hm_error *err)
{
    *ret_definite = false;
    for (work->step = 0; work->step < work->dim; work->step += STEP) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "growing the vocabulary was stopped");
        if (!diagonal_factor(work, variance))
            return HM_OK;
        size_t below = work->step + STEP;
        if (below >= work->dim)
            break;
        size_t edge = hm_units(work->dim - below, STEP);
        hm_parallel_for(work->dim - below, solve_unit, work);
        hm_parallel_for(edge * (edge + 1) / 2, update_unit, work);
    }
    *ret_definite = true;
    return HM_OK;
}

/* --- outside ---------------------------------------------------------------------------------- */

int hm_row_covariance(const struct hm_checkpoint *ckpt, const struct hm_tensor *tensor,
                      uint64_t n_rows, const double *mean, const struct hm_kernels *kernels,
                      const struct hm_ctl *ctl, float **ret_factor, struct hm_error *err)
{
    struct work work = {
        .tensor = tensor, .mean = mean, .kernels = kernels, .dim = (size_t)tensor->shape[1]
    };
    size_t dim = work.dim;
    double *variance = hm_calloc(HM_MEM_TENSOR, dim, sizeof(double));
    float *factor = NULL;
    bool definite = false;
    int status = HM_OK;

    work.chunk = hm_calloc(HM_MEM_TENSOR, CHUNK_ROWS * dim, sizeof(float));
    work.product =
        hm_calloc(HM_MEM_TENSOR, (size_t)hm_threads() * TILE * TILE, sizeof(*work.product));
    work.matrix = hm_calloc(HM_MEM_TENSOR, dim * dim, sizeof(double));
    if (!variance || !work.chunk || !work.product || !work.matrix) {
        status = hm_fail_nomem(err, "for the covariance of '%s'", tensor->name);
        goto out;
    }
    status = covariance_make(&work, ckpt, n_rows, ctl, err);
    for (size_t d = 0; d < dim; d++)
        variance[d] = work.matrix[d * dim + d];
    if (status == HM_OK)
        status = factorise(&work, variance, ctl, &definite, err);
    if (status == HM_OK && definite) {
        factor = hm_calloc(HM_MEM_TENSOR, dim * dim, sizeof(float));
        if (!factor)
            status = hm_fail_nomem(err, "for the covariance of '%s'", tensor->name);
    }
    for (size_t i = 0; factor && i < dim; i++)
        for (size_t j = 0; j <= i; j++)
            factor[i * dim + j] = (float)work.matrix[i * dim + j];
    if (status == HM_OK)
        *ret_factor = factor;
out:
    hm_free(variance);
    hm_free(work.chunk);
    hm_free(work.product);
    hm_free(work.matrix);
    return status;
}

struct draw {
    const float *factor;
    size_t dim, n;
    float scale;
    struct hm_rng_key key;
    uint64_t first_row;
    const struct hm_kernels *kernels;
    float *z, *out;
};

static void normal_unit(void *context, size_t index, int worker)
{
    struct draw *draw = context;
    uint64_t counter = (draw->first_row + index) * draw->dim;

    (void)worker;
    for (size_t d = 0; d < draw->dim; d++)
        draw->z[index * draw->dim + d] = (float)hm_rng_normal(draw->key, counter + d);
}

/* Some columns of all rows; L ends at the diagonal. */
static void draw_unit(void *context, size_t index, int worker)
{
    struct draw *draw = context;
    size_t first = index * TILE;
    size_t n = hm_least(TILE, draw->dim - first);

    (void)worker;
    draw->kernels->gemm_nt(draw->n, n, first + n, draw->scale, draw->z, draw->dim,
                           draw->factor + first * draw->dim, draw->dim, 0, draw->out + first,
                           draw->dim);
}

void hm_row_draw(const float *factor, size_t dim, double scale, struct hm_rng_key key,
                 uint64_t first_row, size_t n, const struct hm_kernels *kernels, float *z,
                 float *out)
{
    struct draw draw = { .factor = factor,
                         .dim = dim,
                         .n = n,
                         .scale = (float)sqrt(scale),
                         .key = key,
                         .first_row = first_row,
                         .kernels = kernels,
                         .z = z,
                         .out = out };

    hm_parallel_for(n, normal_unit, &draw);
    hm_parallel_for(hm_units(dim, TILE), draw_unit, &draw);
}

uint64_t hm_row_covariance_bytes(uint64_t dim)
{
    return dim * dim * (sizeof(double) + sizeof(float)) + CHUNK_ROWS * dim * sizeof(float) +
           (uint64_t)hm_threads() * TILE * TILE * sizeof(float);
}
