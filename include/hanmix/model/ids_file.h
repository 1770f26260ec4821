/* SPDX-License-Identifier: MIT */
/*
 * Token ids handed over in a safetensors file: I64 `input_ids` (or `ids`) [rows, T] or
 * [micro-batches, rows, T], with `labels` (-100 is no target) and `attention_mask` of the same
 * shape when they are there. What training and evaluation both read. Thread class: immutable after
 * open.
 */
#ifndef HANMIX_MODEL_IDS_FILE_H
#define HANMIX_MODEL_IDS_FILE_H

#include "hanmix/checkpoint/safetensors.h"

struct hm_ids_file {
    struct hm_safetensors file;
    const struct hm_tensor *ids, *labels,
        *mask;           /* borrowed from file; labels and mask may be NULL */
    uint32_t seq_len;    /* T, from 2 on */
    uint64_t rows;       /* all of them */
    uint32_t micro_rows; /* rows of a micro-batch, 0 for [rows, T] */
};

int hm_ids_file_open(const char *path, struct hm_ids_file *ret_file, struct hm_error *err);
void hm_ids_file_close(struct hm_ids_file *file); /* {0} is fine */

/* Every id and label is below vocab_size, every mask 0 or 1: else HM_ERR_FORMAT telling where. */
int hm_ids_file_check(const struct hm_ids_file *file, uint32_t vocab_size, struct hm_error *err);

struct hm_ids_row { /* T of each, owned by the caller */
    int32_t *ids, *labels;
    uint8_t *mask;
    bool has_labels; /* labels were filled: the file's own, or the ids with padding left out */
    bool has_mask;
};
/* Decode one row. Without a `labels` tensor in the file, or unless own_labels, padding is the only
 * thing left out. */
int hm_ids_file_row(const struct hm_ids_file *file, uint64_t row, bool own_labels,
                    struct hm_ids_row *row_out, struct hm_error *err);

#endif
