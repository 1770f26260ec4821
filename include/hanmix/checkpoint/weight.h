/* SPDX-License-Identifier: MIT */
/*
 * One weight matrix as it lies on disk, opaque: dense (F32, F16, BF16), a slice of a fused v5
 * tensor, or bitsandbytes 4-bit NF4 (double quantised or not, any quant_storage). No caller indexes
 * codes; rows are decoded in blocks. A layout tag leaves room for derived layouts.
 *
 * Decoding arithmetic: m = f32(f32(map[q] * nested_absmax) + offset); v = f32(nf4[code] * m). With
 * HM_ROUND_BF16 v is rounded once to bf16 (what bf16 compute sees).
 * Thread class: immutable after open; decode is thread safe.
 */
#ifndef HANMIX_CHECKPOINT_WEIGHT_H
#define HANMIX_CHECKPOINT_WEIGHT_H

#include "hanmix/base/direct.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/kernels/kernels.h"

struct hm_weight; /* opaque, heap; borrows from the checkpoint */

/* Bind `module`.weight (expected rows x cols; cols = 1 for vectors) of a checkpoint, trying fused
 * v5 names for experts and gate. */
int hm_weight_open(const struct hm_checkpoint *ckpt, const struct hm_weight_slot *slot,
                   struct hm_weight **ret_weight, struct hm_error *err);
void hm_weight_free(struct hm_weight *weight);

uint32_t hm_weight_rows(const struct hm_weight *weight);
uint32_t hm_weight_cols(const struct hm_weight *weight);
bool hm_weight_is_nf4(const struct hm_weight *weight);
uint64_t hm_weight_stored_bytes(const struct hm_weight *weight);
enum hm_dtype
hm_weight_dtype(const struct hm_weight *weight); /* of the values: quant_state dtype for NF4 */
/* aligned f32 storage usable in place, or NULL */
const float *hm_weight_f32_view(const struct hm_weight *weight);

/*
 * Decode rows row0..row0+n_rows-1, columns col0..col0+n_cols-1 into out[n_rows][ld] as f32, through
 * the kernel table (nf4_decode, bf16_to_f32, f16_to_f32). Any cut is allowed; fastest when columns
 * are cut at multiples of the block size.
 */
void hm_weight_decode(const struct hm_weight *weight, const struct hm_kernels *kernels,
                      uint32_t row0, uint32_t n_rows, uint32_t col0, uint32_t n_cols,
                      enum hm_round round, float *out, size_t ld);
/* The matrix as products in bf16 read it, borrowed from `weight`; false (and nothing written) when
 * its type or shape is none that struct hm_frozen allows: decode it then. */
bool hm_weight_frozen(const struct hm_weight *weight, struct hm_frozen *ret_frozen);
/* True when all stored values (or scales) are finite; names nothing. Gives the pages of long
 * stretches back as it passes. */
bool hm_weight_is_finite(const struct hm_weight *weight);
/* Where the bytes that are read again and again lie; the rest is read at open. */
#define HM_WEIGHT_PLACES 4
struct hm_weight_place {
    uint32_t file; /* of the checkpoint */
    uint64_t offset, bytes;
};
size_t hm_weight_places(const struct hm_weight *weight,
                        struct hm_weight_place place[HM_WEIGHT_PLACES]);
/* tell the kernel its mapped pages are no longer needed */
void hm_weight_drop_pages(const struct hm_weight *weight);

/* Where the values or codes lie, row after row: for a reader. piece_bytes is the caller's to set.
 */
void hm_weight_range(const struct hm_weight *weight, struct hm_read_range *ret_range);
uint32_t hm_weight_blocksize(const struct hm_weight *weight); /* values; 1: dense */
/* Of so many values from a row's start on, as stored. */
uint64_t hm_weight_value_bytes(const struct hm_weight *weight, uint64_t n);
/* Whole rows row0.. unrounded, from a piece that begins with row piece_row, at the start of a
 * block; scales come from the mapping. */
void hm_weight_decode_piece(const struct hm_weight *weight, const struct hm_kernels *kernels,
                            const uint8_t *piece, uint32_t piece_row, uint32_t row0,
                            uint32_t n_rows, float *out);
/* The scales of a 4-bit weight into the mapping, in one stretch each. */
int hm_weight_fetch_scales(const struct hm_weight *weight, struct hm_error *err);

#endif
