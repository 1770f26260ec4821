/* SPDX-License-Identifier: MIT */
/*
 * One merged matrix as a stream of rows: W' = round(w + s * (B A)).
 *
 * Order of the arithmetic, all in f32: (B A) summed over the rank by the kernels' gemm_nn on tiles
 * of UNIT_ROWS rows, times s (one rounding), plus w (one rounding), then one rounding to the
 * written type. w is the stored value, or the unrounded product of a 4-bit code and its scale.
 * Tiles are the same for any number of threads. Memory: a window of rows, three tiles per worker,
 * the two factors.
 */
#include "merge_rows.h"

#include <math.h>
#include <string.h>

#include "hanmix/base/parallel.h"

enum { UNIT_ROWS = 64, WINDOW_UNITS = 16 };

struct unit_result {
    struct hm_merge_sums sums;
    bool finite;
};

struct hm_merge_rows {
    const struct hm_kernels *kernels;
    const struct hm_merge_source *source; /* of the loop under way */
    uint32_t rows, cols, window_row;
    float *a, *b; /* factors as f32 */
    size_t a_cap, b_cap;
    float *tile; /* [threads][3][UNIT_ROWS * cols]: w, delta, w as written */
    size_t tile_cap;
    uint8_t *window; /* [WINDOW_UNITS][UNIT_ROWS * cols] written values */
    size_t window_cap;
    struct unit_result result[WINDOW_UNITS];
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
    hm_free(rows->window);
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

static void add_sums(const float *w, const float *delta, size_t count, struct hm_merge_sums *sums)
{
    for (size_t i = 0; i < count; i++) {
        sums->delta_max = fmax(sums->delta_max, fabs((double)delta[i]));
        sums->delta_square += (double)delta[i] * delta[i];
        sums->weight_square += (double)w[i] * w[i];
    }
}

static void count_changes(const uint8_t *before, const uint8_t *after, size_t count, size_t size,
                          struct hm_merge_sums *sums)
{
    for (size_t i = 0; i < count; i++)
        sums->changed += memcmp(before + i * size, after + i * size, size) != 0;
    sums->unchanged = count - sums->changed;
}

/* As written: read back, so that a value beyond the type's range shows. */
static bool write_values(enum hm_dtype dtype, const float *values, size_t count, uint8_t *out,
                         float *scratch)
{
    bool finite = true;

    hm_floats_store(dtype, values, count, out);
    hm_floats_load(dtype, out, count, scratch);
    for (size_t i = 0; i < count; i++)
        finite = finite && isfinite(scratch[i]);
    return finite;
}

static void merge_unit(void *context, size_t index, int worker)
{
    struct hm_merge_rows *m = context;
    const struct hm_merge_source *source = m->source;
    uint32_t row = m->window_row + (uint32_t)index * UNIT_ROWS;
    uint32_t n = m->rows - row < UNIT_ROWS ? m->rows - row : UNIT_ROWS;
    size_t count = (size_t)n * m->cols, tile = (size_t)UNIT_ROWS * m->cols;
    size_t size = hm_dtype_bytes(source->dtype);
    float *w = m->tile + 3 * tile * (size_t)worker, *delta = w + tile, *scratch = delta + tile;
    uint8_t *out = m->window + index * tile * size;
    struct unit_result *result = &m->result[index];

    *result = (struct unit_result){ 0 };
    hm_weight_decode(source->weight, m->kernels, row, n, 0, m->cols, HM_ROUND_NONE, w, m->cols);
    if (!source->a && !source->full) {
        result->finite = write_values(source->dtype, w, count, out, scratch);
        return;
    }
    delta_rows(m, row, n, w, delta);
    add_sums(w, delta, count, &result->sums);
    hm_floats_store(source->dtype, w, count, out);
    memcpy(scratch, out, count * size); /* the base as it would be written */
    if (source->full)
        full_rows(m, row, count, w);
    else
        for (size_t i = 0; i < count; i++)
            w[i] += delta[i];
    result->finite = write_values(source->dtype, w, count, out, delta);
    count_changes((const uint8_t *)scratch, out, count, size, &result->sums);
}

/* Give back the pages of a range of the adapter's file. */
static void drop_range(const struct hm_map *map, const uint8_t *at, uint64_t bytes)
{
    hm_map_drop(map, (uint64_t)(at - map->data), bytes);
}

static int prepare(struct hm_merge_rows *m, const struct hm_merge_source *source,
                   struct hm_error *err)
{
    float *window = (float *)(void *)m->window;

    m->source = source;
    m->rows = hm_weight_rows(source->weight);
    m->cols = hm_weight_cols(source->weight);
    size_t tile = (size_t)UNIT_ROWS * m->cols;
    HM_TRY(reserve(&m->tile, &m->tile_cap, (size_t)hm_threads() * 3 * tile, err));
    int status = reserve(&window, &m->window_cap, WINDOW_UNITS * tile, err);
    m->window = (uint8_t *)window;
    HM_TRY(status);
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

    hm_weight_drop_pages(m->source->weight);
    if (full) {
        uint64_t row_bytes = (uint64_t)m->cols * hm_dtype_bytes(full->dtype);
        drop_range(m->source->map, full->data + m->window_row * row_bytes, n * row_bytes);
    }
}

static void join_sums(struct hm_merge_sums *sums, const struct hm_merge_sums *unit)
{
    sums->changed += unit->changed;
    sums->unchanged += unit->unchanged;
    sums->delta_max = fmax(sums->delta_max, unit->delta_max);
    sums->delta_square += unit->delta_square;
    sums->weight_square += unit->weight_square;
}

int hm_merge_rows_write(struct hm_merge_rows *rows, const struct hm_merge_source *source,
                        struct hm_folder_writer *writer, struct hm_merge_sums *sums,
                        struct hm_error *err)
{
    struct hm_merge_rows *m = rows;
    size_t size = hm_dtype_bytes(source->dtype);

    HM_TRY(prepare(m, source, err));
    for (m->window_row = 0; m->window_row < m->rows;) {
        uint32_t left = m->rows - m->window_row;
        uint32_t n = left < UNIT_ROWS * WINDOW_UNITS ? left : UNIT_ROWS * WINDOW_UNITS;
        size_t units = hm_units(n, UNIT_ROWS);

        hm_parallel_for(units, merge_unit, m);
        for (size_t u = 0; u < units; u++) {
            if (!m->result[u].finite)
                return hm_fail(
                    err, HM_ERR_FORMAT,
                    "'%s': the model or the adapter holds NaN or Inf there, or a value beyond %s",
                    source->name, hm_dtype_name(source->dtype));
            join_sums(sums, &m->result[u].sums);
        }
        HM_TRY(hm_folder_writer_data(writer, m->window, (size_t)n * m->cols * size, err));
        drop_window(m, n);
        m->window_row += n;
    }
    return HM_OK;
}

void hm_merge_rows_memory(uint32_t rows, uint32_t cols, uint32_t rank, int threads,
                          uint64_t *ret_heap_bytes, uint64_t *ret_window_values)
{
    uint64_t unit = (uint64_t)UNIT_ROWS * cols;

    *ret_heap_bytes =
        ((3 * (uint64_t)threads + WINDOW_UNITS) * unit + ((uint64_t)rows + cols) * rank) *
        sizeof(float);
    *ret_window_values =
        (rows < WINDOW_UNITS * UNIT_ROWS ? rows : (uint64_t)WINDOW_UNITS * UNIT_ROWS) * cols;
}
