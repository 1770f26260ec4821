/* SPDX-License-Identifier: MIT */
/*
 * The door to libsentencepiece, in C: open, encode, decode. Every exception and every status of the
 * library becomes an hm_status here. Private to vocab/. Thread class: immutable after open.
 */
#ifndef HANMIX_VOCAB_SPM_SHIM_H
#define HANMIX_VOCAB_SPM_SHIM_H

#ifdef __cplusplus
extern "C" {
#endif

#include "hanmix/base/str.h"
#include "hanmix/base/text.h"

/* model: bytes that hm_spm_model_parse accepted. `what` names them in errors. */
int hm_spm_shim_open(struct hm_str model, const char *what, void **ret_processor,
                     struct hm_error *err);
void hm_spm_shim_close(void *processor);
/* Appends the ids of text. */
int hm_spm_shim_encode(const void *processor, struct hm_str text, struct hm_ids *ids,
                       struct hm_error *err);
/* Appends the text; every id lies in the vocabulary. */
int hm_spm_shim_decode(const void *processor, const int32_t *ids, size_t n, struct hm_buf *text,
                       struct hm_error *err);

#ifdef __cplusplus
}
#endif

#endif
