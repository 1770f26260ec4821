/* SPDX-License-Identifier: MIT */
/*
 * What new rows of embed_tokens and lm_head are made of. A new piece is cut into the old
 * vocabulary's tokens and its row is their mean, summed in f64 and rounded once; `mean` cuts the
 * bare piece, `mean_upstream` encodes the decoded text as the published script does, with <s> and
 * the dummy prefix in every mean. Noise and `normal` are scaled by the deviation of each column. A
 * value depends on (seed, matrix, row, column) alone, so threads change nothing.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "embed_rows.h"
#include "hanmix/base/parallel.h"

#define STATS_ROWS  512u /* rows summed by one unit */
#define BLOCK_ROWS  256u /* new rows made at once */
#define WRITE_BYTES (8u << 20)

/* --- from which old tokens -------------------------------------------------------------------- */

/* The old vocabulary must be the beginning of the new one. */
static int pieces_check(const struct hm_spm_model *old_model, const struct hm_spm_model *new_model,
                        struct hm_error *err)
{
    if (new_model->count < old_model->count)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the new tokenizer has %zu pieces, fewer than the old one's %zu",
                       new_model->count, old_model->count);
    for (size_t i = 0; i < old_model->count; i++)
        if (!hm_str_equal(old_model->piece[i].text, new_model->piece[i].text))
            return hm_fail(
                err, HM_ERR_FORMAT,
                "piece %zu is '%.*s' in the new tokenizer and '%.*s' in the old one: the "
                "new vocabulary must keep the ids of the old",
                i, (int)new_model->piece[i].text.len, new_model->piece[i].text.ptr,
                (int)old_model->piece[i].text.len, old_model->piece[i].text.ptr);
    return HM_OK;
}

/* decode([id]) of the new tokenizer, then encode with <s> and dummy prefix by the old one. */
static int upstream_ids(const struct hm_tokenizer *old_tokenizer,
                        const struct hm_tokenizer *new_tokenizer, int32_t id, struct hm_buf *text,
                        struct hm_ids *ids, struct hm_error *err)
{
    size_t before = ids->count;

    hm_buf_clear(text);
    HM_TRY(hm_tokenizer_decode(new_tokenizer, &id, 1, text, err));
    if (old_tokenizer->model.bos_id >= 0)
        HM_TRY(hm_ids_append(ids, &old_tokenizer->model.bos_id, 1, err));
    HM_TRY(hm_tokenizer_encode(old_tokenizer, (struct hm_str){ text->ptr, text->len }, ids, err));
    if (ids->count == before && old_tokenizer->model.unk_id >= 0)
        return hm_ids_append(ids, &old_tokenizer->model.unk_id, 1, err);
    return HM_OK;
}

static int piece_ids(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer, enum hm_resize_init init, int32_t id,
                     struct hm_buf *text, struct hm_ids *ids, struct hm_error *err)
{
    const struct hm_piece *piece = &new_tokenizer->model.piece[id];

    if (init == HM_RESIZE_MEAN_UPSTREAM)
        return upstream_ids(old_tokenizer, new_tokenizer, id, text, ids, err);
    if (init != HM_RESIZE_MEAN || (piece->type != HM_PIECE_NORMAL && piece->type != HM_PIECE_USER))
        return HM_OK;
    return hm_tokenizer_encode_bare(old_tokenizer, piece->text, ids, err);
}

int hm_row_plan_make(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer,
                     const struct hm_resize_options *options, uint64_t old_rows,
                     struct hm_row_plan *ret_plan, struct hm_error *err)
{
    struct hm_row_plan plan = { .first_new = old_tokenizer->model.count,
                                .pieces = new_tokenizer->model.count,
                                .old_rows = old_rows };
    uint64_t pad_to = options->pad_to ? options->pad_to : 1;
    uint64_t least = plan.pieces > old_rows ? plan.pieces : old_rows;
    struct hm_buf text = { 0 };

    HM_TRY(pieces_check(&old_tokenizer->model, &new_tokenizer->model, err));
    if (old_rows < plan.first_new)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the model has %" PRIu64 " rows, fewer than the %" PRIu64
                       " pieces of the old tokenizer: is it this model's?",
                       old_rows, plan.first_new);
    plan.rows = (least + pad_to - 1) / pad_to * pad_to;
    plan.first =
        hm_calloc(HM_MEM_VOCAB, (size_t)(plan.pieces - plan.first_new) + 1, sizeof(*plan.first));
    int status = plan.first ? hm_buf_text(&text, "", err) : hm_fail_nomem(err, "for new rows");
    for (uint64_t row = plan.first_new; status == HM_OK && row < plan.pieces; row++) {
        status = piece_ids(old_tokenizer, new_tokenizer, options->init, (int32_t)row, &text,
                           &plan.ids, err);
        plan.first[row - plan.first_new + 1] = plan.ids.count;
    }
    hm_buf_release(&text);
    if (status == HM_OK)
        *ret_plan = plan;
    else
        hm_row_plan_release(&plan);
    return status;
}

void hm_row_plan_release(struct hm_row_plan *plan)
{
    if (!plan)
        return;
    hm_ids_release(&plan->ids);
    hm_free(plan->first);
    *plan = (struct hm_row_plan){ 0 };
}

/* --- values ----------------------------------------------------------------------------------- */

struct rows {
    const struct hm_row_plan *plan;
    const struct hm_resize_options *options;
    const struct hm_tensor *tensor;
    struct hm_rng_key key;
    size_t dim; /* D */
    size_t row_bytes;
    double *mean;      /* [D] of the old rows */
    double *deviation; /* [D] */
    double *partial;   /* [units][2][D] */
    float *read;       /* [threads][D] */
    double *sum;       /* [threads][D] */
    uint8_t *block;    /* [BLOCK_ROWS][row_bytes] */
    uint64_t block_first;
    uint64_t *hash; /* [pieces - first_new] */
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
    uint64_t end = (index + 1) * (uint64_t)STATS_ROWS;

    if (end > rows->plan->first_new)
        end = rows->plan->first_new;
    for (uint64_t row = index * (uint64_t)STATS_ROWS; row < end; row++) {
        row_read(rows, row, value);
        for (size_t d = 0; d < rows->dim; d++) {
            sum[d] += (double)value[d];
            square[d] += (double)value[d] * (double)value[d];
        }
    }
}

static int stats_make(struct rows *rows, struct hm_error *err)
{
    double n = (double)rows->plan->first_new;
    size_t units = hm_units(rows->plan->first_new, STATS_ROWS);

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
            return hm_fail(
                err, HM_ERR_FORMAT,
                "tensor '%s' holds NaN, infinity or numbers beyond any use in column %zu",
                rows->tensor->name, d);
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

/* The mean of a new row's old rows; of all old rows where it has none. */
static void row_mean(const struct rows *rows, uint64_t row, float *read, double *sum)
{
    const struct hm_row_plan *plan = rows->plan;
    size_t first = row < plan->pieces ? plan->first[row - plan->first_new] : 0;
    size_t after = row < plan->pieces ? plan->first[row - plan->first_new + 1] : 0;

    if (first == after) {
        memcpy(sum, rows->mean, rows->dim * sizeof(*sum));
        return;
    }
    memset(sum, 0, rows->dim * sizeof(*sum));
    for (size_t i = first; i < after; i++) {
        row_read(rows, (uint64_t)plan->ids.id[i], read);
        for (size_t d = 0; d < rows->dim; d++)
            sum[d] += (double)read[d];
    }
    for (size_t d = 0; d < rows->dim; d++)
        sum[d] /= (double)(after - first);
}

static void row_unit(void *context, size_t index, int worker)
{
    struct rows *rows = context;
    uint64_t row = rows->block_first + index;
    float *read = rows->read + (size_t)worker * rows->dim;
    double *sum = rows->sum + (size_t)worker * rows->dim;
    uint8_t *out = rows->block + index * rows->row_bytes;
    enum hm_resize_init init = rows->options->init;
    double noise = init == HM_RESIZE_NORMAL ? 1 : init == HM_RESIZE_MEAN ? rows->options->noise : 0;

    row_mean(rows, row, read, sum);
    if (row >= rows->plan->pieces)
        noise = 0; /* padding */
    else if (init == HM_RESIZE_ZERO)
        memset(sum, 0, rows->dim * sizeof(*sum));
    for (size_t d = 0; noise > 0 && d < rows->dim; d++)
        sum[d] += noise * rows->deviation[d] * hm_rng_normal(rows->key, row * rows->dim + d);
    for (size_t d = 0; d < rows->dim; d++)
        read[d] = rows->tensor->dtype == HM_DTYPE_F32 ? (float)sum[d] : round_to_odd(sum[d]);
    hm_floats_store(rows->tensor->dtype, read, rows->dim, out);
    if (row < rows->plan->pieces)
        rows->hash[row - rows->plan->first_new] = hm_hash64(out, rows->row_bytes, 0);
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
        hm_parallel_for(n, row_unit, rows);
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

int hm_rows_write(const struct hm_row_plan *plan, const struct hm_resize_options *options,
                  const struct hm_tensor *tensor, struct hm_rng_key key, const struct hm_ctl *ctl,
                  struct hm_st_writer *writer, uint64_t *ret_duplicates, struct hm_error *err)
{
    struct rows rows = { .plan = plan,
                         .options = options,
                         .tensor = tensor,
                         .key = key,
                         .dim = (size_t)tensor->shape[1],
                         .row_bytes = (size_t)tensor->shape[1] * hm_dtype_bytes(tensor->dtype) };
    size_t threads = (size_t)hm_threads();
    uint64_t kept = plan->pieces > plan->old_rows ? plan->pieces : plan->old_rows;
    int status;

    rows.mean = hm_calloc(HM_MEM_TENSOR, rows.dim, sizeof(double));
    rows.deviation = hm_calloc(HM_MEM_TENSOR, rows.dim, sizeof(double));
    rows.read = hm_calloc(HM_MEM_TENSOR, threads * rows.dim, sizeof(float));
    rows.sum = hm_calloc(HM_MEM_TENSOR, threads * rows.dim, sizeof(double));
    rows.block = hm_calloc(HM_MEM_TENSOR, BLOCK_ROWS, rows.row_bytes);
    rows.hash =
        hm_calloc(HM_MEM_TENSOR, (size_t)(plan->pieces - plan->first_new), sizeof(uint64_t));
    if (rows.mean && rows.deviation && rows.read && rows.sum && rows.block && rows.hash)
        status = stats_make(&rows, err);
    else
        status = hm_fail_nomem(err, "for the rows of '%s'", tensor->name);
    if (status == HM_OK)
        status = old_write(&rows, 0, plan->first_new, ctl, writer, err);
    if (status == HM_OK)
        status = made_write(&rows, plan->first_new, plan->pieces, ctl, writer, err);
    if (status == HM_OK)
        status = old_write(&rows, plan->pieces, plan->old_rows, ctl, writer, err);
    if (status == HM_OK)
        status = made_write(&rows, kept, plan->rows, ctl, writer, err);
    if (status == HM_OK && ret_duplicates)
        *ret_duplicates = duplicates_count(&rows);
    hm_free(rows.mean);
    hm_free(rows.deviation);
    hm_free(rows.partial);
    hm_free(rows.read);
    hm_free(rows.sum);
    hm_free(rows.block);
    hm_free(rows.hash);
    return status;
}

uint64_t hm_embed_resize_bytes(const struct hm_arch *arch, uint64_t rows)
{
    uint64_t dim = arch->hidden;
    uint64_t units = hm_units(arch->vocab_size, STATS_ROWS);
    uint64_t added = rows > arch->vocab_size ? rows - arch->vocab_size : 0;
    uint64_t threads = (uint64_t)hm_threads();

    /* statistics, scratch of the threads, one block; per new row its hash and a list of old tokens
     */
    return (2 * units + 2 + 2 * threads) * dim * sizeof(double) + BLOCK_ROWS * dim * sizeof(float) +
           added * 64 + ((uint64_t)1 << 20);
}
