/* SPDX-License-Identifier: MIT */
/*
 * The inside of struct hm_weight, shared by its binding (weight_bind.c) and its access (weight.c).
 * Invariant: every pointer covers what rows, cols and blocksize say; tensors[] are what a page drop
 * and the stored size speak of.
 */
#ifndef HANMIX_CHECKPOINT_WEIGHT_PARTS_H
#define HANMIX_CHECKPOINT_WEIGHT_PARTS_H

#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/checkpoint/weight.h"

enum weight_layout {
    WEIGHT_DENSE,      /* row-major values of `dtype` */
    WEIGHT_NF4,        /* codes, f32 absmax */
    WEIGHT_NF4_NESTED, /* codes, 8-bit absmax with nested scales */
};

struct weight_part { /* a range of a tensor of the checkpoint */
    const struct hm_tensor *tensor;
    uint64_t offset, bytes;
};

struct hm_weight {
    enum weight_layout layout;
    uint32_t rows, cols;
    enum hm_dtype dtype;
    const uint8_t *data; /* borrowed: values or codes, any alignment */

    /* 4-bit only; borrowed, any alignment */
    uint32_t blocksize;
    const uint8_t *absmax;        /* f32 or u8, one a block */
    const uint8_t *nested_absmax; /* f32, one for 256 blocks */
    const uint8_t *nested_map;    /* f32 [256] */
    float nested_offset;

    const struct hm_checkpoint *ckpt; /* borrowed */
    struct weight_part part[HM_NF4_PARTS];
    size_t n_parts;
};

#endif
