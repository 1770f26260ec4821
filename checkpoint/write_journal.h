/* SPDX-License-Identifier: MIT */
/*
 * What is whole of a model folder being written, on the disk before it is said. Private to
 * checkpoint/. Thread class: owner thread.
 */
#ifndef HANMIX_CHECKPOINT_WRITE_JOURNAL_H
#define HANMIX_CHECKPOINT_WRITE_JOURNAL_H

#include "hanmix/checkpoint/checkpoint.h"

struct hm_whole_tensor {
    uint64_t bytes;
    char sha256[HM_SHA256_HEX_BYTES]; /* or empty */
    char note[HM_WRITE_NOTE_BYTES];   /* the caller's */
};

struct hm_write_journal {
    char *path;
    char key[HM_SHA256_HEX_BYTES]; /* of the plan: another plan does not find itself here */
    struct hm_buf waiting;         /* lines of tensors not yet known to be on the disk */
    uint64_t waiting_bytes;        /* of those tensors */
    double since;
    bool begun; /* the file is there */
};

/* Opens the journal of a folder; of a tensor that it says is whole, whole[i] and tensor[i] are set.
   A file of another plan, or damaged from its first line on, counts as none. */
int hm_write_journal_open(const char *dir, const char key[HM_SHA256_HEX_BYTES], bool *whole,
                          struct hm_whole_tensor *tensor, size_t n,
                          struct hm_write_journal *journal, struct hm_error *err);
/* Tensor i is complete, but perhaps not yet on the disk. */
int hm_write_journal_add(struct hm_write_journal *journal, size_t i,
                         const struct hm_whole_tensor *tensor, struct hm_error *err);
/* What waits is on the disk now. */
int hm_write_journal_flush(struct hm_write_journal *journal, struct hm_error *err);
void hm_write_journal_remove(struct hm_write_journal *journal);
void hm_write_journal_release(struct hm_write_journal *journal);

#endif
