/* SPDX-License-Identifier: MIT */
/*
 * One weight as a stream of blocks. The matrix is taken flat in row order and cut into units of
 * UNIT_VALUES, a multiple of every block size, so that blocks and bytes never straddle two units;
 * units of a window are worked in parallel, then the window goes out in order. Memory: one window
 * of codes and one unit of values per worker, whatever the size of the weight.
 */
#include "quantize_stream.h"

#include <math.h>

#include "hanmix/base/parallel.h"

enum { UNIT_VALUES = 1 << 16, WINDOW_UNITS = 64 };

struct hm_stream {
    const struct hm_kernels *kernels;
    enum hm_dtype dtype;
    uint32_t blocksize;
    const struct hm_weight *weight;
    const char *model_dir; /* borrowed */
    const char *name;
    uint64_t count;  /* values of the weight */
    float *values;   /* [threads][UNIT_VALUES] */
    uint8_t *window; /* [WINDOW_UNITS * UNIT_VALUES] of at most 4 bytes: codes or dense values */
    bool *finite;    /* [WINDOW_UNITS] */
    /* the loop under way */
    uint64_t window_first; /* value that the window begins with */
    float *absmax;         /* whole weight; NULL: dense */
    struct hm_block_sums *sums;
};

int hm_stream_new(const struct hm_kernels *kernels, const char *model_dir, enum hm_dtype dtype,
                  uint32_t blocksize, struct hm_stream **ret_stream, struct hm_error *err)
{
    struct hm_stream *stream = hm_calloc(HM_MEM_SCRATCH, 1, sizeof *stream);

    HM_BUG(UNIT_VALUES % blocksize != 0);
    if (stream) {
        stream->kernels = kernels;
        stream->model_dir = model_dir;
        stream->dtype = dtype;
        stream->blocksize = blocksize;
        stream->values =
            hm_alloc_array(HM_MEM_SCRATCH, (size_t)hm_threads() * UNIT_VALUES, sizeof(float));
        stream->window = hm_alloc_array(HM_MEM_SCRATCH, WINDOW_UNITS * UNIT_VALUES, sizeof(float));
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

void hm_stream_bind(struct hm_stream *stream, const struct hm_weight *weight, const char *name)
{
    stream->weight = weight;
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
    bool finite = true;

    for (size_t i = 0; i < n; i++)
        finite = finite && isfinite(values[i]);
    return finite;
}

/* Values as the stored type holds them: dense into `stored`, and back into values. */
static void round_values(const struct hm_stream *s, float *values, size_t n, uint8_t *stored)
{
    hm_floats_store(s->dtype, values, n, stored);
    hm_floats_load(s->dtype, stored, n, values);
}

static void add_sums(const struct hm_stream *s, const float *values, const uint8_t *codes, size_t n,
                     struct hm_block_sums *sums)
{
    for (size_t i = 0; i < n; i++) {
        struct hm_block_sums *sum = &sums[i / s->blocksize];
        uint8_t pair = codes[i / 2];
        double w = values[i], c = hm_nf4_code[i % 2 ? pair & 15 : pair >> 4];

        if (i % s->blocksize == 0)
            *sum = (struct hm_block_sums){ 0 };
        sum->energy += w * w;
        sum->product += w * c;
        sum->square += c * c;
    }
}

static void stream_unit(void *context, size_t index, int worker)
{
    struct hm_stream *s = context;
    float *values = s->values + (size_t)worker * UNIT_VALUES;
    uint8_t *stored =
        s->window + index * UNIT_VALUES * sizeof(float); /* before codes: room to round */
    uint64_t first = s->window_first + index * UNIT_VALUES;
    size_t n = s->count - first < UNIT_VALUES ? (size_t)(s->count - first) : UNIT_VALUES;
    size_t block = (size_t)(first / s->blocksize);

    read_values(s, first, n, values);
    round_values(s, values, n, stored);
    s->finite[index] = all_finite(values, n);
    if (!s->absmax || !s->finite[index])
        return;
    s->kernels->nf4_encode(values, n, s->blocksize, stored, s->absmax + block);
    if (s->sums)
        add_sums(s, values, stored, n, s->sums + block);
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

        hm_parallel_for(units, stream_unit, s);
        for (size_t u = 0; u < units; u++) {
            if (!s->finite[u])
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': tensor '%s.weight' holds NaN or Inf, or a value beyond %s",
                               s->model_dir, s->name, hm_dtype_name(s->dtype));
        }
        if (writer)
            HM_TRY(write_window(s, writer, units, half_bytes, err));
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

uint64_t hm_stream_bytes(int threads)
{
    return ((uint64_t)threads + WINDOW_UNITS) * UNIT_VALUES * sizeof(float);
}

uint64_t hm_stream_window_values(void)
{
    return (uint64_t)WINDOW_UNITS * UNIT_VALUES;
}
