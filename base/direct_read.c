/* SPDX-License-Identifier: MIT */
/*
 * The reading threads: each claims the next piece, fills a ring's aligned buffer with the whole
 * pages that cover it, and waits when all are taken; two of them keep the disk busy between two
 * requests. Pieces are handed out in order, as the part of their buffer that was asked for. A
 * thread of read_digest.c may look at each before its buffer is used again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/direct.h"
#include "hanmix/base/parallel.h"
#include "internal.h"
#include "read_digest.h"

#define PAGE 4096u
enum { THREADS = 2 };

struct slot {
    uint8_t *buffer; /* owned, page-aligned inside `block` */
    void *block;
    size_t skip, bytes; /* of the piece */
    size_t range;
    uint64_t offset; /* of the piece in its file */
    bool ready;      /* filled, or failed: */
    int code;        /* errno; -1: the file ended early */
};

struct hm_reader {
    struct hm_read_range *range;
    size_t n;
    struct slot slot[HM_READ_BUFFERS];
    pthread_t thread[THREADS], digester;
    int started;
    bool digesting; /* its thread was started and not yet joined */
    struct hm_read_digest *digest;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t next_range; /* to claim from, at byte next_at */
    uint64_t next_at;
    uint64_t claimed, taken, digested; /* pieces; taken: handed out, the last two still in use */
    bool stop;
};

/* A second descriptor of the same file without the page cache; -1 where there is none. */
static int open_direct(int fd)
{
    char name[64];

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
}

/* At least `needed` bytes of up to `bytes` from a page's start on; 0, errno or -1. */
static int fill(int direct, int fd, uint64_t offset, size_t bytes, size_t needed, uint8_t *out)
{
    size_t got = 0;

    while (got < needed) {
        bool aligned = direct >= 0 && got % PAGE == 0;
        ssize_t part = pread(aligned ? direct : fd, out + got, bytes - got, (off_t)(offset + got));
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0 && aligned && errno == EINVAL) {
            direct = -1;
            continue;
        }
        if (part <= 0)
            return part < 0 ? errno : -1;
        got += (size_t)part;
    }
    if (direct < 0)
        (void)posix_fadvise(fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
    return 0;
}

/* Pieces whose buffers may be used again: the piece handed out last and the one before it are in
 * use. */
static uint64_t given_back(const struct hm_reader *r)
{
    uint64_t back = r->taken > 2 ? r->taken - 2 : 0;

    return r->digest && r->digested < back ? r->digested : back;
}

/* The next piece and its buffer, once that is free; NULL when all is over. */
static struct slot *claim(struct hm_reader *r)
{
    struct slot *slot = NULL;

    pthread_mutex_lock(&r->lock);
    while (!r->stop && r->next_range < r->n && r->claimed >= HM_READ_BUFFERS + given_back(r))
        pthread_cond_wait(&r->changed, &r->lock);
    if (!r->stop && r->next_range < r->n) {
        const struct hm_read_range *range = &r->range[r->next_range];
        uint64_t left = range->bytes - r->next_at;
        slot = &r->slot[r->claimed++ % HM_READ_BUFFERS];
        slot->ready = false;
        slot->range = r->next_range;
        slot->offset = range->offset + r->next_at;
        slot->bytes = left < range->piece_bytes ? (size_t)left : range->piece_bytes;
        slot->skip = (size_t)(slot->offset % PAGE);
        r->next_at += slot->bytes;
        if (r->next_at == range->bytes) {
            r->next_range++;
            r->next_at = 0;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return slot;
}

static void *read_pieces(void *context)
{
    struct hm_reader *r = context;
    int direct = -1, of = -1;
    struct slot *slot;

    while ((slot = claim(r))) {
        int fd = r->range[slot->range].fd;
        size_t needed = slot->skip + slot->bytes;
        if (fd != of) {
            if (direct >= 0)
                close(direct);
            direct = open_direct(of = fd);
        }
        int code = fill(direct, fd, slot->offset - slot->skip, (needed + PAGE - 1) / PAGE * PAGE,
                        needed, slot->buffer);
        pthread_mutex_lock(&r->lock);
        slot->code = code;
        slot->ready = true;
        r->stop |= code != 0;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
    }
    if (direct >= 0)
        close(direct);
    return NULL;
}

/* Piece number `at` once it was read; NULL when it will not be. Under the lock. */
static const struct slot *wait_piece(struct hm_reader *r, uint64_t at)
{
    const struct slot *slot = &r->slot[at % HM_READ_BUFFERS];

    while (at < r->claimed ? !slot->ready : !r->stop && r->next_range < r->n)
        pthread_cond_wait(&r->changed, &r->lock);
    return at < r->claimed ? slot : NULL;
}

static void *digest_pieces(void *context)
{
    struct hm_reader *r = context;
    bool all = false;

    for (;;) {
        pthread_mutex_lock(&r->lock);
        const struct slot *slot = wait_piece(r, r->digested);
        all = !slot && !r->stop;
        pthread_mutex_unlock(&r->lock);
        if (!slot || slot->code != 0)
            break;
        hm_read_digest_add(r->digest, slot->range, slot->offset, slot->buffer + slot->skip,
                           slot->bytes);
        pthread_mutex_lock(&r->lock);
        r->digested++;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
    }
    if (all)
        hm_read_digest_end(r->digest);
    return NULL;
}

/* Ranges without a byte have no piece. */
static int take_ranges(struct hm_reader *r, const struct hm_read_range *ranges, size_t n,
                       size_t *ret_piece_bytes)
{
    r->range = hm_alloc_array(HM_MEM_OTHER, n + 1, sizeof *ranges);
    for (size_t i = 0; i < n && r->range; i++) {
        uint64_t most = hm_least(ranges[i].bytes, ranges[i].piece_bytes);
        if (most == 0)
            continue;
        r->range[r->n++] = ranges[i];
        *ret_piece_bytes = most > *ret_piece_bytes ? (size_t)most : *ret_piece_bytes;
    }
    return r->range ? HM_OK : HM_ERR_NOMEM;
}

static int start(struct hm_reader *r, size_t piece_bytes, bool digest)
{
    int status = digest ? hm_read_digest_new(r->range, r->n, &r->digest) : HM_OK;

    for (size_t i = 0; i < HM_READ_BUFFERS && status == HM_OK; i++) {
        struct slot *slot = &r->slot[i];
        slot->block = hm_alloc(HM_MEM_SCRATCH, piece_bytes + HM_DIRECT_OVERHEAD + PAGE);
        slot->buffer = (uint8_t *)slot->block + (PAGE - (uintptr_t)slot->block % PAGE) % PAGE;
        if (!slot->block)
            status = HM_ERR_NOMEM;
    }
    if (status == HM_OK && r->digest)
        r->digesting = pthread_create(&r->digester, NULL, digest_pieces, r) == 0;
    if (r->digest && !r->digesting)
        status = HM_ERR_NOMEM;
    while (status == HM_OK && r->started < THREADS &&
           pthread_create(&r->thread[r->started], NULL, read_pieces, r) == 0)
        r->started++;
    return r->started > 0 ? HM_OK : HM_ERR_NOMEM; /* one does, too */
}

static int reader_new(const struct hm_read_range *ranges, size_t n, bool digest,
                      struct hm_reader **ret_reader, struct hm_error *err)
{
    struct hm_reader *r = hm_calloc(HM_MEM_OTHER, 1, sizeof *r);
    size_t piece_bytes = 0;

    if (!r)
        return hm_fail_nomem(err, "for a reader");
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    if (take_ranges(r, ranges, n, &piece_bytes) < 0 || start(r, piece_bytes, digest) < 0) {
        hm_reader_free(r);
        return hm_fail_nomem(err, "for a reader");
    }
    *ret_reader = r;
    return HM_OK;
}

int hm_reader_new(const struct hm_read_range *ranges, size_t n, struct hm_reader **ret_reader,
                  struct hm_error *err)
{
    return reader_new(ranges, n, false, ret_reader, err);
}

int hm_reader_new_digesting(const struct hm_read_range *ranges, size_t n,
                            struct hm_reader **ret_reader, struct hm_error *err)
{
    return reader_new(ranges, n, true, ret_reader, err);
}

int hm_reader_next(struct hm_reader *r, const uint8_t **ret_data, size_t *ret_bytes,
                   struct hm_error *err)
{
    pthread_mutex_lock(&r->lock);
    const struct slot *slot = wait_piece(r, r->taken);
    HM_BUG(!slot); /* asked beyond the last piece, or after an error */
    int code = slot->code;
    r->taken += code == 0;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (code < 0)
        return hm_fail_cut(err, r->range[slot->range].path);
    if (code > 0) {
        errno = code;
        return hm_fail_errno(err, "read", r->range[slot->range].path);
    }
    *ret_data = slot->buffer + slot->skip;
    *ret_bytes = slot->bytes;
    return HM_OK;
}

int hm_reader_digests(struct hm_reader *r, struct hm_file_digests *digests, struct hm_error *err)
{
    if (r->digesting)
        pthread_join(r->digester, NULL);
    r->digesting = false;
    return r->digest ? hm_read_digest_tell(r->digest, digests, err) : HM_OK;
}

void hm_reader_free(struct hm_reader *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    while (r->started > 0)
        pthread_join(r->thread[--r->started], NULL);
    if (r->digesting)
        pthread_join(r->digester, NULL);
    hm_read_digest_free(r->digest);
    for (size_t i = 0; i < HM_READ_BUFFERS; i++)
        hm_free(r->slot[i].block);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    hm_free(r->range);
    hm_free(r);
}

uint64_t hm_reader_bytes(uint64_t total_bytes, uint64_t piece_bytes)
{
    uint64_t all = HM_READ_BUFFERS * piece_bytes;

    return (total_bytes < all ? total_bytes : all) + HM_READ_BUFFERS * 2 * HM_DIRECT_OVERHEAD;
}
