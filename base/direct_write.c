/* SPDX-License-Identifier: MIT */
/*
 * The writing thread: takes full buffers in order and writes whole pages past the page cache, the
 * ends of a stretch through it. A buffer never straddles a multiple of its own size in the file, so
 * that long stretches are aligned whatever they began with.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/direct.h"
#include "hanmix/base/parallel.h"
#include "internal.h"

#define PAGE 4096u

struct slot {
    uint8_t *buffer; /* page-aligned inside `block` */
    void *block;     /* NULL until first used */
    uint64_t offset;
    size_t len;
};

struct hm_writer {
    char *path;
    int fd, direct; /* direct: -1 where there is none */
    size_t slot_bytes;
    struct slot slot[HM_DIRECT_BUFFERS];
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t filled, written; /* slots; the caller fills slot[filled % n] */
    bool stop;
    int code; /* errno */
};

static int put_all(int fd, const uint8_t *data, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t put = pwrite(fd, data, len, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        data += put;
        offset += (uint64_t)put;
        len -= (size_t)put;
    }
    return 0;
}

/* The buffer holds file byte `offset` at its own offset % PAGE, so both are aligned together. */
static int write_slot(struct hm_writer *w, const struct slot *slot)
{
    size_t pad = (size_t)(slot->offset % PAGE);
    const uint8_t *data = slot->buffer + pad;
    size_t head = hm_least((PAGE - pad) % PAGE, slot->len);
    size_t body = (slot->len - head) / PAGE * PAGE;

    if (w->direct < 0)
        body = 0;
    int code = body > 0 ? put_all(w->direct, data + head, body, slot->offset + head) : 0;
    if (code == EINVAL) { /* a device of larger sectors */
        code = 0;
        body = 0;
    }
    if (code == 0 && body > 0)
        code = put_all(w->fd, data, head, slot->offset);
    if (code == 0) {
        size_t done = body > 0 ? head + body : 0;
        code = put_all(w->fd, data + done, slot->len - done, slot->offset + done);
    }
    return code;
}

static void *write_all_slots(void *context)
{
    struct hm_writer *w = context;

    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (w->written == w->filled && !w->stop)
            pthread_cond_wait(&w->changed, &w->lock);
        if (w->stop)
            break;
        const struct slot *slot = &w->slot[w->written % HM_DIRECT_BUFFERS];
        bool failed = w->code != 0;
        pthread_mutex_unlock(&w->lock);
        int code = failed ? 0 : write_slot(w, slot);
        pthread_mutex_lock(&w->lock);
        if (code != 0)
            w->code = code;
        w->written++;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int hm_writer_open(const char *path, size_t buffer_bytes, struct hm_writer **ret_writer,
                   struct hm_error *err)
{
    struct hm_writer *w = hm_calloc(HM_MEM_OTHER, 1, sizeof *w);
    int status = HM_OK;

    if (!w)
        return hm_fail_nomem(err, "for '%s'", path);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->direct = -1;
    w->slot_bytes = buffer_bytes;
    w->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    w->path = hm_strdup(HM_MEM_TEXT, path);
    if (w->fd < 0)
        status = hm_fail_errno(err, "create", path);
    else if (!w->path)
        status = hm_fail_nomem(err, "for '%s'", path);
    if (status == HM_OK) {
        w->direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
        *ret_writer = w;
    } else {
        hm_writer_close(w);
    }
    return status;
}

static int fail_code(const struct hm_writer *w, int code, struct hm_error *err)
{
    errno = code;
    return hm_fail_errno(err, "write", w->path);
}

/* Give the slot being filled to the thread; wait until the next one is free. */
static int flush(struct hm_writer *w, uint64_t most_waiting, struct hm_error *err)
{
    if (!w->started && pthread_create(&w->thread, NULL, write_all_slots, w) != 0)
        return hm_fail_nomem(err, "for a thread that writes '%s'", w->path);
    w->started = true;
    pthread_mutex_lock(&w->lock);
    w->filled += w->slot[w->filled % HM_DIRECT_BUFFERS].len > 0;
    pthread_cond_broadcast(&w->changed);
    while (w->filled - w->written > most_waiting)
        pthread_cond_wait(&w->changed, &w->lock);
    int code = w->code;
    pthread_mutex_unlock(&w->lock);
    w->slot[w->filled % HM_DIRECT_BUFFERS].len = 0;
    return code ? fail_code(w, code, err) : HM_OK;
}

int hm_writer_put(struct hm_writer *w, uint64_t offset, const void *data, size_t len,
                  struct hm_error *err)
{
    const uint8_t *from = data;

    while (len > 0) {
        struct slot *slot = &w->slot[w->filled % HM_DIRECT_BUFFERS];
        uint64_t end = slot->offset + slot->len;
        if (slot->len > 0 && (offset != end || end % w->slot_bytes == 0)) {
            HM_TRY(flush(w, HM_DIRECT_BUFFERS - 1, err));
            continue;
        }
        if (!slot->block) {
            slot->block = hm_alloc(HM_MEM_SCRATCH, w->slot_bytes + 2 * PAGE);
            if (!slot->block)
                return hm_fail_nomem(err, "to write '%s'", w->path);
            slot->buffer = (uint8_t *)slot->block + (PAGE - (uintptr_t)slot->block % PAGE) % PAGE;
        }
        if (slot->len == 0)
            slot->offset = offset;
        size_t part = hm_least(len, w->slot_bytes - (size_t)(offset % w->slot_bytes));
        memcpy(slot->buffer + slot->offset % PAGE + slot->len, from, part);
        slot->len += part;
        from += part;
        offset += part;
        len -= part;
    }
    return HM_OK;
}

int hm_writer_sync(struct hm_writer *w, struct hm_error *err)
{
    HM_TRY(flush(w, 0, err));
    return fsync(w->fd) < 0 ? hm_fail_errno(err, "sync", w->path) : HM_OK;
}

void hm_writer_close(struct hm_writer *w)
{
    if (!w)
        return;
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
    }
    for (size_t i = 0; i < HM_DIRECT_BUFFERS; i++)
        hm_free(w->slot[i].block);
    if (w->direct >= 0)
        close(w->direct);
    if (w->fd >= 0)
        close(w->fd);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    hm_free(w->path);
    hm_free(w);
}

uint64_t hm_writer_bytes(uint64_t total_bytes, size_t buffer_bytes)
{
    uint64_t all = (uint64_t)HM_DIRECT_BUFFERS * buffer_bytes;

    return (total_bytes < all ? total_bytes : all) + HM_DIRECT_BUFFERS * 2 * PAGE;
}
