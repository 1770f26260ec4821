/* SPDX-License-Identifier: MIT */
/*
 * The rows of a grown matrix: where they come from (row_plan.c) and what they hold (embed_rows.c),
 * apart from files (embed_resize.c). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_EMBED_ROWS_H
#define HANMIX_VOCAB_EMBED_ROWS_H

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/vocab/embed_resize.h"

/*
 * Row r of the grown matrix: r < first_new as it was; r < pieces by the rule of the options, from
 * the old rows id[first[r - first_new]] .. id[first[r - first_new + 1]] (none: all old rows), or
 * that one row bit for bit where moved[r - first_new]; r < kept as it was (padding of the old
 * matrix); others the mean of all old rows, those of the old tokenizer's old_pieces.
 */
struct hm_row_plan {
    uint64_t old_pieces, first_new, pieces, old_rows, kept, rows, n_moved;
    size_t *first; /* [pieces - first_new + 1] */
    bool *moved;   /* [pieces - first_new] */
    struct hm_ids ids;
};

int hm_row_plan_make(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer,
                     const struct hm_resize_options *options, uint64_t old_rows,
                     struct hm_row_plan *ret_plan, struct hm_error *err);
/* Rows beyond the old tokenizer's pieces that are not kept: new pieces take them, or ids move. */
uint64_t hm_row_plan_replaced(const struct hm_row_plan *plan);
void hm_row_plan_release(struct hm_row_plan *plan);

/* One matrix on its way, and what was noticed. */
struct hm_grown_matrix {
    const struct hm_checkpoint *ckpt;
    const struct hm_tensor *tensor; /* [old_rows][D], F32, F16 or BF16 */
    bool head;                      /* weights of an output matrix, else those of an input */
    struct hm_rng_key key;
    uint64_t duplicates; /* new rows that equal an earlier new row bit for bit */
    bool not_definite;   /* NORMAL: means were taken */
};
/* Stream it into the writer. */
int hm_rows_write(const struct hm_row_plan *plan, const struct hm_resize_options *options,
                  struct hm_grown_matrix *matrix, const struct hm_ctl *ctl,
                  struct hm_st_writer *writer, struct hm_error *err);

#endif
