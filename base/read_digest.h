/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 of whole files, from ranges of them that a reader reads anyway. Private to base/. Thread
 * class: one thread at a time per object.
 */
#ifndef HANMIX_BASE_READ_DIGEST_H
#define HANMIX_BASE_READ_DIGEST_H

#include "hanmix/base/direct.h"

struct hm_read_digest;

/* Chooses the files. ranges is borrowed. HM_ERR_NOMEM. */
int hm_read_digest_new(const struct hm_read_range *ranges, size_t n,
                       struct hm_read_digest **ret_digest);
/* A piece of a range, in the order of the ranges. */
void hm_read_digest_add(struct hm_read_digest *digest, size_t range, uint64_t offset,
                        const uint8_t *data, size_t len);
void hm_read_digest_end(struct hm_read_digest *digest); /* all pieces were added */
/* After that: adds what was digested whole. */
int hm_read_digest_tell(struct hm_read_digest *digest, struct hm_file_digests *digests,
                        struct hm_error *err);
void hm_read_digest_free(struct hm_read_digest *digest);

#endif
