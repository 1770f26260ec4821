/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 (libcrypto) for what users compare; a fast 64-bit mix for tables and sampling.
 * Thread class: one hm_sha256 per thread; the functions are pure.
 */
#ifndef HANMIX_BASE_HASH_H
#define HANMIX_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/ctl.h"
#include "hanmix/base/status.h"

#define HM_SHA256_HEX_BYTES 65 /* 64 digits and NUL */

struct hm_sha256 {
    void *context; /* owned EVP_MD_CTX */
};

int hm_sha256_init(struct hm_sha256 *sha, struct hm_error *err);
void hm_sha256_add(struct hm_sha256 *sha, const void *data, size_t len);
void hm_sha256_finish(struct hm_sha256 *sha, char hex[HM_SHA256_HEX_BYTES]); /* releases */
void hm_sha256_release(struct hm_sha256 *sha); /* after a failure; finished or {0} is fine */

int hm_sha256_of(const void *data, size_t len, char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);
/* Of large files progress is told; a stop is HM_ERR_STOPPED. ctl may be NULL. */
int hm_sha256_file(const char *path, const struct hm_ctl *ctl, char hex[HM_SHA256_HEX_BYTES],
                   struct hm_error *err);
/* Memory that hm_sha256_file takes for a file of that size. */
uint64_t hm_sha256_file_bytes(uint64_t file_bytes);

struct hm_file_digests { /* of files, by the path they were opened with */
    struct hm_file_digest {
        char *path;
        char hex[HM_SHA256_HEX_BYTES];
    } * item;
    size_t count;
};
int hm_file_digests_add(struct hm_file_digests *digests, const char *path,
                        const char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);
/* NULL: not among them. */
const char *hm_file_digests_find(const struct hm_file_digests *digests, const char *path);
void hm_file_digests_release(struct hm_file_digests *digests);

uint64_t hm_hash64(const void *data, size_t len, uint64_t seed); /* stable across machines */
uint64_t hm_mix64(uint64_t value);                               /* splitmix64 finaliser */

/* The upper 53 bits as a number in [0, 1): to keep a share of things by their hash, or to draw. */
static inline double hm_unit_interval(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

#endif
