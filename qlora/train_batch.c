/* SPDX-License-Identifier: MIT */
/*
 * Micro-batches out of samples, and the count of their targets, which the weights of a step need
 * before its first backward pass.
 */
#include "train_batch.h"

#include <string.h>

int hm_train_batch_new(uint32_t rows_max, uint32_t seq_len_max, struct hm_train_batch *ret_batch,
                       struct hm_error *err)
{
    struct hm_train_batch batch = { .rows_max = rows_max, .seq_len_max = seq_len_max };
    size_t count = (size_t)rows_max * seq_len_max;

    batch.ids = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*batch.ids));
    batch.labels = hm_alloc_array(HM_MEM_OTHER, count, sizeof(*batch.labels));
    batch.mask = hm_alloc(HM_MEM_OTHER, count);
    batch.doc_start = hm_alloc(HM_MEM_OTHER, count);
    if (!batch.ids || !batch.labels || !batch.mask || !batch.doc_start) {
        hm_train_batch_release(&batch);
        return hm_fail_nomem(err, "for a batch of %u x %u tokens", rows_max, seq_len_max);
    }
    *ret_batch = batch;
    return HM_OK;
}

void hm_train_batch_release(struct hm_train_batch *batch)
{
    hm_free(batch->ids);
    hm_free(batch->labels);
    hm_free(batch->mask);
    hm_free(batch->doc_start);
    *batch = (struct hm_train_batch){ 0 };
}

static void row_count(struct hm_train_batch *batch, const struct hm_sample *sample,
                      uint32_t seq_len)
{
    for (uint32_t t = 0; t < seq_len; t++) {
        batch->tokens += !sample->mask || sample->mask[t];
        batch->targets += t > 0 && (!sample->labels || sample->labels[t] != HM_LABEL_IGNORE);
    }
    batch->utf8_bytes += sample->utf8_bytes;
}

int hm_train_batch_fill(struct hm_train_batch *batch, struct hm_sample_source *source,
                        uint64_t position, uint32_t rows, struct hm_error *err)
{
    uint32_t seq_len = hm_samples_seq_len(source);
    struct hm_sample sample = { 0 };

    HM_BUG(rows > batch->rows_max || seq_len > batch->seq_len_max);
    batch->targets = batch->tokens = batch->utf8_bytes = 0;
    for (uint32_t r = 0; r < rows; r++) {
        size_t at = (size_t)r * seq_len;
        HM_TRY(hm_samples_get(source, position + r, 0, &sample, err));
        memcpy(batch->ids + at, sample.ids, seq_len * sizeof(*sample.ids));
        if (sample.labels)
            memcpy(batch->labels + at, sample.labels, seq_len * sizeof(*sample.labels));
        if (sample.mask)
            memcpy(batch->mask + at, sample.mask, seq_len);
        if (sample.doc_start)
            memcpy(batch->doc_start + at, sample.doc_start, seq_len);
        row_count(batch, &sample, seq_len);
    }
    batch->view = (struct hm_batch){ .rows = rows,
                                     .seq_len = seq_len,
                                     .ids = batch->ids,
                                     .labels = sample.labels ? batch->labels : NULL,
                                     .mask = sample.mask ? batch->mask : NULL,
                                     .doc_start = sample.doc_start ? batch->doc_start : NULL };
    return HM_OK;
}
