/* SPDX-License-Identifier: MIT */
/*
 * The rows of a grown matrix (embed_rows.c), apart from files (embed_resize.c). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_EMBED_ROWS_H
#define HANMIX_VOCAB_EMBED_ROWS_H

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/safetensors.h"
#include "hanmix/vocab/embed_resize.h"

/*
 * Row r of the grown matrix: r < first_new as it was; r < pieces by the rule of the options, from
 * the old rows id[first[r - first_new]] .. id[first[r - first_new + 1]] (none: the mean of all old
 * rows); r < old_rows as it was (padding of the old matrix); others the mean of all old rows.
 */
struct hm_row_plan {
    uint64_t first_new, pieces, old_rows, rows;
    size_t *first; /* [pieces - first_new + 1] */
    struct hm_ids ids;
};

int hm_row_plan_make(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer,
                     const struct hm_resize_options *options, uint64_t old_rows,
                     struct hm_row_plan *ret_plan, struct hm_error *err);
void hm_row_plan_release(struct hm_row_plan *plan);

/*
 * Stream the grown `tensor` [old_rows][D] (F32, F16 or BF16) into the writer. ret_duplicates: new
 * rows that equal an earlier new row bit for bit; may be NULL.
 */
int hm_rows_write(const struct hm_row_plan *plan, const struct hm_resize_options *options,
                  const struct hm_tensor *tensor, struct hm_rng_key key, const struct hm_ctl *ctl,
                  struct hm_st_writer *writer, uint64_t *ret_duplicates, struct hm_error *err);

#endif
