/* SPDX-License-Identifier: MIT */
/*
 * A 16- or 32-bit model folder to bitsandbytes' 4-bit layout, streamed tensor by tensor; every
 * expert becomes NF4.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_QLORA_QUANTIZE_H
#define HANMIX_QLORA_QUANTIZE_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/hash.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/kernels/kernels.h"

struct hm_quantize_options {
    bool double_quant;  /* true */
    uint32_t blocksize; /* 64 */
    char **skip; /* module names kept as they are: lm_head, embed_tokens, gate; a name matching
                    nothing is HM_ERR_USAGE (defaults excepted) */
    size_t n_skip;
    enum hm_dtype compute_dtype; /* BF16; dtype of quant_state and of the weights left dense */
    uint64_t shard_bytes;
    uint64_t sync_bytes;             /* hm_folder_options' */
    struct hm_file_digests *digests; /* receives those of files read whole; NULL: not wanted */
};
struct hm_quantize_report {
    uint64_t bytes_by_class[6]; /* expert, attention, gate, embed, head, norm: enum hm_byte_class */
    uint64_t quantized_tensors;
    char **unquantized; /* tensor names of 2-D weights left dense, owned */
    size_t n_unquantized;
    double rms_error; /* relative rms of dequantised against original over quantised weights */
};
enum hm_byte_class {
    HM_BYTES_EXPERT,
    HM_BYTES_ATTENTION,
    HM_BYTES_GATE,
    HM_BYTES_EMBED,
    HM_BYTES_HEAD,
    HM_BYTES_NORM
};
/* Every weight is read once, unless a shard ends inside it or a run is continued. Stopped
   (HM_ERR_STOPPED), killed, or without room (HM_ERR_IO), the same call continues with the first
   tensor that is not whole on the disk; only a folder begun with equal inputs may be given.
   NaN or Inf in a weight: HM_ERR_FORMAT naming the tensor. A linear that is neither NF4 nor named
 * in skip: HM_ERR_CHECK. */
int hm_quantize(const char *model_dir, const struct hm_quantize_options *options,
                const struct hm_kernels *kernels, const char *out_dir, const struct hm_ctl *ctl,
                struct hm_quantize_report *ret_report, struct hm_error *err);
void hm_quantize_report_release(struct hm_quantize_report *report);
/* Peak of the heap, and of mapped pages: those of one window of a weight. */
void hm_quantize_memory(const struct hm_arch *arch, const struct hm_quantize_options *options,
                        int threads, uint64_t *ret_heap_bytes, uint64_t *ret_mapped_bytes);

#endif
