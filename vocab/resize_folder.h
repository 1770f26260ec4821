/* SPDX-License-Identifier: MIT */
/*
 * What a grown model folder holds besides weights (resize_folder.c). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_RESIZE_FOLDER_H
#define HANMIX_VOCAB_RESIZE_FOLDER_H

#include "embed_rows.h"

struct hm_resize_folder {
    const struct hm_checkpoint *ckpt;
    const struct hm_tensor *embed;
    const struct hm_tensor *head; /* NULL when the head is tied and not stored */
    const struct hm_row_plan *plan;
    const struct hm_tokenizer *old_tokenizer, *new_tokenizer;
    const char *out_dir;
    const struct hm_ctl *ctl;
};

/* Says which rows that no piece of the old tokenizer has are not kept: padding, or tokens that were
 * added beside the tokenizer. */
int hm_resize_replaced_tell(const struct hm_resize_folder *folder, struct hm_error *err);
/* A tokenizer.json beside the new tokenizer.model must not tell another vocabulary. */
int hm_resize_companions_check(const struct hm_tokenizer *new_tokenizer, struct hm_error *err);
/* Index, config.json, tokenizer files, generation settings and the record. */
int hm_resize_folder_write(const struct hm_resize_folder *folder, struct hm_error *err);

#endif
