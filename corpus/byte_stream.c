/* SPDX-License-Identifier: MIT */
/*
 * One file as a stream of plain bytes: opens it, picks the door by the ending, reads plain files
 * itself. The doors for gzip and zstd are gz_stream.c and zst_stream.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/file.h"
#include "internal.h"

int hm_byte_stream_fill(struct byte_stream *stream, void *out, size_t cap, size_t *ret_len,
                        struct hm_error *err)
{
    ssize_t got;

    do
        got = read(stream->fd, out, cap);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return hm_fail(err, HM_ERR_IO, "'%s': cannot read: %s", stream->path, strerror(errno));
    stream->consumed_bytes += (uint64_t)got;
    *ret_len = (size_t)got;
    return HM_OK;
}

int hm_byte_stream_open(const char *path, struct byte_stream *ret_stream, struct hm_error *err)
{
    struct byte_stream stream = { .path = path, .read = hm_byte_stream_fill };
    int status = HM_OK;

    HM_TRY(hm_regular_check(path, err)); /* files are read more than once, a pipe cannot be */
    stream.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (stream.fd < 0)
        return hm_fail(err, HM_ERR_IO, "'%s': cannot open: %s", path, strerror(errno));
    posix_fadvise(stream.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    if (hm_text_ends(path, ".gz"))
        status = hm_gz_stream_open(&stream, err);
    else if (hm_text_ends(path, ".zst"))
        status = hm_zst_stream_open(&stream, err);
    if (status < 0) {
        close(stream.fd);
        return status;
    }
    *ret_stream = stream;
    return HM_OK;
}

void hm_byte_stream_close(struct byte_stream *stream)
{
    if (!stream->path)
        return;
    if (stream->close_decoder)
        stream->close_decoder(stream);
    close(stream->fd);
    *stream = (struct byte_stream){ 0 };
}
