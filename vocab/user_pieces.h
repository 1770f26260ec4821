/* SPDX-License-Identifier: MIT */
/*
 * User-defined pieces: text that is one of them is that piece whatever stands around it, the
 * longest at the first place where one begins, and nothing merges with it. Private to vocab/.
 * Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_USER_PIECES_H
#define HANMIX_VOCAB_USER_PIECES_H

#include "hanmix/vocab/spm_model.h"

struct hm_user_pieces {
    const struct hm_spm_model *model;
    int32_t *id; /* [count], by text */
    size_t count;
    bool begins[256]; /* one of them begins with this byte */
};

/* Borrows model. */
int hm_user_pieces_make(const struct hm_spm_model *model, struct hm_user_pieces *ret_pieces,
                        struct hm_error *err);
void hm_user_pieces_release(struct hm_user_pieces *pieces);
/* The place at or after `from` where the first one stands, and its id; text.len when none does. */
size_t hm_user_pieces_find(const struct hm_user_pieces *pieces, struct hm_str text, size_t from,
                           int32_t *ret_id);

#endif
