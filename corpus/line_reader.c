/* SPDX-License-Identifier: MIT */
/*
 * Lines out of a byte stream. The buffer grows to the longest line met, at most HM_LINE_MAX_BYTES;
 * a longer line is passed over and told to the caller. Every byte is moved at most a constant
 * number of times.
 */
#include <string.h>

#include "hanmix/base/alloc.h"
#include "internal.h"

#define FIRST_CAP (1u << 20)
#define LONG_LINE (1u << 20)     /* shorter documents are within what reading takes */
#define UTF8_MARK "\xef\xbb\xbf" /* some editors begin a file with it; it is no text */

void hm_line_reader_init(struct line_reader *reader, struct byte_stream *stream)
{
    *reader = (struct line_reader){ .stream = stream };
}

void hm_line_reader_release(struct line_reader *reader)
{
    hm_free(reader->buffer);
    *reader = (struct line_reader){ 0 };
}

/* Make room behind the unread bytes and read into it. */
static int refill(struct line_reader *reader, struct hm_error *err)
{
    size_t unread = reader->end - reader->from;
    size_t got = 0;

    if (reader->from > 0 && unread > 0)
        memmove(reader->buffer, reader->buffer + reader->from, unread);
    reader->from = 0;
    reader->end = unread;
    if (unread == reader->cap) {
        size_t cap = reader->cap ? 2 * reader->cap : FIRST_CAP;
        char *buffer = hm_realloc(HM_MEM_TEXT, reader->buffer, cap);
        if (!buffer)
            return hm_fail_nomem(err, "for a line of %zu bytes in '%s'", cap, reader->stream->path);
        reader->buffer = buffer;
        reader->cap = cap;
    }
    HM_TRY(reader->stream->read(reader->stream, reader->buffer + reader->end,
                                reader->cap - reader->end, &got, err));
    reader->end += got;
    reader->at_end = got == 0;
    return HM_OK;
}

/* Drop bytes up to the next newline. */
static int skip_line(struct line_reader *reader, struct hm_error *err)
{
    for (;;) {
        char *start = reader->buffer + reader->from;
        char *newline = memchr(start, '\n', reader->end - reader->from);
        if (newline) {
            reader->from += (size_t)(newline - start) + 1;
            return LINE_TOO_LONG;
        }
        reader->from = reader->end;
        if (reader->at_end)
            return LINE_TOO_LONG;
        HM_TRY(refill(reader, err));
    }
}

int hm_line_reader_next(struct line_reader *reader, struct line_slice *ret_line,
                        struct hm_error *err)
{
    size_t searched = 0;

    for (;;) {
        char *start = reader->buffer ? reader->buffer + reader->from : NULL;
        size_t unread = reader->end - reader->from;
        char *newline =
            unread > searched ? memchr(start + searched, '\n', unread - searched) : NULL;
        if (newline || (reader->at_end && unread > 0)) {
            size_t len = newline ? (size_t)(newline - start) : unread;
            reader->from += len + (newline ? 1 : 0);
            reader->line++;
            if (len > 0 && start[len - 1] == '\r')
                len--;
            if (reader->line == 1 && len >= 3 && memcmp(start, UTF8_MARK, 3) == 0) {
                start += 3;
                len -= 3;
            }
            *ret_line = (struct line_slice){ start, len };
            return LINE_TEXT;
        }
        if (reader->at_end)
            return LINE_END;
        searched = unread;
        if (unread >= HM_LINE_MAX_BYTES) {
            reader->line++;
            return skip_line(reader, err);
        }
        HM_TRY(refill(reader, err));
    }
}

uint64_t hm_text_long_line(const char *path, uint64_t text_bytes)
{
    struct byte_stream stream = { 0 };
    char *head = hm_alloc(HM_MEM_TEXT, LONG_LINE);
    size_t len = 0, got = 0;
    bool ends = !head || hm_byte_stream_open(path, &stream, NULL) < 0;

    while (!ends && len < LONG_LINE) {
        ends = stream.read(&stream, head + len, LONG_LINE - len, &got, NULL) < 0 || got == 0 ||
               memchr(head + len, '\n', got) != NULL;
        len += got;
    }
    hm_byte_stream_close(&stream);
    hm_free(head);
    if (ends)
        return 0;
    return text_bytes < HM_LINE_MAX_BYTES ? text_bytes : HM_LINE_MAX_BYTES;
}
