/* SPDX-License-Identifier: MIT */
/*
 * Base + s B A, streamed by blocks of rows into a new folder: f32 sum, one rounding;
 * modules_to_save replace; mapped pages dropped behind. Same bytes for any thread count and shard
 * size of the input. Peak memory below 1 GiB for any model size.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_QLORA_ADAPTER_MERGE_H
#define HANMIX_QLORA_ADAPTER_MERGE_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/hash.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/model/adapter.h"

struct hm_adapter_merge_options {
    bool onto_dequantised; /* base is (or is treated as) the dequantised 4-bit weights */
    enum hm_dtype dtype;   /* HM_DTYPE_COUNT = the base's */
    uint64_t shard_bytes;
    uint64_t sync_bytes;             /* hm_folder_options' */
    struct hm_file_digests *digests; /* receives those of files read whole; NULL: not wanted */
    bool keep_journal; /* leave it to the caller to end (hm_folder_journal_remove): it has more to
                          do   before the folder is finished */
};
struct hm_adapter_merge_report {
    uint64_t tensors, merged, replaced, unchanged_values, changed_values;
    double max_abs_delta, relative_norm;
};
/* Stopped (HM_ERR_STOPPED), killed, or without room (HM_ERR_IO), the same call continues with the
   first tensor that is not whole on the disk; only a folder begun with equal inputs may be given.
 */
int hm_adapter_merge(const char *model_dir, const char *adapter_dir,
                     const struct hm_adapter_merge_options *options,
                     const struct hm_kernels *kernels, const char *out_dir,
                     const struct hm_ctl *ctl, struct hm_adapter_merge_report *ret_report,
                     struct hm_error *err);
/* Peak of the heap for factors of this rank, and of mapped pages: those of one window of a weight
 * and its factors. */
void hm_adapter_merge_memory(const struct hm_arch *arch, enum hm_dtype written, uint32_t rank,
                             int threads, uint64_t *ret_heap_bytes, uint64_t *ret_mapped_bytes);

#endif
