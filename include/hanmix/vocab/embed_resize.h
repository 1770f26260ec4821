/* SPDX-License-Identifier: MIT */
/*
 * Growing embed_tokens and lm_head from an old to a new vocabulary, streamed: only shards holding
 * the two matrices are rewritten, others linked or copied. Old rows stay bit-identical.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_EMBED_RESIZE_H
#define HANMIX_VOCAB_EMBED_RESIZE_H

#include "hanmix/base/ctl.h"
#include "hanmix/checkpoint/model_arch.h"
#include "hanmix/vocab/tokenizer.h"

enum hm_resize_init { HM_RESIZE_MEAN, HM_RESIZE_MEAN_UPSTREAM, HM_RESIZE_NORMAL, HM_RESIZE_ZERO };
struct hm_resize_options {
    enum hm_resize_init init;
    double noise; /* mean: relative to each column's standard deviation over the old rows; 0 none */
    uint32_t pad_to; /* rows rounded up to a multiple; padding rows get the global mean */
    uint64_t seed;
};
struct hm_resize_report {
    uint64_t old_rows, new_rows; /* of both matrices, before and after, padding included */
    uint64_t padded_rows;        /* rows beyond the new tokenizer's pieces */
    uint64_t duplicate_rows; /* new pieces whose embedding equals that of an earlier new piece */
    uint64_t bytes_written, files_linked;
};
int hm_embed_resize(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                    const struct hm_tokenizer *new_tokenizer,
                    const struct hm_resize_options *options, const char *out_dir,
                    const struct hm_ctl *ctl, struct hm_resize_report *ret_report,
                    struct hm_error *err);
/* Heap that growing to `rows` takes, for plans. */
uint64_t hm_embed_resize_bytes(const struct hm_arch *arch, uint64_t rows);

#endif
