/* SPDX-License-Identifier: MIT */
/*
 * A micro-batch: samples side by side in the arrays that the model reads. Private to qlora/.
 */
#ifndef HANMIX_QLORA_TRAIN_BATCH_H
#define HANMIX_QLORA_TRAIN_BATCH_H

#include "hanmix/qlora/trainer.h"

struct hm_train_batch {
    struct hm_batch view; /* of the arrays below */
    uint64_t targets;     /* labels that a position predicts */
    uint64_t tokens;      /* without padding */
    uint64_t utf8_bytes;  /* that the targets stand for; 0 when the source does not know */
    uint32_t rows_max, seq_len_max;
    int32_t *ids, *labels; /* [rows_max][seq_len_max] room */
    uint8_t *mask, *doc_start;
};

int hm_train_batch_new(uint32_t rows_max, uint32_t seq_len_max, struct hm_train_batch *ret_batch,
                       struct hm_error *err);
void hm_train_batch_release(struct hm_train_batch *batch); /* {0} is fine */
/* Samples position .. position + rows - 1 of a source whose sequences fit. */
int hm_train_batch_fill(struct hm_train_batch *batch, struct hm_sample_source *source,
                        uint64_t position, uint32_t rows, struct hm_error *err);

#endif
