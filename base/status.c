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

/* Drop a multi-byte sequence that the end of the buffer cut in two. */
static void sentence_trim(char *text, size_t len)
{
    size_t tail = len;

    while (tail > 0 && len - tail < 3 && ((unsigned char)text[tail - 1] & 0xc0) == 0x80)
        tail--;
    if (tail == 0 || ((unsigned char)text[tail - 1] & 0xc0) != 0xc0)
        return;
    unsigned char lead = (unsigned char)text[tail - 1];
    size_t need = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (len - (tail - 1) < need)
        text[tail - 1] = '\0';
}

static void sentence_store(struct hm_error *err, const char *text, int formatted_len)
{
    snprintf(err->text, sizeof(err->text), "%s", text);
    if (formatted_len >= (int)sizeof(err->text))
        sentence_trim(err->text, strlen(err->text));
    hm_text_clean(err->text);
}

int hm_fail(struct hm_error *err, int code, const char *format, ...)
{
    char text[HM_ERROR_TEXT_BYTES]; /* apart from err: the arguments may point into err->text */
    va_list args;

    if (!err)
        return code;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    err->code = code;
    sentence_store(err, text, len);
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
    char prefix[HM_ERROR_TEXT_BYTES];
    char text[2 * HM_ERROR_TEXT_BYTES + 2];
    va_list args;

    if (!err)
        return;
    va_start(args, format);
    vsnprintf(prefix, sizeof(prefix), format, args);
    va_end(args);
    int len = snprintf(text, sizeof(text), "%s: %s", prefix, err->text);
    sentence_store(err, text, len);
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
