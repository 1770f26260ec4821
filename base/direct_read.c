/* SPDX-License-Identifier: MIT */
/*
 * The reading thread: fills a ring of aligned buffers with whole pages that cover one piece each,
 * and waits when all are taken. A piece is handed out as the part of its buffer that was asked for.
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
#include "internal.h"

#define PAGE 4096u

struct slot {
    uint8_t *buffer; /* owned, page-aligned inside `block` */
    void *block;
    size_t skip, bytes; /* of the piece */
};

struct hm_reader {
    struct hm_read_range *range;
    size_t n;
    size_t buffer_bytes;
    struct slot slot[HM_DIRECT_BUFFERS];
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t filled, taken; /* pieces; taken: handed out, the last two still in use */
    bool stop;
    int code; /* errno; -1: the file ended early */
    size_t failed;
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

/* A free slot, or NULL when all is over. */
static struct slot *wait_free(struct hm_reader *r)
{
    pthread_mutex_lock(&r->lock);
    /* the piece handed out last and the one before it are in use */
    while (!r->stop && r->filled >= HM_DIRECT_BUFFERS + (r->taken > 2 ? r->taken - 2 : 0))
        pthread_cond_wait(&r->changed, &r->lock);
    struct slot *slot = r->stop ? NULL : &r->slot[r->filled % HM_DIRECT_BUFFERS];
    pthread_mutex_unlock(&r->lock);
    return slot;
}

static void tell(struct hm_reader *r, int code, size_t range)
{
    pthread_mutex_lock(&r->lock);
    r->filled += code == 0;
    r->code = code;
    r->failed = range;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void *read_all(void *context)
{
    struct hm_reader *r = context;
    int direct = -1, of = -1, code = 0;

    for (size_t i = 0; i < r->n && code == 0; i++) {
        const struct hm_read_range *range = &r->range[i];
        if (range->fd != of) {
            if (direct >= 0)
                close(direct);
            direct = open_direct(of = range->fd);
        }
        for (uint64_t at = 0; at < range->bytes && code == 0;) {
            uint64_t left = range->bytes - at;
            struct slot *slot = wait_free(r);
            if (!slot)
                goto out;
            slot->bytes = left < range->piece_bytes ? (size_t)left : range->piece_bytes;
            slot->skip = (size_t)((range->offset + at) % PAGE);
            size_t needed = slot->skip + slot->bytes;
            code = fill(direct, range->fd, range->offset + at - slot->skip,
                        (needed + PAGE - 1) / PAGE * PAGE, needed, slot->buffer);
            at += slot->bytes;
            tell(r, code, i);
        }
    }
out:
    if (direct >= 0)
        close(direct);
    return NULL;
}

int hm_reader_new(const struct hm_read_range *ranges, size_t n, struct hm_reader **ret_reader,
                  struct hm_error *err)
{
    struct hm_reader *r = hm_calloc(HM_MEM_OTHER, 1, sizeof *r);
    size_t piece = 0;

    if (!r)
        return hm_fail_nomem(err, "for a reader");
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->n = n;
    r->range = hm_alloc_array(HM_MEM_OTHER, n + 1, sizeof *ranges);
    bool good = r->range != NULL;
    for (size_t i = 0; i < n && good; i++) {
        r->range[i] = ranges[i];
        uint64_t most =
            ranges[i].bytes < ranges[i].piece_bytes ? ranges[i].bytes : ranges[i].piece_bytes;
        piece = most > piece ? (size_t)most : piece;
    }
    for (size_t i = 0; i < HM_DIRECT_BUFFERS && good; i++) {
        struct slot *slot = &r->slot[i];
        slot->block = hm_alloc(HM_MEM_SCRATCH, piece + HM_DIRECT_OVERHEAD + PAGE);
        good = slot->block != NULL;
        slot->buffer = (uint8_t *)slot->block + (PAGE - (uintptr_t)slot->block % PAGE) % PAGE;
    }
    if (good && pthread_create(&r->thread, NULL, read_all, r) == 0)
        r->started = true;
    if (!r->started) {
        hm_reader_free(r);
        return hm_fail_nomem(err, "for a reader");
    }
    *ret_reader = r;
    return HM_OK;
}

int hm_reader_next(struct hm_reader *r, const uint8_t **ret_data, size_t *ret_bytes,
                   struct hm_error *err)
{
    pthread_mutex_lock(&r->lock);
    while (r->filled == r->taken && r->code == 0)
        pthread_cond_wait(&r->changed, &r->lock);
    bool good = r->filled > r->taken;
    const struct slot *slot = &r->slot[r->taken % HM_DIRECT_BUFFERS];
    r->taken += good;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (!good && r->code < 0)
        return hm_fail(err, HM_ERR_IO, "'%s' is shorter than when it was opened",
                       r->range[r->failed].path);
    if (!good) {
        errno = r->code;
        return hm_fail_errno(err, "read", r->range[r->failed].path);
    }
    *ret_data = slot->buffer + slot->skip;
    *ret_bytes = slot->bytes;
    return HM_OK;
}

void hm_reader_free(struct hm_reader *r)
{
    if (!r)
        return;
    if (r->started) {
        pthread_mutex_lock(&r->lock);
        r->stop = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    for (size_t i = 0; i < HM_DIRECT_BUFFERS; i++)
        hm_free(r->slot[i].block);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    hm_free(r->range);
    hm_free(r);
}

uint64_t hm_reader_bytes(uint64_t total_bytes, uint64_t piece_bytes)
{
    uint64_t all = HM_DIRECT_BUFFERS * piece_bytes;

    return (total_bytes < all ? total_bytes : all) + HM_DIRECT_BUFFERS * 2 * HM_DIRECT_OVERHEAD;
}
