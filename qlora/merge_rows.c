/* SPDX-License-Identifier: MIT */
/*
 * One merged matrix as a stream of rows: W' = round(w + s * (B A)).
 *
 * Order of the arithmetic, all in f32: (B A) summed over the rank by the kernels' gemm_nn on tiles
 * of UNIT_ROWS rows, times s (one rounding), plus w (one rounding), then one rounding to the
 * written type. w is the stored value, or the unrounded product of a 4-bit code and its scale.
 * Tiles are the same for any number of threads. While a window of rows is worked on, the one before
 * it goes to the writer. Memory: two windows, three tiles per worker, the two factors.
 */
#include "merge_rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/parallel.h"

enum { UNIT_ROWS = 16, WINDOW_UNITS = 64, WINDOW_VALUES = 1 << 22 };

struct unit_result {
    struct hm_merge_sums sums;
    bool finite;
};

struct hm_merge_rows {
    const struct hm_kernels *kernels;
    const struct hm_merge_source *source; /* of the loop under way */
    uint32_t rows, cols, window_row, window_rows;
    const uint8_t *piece; /* the window's stored values when a reader brought them */
    float *a, *b;         /* factors as f32 */
    size_t a_cap, b_cap;
    float *tile; /* [threads][3][UNIT_ROWS * cols]: w, delta, w as written */
    size_t tile_cap;
    uint8_t *window[2]; /* [window_rows * cols] written values: worked on, going out */
    size_t window_cap[2];
    struct unit_result result[WINDOW_UNITS];
    struct hm_folder_writer *writer; /* takes window[1] beside the loop: */
    size_t out_bytes;                /* of it; 0: nothing waits */
    int out_status;
    struct hm_error *err;
};

int hm_merge_rows_new(const struct hm_kernels *kernels, struct hm_merge_rows **ret_rows,
                      struct hm_error *err)
{
    struct hm_merge_rows *rows = hm_calloc(HM_MEM_SCRATCH, 1, sizeof *rows);

    if (!rows)
        return hm_fail_nomem(err, "to merge");
    rows->kernels = kernels;
    *ret_rows = rows;
    return HM_OK;
}

void hm_merge_rows_free(struct hm_merge_rows *rows)
{
    if (!rows)
        return;
    hm_free(rows->a);
    hm_free(rows->b);
    hm_free(rows->tile);
    hm_free(rows->window[0]);
    hm_free(rows->window[1]);
    hm_free(rows);
}

/* Room for count floats; contents are lost. */
static int reserve(float **block, size_t *cap, size_t count, struct hm_error *err)
{
    if (count <= *cap)
        return HM_OK;
    hm_free(*block);
    *cap = 0;
    *block = hm_alloc_array(HM_MEM_SCRATCH, count, sizeof(float));
    if (!*block)
        return hm_fail_nomem(err, "for %zu values of a merge", count);
    *cap = count;
    return HM_OK;
}

static int read_factor(const struct hm_tensor *tensor, float **block, size_t *cap,
                       struct hm_error *err)
{
    HM_TRY(reserve(block, cap, (size_t)tensor->count, err));
    return hm_dtype_to_f32(tensor->dtype, tensor->data, (size_t)tensor->count, *block, err);
}

/* count values of the matrix that takes the weight's place, from row on. */
static void full_rows(const struct hm_merge_rows *m, uint32_t row, size_t count, float *out)
{
    const struct hm_tensor *full = m->source->full;
    size_t row_bytes = m->cols * hm_dtype_bytes(full->dtype);

    hm_floats_load(full->dtype, full->data + row * row_bytes, count, out);
}

/* delta of n rows from row on: s * (B A), or new - w. */
static void delta_rows(const struct hm_merge_rows *m, uint32_t row, uint32_t n, const float *w,
                       float *delta)
{
    const struct hm_merge_source *source = m->source;
    size_t count = (size_t)n * m->cols;

    if (source->full) {
        full_rows(m, row, count, delta);
        for (size_t i = 0; i < count; i++)
            delta[i] -= w[i];
        return;
    }
    m->kernels->gemm_nn(n, m->cols, source->rank, 1.0F, m->b + (size_t)row * source->rank,
                        source->rank, m->a, m->cols, 0.0F, delta, m->cols);
    for (size_t i = 0; i < count; i++)
        delta[i] *= source->scale;
}

/* Bits of magnitudes are in the order of the magnitudes. */
static float largest(const float *values, size_t count)
{
    int32_t most = 0;
    float found;

    for (size_t i = 0; i < count; i++) {
        int32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits &= INT32_MAX;
        most = bits > most ? bits : most;
    }
    memcpy(&found, &most, sizeof found);
    return found;
}

static void add_sums(const struct hm_kernels *kernels, const float *w, const float *delta,
                     size_t count, struct hm_merge_sums *sums)
{
    sums->delta_max = fmax(sums->delta_max, (double)largest(delta, count));
    sums->delta_square += kernels->sum_squares(delta, count);
    sums->weight_square += kernels->sum_squares(w, count);
}

static void count_changes(const uint8_t *before, const uint8_t *after, size_t count, size_t size,
                          struct hm_merge_sums *sums)
{
    unsigned changed = 0;

    for (size_t i = 0; i < count && size == 2; i++) {
        uint16_t a, b;
        memcpy(&a, before + 2 * i, sizeof a);
        memcpy(&b, after + 2 * i, sizeof b);
        changed += a != b;
    }
    for (size_t i = 0; i < count && size != 2; i++)
        changed += memcmp(before + i * size, after + i * size, size) != 0;
    sums->changed += changed;
    sums->unchanged += count - changed;
}

static bool bf16_finite(const uint8_t *values, size_t count)
{
    unsigned bad = 0;

    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, values + 2 * i, sizeof bits);
        bad |= (bits & 0x7f80u) == 0x7f80u;
    }
    return !bad;
}

/* As written: what is beyond the type's range shows. scratch takes the values read back. */
static bool write_values(const struct hm_merge_rows *m, const float *values, size_t count,
                         uint8_t *out, float *scratch)
{
    enum hm_dtype dtype = m->source->dtype;
    bool finite = true;

    if (dtype == HM_DTYPE_BF16) {
        m->kernels->f32_to_bf16(values, count, (uint16_t *)(void *)out);
        return bf16_finite(out, count);
    }
    hm_floats_store(dtype, values, count, out);
    hm_floats_load(dtype, out, count, scratch);
    for (size_t i = 0; i < count; i++)
        finite = finite && isfinite(scratch[i]);
    return finite;
}

/* Base values of n rows in f32; stored, when not NULL, are their bytes as they would be written. */
static const uint8_t *load_rows(const struct hm_merge_rows *m, uint32_t row, uint32_t n, float *w)
{
    const struct hm_merge_source *source = m->source;
    enum hm_dtype from = hm_weight_dtype(source->weight);

    if (!m->piece) {
        hm_weight_decode(source->weight, m->kernels, row, n, 0, m->cols, HM_ROUND_NONE, w, m->cols);
        return NULL;
    }
    hm_weight_decode_piece(source->weight, m->kernels, m->piece, m->window_row, row, n, w);
    if (hm_weight_is_nf4(source->weight) || from != source->dtype)
        return NULL;
    return m->piece + (size_t)(row - m->window_row) * m->cols * hm_dtype_bytes(from);
}

static void merge_unit(struct hm_merge_rows *m, size_t index, int worker)
{
    const struct hm_merge_source *source = m->source;
    uint32_t row = m->window_row + (uint32_t)index * UNIT_ROWS;
    uint32_t n = m->rows - row < UNIT_ROWS ? m->rows - row : UNIT_ROWS;
    size_t count = (size_t)n * m->cols, tile = (size_t)UNIT_ROWS * m->cols;
    size_t size = hm_dtype_bytes(source->dtype);
    float *w = m->tile + 3 * tile * (size_t)worker, *delta = w + tile, *scratch = delta + tile;
    uint8_t *out = m->window[0] + index * tile * size;
    struct unit_result *result = &m->result[index];

    *result = (struct unit_result){ 0 };
    const uint8_t *before = load_rows(m, row, n, w);
    if (!source->a && !source->full) {
        result->finite = write_values(m, w, count, out, scratch);
        return;
    }
    delta_rows(m, row, n, w, delta);
    add_sums(m->kernels, w, delta, count, &result->sums);
    if (!before) { /* the base as it would be written */
        hm_floats_store(source->dtype, w, count, scratch);
        before = (const uint8_t *)scratch;
    }
    if (source->full)
        full_rows(m, row, count, w);
    else
        m->kernels->add(delta, count, w);
    result->finite = write_values(m, w, count, out, delta);
    count_changes(before, out, count, size, &result->sums);
}

/* Unit 0 hands the window before to the writer, which takes its digest, when one waits. */
static void unit(void *context, size_t index, int worker)
{
    struct hm_merge_rows *m = context;

    if (m->out_bytes == 0)
        merge_unit(m, index, worker);
    else if (index > 0)
        merge_unit(m, index - 1, worker);
    else
        m->out_status = hm_folder_writer_data(m->writer, m->window[1], m->out_bytes, m->err);
}

/* Give back the pages of a range of the adapter's file. */
static void drop_range(const struct hm_map *map, const uint8_t *at, uint64_t bytes)
{
    hm_map_drop(map, (uint64_t)(at - map->data), bytes);
}

static int reserve_window(struct hm_merge_rows *m, int which, size_t bytes, struct hm_error *err)
{
    float *window = (float *)(void *)m->window[which];
    int status = reserve(&window, &m->window_cap[which], (bytes + 3) / sizeof(float), err);

    m->window[which] = (uint8_t *)window;
    return status;
}

static int prepare(struct hm_merge_rows *m, const struct hm_merge_source *source,
                   struct hm_error *err)
{
    m->source = source;
    m->rows = hm_weight_rows(source->weight);
    m->cols = hm_weight_cols(source->weight);
    size_t tile = (size_t)UNIT_ROWS * m->cols;
    m->piece = NULL;
    m->window_rows = hm_merge_window_rows(m->cols);
    size_t window = (size_t)(m->rows < m->window_rows ? m->rows : m->window_rows) * m->cols *
                    hm_dtype_bytes(source->dtype);
    HM_TRY(reserve(&m->tile, &m->tile_cap, (size_t)hm_threads() * 3 * tile, err));
    HM_TRY(reserve_window(m, 0, window, err));
    HM_TRY(reserve_window(m, 1, window, err));
    if (source->a) {
        HM_TRY(read_factor(source->a, &m->a, &m->a_cap, err));
        HM_TRY(read_factor(source->b, &m->b, &m->b_cap, err));
        drop_range(source->map, source->a->data, source->a->size_bytes);
        drop_range(source->map, source->b->data, source->b->size_bytes);
    }
    return HM_OK;
}

/* Pages of the window's rows, base and replacement: neither file is read twice. */
static void drop_window(const struct hm_merge_rows *m, uint32_t n)
{
    const struct hm_tensor *full = m->source->full;

    if (!m->piece)
        hm_weight_drop_pages(m->source->weight);
    if (full) {
        uint64_t row_bytes = (uint64_t)m->cols * hm_dtype_bytes(full->dtype);
        drop_range(m->source->map, full->data + m->window_row * row_bytes, n * row_bytes);
    }
}

void hm_merge_sums_join(struct hm_merge_sums *sums, const struct hm_merge_sums *more)
{
    sums->changed += more->changed;
    sums->unchanged += more->unchanged;
    sums->delta_max = fmax(sums->delta_max, more->delta_max);
    sums->delta_square += more->delta_square;
    sums->weight_square += more->weight_square;
}

void hm_merge_sums_note(const struct hm_merge_sums *sums, char note[HM_WRITE_NOTE_BYTES])
{
    snprintf(note, HM_WRITE_NOTE_BYTES, "%" PRIu64 " %" PRIu64 " %a %a %a", sums->changed,
             sums->unchanged, sums->delta_max, sums->delta_square, sums->weight_square);
}

bool hm_merge_sums_recall(const char *note, struct hm_merge_sums *ret_sums)
{
    struct hm_merge_sums found = { 0 };

    if (sscanf(note, "%" SCNu64 " %" SCNu64 " %la %la %la", &found.changed, &found.unchanged,
               &found.delta_max, &found.delta_square, &found.weight_square) != 5)
        return false;
    *ret_sums = found;
    return true;
}

uint32_t hm_merge_window_rows(uint32_t cols)
{
    uint32_t units = WINDOW_VALUES / UNIT_ROWS / (cols ? cols : 1);

    return UNIT_ROWS * (units < 1 ? 1 : units > WINDOW_UNITS ? WINDOW_UNITS : units);
}

bool hm_merge_rows_streamed(const struct hm_weight *weight)
{
    uint32_t cols = hm_weight_cols(weight);

    return (uint64_t)hm_merge_window_rows(cols) * cols % hm_weight_blocksize(weight) == 0;
}

static int next_piece(struct hm_merge_rows *m, uint32_t n, struct hm_error *err)
{
    size_t bytes = 0;

    HM_TRY(hm_reader_next(m->source->reader, &m->piece, &bytes, err));
    HM_BUG(bytes != hm_weight_value_bytes(m->source->weight, (uint64_t)n * m->cols));
    return HM_OK;
}

/* The window from m->window_row on, while the one before goes out. */
static int merge_window(struct hm_merge_rows *m, uint32_t n, struct hm_merge_sums *sums)
{
    const struct hm_merge_source *source = m->source;
    size_t units = hm_units(n, UNIT_ROWS);

    if (source->reader)
        HM_TRY(next_piece(m, n, m->err));
    m->out_status = HM_OK;
    hm_parallel_for(units + (m->out_bytes > 0), unit, m);
    m->out_bytes = 0;
    HM_TRY(m->out_status);
    for (size_t u = 0; u < units; u++) {
        if (!m->result[u].finite)
            return hm_fail(
                m->err, HM_ERR_FORMAT,
                "'%s': the model or the adapter holds NaN or Inf there, or a value beyond %s",
                source->name, hm_dtype_name(source->dtype));
        hm_merge_sums_join(sums, &m->result[u].sums);
    }
    uint8_t *done = m->window[0];
    size_t cap = m->window_cap[0];
    m->window[0] = m->window[1];
    m->window_cap[0] = m->window_cap[1];
    m->window[1] = done;
    m->window_cap[1] = cap;
    m->out_bytes = (size_t)n * m->cols * hm_dtype_bytes(source->dtype);
    drop_window(m, n);
    return HM_OK;
}

int hm_merge_rows_write(struct hm_merge_rows *rows, const struct hm_merge_source *source,
                        struct hm_folder_writer *writer, struct hm_merge_sums *ret_sums,
                        struct hm_error *err)
{
    struct hm_merge_rows *m = rows;
    struct hm_merge_sums sums = { 0 };
    char note[HM_WRITE_NOTE_BYTES];

    HM_TRY(prepare(m, source, err));
    m->writer = writer;
    m->err = err;
    m->out_bytes = 0;
    for (m->window_row = 0; m->window_row < m->rows;) {
        uint32_t left = m->rows - m->window_row;
        uint32_t n = left < m->window_rows ? left : m->window_rows;
        HM_TRY(merge_window(m, n, &sums));
        m->window_row += n;
    }
    hm_merge_sums_note(&sums, note);
    hm_folder_writer_note(writer, note);
    HM_TRY(hm_folder_writer_data(writer, m->window[1], m->out_bytes, err));
    *ret_sums = sums;
    return HM_OK;
}

void hm_merge_rows_memory(uint32_t rows, uint32_t cols, uint32_t rank, int threads,
                          size_t written_bytes, uint64_t *ret_heap_bytes,
                          uint64_t *ret_window_values)
{
    uint32_t window_rows = hm_merge_window_rows(cols);
    uint64_t window = (uint64_t)(rows < window_rows ? rows : window_rows) * cols;

    *ret_heap_bytes = (3 * (uint64_t)threads * UNIT_ROWS * cols + ((uint64_t)rows + cols) * rank) *
                          sizeof(float) +
                      2 * window * written_bytes;
    *ret_window_values = window;
}
