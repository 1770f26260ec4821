/* SPDX-License-Identifier: MIT */
/*
 * What new rows of embed_tokens and lm_head hold, by the rules of embed_resize.h, from the old rows
 * that a plan names (row_plan.c). Means are summed in f64 and rounded once, those of the published
 * script after every step. Noise is scaled by the deviation of each column; draws are
 * row_covariance.c. A value depends on (seed, matrix, row, column) alone, so threads change
 * nothing; pages of the old matrix are given back as they pass.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embed_rows.h"
#include "hanmix/base/parallel.h"
#include "row_covariance.h"

#define STATS_ROWS  512u /* rows summed by one unit */
#define BLOCK_ROWS  256u /* new rows made at once */
#define WRITE_BYTES (8u << 20)

/* --- values ----------------------------------------------------------------------------------- */

struct rows {
    const struct hm_row_plan *plan;
    const struct hm_resize_options *options;
    const struct hm_grown_matrix *matrix;
    const struct hm_tensor *tensor;
    struct hm_kernels kernels; /* of draws */
    size_t dim;                /* D */
    size_t row_bytes;
    double *mean;              /* [D] of the old rows */
    double *deviation;         /* [D] */
    double *partial;           /* [units][2][D] */
    float *read;               /* [threads][D] */
    double *sum;               /* [threads][D] */
    uint8_t *block;            /* [BLOCK_ROWS][row_bytes] */
    bool infinite[BLOCK_ROWS]; /* rows of the block that the dtype cannot hold */
    uint64_t block_first;
    uint64_t *hash;  /* [pieces - first_new] */
    float *factor;   /* NORMAL: [D][D], NULL where means are taken */
    float *z, *draw; /* NORMAL: [BLOCK_ROWS][D] */
};

static void row_read(const struct rows *rows, uint64_t row, float *out)
{
    hm_floats_load(rows->tensor->dtype, rows->tensor->data + row * rows->row_bytes, rows->dim, out);
}

/* Sums and sums of squares of some rows. */
static void stats_unit(void *context, size_t index, int worker)
{
    struct rows *rows = context;
    double *sum = rows->partial + 2 * index * rows->dim;
    double *square = sum + rows->dim;
    float *value = rows->read + (size_t)worker * rows->dim;
    uint64_t first = index * (uint64_t)STATS_ROWS;
    uint64_t end = first + STATS_ROWS;

    if (end > rows->plan->old_pieces)
        end = rows->plan->old_pieces;
    for (uint64_t row = first; row < end; row++) {
        row_read(rows, row, value);
        for (size_t d = 0; d < rows->dim; d++) {
            sum[d] += (double)value[d];
            square[d] += (double)value[d] * (double)value[d];
        }
    }
    hm_checkpoint_drop(rows->matrix->ckpt, rows->tensor, first * rows->row_bytes,
                       (end - first) * rows->row_bytes);
}

/* The first of some old rows that holds something else than numbers. */
static int finite_check(const struct rows *rows, uint64_t first, uint64_t end, struct hm_error *err)
{
    float *value = rows->read;

    for (uint64_t row = first; row < end; row++) {
        size_t column = 0;
        for (row_read(rows, row, value); column < rows->dim && isfinite(value[column]);)
            column++;
        if (column < rows->dim)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' holds %s in row %" PRIu64
                           ", column %zu, expected numbers: take a sound copy of the model",
                           rows->matrix->ckpt->file[rows->tensor->file].path, rows->tensor->name,
                           isnan(value[column]) ? "NaN" : "infinity", row, column);
    }
    return HM_OK;
}

static int stats_make(struct rows *rows, struct hm_error *err)
{
    double n = (double)rows->plan->old_pieces;
    size_t units = hm_units(rows->plan->old_pieces, STATS_ROWS);

    rows->partial = hm_calloc(HM_MEM_TENSOR, units * 2 * rows->dim, sizeof(double));
    if (!rows->partial)
        return hm_fail_nomem(err, "for the mean of '%s'", rows->tensor->name);
    hm_parallel_for(units, stats_unit, rows);
    for (size_t d = 0; d < rows->dim; d++) {
        double sum = 0;
        double square = 0;
        for (size_t i = 0; i < units; i++) {
            sum += rows->partial[2 * i * rows->dim + d];
            square += rows->partial[(2 * i + 1) * rows->dim + d];
        }
        if (!isfinite(square))
            return finite_check(rows, 0, rows->plan->old_pieces, err);
        rows->mean[d] = sum / n;
        double variance = square / n - rows->mean[d] * rows->mean[d];
        rows->deviation[d] = variance > 0 ? sqrt(variance) : 0;
    }
    return HM_OK;
}

/*
 * To f32 with the last bit telling whether anything was lost: rounding that to bf16 or f16 gives
 * the f64 value rounded once.
 */
static float round_to_odd(double value)
{
    float rounded = (float)value;
    uint32_t bits;

    if ((double)rounded == value)
        return rounded;
    memcpy(&bits, &rounded, sizeof(bits));
    if (fabs((double)rounded) > fabs(value))
        bits--;
    bits |= 1;
    memcpy(&rounded, &bits, sizeof(bits));
    return rounded;
}

/* sum([row of each token]) / len as torch does it in the matrix's dtype. */
static void row_mean_upstream(const struct rows *rows, size_t first, size_t after, float *read,
                              double *sum, uint8_t *scratch)
{
    enum hm_dtype dtype = rows->tensor->dtype;

    memset(sum, 0, rows->dim * sizeof(*sum));
    for (size_t i = first; i <= after; i++) {
        if (i < after)
            row_read(rows, (uint64_t)rows->plan->ids.id[i], read);
        for (size_t d = 0; d < rows->dim; d++)
            read[d] = i < after ? (float)sum[d] + read[d] : (float)sum[d] / (float)(after - first);
        hm_floats_store(dtype, read, rows->dim, scratch);
        hm_floats_load(dtype, scratch, rows->dim, read);
        for (size_t d = 0; d < rows->dim; d++)
            sum[d] = (double)read[d];
    }
}

/* The mean of a new row's old rows, weighted or not; of all old rows where it has none. */
static void row_mean(const struct rows *rows, uint64_t row, float *read, double *sum,
                     uint8_t *scratch)
{
    const struct hm_row_plan *plan = rows->plan;
    size_t first = row < plan->pieces ? plan->first[row - plan->first_new] : 0;
    size_t after = row < plan->pieces ? plan->first[row - plan->first_new + 1] : 0;
    bool weighted = rows->options->init == HM_RESIZE_WEIGHTED;
    double total = 0;

    if (first == after) {
        memcpy(sum, rows->mean, rows->dim * sizeof(*sum));
        return;
    }
    if (rows->options->init == HM_RESIZE_MEAN_UPSTREAM) {
        row_mean_upstream(rows, first, after, read, sum, scratch);
        return;
    }
    memset(sum, 0, rows->dim * sizeof(*sum));
    for (size_t i = first; i < after; i++) {
        size_t place = rows->matrix->head ? i - first + 1 : after - i;
        double weight = weighted ? 1.0 / (double)place : 1.0;
        row_read(rows, (uint64_t)plan->ids.id[i], read);
        for (size_t d = 0; d < rows->dim; d++)
            sum[d] += weight * (double)read[d];
        total += weight;
    }
    for (size_t d = 0; d < rows->dim; d++)
        sum[d] /= total;
}

/* What is added to a made row: noise beside its mean, or its draw. */
static void row_scatter(const struct rows *rows, uint64_t row, double *sum)
{
    enum hm_resize_init init = rows->options->init;
    double noise = rows->options->noise;
    const float *draw = rows->factor ? rows->draw + (row - rows->block_first) * rows->dim : NULL;

    for (size_t d = 0; draw && d < rows->dim; d++)
        sum[d] += (double)draw[d];
    if (init != HM_RESIZE_MEAN && init != HM_RESIZE_WEIGHTED && init != HM_RESIZE_COPY)
        return;
    for (size_t d = 0; noise > 0 && d < rows->dim; d++)
        sum[d] +=
            noise * rows->deviation[d] * hm_rng_normal(rows->matrix->key, row * rows->dim + d);
}

static void row_unit(void *context, size_t index, int worker)
{
    struct rows *rows = context;
    const struct hm_row_plan *plan = rows->plan;
    uint64_t row = rows->block_first + index;
    float *read = rows->read + (size_t)worker * rows->dim;
    double *sum = rows->sum + (size_t)worker * rows->dim;
    uint8_t *out = rows->block + index * rows->row_bytes;
    bool piece = row < plan->pieces; /* else padding */

    if (piece && plan->moved[row - plan->first_new]) {
        int32_t old = plan->ids.id[plan->first[row - plan->first_new]];
        memcpy(out, rows->tensor->data + (size_t)old * rows->row_bytes, rows->row_bytes);
    } else if (piece && rows->options->init == HM_RESIZE_ZERO) {
        memset(out, 0, rows->row_bytes);
    } else {
        row_mean(rows, row, read, sum, out);
        if (piece)
            row_scatter(rows, row, sum);
        for (size_t d = 0; d < rows->dim; d++)
            read[d] = rows->tensor->dtype == HM_DTYPE_F32 ? (float)sum[d] : round_to_odd(sum[d]);
        hm_floats_store(rows->tensor->dtype, read, rows->dim, out);
        hm_floats_load(rows->tensor->dtype, out, rows->dim, read);
        rows->infinite[index] = false;
        for (size_t d = 0; d < rows->dim; d++)
            rows->infinite[index] |= !isfinite(read[d]);
    }
    if (piece)
        rows->hash[row - plan->first_new] = hm_hash64(out, rows->row_bytes, 0);
}

/* --- writing ---------------------------------------------------------------------------------- */

static int stopped(const struct hm_ctl *ctl, struct hm_error *err)
{
    if (hm_ctl_stopped(ctl))
        return hm_fail(err, HM_ERR_STOPPED, "growing the vocabulary was stopped");
    return HM_OK;
}

static int old_write(const struct rows *rows, uint64_t first, uint64_t after,
                     const struct hm_ctl *ctl, struct hm_st_writer *writer, struct hm_error *err)
{
    uint64_t end = after * rows->row_bytes;

    for (uint64_t at = first * rows->row_bytes; at < end; at += WRITE_BYTES) {
        uint64_t bytes = end - at < WRITE_BYTES ? end - at : WRITE_BYTES;
        HM_TRY(stopped(ctl, err));
        HM_TRY(hm_st_writer_data(writer, rows->tensor->data + at, (size_t)bytes, err));
        hm_checkpoint_drop(rows->matrix->ckpt, rows->tensor, at, bytes);
    }
    return HM_OK;
}

static int made_write(struct rows *rows, uint64_t first, uint64_t after, const struct hm_ctl *ctl,
                      struct hm_st_writer *writer, struct hm_error *err)
{
    for (uint64_t row = first; row < after; row += BLOCK_ROWS) {
        size_t n = after - row < BLOCK_ROWS ? (size_t)(after - row) : BLOCK_ROWS;
        HM_TRY(stopped(ctl, err));
        rows->block_first = row;
        if (rows->factor)
            hm_row_draw(rows->factor, rows->dim, rows->options->scale, rows->matrix->key, row, n,
                        &rows->kernels, rows->z, rows->draw);
        hm_parallel_for(n, row_unit, rows);
        for (size_t i = 0; i < n; i++)
            if (rows->infinite[i])
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': the new row %" PRIu64 " of '%s' is beyond the range of %s: "
                               "take init=mean with noise=0, which stays within that of old rows",
                               rows->matrix->ckpt->dir, row + i, rows->tensor->name,
                               hm_dtype_name(rows->tensor->dtype));
        HM_TRY(hm_st_writer_data(writer, rows->block, n * rows->row_bytes, err));
    }
    return HM_OK;
}

static int hash_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint64_t duplicates_count(struct rows *rows)
{
    size_t n = (size_t)(rows->plan->pieces - rows->plan->first_new);
    uint64_t count = 0;

    qsort(rows->hash, n, sizeof(*rows->hash), hash_order);
    for (size_t i = 1; i < n; i++)
        count += rows->hash[i] == rows->hash[i - 1];
    return count;
}

/* What drawing rows needs besides their mean. */
static int draw_prepare(struct rows *rows, const struct hm_ctl *ctl, struct hm_error *err)
{
    if (rows->options->kernels)
        rows->kernels = *rows->options->kernels;
    else
        hm_kernels_reference(&rows->kernels);
    rows->z = hm_calloc(HM_MEM_TENSOR, BLOCK_ROWS * rows->dim, sizeof(float));
    rows->draw = hm_calloc(HM_MEM_TENSOR, BLOCK_ROWS * rows->dim, sizeof(float));
    if (!rows->z || !rows->draw)
        return hm_fail_nomem(err, "for the rows of '%s'", rows->tensor->name);
    return hm_row_covariance(rows->matrix->ckpt, rows->tensor, rows->plan->old_pieces, rows->mean,
                             &rows->kernels, ctl, &rows->factor, err);
}

static int all_write(struct rows *rows, const struct hm_ctl *ctl, struct hm_st_writer *writer,
                     struct hm_error *err)
{
    const struct hm_row_plan *plan = rows->plan;

    HM_TRY(stats_make(rows, err));
    HM_TRY(finite_check(rows, plan->pieces, plan->kept, err)); /* padding that stays */
    if (rows->options->init == HM_RESIZE_NORMAL)
        HM_TRY(draw_prepare(rows, ctl, err));
    HM_TRY(old_write(rows, 0, plan->first_new, ctl, writer, err));
    HM_TRY(made_write(rows, plan->first_new, plan->pieces, ctl, writer, err));
    HM_TRY(old_write(rows, plan->pieces, plan->kept, ctl, writer, err));
    return made_write(rows, plan->kept, plan->rows, ctl, writer, err);
}

int hm_rows_write(const struct hm_row_plan *plan, const struct hm_resize_options *options,
                  struct hm_grown_matrix *matrix, const struct hm_ctl *ctl,
                  struct hm_st_writer *writer, struct hm_error *err)
{
    const struct hm_tensor *tensor = matrix->tensor;
    size_t dim = (size_t)tensor->shape[1];
    size_t threads = (size_t)hm_threads();
    struct rows rows = { .plan = plan,
                         .options = options,
                         .matrix = matrix,
                         .tensor = tensor,
                         .dim = dim,
                         .row_bytes = dim * hm_dtype_bytes(tensor->dtype) };
    int status;

    rows.mean = hm_calloc(HM_MEM_TENSOR, dim, sizeof(double));
    rows.deviation = hm_calloc(HM_MEM_TENSOR, dim, sizeof(double));
    rows.read = hm_calloc(HM_MEM_TENSOR, threads * dim, sizeof(float));
    rows.sum = hm_calloc(HM_MEM_TENSOR, threads * dim, sizeof(double));
    rows.block = hm_calloc(HM_MEM_TENSOR, BLOCK_ROWS, rows.row_bytes);
    rows.hash =
        hm_calloc(HM_MEM_TENSOR, (size_t)(plan->pieces - plan->first_new) + 1, sizeof(uint64_t));
    if (rows.mean && rows.deviation && rows.read && rows.sum && rows.block && rows.hash)
        status = all_write(&rows, ctl, writer, err);
    else
        status = hm_fail_nomem(err, "for the rows of '%s'", tensor->name);
    if (status == HM_OK) {
        matrix->duplicates = duplicates_count(&rows);
        matrix->not_definite = options->init == HM_RESIZE_NORMAL && !rows.factor;
    }
    hm_free(rows.mean);
    hm_free(rows.deviation);
    hm_free(rows.partial);
    hm_free(rows.read);
    hm_free(rows.sum);
    hm_free(rows.block);
    hm_free(rows.hash);
    hm_free(rows.factor);
    hm_free(rows.z);
    hm_free(rows.draw);
    return status;
}

uint64_t hm_embed_resize_bytes(const struct hm_arch *arch, uint64_t rows, enum hm_resize_init init)
{
    uint64_t dim = arch->hidden;
    uint64_t units = hm_units(arch->vocab_size, STATS_ROWS);
    uint64_t added = rows > arch->vocab_size ? rows - arch->vocab_size : 0;
    uint64_t threads = (uint64_t)hm_threads();
    uint64_t draws = init == HM_RESIZE_NORMAL
                         ? hm_row_covariance_bytes(dim) + 2 * BLOCK_ROWS * dim * sizeof(float)
                         : 0;

    /* Statistics, scratch of the threads, one block; per new row its hash and old tokens; where
       rows move (copy), any row may be new. */
    if (init == HM_RESIZE_COPY)
        added = rows;
    return (2 * units + 2 + 2 * threads) * dim * sizeof(double) + BLOCK_ROWS * dim * sizeof(float) +
           added * 64 + draws + ((uint64_t)1 << 20);
}
