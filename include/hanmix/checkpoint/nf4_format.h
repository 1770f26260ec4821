/* SPDX-License-Identifier: MIT */
/*
 * NF4 on disk, as bitsandbytes 0.50 writes it: quantising a matrix to codes, absmax, nested absmax and the
 * quant_state JSON, and the six tensors that carry them. The arithmetic is specified in docs/FORMATS.md.
 */
#ifndef HANMIX_CHECKPOINT_NF4_FORMAT_H
#define HANMIX_CHECKPOINT_NF4_FORMAT_H

#include "hanmix/checkpoint/safetensors.h"

extern const float hm_nf4_code[16];       /* ascending, exact f32 */
extern const float hm_nf4_threshold[15];  /* midpoints; a value on a midpoint takes the lower code */
void hm_nf4_dynamic_map(float map[256]);  /* signed dynamic 8-bit map of nested scales */

/* Blocks of `blocksize` consecutive values from flat index 0 of a sequence whose total length is n_total; first must be a multiple of 2*blocksize or 0.
   codes: ceil(n/2) bytes; absmax: ceil(n/blocksize). Rule: full block x = clamp(w * (1/max(absmax,1e-38))), last partial block by division. */
void hm_nf4_quantize(const float *values, size_t n, uint32_t blocksize, uint8_t *codes, float *absmax);

struct hm_nf4_nested { /* double quantised absmax */
    uint8_t *code;        /* n */
    float *nested_absmax; /* ceil(n / 256) */
    float offset;         /* f32 mean of absmax */
    size_t n;
};
int hm_nf4_nest(const float *absmax, size_t n, struct hm_nf4_nested *ret_nested, struct hm_error *err);
void hm_nf4_nested_release(struct hm_nf4_nested *nested);

/* The quant_state JSON text, byte for byte as Python's json.dumps writes it; offset NULL = not double quantised. */
int hm_nf4_state_json(uint32_t blocksize, enum hm_dtype dtype, uint64_t rows, uint64_t cols, const float *offset,
                      struct hm_buf *ret_text, struct hm_error *err);

#endif
