/* SPDX-License-Identifier: MIT */
/*
 * The gzip door of a byte stream, over zlib's inflate: members one after another, as `cat a.gz
 * b.gz` makes them.
 */
#include <inttypes.h>
#include <zlib.h>

#include "hanmix/base/alloc.h"
#include "internal.h"

#define INPUT_BYTES  (128u << 10)
#define WINDOW_BITS  15
#define GZIP_WRAPPER 16

struct gz_decoder {
    z_stream z;
    bool ready;     /* z is initialised */
    bool in_member; /* bytes of a member were taken, its trailer not yet */
    unsigned char buffer[INPUT_BYTES];
};

static void gz_close(struct byte_stream *stream)
{
    struct gz_decoder *decoder = stream->decoder;

    if (!decoder)
        return;
    if (decoder->ready)
        inflateEnd(&decoder->z);
    hm_free(decoder);
    stream->decoder = NULL;
}

static int gz_refill(struct byte_stream *stream, struct gz_decoder *decoder, bool *ret_end,
                     struct hm_error *err)
{
    size_t got = 0;

    HM_TRY(hm_byte_stream_fill(stream, decoder->buffer, INPUT_BYTES, &got, err));
    if (got == 0 && decoder->in_member)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the gzip member is cut off at byte %" PRIu64 "; fetch the file again",
                       stream->path, stream->consumed_bytes);
    decoder->z.next_in = decoder->buffer;
    decoder->z.avail_in = (unsigned)got;
    *ret_end = got == 0;
    return HM_OK;
}

static int gz_read(struct byte_stream *stream, void *out, size_t cap, size_t *ret_len,
                   struct hm_error *err)
{
    struct gz_decoder *decoder = stream->decoder;
    unsigned room = cap > UINT32_MAX ? UINT32_MAX : (unsigned)cap;

    decoder->z.next_out = out;
    decoder->z.avail_out = room;
    while (decoder->z.avail_out == room) {
        if (decoder->z.avail_in == 0) {
            bool end = false;
            HM_TRY(gz_refill(stream, decoder, &end, err));
            if (end)
                break;
        }
        if (!decoder->in_member)
            inflateReset(&decoder->z);
        decoder->in_member = true;
        int code = inflate(&decoder->z, Z_NO_FLUSH);
        if (code == Z_STREAM_END)
            decoder->in_member = false;
        else if (code != Z_OK && code != Z_BUF_ERROR)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': gzip cannot decode it near byte %" PRIu64 ": %s", stream->path,
                           stream->consumed_bytes - decoder->z.avail_in,
                           decoder->z.msg ? decoder->z.msg : "corrupt data");
    }
    *ret_len = room - decoder->z.avail_out;
    return HM_OK;
}

int hm_gz_stream_open(struct byte_stream *stream, struct hm_error *err)
{
    struct gz_decoder *decoder = hm_calloc(HM_MEM_TEXT, 1, sizeof(*decoder));

    if (!decoder)
        return hm_fail_nomem(err, "opening '%s'", stream->path);
    stream->decoder = decoder;
    if (inflateInit2(&decoder->z, WINDOW_BITS + GZIP_WRAPPER) != Z_OK) {
        gz_close(stream);
        return hm_fail_nomem(err, "opening '%s'", stream->path);
    }
    decoder->ready = true;
    stream->read = gz_read;
    stream->close_decoder = gz_close;
    return HM_OK;
}
