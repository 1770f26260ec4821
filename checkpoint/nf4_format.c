/* SPDX-License-Identifier: MIT */
/*
 * What bitsandbytes keeps beside the codes of a 4-bit matrix: the 8-bit form of the block scales
 * and the quant_state text. Codes and scales themselves are made by the kernels. Choices: the
 * offset is the f64 mean rounded once, 8-bit codes are the exact nearest entries.
 */
#include <inttypes.h>
#include <math.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/map8.h"

bool hm_nf4_blocksize_ok(uint64_t blocksize)
{
    return blocksize >= 32 && blocksize <= 4096 && (blocksize & (blocksize - 1)) == 0;
}

/* The entry nearest to x, the lower one on a tie. */
static uint8_t nearest(const float map[256], double x)
{
    unsigned low = 0, high = 255; /* map[low] <= x < map[high], the ends aside */

    if (x >= map[high])
        return (uint8_t)high;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (map[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(x - map[low] <= map[high] - x ? low : high);
}

int hm_nf4_nest(const float *absmax, size_t n, struct hm_nf4_nested *ret_nested,
                struct hm_error *err)
{
    struct hm_nf4_nested nested = { .n = n };
    float map[256];
    double sum = 0;

    nested.code = hm_alloc(HM_MEM_TENSOR, n);
    nested.nested_absmax =
        hm_alloc_array(HM_MEM_TENSOR, n / HM_NF4_NESTED_BLOCK + 1, sizeof(float));
    if (!nested.code || !nested.nested_absmax) {
        hm_nf4_nested_release(&nested);
        return hm_fail_nomem(err, "quantising %zu block scales", n);
    }
    hm_dynamic_map(true, map);
    for (size_t i = 0; i < n; i++)
        sum += absmax[i];
    nested.offset = n > 0 ? (float)(sum / (double)n) : 0.0f;
    for (size_t first = 0; first < n; first += HM_NF4_NESTED_BLOCK) {
        size_t end = n - first < HM_NF4_NESTED_BLOCK ? n : first + HM_NF4_NESTED_BLOCK;
        float top = 0.0f;
        for (size_t i = first; i < end; i++)
            top = fmaxf(top, fabsf(absmax[i] - nested.offset));
        nested.nested_absmax[first / HM_NF4_NESTED_BLOCK] = top;
        for (size_t i = first; i < end; i++) /* an all-zero block holds code 0, as theirs do */
            nested.code[i] =
                top > 0 ? nearest(map, (double)(absmax[i] - nested.offset) / (double)top) : 0;
    }
    *ret_nested = nested;
    return HM_OK;
}

void hm_nf4_nested_release(struct hm_nf4_nested *nested)
{
    if (!nested)
        return;
    hm_free(nested->code);
    hm_free(nested->nested_absmax);
    *nested = (struct hm_nf4_nested){ 0 };
}

int hm_nf4_state_json(uint32_t blocksize, enum hm_dtype dtype, uint64_t rows, uint64_t cols,
                      const float *offset, struct hm_buf *ret_text, struct hm_error *err)
{
    char number[HM_DOUBLE_TEXT_BYTES];
    struct hm_buf text = { 0 };

    int status = hm_buf_printf(&text, err,
                               "{\"quant_type\": \"nf4\", \"blocksize\": %" PRIu32
                               ", \"dtype\": \"%s\", \"shape\": [%" PRIu64,
                               blocksize, hm_dtype_hf_name(dtype), rows);
    if (status == HM_OK && cols > 0)
        status = hm_buf_printf(&text, err, ", %" PRIu64, cols);
    if (status == HM_OK && offset) {
        hm_double_text((double)*offset, number);
        status = hm_buf_printf(&text, err,
                               "], \"nested_blocksize\": %u, \"nested_dtype\": \"float32\", "
                               "\"nested_offset\": %s}",
                               HM_NF4_NESTED_BLOCK, number);
    } else if (status == HM_OK) {
        status = hm_buf_text(&text, "]}", err);
    }
    if (status == HM_OK)
        *ret_text = text;
    else
        hm_buf_release(&text);
    return status;
}
