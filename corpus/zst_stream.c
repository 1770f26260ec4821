/* SPDX-License-Identifier: MIT */
/*
 * The zstd door of a byte stream: frames one after another, as zstd and pzstd write them. A frame
 * that ends early or fails its checksum is an error naming the file and the place. The only file
 * that sees zstd.h.
 */
#include <inttypes.h>
#include <zstd.h>

#include "hanmix/base/alloc.h"
#include "internal.h"

#define WINDOW_LOG_MAX \
    27 /* 128 MiB, what `zstd -d` accepts unasked; `--long=31` files must be rewritten */

struct zst_decoder {
    ZSTD_DStream *stream;
    ZSTD_inBuffer in;
    size_t cap;
    bool in_frame;
    char *buffer;
};

static void zst_close(struct byte_stream *stream)
{
    struct zst_decoder *decoder = stream->decoder;

    if (!decoder)
        return;
    ZSTD_freeDStream(decoder->stream);
    hm_free(decoder->buffer);
    hm_free(decoder);
    stream->decoder = NULL;
}

static int zst_read(struct byte_stream *stream, void *out, size_t cap, size_t *ret_len,
                    struct hm_error *err)
{
    struct zst_decoder *decoder = stream->decoder;
    ZSTD_outBuffer to = { .dst = out, .size = cap };

    while (to.pos == 0) {
        if (decoder->in.pos == decoder->in.size) {
            size_t got = 0;
            HM_TRY(hm_byte_stream_fill(stream, decoder->buffer, decoder->cap, &got, err));
            if (got == 0 && decoder->in_frame)
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': the zstd frame is cut off at byte %" PRIu64
                               "; fetch the file again",
                               stream->path, stream->consumed_bytes);
            if (got == 0)
                break;
            decoder->in = (ZSTD_inBuffer){ .src = decoder->buffer, .size = got };
        }
        size_t left = ZSTD_decompressStream(decoder->stream, &to, &decoder->in);
        if (ZSTD_isError(left))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': zstd cannot decode it near byte %" PRIu64 ": %s", stream->path,
                           stream->consumed_bytes - (decoder->in.size - decoder->in.pos),
                           ZSTD_getErrorName(left));
        decoder->in_frame = left != 0;
    }
    *ret_len = to.pos;
    return HM_OK;
}

int hm_zst_stream_open(struct byte_stream *stream, struct hm_error *err)
{
    struct zst_decoder *decoder = hm_calloc(HM_MEM_TEXT, 1, sizeof(*decoder));

    if (!decoder)
        return hm_fail_nomem(err, "opening '%s'", stream->path);
    stream->decoder = decoder;
    decoder->cap = ZSTD_DStreamInSize();
    decoder->buffer = hm_alloc(HM_MEM_TEXT, decoder->cap);
    decoder->stream = decoder->buffer ? ZSTD_createDStream() : NULL;
    if (!decoder->stream) {
        zst_close(stream);
        return hm_fail_nomem(err, "opening '%s'", stream->path);
    }
    ZSTD_DCtx_setParameter(decoder->stream, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    stream->read = zst_read;
    stream->close_decoder = zst_close;
    return HM_OK;
}
