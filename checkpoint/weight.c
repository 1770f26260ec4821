/* SPDX-License-Identifier: MIT */
/*
 * Access to a bound weight: blocks of rows decoded to f32 through the kernel table. Block scales
 * are decoded on the way, a few hundred at a time on the stack, so a mapped 4-bit matrix takes no
 * heap. Decoding is element by element, so results do not depend on how a caller cuts the matrix.
 */
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"

#include "weight_parts.h"

#define SCALES_AT_ONCE 256u
#define FROZEN_COLS    64u /* struct hm_frozen */
#define SCAN_BYTES     ((uint64_t)16 << 20)

void hm_weight_free(struct hm_weight *weight)
{
    hm_free(weight);
}

uint32_t hm_weight_rows(const struct hm_weight *weight)
{
    return weight->rows;
}

uint32_t hm_weight_cols(const struct hm_weight *weight)
{
    return weight->cols;
}

bool hm_weight_is_nf4(const struct hm_weight *weight)
{
    return weight->layout != WEIGHT_DENSE;
}

uint64_t hm_weight_stored_bytes(const struct hm_weight *weight)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < weight->n_parts; i++)
        bytes += weight->part[i].bytes;
    return bytes;
}

uint32_t hm_weight_blocksize(const struct hm_weight *weight)
{
    return weight->layout == WEIGHT_DENSE ? 1 : weight->blocksize;
}

uint64_t hm_weight_value_bytes(const struct hm_weight *weight, uint64_t n)
{
    return weight->layout == WEIGHT_DENSE ? n * hm_dtype_bytes(weight->dtype) : (n + 1) / 2;
}

enum hm_dtype hm_weight_dtype(const struct hm_weight *weight)
{
    return weight->dtype;
}

const float *hm_weight_f32_view(const struct hm_weight *weight)
{
    if (weight->layout != WEIGHT_DENSE || weight->dtype != HM_DTYPE_F32 ||
        (uintptr_t)weight->data % _Alignof(float) != 0)
        return NULL;
    return (const float *)(const void *)weight->data;
}

static float load_f32(const uint8_t *base, uint64_t i)
{
    float value;

    memcpy(&value, base + i * sizeof value, sizeof value);
    return value;
}

/* Scales of blocks first .. first+n-1: m = f32(f32(map[q] * nested_absmax) + offset). */
static void load_scales(const struct hm_weight *weight, uint64_t first, size_t n, float *scale)
{
    if (weight->layout == WEIGHT_NF4) {
        memcpy(scale, weight->absmax + first * sizeof(float), n * sizeof(float));
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float nested = load_f32(weight->nested_absmax, (first + i) / HM_NF4_NESTED_BLOCK);
        float product = load_f32(weight->nested_map, weight->absmax[first + i]) * nested;
        scale[i] = product + weight->nested_offset;
    }
}

/* n values from flat index `first`; the kernel sees the matrix as if it began at block b. Codes are
 * those from value `at`, the first of a block, on. */
static void decode_nf4(const struct hm_weight *weight, const struct hm_kernels *kernels,
                       const uint8_t *codes, uint64_t at, uint64_t first, size_t n,
                       enum hm_round round, float *out)
{
    uint32_t size = weight->blocksize;
    float scale[SCALES_AT_ONCE];

    while (n > 0) {
        uint64_t block = first / size;
        size_t skip = (size_t)(first % size);
        size_t room = (size_t)SCALES_AT_ONCE * size - skip;
        size_t part = n < room ? n : room;
        load_scales(weight, block, (skip + part + size - 1) / size, scale);
        kernels->nf4_decode(codes + (block * size - at) / 2, scale, skip, part, size, round, out);
        first += part;
        out += part;
        n -= part;
    }
}

static void decode_dense(const struct hm_weight *weight, const struct hm_kernels *kernels,
                         const uint8_t *in, size_t n, enum hm_round round, float *out)
{
    switch (weight->dtype) {
    case HM_DTYPE_BF16:
        kernels->bf16_to_f32(in, n, out);
        return;
    case HM_DTYPE_F16:
        kernels->f16_to_f32(in, n, out);
        break;
    default:
        memcpy(out, in, n * sizeof *out);
        break;
    }
    if (round == HM_ROUND_BF16)
        kernels->f32_round_bf16(out, n);
}

void hm_weight_decode(const struct hm_weight *weight, const struct hm_kernels *kernels,
                      uint32_t row0, uint32_t n_rows, uint32_t col0, uint32_t n_cols,
                      enum hm_round round, float *out, size_t ld)
{
    uint64_t first = (uint64_t)row0 * weight->cols + col0;
    size_t runs = n_rows, run = n_cols;

    HM_BUG(row0 > weight->rows || n_rows > weight->rows - row0);
    HM_BUG(col0 > weight->cols || n_cols > weight->cols - col0);
    if (n_cols == weight->cols && ld == n_cols) { /* one stretch */
        run *= runs;
        runs = runs > 0 ? 1 : 0;
    }
    for (size_t i = 0; i < runs && run > 0; i++) {
        if (weight->layout == WEIGHT_DENSE)
            decode_dense(weight, kernels, weight->data + hm_weight_value_bytes(weight, first), run,
                         round, out);
        else
            decode_nf4(weight, kernels, weight->data, 0, first, run, round, out);
        first += weight->cols;
        out += ld;
    }
}

void hm_weight_decode_piece(const struct hm_weight *weight, const struct hm_kernels *kernels,
                            const uint8_t *piece, uint32_t piece_row, uint32_t row0,
                            uint32_t n_rows, float *out)
{
    uint64_t at = (uint64_t)piece_row * weight->cols, first = (uint64_t)row0 * weight->cols;
    size_t n = (size_t)n_rows * weight->cols;

    HM_BUG(row0 < piece_row || row0 > weight->rows || n_rows > weight->rows - row0);
    HM_BUG(at % hm_weight_blocksize(weight) != 0);
    if (weight->layout == WEIGHT_DENSE)
        decode_dense(weight, kernels, piece + hm_weight_value_bytes(weight, first - at), n,
                     HM_ROUND_NONE, out);
    else
        decode_nf4(weight, kernels, piece, at, first, n, HM_ROUND_NONE, out);
}

bool hm_weight_frozen(const struct hm_weight *weight, struct hm_frozen *ret_frozen)
{
    bool nf4 = weight->layout != WEIGHT_DENSE;

    if (weight->cols % FROZEN_COLS != 0 || weight->cols == 0)
        return false;
    if (nf4 ? weight->blocksize % FROZEN_COLS != 0 || weight->cols % weight->blocksize != 0
            : weight->dtype != HM_DTYPE_BF16)
        return false;
    *ret_frozen = (struct hm_frozen){ .layout = nf4 ? HM_FROZEN_NF4 : HM_FROZEN_BF16,
                                      .rows = weight->rows,
                                      .cols = weight->cols,
                                      .data = weight->data,
                                      .blocksize = weight->blocksize,
                                      .absmax = weight->absmax };
    if (weight->layout == WEIGHT_NF4_NESTED) {
        ret_frozen->nested_absmax = weight->nested_absmax;
        ret_frozen->nested_map = weight->nested_map;
        ret_frozen->nested_offset = weight->nested_offset;
    }
    return true;
}

static bool all_finite_16(const uint8_t *data, uint64_t count, uint16_t exponent)
{
    unsigned bad = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, data + i * sizeof bits, sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

static bool all_finite_32(const uint8_t *data, uint64_t count)
{
    unsigned bad = 0;

    for (uint64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, data + i * sizeof bits, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* Codes are finite whatever they are; the scales decide. */
static bool scales_finite(const struct hm_weight *weight)
{
    uint64_t count = (uint64_t)weight->rows * weight->cols;
    uint64_t blocks = (count + weight->blocksize - 1) / weight->blocksize;
    float scale[SCALES_AT_ONCE];

    for (uint64_t at = 0; at < blocks; at += SCALES_AT_ONCE) {
        size_t n = blocks - at < SCALES_AT_ONCE ? (size_t)(blocks - at) : SCALES_AT_ONCE;
        load_scales(weight, at, n, scale);
        if (!all_finite_32((const uint8_t *)scale, n))
            return false;
    }
    return true;
}

/*
 * Whether every scale that the tables can give is finite, from the entries of largest and smallest
 * value alone: the 8-bit scales, which lie among the codes, stay on disk.
 */
static bool nested_finite(const struct hm_weight *weight)
{
    uint64_t count = (uint64_t)weight->rows * weight->cols;
    uint64_t blocks = (count + weight->blocksize - 1) / weight->blocksize;
    float low = load_f32(weight->nested_map, 0), high = low;

    if (!all_finite_32(weight->nested_map, 256))
        return false;
    for (size_t i = 1; i < 256; i++) {
        float entry = load_f32(weight->nested_map, i);
        low = fminf(low, entry);
        high = fmaxf(high, entry);
    }
    for (uint64_t i = 0; i < (blocks + HM_NF4_NESTED_BLOCK - 1) / HM_NF4_NESTED_BLOCK; i++) {
        float nested = load_f32(weight->nested_absmax, i);
        if (!isfinite(low * nested + weight->nested_offset) ||
            !isfinite(high * nested + weight->nested_offset))
            return false;
    }
    return true;
}

static bool values_finite(const struct hm_weight *weight, const uint8_t *data, uint64_t count)
{
    if (weight->dtype == HM_DTYPE_F32)
        return all_finite_32(data, count);
    return all_finite_16(data, count, weight->dtype == HM_DTYPE_BF16 ? 0x7f80u : 0x7c00u);
}

bool hm_weight_is_finite(const struct hm_weight *weight)
{
    uint64_t count = (uint64_t)weight->rows * weight->cols;

    if (weight->layout == WEIGHT_NF4_NESTED && nested_finite(weight))
        return true;
    if (weight->layout != WEIGHT_DENSE)
        return scales_finite(weight);
    uint64_t size = hm_dtype_bytes(weight->dtype), most = SCAN_BYTES / size;
    for (uint64_t at = 0; at < count; at += most) {
        uint64_t n = count - at < most ? count - at : most;
        if (!values_finite(weight, weight->data + at * size, n))
            return false;
        hm_checkpoint_drop(weight->ckpt, weight->part[0].tensor, weight->part[0].offset + at * size,
                           n * size);
    }
    return true;
}

size_t hm_weight_places(const struct hm_weight *weight,
                        struct hm_weight_place place[HM_WEIGHT_PLACES])
{
    size_t n = 0;

    for (size_t i = 0; i < weight->n_parts; i++) {
        const struct weight_part *part = &weight->part[i];
        const struct hm_map *map = &weight->ckpt->file[part->tensor->file].map;
        const uint8_t *data = part->tensor->data + part->offset;
        if (weight->layout != WEIGHT_DENSE && data != weight->data && data != weight->absmax &&
            data != weight->nested_absmax && data != weight->nested_map)
            continue;
        place[n++] = (struct hm_weight_place){ part->tensor->file, (uint64_t)(data - map->data),
                                               part->bytes };
    }
    return n;
}

void hm_weight_drop_pages(const struct hm_weight *weight)
{
    for (size_t i = 0; i < weight->n_parts; i++)
        hm_checkpoint_drop(weight->ckpt, weight->part[i].tensor, weight->part[i].offset,
                           weight->part[i].bytes);
}

void hm_weight_range(const struct hm_weight *weight, struct hm_read_range *ret_range)
{
    const struct hm_safetensors *file = &weight->ckpt->file[weight->part[0].tensor->file];
    uint64_t count = (uint64_t)weight->rows * weight->cols;

    *ret_range = (struct hm_read_range){ .fd = file->map.fd,
                                         .path = file->path,
                                         .offset = (uint64_t)(weight->data - file->map.data),
                                         .bytes = hm_weight_value_bytes(weight, count) };
}

int hm_weight_fetch_scales(const struct hm_weight *weight, struct hm_error *err)
{
    struct hm_weight_place place[HM_WEIGHT_PLACES];
    size_t n = hm_weight_places(weight, place);

    for (size_t i = 1; i < n; i++) { /* the first is the codes */
        const struct hm_safetensors *file = &weight->ckpt->file[place[i].file];
        HM_TRY(hm_map_fetch(&file->map, file->path, place[i].offset, place[i].bytes, err));
    }
    return HM_OK;
}
