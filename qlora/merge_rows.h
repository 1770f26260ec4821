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
};

struct hm_merge_sums {
    uint64_t changed, unchanged; /* values of merged and replaced weights, as written */
    double delta_max, delta_square, weight_square;
};

struct hm_merge_rows;

int hm_merge_rows_new(const struct hm_kernels *kernels, struct hm_merge_rows **ret_rows,
                      struct hm_error *err);
void hm_merge_rows_free(struct hm_merge_rows *rows);
/* Buffers for one matrix, and how many of its values are resident at once. */
void hm_merge_rows_memory(uint32_t rows, uint32_t cols, uint32_t rank, int threads,
                          uint64_t *ret_heap_bytes, uint64_t *ret_window_values);

/* All rows of source into the writer's current tensor; sums are added to. */
int hm_merge_rows_write(struct hm_merge_rows *rows, const struct hm_merge_source *source,
                        struct hm_folder_writer *writer, struct hm_merge_sums *sums,
                        struct hm_error *err);

#endif
