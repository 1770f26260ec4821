/* SPDX-License-Identifier: MIT */
/*
 * SHA-256 over libcrypto's EVP interface, digests of files, and a fast stable 64-bit
 * hash for tables and sampling (not for anything an adversary chooses).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/bytes.h"
#include "hanmix/base/direct.h"
#include "hanmix/base/hash.h"
#include "internal.h"

#define READ_BYTES          (1024u * 1024)
#define PROGRESS_FROM_BYTES (256ull << 20)
#define LARGE_FILE_BYTES    (16ull << 20) /* from here on by a reading thread */
#define PIECE_BYTES         (4u << 20)

int hm_sha256_init(struct hm_sha256 *sha, struct hm_error *err)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    if (!context || !EVP_DigestInit_ex(context, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(context);
        return hm_fail_nomem(err, "for a SHA-256 digest");
    }
    sha->context = context;
    return HM_OK;
}

void hm_sha256_add(struct hm_sha256 *sha, const void *data, size_t len)
{
    int good = EVP_DigestUpdate(sha->context, data, len);

    HM_BUG(!good);
}

void hm_sha256_finish(struct hm_sha256 *sha, char hex[HM_SHA256_HEX_BYTES])
{
    static const char digit[] = "0123456789abcdef";
    unsigned char bytes[32];
    int good = EVP_DigestFinal_ex(sha->context, bytes, NULL);

    HM_BUG(!good);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        hex[2 * i] = digit[bytes[i] >> 4];
        hex[2 * i + 1] = digit[bytes[i] & 15];
    }
    hex[64] = '\0';
    hm_sha256_release(sha);
}

void hm_sha256_release(struct hm_sha256 *sha)
{
    EVP_MD_CTX_free(sha->context);
    sha->context = NULL;
}

int hm_sha256_of(const void *data, size_t len, char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct hm_sha256 sha = { 0 };

    HM_TRY(hm_sha256_init(&sha, err));
    hm_sha256_add(&sha, data, len);
    hm_sha256_finish(&sha, hex);
    return HM_OK;
}

static int add_open_file(int fd, const char *path, const struct hm_ctl *ctl, struct hm_sha256 *sha,
                         struct hm_error *err)
{
    char *buffer = hm_alloc(HM_MEM_OTHER, READ_BYTES);
    int status = buffer ? HM_OK : hm_fail_nomem(err, "for '%s'", path);

    while (status == HM_OK) {
        ssize_t got = read(fd, buffer, READ_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            break;
        if (got < 0)
            status = hm_fail_errno(err, "read", path);
        else if (hm_ctl_stopped(ctl))
            status = hm_fail(err, HM_ERR_STOPPED, "stopped while digesting '%s'", path);
        else
            hm_sha256_add(sha, buffer, (size_t)got);
    }
    hm_free(buffer);
    return status;
}

/* Past the page cache, which a large file would only fill. */
static int add_large_file(int fd, const char *path, uint64_t bytes, const struct hm_ctl *ctl,
                          struct hm_sha256 *sha, struct hm_error *err)
{
    const struct hm_read_range range = { fd, path, 0, bytes, PIECE_BYTES };
    struct hm_progress progress = {
        .what = "digest", .unit = "bytes", .total = bytes, .detail = path
    };
    struct hm_reader *reader = NULL;

    HM_TRY(hm_reader_new(&range, 1, &reader, err));
    int status = HM_OK;
    while (status == HM_OK && progress.done < bytes) {
        const uint8_t *piece;
        size_t len;
        status = hm_reader_next(reader, &piece, &len, err);
        if (status < 0)
            break;
        hm_sha256_add(sha, piece, len);
        progress.done += len;
        if (bytes >= PROGRESS_FROM_BYTES)
            hm_ctl_progress(ctl, &progress);
        if (hm_ctl_stopped(ctl))
            status = hm_fail(err, HM_ERR_STOPPED, "stopped while digesting '%s'", path);
    }
    hm_reader_free(reader);
    return status;
}

int hm_sha256_file(const char *path, const struct hm_ctl *ctl, char hex[HM_SHA256_HEX_BYTES],
                   struct hm_error *err)
{
    struct hm_sha256 sha = { 0 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return hm_fail_errno_reading(err, "open", path);
    struct stat info = { 0 };
    bool large = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) &&
                 (uint64_t)info.st_size >= LARGE_FILE_BYTES;
    int status = hm_sha256_init(&sha, err);
    if (status == HM_OK)
        status = large ? add_large_file(fd, path, (uint64_t)info.st_size, ctl, &sha, err)
                       : add_open_file(fd, path, ctl, &sha, err);
    close(fd);
    if (status == HM_OK)
        hm_sha256_finish(&sha, hex);
    else
        hm_sha256_release(&sha);
    return status;
}

uint64_t hm_sha256_file_bytes(uint64_t file_bytes)
{
    return file_bytes < LARGE_FILE_BYTES ? READ_BYTES : hm_reader_bytes(file_bytes, PIECE_BYTES);
}

int hm_file_digests_add(struct hm_file_digests *digests, const char *path,
                        const char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct hm_file_digest *item =
        hm_realloc(HM_MEM_TEXT, digests->item, (digests->count + 1) * sizeof *item);

    if (item)
        digests->item = item;
    char *copy = item ? hm_strdup(HM_MEM_TEXT, path) : NULL;
    if (!copy)
        return hm_fail_nomem(err, "for the digest of '%s'", path);
    item[digests->count].path = copy;
    memcpy(item[digests->count++].hex, hex, HM_SHA256_HEX_BYTES);
    return HM_OK;
}

const char *hm_file_digests_find(const struct hm_file_digests *digests, const char *path)
{
    for (size_t i = 0; i < digests->count; i++)
        if (strcmp(digests->item[i].path, path) == 0)
            return digests->item[i].hex;
    return NULL;
}

void hm_file_digests_release(struct hm_file_digests *digests)
{
    for (size_t i = 0; i < digests->count; i++)
        hm_free(digests->item[i].path);
    hm_free(digests->item);
    *digests = (struct hm_file_digests){ 0 };
}

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014). */
uint64_t hm_mix64(uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

uint64_t hm_hash64(const void *data, size_t len, uint64_t seed)
{
    const unsigned char *byte = data;
    uint64_t hash = hm_mix64(seed ^ len);

    for (; len >= 8; byte += 8, len -= 8) {
        hash = (hash ^ hm_le_get(byte, 8)) * 0x9fb21c651e98df25u;
        hash ^= hash >> 29;
    }
    if (len > 0)
        hash = (hash ^ hm_le_get(byte, len)) * 0x9fb21c651e98df25u;
    return hm_mix64(hash);
}
