/* SPDX-License-Identifier: MIT */
/*
 * Writing files so that a reader sees the old content or the whole new one, never a part: the data
 * goes to path + ".tmp", is synced, renamed over path, and the folder is synced. Also appending,
 * copying, linking.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "internal.h"

#define OUT_BUFFER_BYTES  (256u * 1024)
#define COPY_BUFFER_BYTES (1024u * 1024)

/* write(2) until all is out; -1 and errno otherwise. */
static int write_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len > 0) {
        ssize_t put = write(fd, at, len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        at += put;
        len -= (size_t)put;
    }
    return 0;
}

int hm_out_open(const char *path, struct hm_out_file *ret_file, struct hm_error *err)
{
    struct hm_out_file file = { .fd = -1 };
    int status = HM_OK;

    if (hm_path_is_dir(path))
        return hm_fail(err, HM_ERR_IO, "cannot write '%s': it is a folder", path);
    file.path = hm_strdup(HM_MEM_TEXT, path);
    file.buffer = hm_alloc(HM_MEM_OTHER, OUT_BUFFER_BYTES);
    if (!file.path || !file.buffer)
        status = hm_fail_nomem(err, "for '%s'", path);
    if (status == HM_OK)
        status = hm_format(&file.temp_path, err, "%s.tmp", path);
    if (status == HM_OK) {
        file.fd = open(file.temp_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (file.fd < 0)
            status = hm_fail_errno(err, "create", file.temp_path);
    }
    if (status < 0) {
        hm_free(file.path);
        hm_free(file.temp_path);
        hm_free(file.buffer);
        return status;
    }
    *ret_file = file;
    return HM_OK;
}

int hm_out_open_in(const char *dir, const char *name, struct hm_out_file *ret_file,
                   struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, name, err));
    int status = hm_out_open(path, ret_file, err);
    hm_free(path);
    return status;
}

static int out_put(struct hm_out_file *file, const void *data, size_t len, struct hm_error *err)
{
    if (write_all(file->fd, data, len) < 0)
        return hm_fail_errno(err, "write", file->temp_path);
    return HM_OK;
}

static int out_flush(struct hm_out_file *file, struct hm_error *err)
{
    size_t len = file->buffered;

    file->buffered = 0;
    return out_put(file, file->buffer, len, err);
}

int hm_out_write(struct hm_out_file *file, const void *data, size_t len, struct hm_error *err)
{
    file->written_bytes += len;
    if (len > OUT_BUFFER_BYTES - file->buffered)
        HM_TRY(out_flush(file, err));
    if (len >= OUT_BUFFER_BYTES)
        return out_put(file, data, len, err);
    if (len > 0)
        memcpy(file->buffer + file->buffered, data, len);
    file->buffered += len;
    return HM_OK;
}

int hm_out_printf(struct hm_out_file *file, struct hm_error *err, const char *format, ...)
{
    char small[1024];
    char *large = NULL;
    va_list args;
    va_list again;

    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(small, sizeof(small), format, args);
    va_end(args);
    int status = HM_OK;
    if ((size_t)len >= sizeof(small)) {
        large = hm_alloc(HM_MEM_TEXT, (size_t)len + 1);
        if (large)
            vsnprintf(large, (size_t)len + 1, format, again);
        else
            status = hm_fail_nomem(err, "for '%s'", file->path);
    }
    va_end(again);
    if (status == HM_OK)
        status = hm_out_write(file, large ? large : small, (size_t)len, err);
    hm_free(large);
    return status;
}

static void out_release(struct hm_out_file *file)
{
    hm_free(file->path);
    hm_free(file->temp_path);
    hm_free(file->buffer);
    *file = (struct hm_out_file){ 0 };
}

int hm_out_commit(struct hm_out_file *file, struct hm_error *err)
{
    int status = out_flush(file, err);

    if (status == HM_OK && fsync(file->fd) < 0)
        status = hm_fail_errno(err, "sync", file->temp_path);
    if (close(file->fd) < 0 && status == HM_OK) /* NFS reports a full disk here */
        status = hm_fail_errno(err, "close", file->temp_path);
    if (status == HM_OK)
        status = hm_path_rename(file->temp_path, file->path, err);
    if (status < 0)
        unlink(file->temp_path);
    out_release(file);
    return status;
}

void hm_out_abort(struct hm_out_file *file)
{
    if (!file->temp_path)
        return;
    close(file->fd);
    unlink(file->temp_path);
    out_release(file);
}

int hm_out_end(struct hm_out_file *file, int status, struct hm_error *err)
{
    if (status == HM_OK)
        return hm_out_commit(file, err);
    hm_out_abort(file);
    return status;
}

int hm_file_write(const char *path, const void *data, size_t len, struct hm_error *err)
{
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open(path, &file, err));
    return hm_out_end(&file, hm_out_write(&file, data, len, err), err);
}

int hm_file_write_in(const char *dir, const char *name, const void *data, size_t len,
                     struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, name, err));
    int status = hm_file_write(path, data, len, err);
    hm_free(path);
    return status;
}

/* A write that fails half way is taken back, so that the log holds whole lines only. */
int hm_file_append(const char *path, const void *data, size_t len, struct hm_error *err)
{
    struct stat info;
    int status = HM_OK;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    if (fd < 0)
        return hm_fail_errno(err, "open", path);
    if (fstat(fd, &info) < 0) {
        status = hm_fail_errno(err, "look at", path);
    } else if (write_all(fd, data, len) < 0) {
        status = hm_fail_errno(err, "append to", path);
        if (ftruncate(fd, info.st_size) < 0)
            hm_error_prefix(err, "a broken line is left");
    }
    close(fd);
    return status;
}

/* Copy the open descriptor to its end. */
static int copy_bytes(int fd, const char *from, struct hm_out_file *out, struct hm_error *err)
{
    char *buffer = hm_alloc(HM_MEM_OTHER, COPY_BUFFER_BYTES);
    int status = buffer ? HM_OK : hm_fail_nomem(err, "for '%s'", from);

    while (status == HM_OK) {
        ssize_t got = read(fd, buffer, COPY_BUFFER_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = hm_fail_errno(err, "read", from);
        else if (got == 0)
            break;
        else
            status = hm_out_write(out, buffer, (size_t)got, err);
    }
    hm_free(buffer);
    return status;
}

int hm_file_copy(const char *from, const char *to, struct hm_error *err)
{
    struct hm_out_file out = { 0 };
    int fd = open(from, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return hm_fail_errno_reading(err, "open", from);
    int status = hm_out_open(to, &out, err);
    if (status == HM_OK)
        status = hm_out_end(&out, copy_bytes(fd, from, &out, err), err);
    close(fd);
    return status;
}

/* temp shares the blocks of from, copied when either is written; false where that is not to be had.
 */
static bool file_clone(const char *from, const char *temp)
{
    int source = open(from, O_RDONLY | O_CLOEXEC);
    int target = source < 0 ? -1 : open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    bool done = target >= 0 && ioctl(target, FICLONE, source) == 0 && fsync(target) == 0;

    if (target >= 0) {
        close(target);
        if (!done)
            unlink(temp);
    }
    if (source >= 0)
        close(source);
    return done;
}

int hm_file_link(const char *from, const char *to, bool *ret_linked, struct hm_error *err)
{
    char *temp = NULL;

    HM_TRY(hm_format(&temp, err, "%s.tmp", to));
    unlink(temp);
    bool linked =
        file_clone(from, temp) || linkat(AT_FDCWD, from, AT_FDCWD, temp, AT_SYMLINK_FOLLOW) == 0;
    int status = linked ? hm_path_rename(temp, to, err) : HM_OK;
    if (linked) /* rename(2) does nothing when both names are the same file: remove the second */
        unlink(temp);
    if (status == HM_OK)
        *ret_linked = linked;
    hm_free(temp);
    return status;
}
