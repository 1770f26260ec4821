/* SPDX-License-Identifier: MIT */
/*
 * What the sources of spm_*.c share: the check of a normaliser's character map, and the search for
 * pieces that stand twice. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_SPM_PRIVATE_H
#define HANMIX_VOCAB_SPM_PRIVATE_H

#include "hanmix/vocab/spm_model.h"

/*
 * precompiled_charsmap is a double-array trie and a pool of texts that the library walks without
 * looking: every step and every value must stay inside. HM_ERR_FORMAT names `what`.
 */
int hm_spm_charsmap_check(struct hm_str charsmap, const char *what, struct hm_error *err);

/* A text that stands twice in a file, which is otherwise read as always. */
struct hm_spm_duplicate {
    struct hm_str text; /* borrowed */
    int32_t first, again;
};
typedef int hm_spm_duplicate_found(void *context, const struct hm_spm_duplicate *found,
                                   struct hm_error *err);
int hm_spm_duplicates_find(const char *path, hm_spm_duplicate_found *found, void *context,
                           struct hm_error *err);

#endif
