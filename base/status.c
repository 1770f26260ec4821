/* SPDX-License-Identifier: MIT */
/*
 * Status codes and error sentences: formatting, prefixing, exit codes. Owns no state.
 *
 * A sentence is valid UTF-8 without line breaks and control characters, so that hostile names
 * inside it can neither forge terminal output nor spoil a report; it is cut at a code point
 * boundary when too long.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/str.h"

#define WHOLE_BYTES 16384 /* of a sentence before it is cut; two long paths fit */
#define CUT_MARK    " ... "

/* How much of text[0..len) is whole code points: the cut may have split the last. */
static size_t whole_bytes(const char *text, size_t len)
{
    size_t lead = len;

    while (lead > 0 && len - lead < 3 && ((unsigned char)text[lead - 1] & 0xc0) == 0x80)
        lead--;
    if (lead == 0 || (unsigned char)text[lead - 1] < 0xc0)
        return len;
    unsigned char c = (unsigned char)text[lead - 1];
    size_t need = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    return len - (lead - 1) < need ? lead - 1 : len;
}

/* A sentence too long loses its middle: what is wrong stands at its end. */
static void sentence_store(struct hm_error *err, const char *text)
{
    size_t len = strlen(text), room = sizeof(err->text) - 1;

    if (len <= room) {
        memcpy(err->text, text, len + 1);
    } else {
        size_t mark = strlen(CUT_MARK), head = whole_bytes(text, (room - mark) / 2);
        const char *tail = text + len - (room - mark - (room - mark) / 2);
        while (((unsigned char)*tail & 0xc0) == 0x80)
            tail++;
        snprintf(err->text, sizeof(err->text), "%.*s%s%s", (int)head, text, CUT_MARK, tail);
    }
    hm_text_clean(err->text);
}

int hm_fail(struct hm_error *err, int code, const char *format, ...)
{
    char text[WHOLE_BYTES]; /* apart from err: the arguments may point into err->text */
    va_list args;

    if (!err)
        return code;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err->code = code;
    sentence_store(err, text);
    return code;
}

int hm_fail_nomem(struct hm_error *err, const char *format, ...)
{
    char text[HM_ERROR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return hm_fail(err, HM_ERR_NOMEM, "out of memory %s", text);
}

int hm_error_pass(struct hm_error *err, const struct hm_error *from)
{
    return hm_fail(err, from->code, "%s", from->text);
}

void hm_error_prefix(struct hm_error *err, const char *format, ...)
{
    char text[WHOLE_BYTES];
    va_list args;

    if (!err)
        return;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text) - sizeof(err->text) - 2, format, args);
    va_end(args);
    size_t used = len < 0 ? 0 : strlen(text);
    snprintf(text + used, sizeof(text) - used, ": %s", err->text);
    sentence_store(err, text);
}

int hm_status_exit_code(int status)
{
    switch (status) {
#define X(name, value, exit_code, text) \
    case name:                          \
        return exit_code;
        HM_STATUS_TABLE(X)
#undef X
    default:
        return status >= 0 ? 0 : 6;
    }
}

const char *hm_status_text(int status)
{
    switch (status) {
#define X(name, value, exit_code, text) \
    case name:                          \
        return text;
        HM_STATUS_TABLE(X)
#undef X
    default:
        return status >= 0 ? "ok" : "unknown error";
    }
}

void hm_bug(const char *file, int line, const char *condition)
{
    fprintf(stderr, "hanmix: internal error at %s:%d: %s\n", file, line, condition);
    abort();
}
