/* SPDX-License-Identifier: MIT */
/*
 * The inside of struct hm_folder_writer, shared by its planning and writing (folder_writer.c) and
 * by what ends a folder (folder_end.c). Private to checkpoint/. Thread class: owner thread.
 */
#ifndef HANMIX_CHECKPOINT_FOLDER_PARTS_H
#define HANMIX_CHECKPOINT_FOLDER_PARTS_H

#include "write_journal.h"

struct hm_planned_tensor {
    struct hm_tensor_spec spec; /* owns its name */
    size_t shard;
};

struct hm_folder_writer {
    char *dir;
    struct hm_planned_tensor *tensor; /* in the caller's order, like whole and done */
    size_t count;
    bool *whole;
    struct hm_whole_tensor *done;
    bool large, digests;
    uint64_t sync_bytes;
    struct hm_write_journal journal; /* of a large folder */
    size_t n_shards;
    size_t shard;      /* the open one; n_shards when all are committed */
    size_t first, end; /* its tensors */
    size_t *order;     /* of the open shard: file order -> index from `first` */
    size_t at;         /* in order; its end when the shard is full */
    uint64_t left_bytes;
    bool hashing; /* sha is under way */
    struct hm_st_writer *file;
    struct hm_sha256 sha; /* of the current tensor */
};

/* On the heap. */
int hm_folder_shard_name(char **ret_name, const struct hm_folder_writer *writer, size_t shard,
                         struct hm_error *err);
/* The tensors by name; free with hm_free; NULL when memory is out. */
struct hm_planned_tensor **hm_folder_by_name(const struct hm_folder_writer *writer);
/* All that is complete is synced and recorded. */
int hm_folder_record(struct hm_folder_writer *writer, struct hm_error *err);

#endif
