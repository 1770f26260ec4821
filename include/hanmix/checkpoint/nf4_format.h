/* SPDX-License-Identifier: MIT */
/*
 * NF4 on disk, as bitsandbytes 0.50 writes it: nested (double quantised) absmax, the quant_state
 * JSON, and the six tensors that carry a matrix. Codes and absmax come from kernels (nf4_encode).
 * The arithmetic is specified in docs/FORMATS.md.
 * Thread class: pure.
 */
#ifndef HANMIX_CHECKPOINT_NF4_FORMAT_H
#define HANMIX_CHECKPOINT_NF4_FORMAT_H

#include "hanmix/checkpoint/safetensors.h"

#define HM_NF4_NESTED_BLOCK 256u /* block scales that share a nested scale */
#define HM_NF4_PARTS        6u   /* tensors that carry a double quantised matrix */

/* Values that share a scale: a power of two from 32 to 4096. */
bool hm_nf4_blocksize_ok(uint64_t blocksize);

struct hm_nf4_nested {    /* double quantised absmax */
    uint8_t *code;        /* n */
    float *nested_absmax; /* ceil(n / HM_NF4_NESTED_BLOCK) */
    float offset;         /* f32 mean of absmax */
    size_t n;
};
int hm_nf4_nest(const float *absmax, size_t n, struct hm_nf4_nested *ret_nested,
                struct hm_error *err);
void hm_nf4_nested_release(struct hm_nf4_nested *nested);

/* The quant_state JSON text, byte for byte as Python's json.dumps writes it; cols 0 = a vector;
 * offset NULL = not double quantised. */
int hm_nf4_state_json(uint32_t blocksize, enum hm_dtype dtype, uint64_t rows, uint64_t cols,
                      const float *offset, struct hm_buf *ret_text, struct hm_error *err);

#endif
