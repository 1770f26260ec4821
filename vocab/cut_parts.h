/* SPDX-License-Identifier: MIT */
/*
 * Cut runs that do not fit in memory: parted by hash into files, each part then counted in memory
 * by itself and written back as distinct segments; a part that is still too large is parted again.
 * The trainer reads them part by part. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_CUT_PARTS_H
#define HANMIX_VOCAB_CUT_PARTS_H

#include "han_spill.h"

#define HM_CUT_PARTS_MAX  (16u * HM_HAN_PARTS)
#define HM_CUT_NAME_BYTES 64u

/* The file of a merged part. */
void hm_cut_segments_name(char name[HM_CUT_NAME_BYTES], size_t number);

struct cut_part {
    struct run_file file;   /* occurrences, while they are written */
    struct run_words words; /* on their way */
    uint64_t bytes;         /* of the file: occurrences, then distinct segments */
    uint64_t splits;
    struct hm_error err;
};

struct cut_parts {
    struct hm_han_budget *budget;
    const struct hm_ctl *ctl;
    const char *dir; /* borrowed */
    size_t n;        /* HM_HAN_PARTS times a power of two */
    uint64_t hold_bytes;
    size_t first; /* of those being merged */
    struct cut_part part[HM_CUT_PARTS_MAX];
};

/* err is not NULL here and below. dir is borrowed. */
int hm_cut_parts_new(const char *dir, size_t n, struct hm_han_budget *budget,
                     struct cut_parts **ret_parts, struct hm_error *err);
/* Parts that were merged by an earlier process; the caller sets their sizes. */
int hm_cut_parts_found(const char *dir, size_t n, struct hm_han_budget *budget,
                       struct cut_parts **ret_parts, struct hm_error *err);
void hm_cut_parts_free(struct cut_parts *parts); /* keeps the files */
/* Sorted lists, and what was summed in memory. */
int hm_cut_parts_pour(struct cut_parts *parts, const struct hm_han_list *list, size_t n_lists,
                      struct hm_error *err);
int hm_cut_parts_take(struct cut_parts *parts, const struct hm_han_sums *sums,
                      struct hm_error *err);
/* All is poured: the parts become distinct segments; hold_bytes for one of them in memory. */
int hm_cut_parts_merge(struct cut_parts *parts, uint64_t hold_bytes, const struct hm_ctl *ctl,
                       struct hm_error *err);
/* As the trainer reads them: bpe_segments.walk, context is the parts. */
int hm_cut_parts_walk(void *context, size_t part, int (*each)(void *user, const struct hm_run *run),
                      void *user, struct hm_error *err);

#endif
