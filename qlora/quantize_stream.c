/* SPDX-License-Identifier: MIT */
/*
 * One weight as a stream of blocks. The matrix is taken flat in row order and cut into units of
 * UNIT_VALUES, a multiple of every block size, so that blocks and bytes never straddle two units;
 * units of a window are worked in parallel, then the window goes out in order. Memory: one window
 * of codes and two units of values per worker, whatever the size of the weight. A window comes from
 * a reader that is ahead by some, or from the mapping.
 */
#include "quantize_stream.h"

#include <string.h>

#include "hanmix/base/parallel.h"

enum { UNIT_VALUES = 1 << 16, WINDOW_UNITS = 64, LEAST_BLOCK = 32 };

struct hm_stream {
    const struct hm_kernels *kernels;
    enum hm_dtype dtype;
    uint32_t blocksize;
    const struct hm_weight *weight;
    const char *model_dir; /* borrowed */
    const char *name;
    uint64_t count; /* values of the weight */
    struct hm_reader *reader;
    const uint8_t *piece; /* the window's stored values when a reader brought them */
    float one[UNIT_VALUES / LEAST_BLOCK]; /* scales of bare codes */
    float *values;                        /* [threads][2][UNIT_VALUES]: values, codes' values */
    uint8_t *window; /* [WINDOW_UNITS * UNIT_VALUES] of at most 4 bytes: codes or dense values */
    bool *finite;    /* [WINDOW_UNITS] */
    /* the loop under way */
    uint64_t window_first; /* value that the window begins with */
    float *absmax;         /* whole weight; NULL: dense */
    struct hm_block_sums *sums;
};

static size_t window_units(uint64_t largest_values)
{
    uint64_t units = (largest_values + UNIT_VALUES - 1) / UNIT_VALUES;

    return units < WINDOW_UNITS ? (size_t)units : WINDOW_UNITS;
}

int hm_stream_new(const struct hm_kernels *kernels, const char *model_dir, enum hm_dtype dtype,
                  uint32_t blocksize, uint64_t largest_values, struct hm_stream **ret_stream,
                  struct hm_error *err)
{
    struct hm_stream *stream = hm_calloc(HM_MEM_SCRATCH, 1, sizeof *stream);

    HM_BUG(UNIT_VALUES % blocksize != 0);
    if (stream) {
        stream->kernels = kernels;
        stream->model_dir = model_dir;
        stream->dtype = dtype;
        stream->blocksize = blocksize;
        stream->values =
            hm_alloc_array(HM_MEM_SCRATCH, (size_t)hm_threads() * 2 * UNIT_VALUES, sizeof(float));
        for (size_t i = 0; i < UNIT_VALUES / LEAST_BLOCK; i++)
            stream->one[i] = 1.0F;
        stream->window = hm_alloc_array(HM_MEM_SCRATCH, window_units(largest_values) * UNIT_VALUES,
                                        sizeof(float));
        stream->finite = hm_alloc_array(HM_MEM_SCRATCH, WINDOW_UNITS, sizeof(bool));
    }
    if (!stream || !stream->values || !stream->window || !stream->finite) {
        hm_stream_free(stream);
        return hm_fail_nomem(err, "for the buffers of quantising");
    }
    *ret_stream = stream;
    return HM_OK;
}

void hm_stream_free(struct hm_stream *stream)
{
    if (!stream)
        return;
    hm_free(stream->values);
    hm_free(stream->window);
    hm_free(stream->finite);
    hm_free(stream);
}

void hm_stream_bind(struct hm_stream *stream, const struct hm_weight *weight, const char *name,
                    struct hm_reader *reader)
{
    stream->weight = weight;
    stream->reader = reader;
    stream->piece = NULL;
    stream->name = name;
    stream->count = (uint64_t)hm_weight_rows(weight) * hm_weight_cols(weight);
}

/* n values from flat index first on: the end of a row, whole rows, the start of a row. */
static void read_values(const struct hm_stream *s, uint64_t first, size_t n, float *out)
{
    uint32_t cols = hm_weight_cols(s->weight);

    while (n > 0) {
        uint32_t row = (uint32_t)(first / cols), col = (uint32_t)(first % cols);
        uint32_t rows = col == 0 && n >= cols ? (uint32_t)(n / cols) : 1;
        uint32_t width = cols - col < n ? cols - col : (uint32_t)n;
        size_t taken = (size_t)rows * width;

        hm_weight_decode(s->weight, s->kernels, row, rows, col, width, HM_ROUND_NONE, out, width);
        first += taken;
        out += taken;
        n -= taken;
    }
}

static bool all_finite(const float *values, size_t n)
{
    unsigned bad = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* n values from flat index first on, as the stored type holds them: dense into `stored` when that
   is wanted, and in f32. */
static void load_values(const struct hm_stream *s, uint64_t first, size_t n, float *values,
                        uint8_t *stored)
{
    enum hm_dtype from = hm_weight_dtype(s->weight);

    if (!s->piece) {
        read_values(s, first, n, values);
    } else {
        const uint8_t *in = s->piece + (first - s->window_first) * hm_dtype_bytes(from);
        if (from == HM_DTYPE_BF16)
            s->kernels->bf16_to_f32(in, n, values);
        else
            hm_floats_load(from, in, n, values);
        if (from == s->dtype && !s->absmax)
            memcpy(stored, in, n * hm_dtype_bytes(from));
    }
    if (s->piece && from == s->dtype)
        return; /* neither rounded nor asked for otherwise */
    hm_floats_store(s->dtype, values, n, stored);
    hm_floats_load(s->dtype, stored, n, values);
}

static void take_sums(const struct hm_stream *s, const float *values, const uint8_t *codes,
                      float *bare, size_t n, struct hm_block_sums *sums)
{
    const struct hm_kernels *kernels = s->kernels;

    kernels->nf4_decode(codes, s->one, 0, n, s->blocksize, HM_ROUND_NONE, bare);
    for (size_t at = 0; at < n; at += s->blocksize) {
        size_t len = hm_least(s->blocksize, n - at);
        *sums++ = (struct hm_block_sums){ .energy = kernels->sum_squares(values + at, len),
                                          .product = kernels->dot(values + at, bare + at, len),
                                          .square = kernels->sum_squares(bare + at, len) };
    }
}

static void stream_unit(void *context, size_t index, int worker)
{
    struct hm_stream *s = context;
    float *values = s->values + (size_t)worker * 2 * UNIT_VALUES;
    uint8_t *stored =
        s->window + index * UNIT_VALUES * sizeof(float); /* before codes: room to round */
    uint64_t first = s->window_first + index * UNIT_VALUES;
    size_t n = s->count - first < UNIT_VALUES ? (size_t)(s->count - first) : UNIT_VALUES;
    size_t block = (size_t)(first / s->blocksize);

    load_values(s, first, n, values, stored);
    s->finite[index] = all_finite(values, n);
    if (!s->absmax || !s->finite[index])
        return;
    s->kernels->nf4_encode(values, n, s->blocksize, stored, s->absmax + block);
    take_sums(s, values, stored, values + UNIT_VALUES, n, s->sums + block);
}

/* The window's values from the reader; it hands out whole windows. */
static int next_piece(struct hm_stream *s, uint64_t values, struct hm_error *err)
{
    size_t bytes = 0;

    HM_TRY(hm_reader_next(s->reader, &s->piece, &bytes, err));
    HM_BUG(bytes != values * hm_dtype_bytes(hm_weight_dtype(s->weight)));
    return HM_OK;
}

/* Write the window's units, `bytes_of` bytes per value doubled (1 for codes, 2 * size for dense).
 */
static int write_window(const struct hm_stream *s, struct hm_folder_writer *writer, size_t units,
                        size_t half_bytes, struct hm_error *err)
{
    for (size_t u = 0; u < units; u++) {
        uint64_t left = s->count - s->window_first - u * UNIT_VALUES;
        size_t n = left < UNIT_VALUES ? (size_t)left : UNIT_VALUES;
        HM_TRY(hm_folder_writer_data(writer, s->window + u * UNIT_VALUES * sizeof(float),
                                     (n * half_bytes + 1) / 2, err));
    }
    return HM_OK;
}

static int run(struct hm_stream *s, struct hm_folder_writer *writer, size_t half_bytes,
               struct hm_error *err)
{
    const uint64_t window = (uint64_t)WINDOW_UNITS * UNIT_VALUES;

    for (s->window_first = 0; s->window_first < s->count; s->window_first += window) {
        uint64_t left = s->count - s->window_first;
        size_t units = left >= window ? WINDOW_UNITS : hm_units(left, UNIT_VALUES);

        if (s->reader)
            HM_TRY(next_piece(s, left < window ? left : window, err));
        hm_parallel_for(units, stream_unit, s);
        for (size_t u = 0; u < units; u++) {
            if (!s->finite[u])
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': tensor '%s.weight' holds NaN or Inf, or a value beyond %s",
                               s->model_dir, s->name, hm_dtype_name(s->dtype));
        }
        if (writer)
            HM_TRY(write_window(s, writer, units, half_bytes, err));
        if (!s->reader)
            hm_weight_drop_pages(s->weight);
    }
    return HM_OK;
}

int hm_stream_encode(struct hm_stream *stream, struct hm_folder_writer *writer, float *absmax,
                     struct hm_block_sums *sums, struct hm_error *err)
{
    stream->absmax = absmax;
    stream->sums = sums;
    return run(stream, writer, 1, err);
}

int hm_stream_dense(struct hm_stream *stream, struct hm_folder_writer *writer, struct hm_error *err)
{
    stream->absmax = NULL;
    stream->sums = NULL;
    return run(stream, writer, 2 * hm_dtype_bytes(stream->dtype), err);
}

uint64_t hm_stream_bytes(int threads, uint64_t largest_values)
{
    return (2 * (uint64_t)threads + window_units(largest_values)) * UNIT_VALUES * sizeof(float) +
           sizeof(struct hm_stream);
}

uint64_t hm_stream_window_values(void)
{
    return (uint64_t)WINDOW_UNITS * UNIT_VALUES;
}
