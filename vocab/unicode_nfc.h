/* SPDX-License-Identifier: MIT */
/*
 * Unicode normalisation form C of text, as the tokenizers library computes it. Private to vocab/.
 * Thread class: pure.
 */
#ifndef HANMIX_VOCAB_UNICODE_NFC_H
#define HANMIX_VOCAB_UNICODE_NFC_H

#include "hanmix/base/str.h"

extern const uint32_t hm_nfc_class[];
extern const size_t hm_nfc_classes;
extern const uint64_t hm_nfc_parts[];
extern const size_t hm_nfc_n_parts;

/* Whether text of valid UTF-8 holds nothing that the form changes. */
bool hm_nfc_is_plain(struct hm_str text);
/* Appends the form of text. */
int hm_nfc_append(struct hm_str text, struct hm_buf *buf, struct hm_error *err);

#endif
