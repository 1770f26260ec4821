/* SPDX-License-Identifier: MIT */
/*
 * The table of element types of safetensors files, and conversions to and from f32.
 * Rounding to bf16/f16 is to nearest even; NaN stays NaN. Thread class: pure.
 */
#ifndef HANMIX_CHECKPOINT_DTYPE_H
#define HANMIX_CHECKPOINT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/status.h"

enum hm_dtype { /* in the order that safetensors' writer sorts by, ascending */
                HM_DTYPE_BOOL,
                HM_DTYPE_U8,
                HM_DTYPE_I8,
                HM_DTYPE_F8_E5M2,
                HM_DTYPE_F8_E4M3,
                HM_DTYPE_I16,
                HM_DTYPE_U16,
                HM_DTYPE_F16,
                HM_DTYPE_BF16,
                HM_DTYPE_I32,
                HM_DTYPE_U32,
                HM_DTYPE_F32,
                HM_DTYPE_F64,
                HM_DTYPE_I64,
                HM_DTYPE_U64,
                HM_DTYPE_COUNT
};

const char *hm_dtype_name(enum hm_dtype dtype);    /* safetensors' spelling: "BF16" */
const char *hm_dtype_hf_name(enum hm_dtype dtype); /* torch's spelling: "bfloat16" */
size_t hm_dtype_bytes(enum hm_dtype dtype);
/* either spelling; also "bf16" */
int hm_dtype_parse(const char *name, enum hm_dtype *ret_dtype, struct hm_error *err);

/* F32, F16, BF16: what weights, adapters and results are stored in. */
bool hm_dtype_is_weight(enum hm_dtype dtype);

/* count values at `data` (any alignment) of a float dtype (F16, BF16, F32, F64) to f32, and back.
 * Other dtypes: HM_ERR_FORMAT. */
int hm_dtype_to_f32(enum hm_dtype dtype, const void *data, size_t count, float *out,
                    struct hm_error *err);
int hm_dtype_from_f32(enum hm_dtype dtype, const float *values, size_t count, void *out,
                      struct hm_error *err);
/* The same for a dtype that was checked before (HM_BUG otherwise). */
void hm_floats_load(enum hm_dtype dtype, const void *data, size_t count, float *out);
void hm_floats_store(enum hm_dtype dtype, const float *values, size_t count, void *out);

#endif
