/* SPDX-License-Identifier: MIT */
/*
 * What the sources of spm_*.c share: protobuf-c messages on the tagged heap, and the check of a
 * normaliser's character map. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_SPM_PRIVATE_H
#define HANMIX_VOCAB_SPM_PRIVATE_H

#include <protobuf-c/protobuf-c.h>

#include "hanmix/vocab/spm_model.h"

/*
 * precompiled_charsmap is a double-array trie and a pool of texts that the library walks without
 * looking: every step and every value must stay inside. HM_ERR_FORMAT names `what`.
 */
int hm_spm_charsmap_check(struct hm_str charsmap, const char *what, struct hm_error *err);

#endif
