/* SPDX-License-Identifier: MIT */
/*
 * One merged matrix as a stream of rows. Private to qlora/. Thread class: owner thread; works in
 * parallel inside.
 */
#ifndef HANMIX_QLORA_MERGE_ROWS_H
#define HANMIX_QLORA_MERGE_ROWS_H

#include "hanmix/checkpoint/weight.h"
#include "hanmix/model/peft_folder.h"

struct hm_merge_source { /* what one weight is made of; all borrowed */
    const char *name;    /* for messages */
    const struct hm_weight *weight;
    const struct hm_tensor *a, *b; /* LoRA factors [r, cols], [rows, r]; NULL: none */
    uint32_t rank;
    float scale;
    const struct hm_tensor *full; /* replaces the weight; NULL: none */
    const struct hm_map *map;     /* of the factors and of full: read pages are dropped */
    enum hm_dtype dtype;          /* written */
    struct hm_reader *reader; /* brings the weight's values in pieces of hm_merge_window_rows; NULL:
                                 they are read from the mapping */
};

struct hm_merge_sums {
    uint64_t changed, unchanged; /* values of merged and replaced weights, as written */
    double delta_max, delta_square, weight_square;
};

/* As one line and back; false when it is none. */
void hm_merge_sums_note(const struct hm_merge_sums *sums, char note[HM_WRITE_NOTE_BYTES]);
bool hm_merge_sums_recall(const char *note, struct hm_merge_sums *ret_sums);
void hm_merge_sums_join(struct hm_merge_sums *sums, const struct hm_merge_sums *more);

struct hm_merge_rows;

int hm_merge_rows_new(const struct hm_kernels *kernels, struct hm_merge_rows **ret_rows,
                      struct hm_error *err);
void hm_merge_rows_free(struct hm_merge_rows *rows);
/* Buffers for one matrix, and how many of its values are resident at once. */
void hm_merge_rows_memory(uint32_t rows, uint32_t cols, uint32_t rank, int threads,
                          size_t written_bytes, uint64_t *ret_heap_bytes,
                          uint64_t *ret_window_values);

uint32_t hm_merge_window_rows(uint32_t cols); /* worked on at once */
/* Whether windows of the weight begin with a block, so that a reader can bring them. */
bool hm_merge_rows_streamed(const struct hm_weight *weight);

/* All rows of source into the writer's current tensor, with its sums as a note. */
int hm_merge_rows_write(struct hm_merge_rows *rows, const struct hm_merge_source *source,
                        struct hm_folder_writer *writer, struct hm_merge_sums *ret_sums,
                        struct hm_error *err);

#endif
