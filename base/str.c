/* SPDX-License-Identifier: MIT */
/*
 * Slices, growing buffers and UTF-8 (RFC 3629). Number parsing is in number.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/str.h"

struct hm_str hm_str_of(const char *text)
{
    return (struct hm_str){ text, strlen(text) };
}

bool hm_str_equal(struct hm_str a, struct hm_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool hm_str_is(struct hm_str a, const char *text)
{
    return hm_str_equal(a, hm_str_of(text));
}

bool hm_text_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool hm_text_ends(const char *text, const char *suffix)
{
    size_t text_len = strlen(text);
    size_t suffix_len = strlen(suffix);

    return text_len >= suffix_len && strcmp(text + text_len - suffix_len, suffix) == 0;
}

int hm_buf_reserve(struct hm_buf *buf, size_t extra, struct hm_error *err)
{
    size_t need;

    if (__builtin_add_overflow(buf->len, extra, &need) || need >= SIZE_MAX / 2)
        return hm_fail_nomem(err, "for a text buffer");
    need++; /* the NUL */
    if (need <= buf->cap)
        return HM_OK;
    size_t cap = buf->cap < 64 ? 64 : buf->cap + buf->cap / 2;
    if (cap < need)
        cap = need;
    char *ptr = hm_realloc(HM_MEM_TEXT, buf->ptr, cap);
    if (!ptr)
        return hm_fail_nomem(err, "growing a text buffer to %zu bytes", cap);
    buf->ptr = ptr;
    buf->cap = cap;
    buf->ptr[buf->len] = '\0';
    return HM_OK;
}

int hm_buf_append(struct hm_buf *buf, const void *data, size_t len, struct hm_error *err)
{
    HM_TRY(hm_buf_reserve(buf, len, err));
    if (len > 0)
        memcpy(buf->ptr + buf->len, data, len);
    buf->len += len;
    buf->ptr[buf->len] = '\0';
    return HM_OK;
}

int hm_buf_text(struct hm_buf *buf, const char *text, struct hm_error *err)
{
    return hm_buf_append(buf, text, strlen(text), err);
}

int hm_buf_xml(struct hm_buf *buf, const char *text, struct hm_error *err)
{
    for (const char *c = text; *c != '\0'; c++) {
        const char *entity = *c == '<'   ? "&lt;"
                             : *c == '>' ? "&gt;"
                             : *c == '&' ? "&amp;"
                             : *c == '"' ? "&quot;"
                                         : NULL;
        HM_TRY(entity ? hm_buf_text(buf, entity, err) : hm_buf_append(buf, c, 1, err));
    }
    return HM_OK;
}

static int buf_vprintf(struct hm_buf *buf, struct hm_error *err, const char *format, va_list args)
{
    va_list again;

    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    HM_BUG(len < 0);
    HM_TRY(hm_buf_reserve(buf, (size_t)len, err));
    vsnprintf(buf->ptr + buf->len, (size_t)len + 1, format, args);
    buf->len += (size_t)len;
    return HM_OK;
}

int hm_buf_printf(struct hm_buf *buf, struct hm_error *err, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int status = buf_vprintf(buf, err, format, args);
    va_end(args);
    return status;
}

void hm_buf_clear(struct hm_buf *buf)
{
    buf->len = 0;
    if (buf->ptr)
        buf->ptr[0] = '\0';
}

void hm_buf_release(struct hm_buf *buf)
{
    hm_free(buf->ptr);
    *buf = (struct hm_buf){ 0 };
}

int hm_format(char **ret_text, struct hm_error *err, const char *format, ...)
{
    struct hm_buf buf = { 0 };
    va_list args;

    va_start(args, format);
    int status = buf_vprintf(&buf, err, format, args);
    va_end(args);
    if (status == HM_OK)
        *ret_text = buf.ptr;
    return status;
}

unsigned hm_utf8_decode(const char *text, size_t len, uint32_t *ret_code)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *byte = (const unsigned char *)text;

    if (len == 0)
        return 0;
    if (byte[0] < 0x80) {
        *ret_code = byte[0];
        return 1;
    }
    unsigned need = byte[0] >= 0xf0 ? 4 : byte[0] >= 0xe0 ? 3 : 2;
    if (byte[0] < 0xc2 || byte[0] > 0xf4 || len < need)
        return 0;
    uint32_t code = byte[0] & (0x7fu >> need);
    for (unsigned i = 1; i < need; i++) {
        if ((byte[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (byte[i] & 0x3f);
    }
    if (code < least[need] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    *ret_code = code;
    return need;
}

unsigned hm_utf8_encode(uint32_t code, char out[4])
{
    unsigned char *byte = (unsigned char *)out;

    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return 0;
    if (code < 0x80) {
        byte[0] = (unsigned char)code;
        return 1;
    }
    unsigned need = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = need - 1; i > 0; i--, code >>= 6)
        byte[i] = (unsigned char)(0x80 | (code & 0x3f));
    byte[0] = (unsigned char)(0xf00u >> need | code); /* lead bits 110, 1110, 11110 */
    return need;
}

int hm_buf_word(struct hm_buf *buf, struct hm_str word, struct hm_error *err)
{
    uint32_t code = 0;

    for (size_t at = 0; at < word.len;) {
        unsigned len = hm_utf8_decode(word.ptr + at, word.len - at, &code);
        char c = word.ptr[at];
        if (len == 0 || c == '\0' || c == '\n' || c == '\t' || c == '\r')
            HM_TRY(hm_buf_printf(buf, err, "\\x%02x", (unsigned char)c));
        else
            HM_TRY(hm_buf_append(buf, word.ptr + at, len, err));
        at += len ? len : 1;
    }
    return HM_OK;
}

void hm_text_clean(char *text)
{
    size_t len = strlen(text);

    for (size_t at = 0; at < len;) {
        uint32_t code = 0;
        unsigned used = hm_utf8_decode(text + at, len - at, &code);
        if (used == 0)
            text[at] = '?';
        else if (code < 0x20 || (code >= 0x7f && code < 0xa0))
            memset(text + at, ' ', used);
        at += used ? used : 1;
    }
}

size_t hm_utf8_count(struct hm_str text)
{
    uint32_t code;
    size_t count = 0;

    for (size_t at = 0; at < text.len; count++) {
        unsigned used = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        at += used ? used : 1;
    }
    return count;
}
