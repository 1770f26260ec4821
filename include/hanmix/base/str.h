/* SPDX-License-Identifier: MIT */
/*
 * Byte slices, growing buffers, UTF-8 and number parsing.
 *
 * A slice borrows; a buffer owns (hm_buf_release). All functions are pure apart from the buffer
 * they are given.
 * Thread class: one buffer per thread.
 */
#ifndef HANMIX_BASE_STR_H
#define HANMIX_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/status.h"

struct hm_str {
    const char *ptr; /* borrowed, not NUL-terminated */
    size_t len;
};

struct hm_buf {
    char *ptr; /* owned; NUL-terminated after every call once non-NULL */
    size_t len;
    size_t cap;
};

struct hm_str hm_str_of(const char *text);
bool hm_str_equal(struct hm_str a, struct hm_str b);
bool hm_str_is(struct hm_str a, const char *text);
bool hm_text_starts(const char *text, const char *prefix);
bool hm_text_ends(const char *text, const char *suffix);

int hm_buf_append(struct hm_buf *buf, const void *data, size_t len, struct hm_error *err);
int hm_buf_text(struct hm_buf *buf, const char *text, struct hm_error *err);
/* The same with < > & " as entities of XML and HTML. */
int hm_buf_xml(struct hm_buf *buf, const char *text, struct hm_error *err);
int hm_buf_printf(struct hm_buf *buf, struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Append a word for a line or a table: tabs, line ends, NUL and malformed bytes as \xNN. */
int hm_buf_word(struct hm_buf *buf, struct hm_str word, struct hm_error *err);
int hm_buf_reserve(struct hm_buf *buf, size_t extra, struct hm_error *err);
void hm_buf_clear(struct hm_buf *buf); /* keeps the memory */
void hm_buf_release(struct hm_buf *buf);

/* A heap string made printf style; *ret_text is freed with hm_free. */
int hm_format(char **ret_text, struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * Decode one code point of well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
 * Returns its length 1..4 and sets *ret_code, or 0 when the bytes at text are malformed (or len is
 * 0).
 */
unsigned hm_utf8_decode(const char *text, size_t len, uint32_t *ret_code);
unsigned hm_utf8_encode(uint32_t code, char out[4]); /* length 1..4, 0 for an invalid code point */
bool hm_utf8_valid(struct hm_str text, size_t *ret_bad_offset); /* ret_bad_offset may be NULL */
/* Make a name fit to be shown: malformed UTF-8 becomes '?', control characters become spaces. */
void hm_text_clean(char *text);
size_t hm_utf8_count(struct hm_str text); /* code points; malformed bytes count one each */
size_t hm_utf8_begun(struct hm_str text); /* the same for well-formed text, much faster */
/* Length of the well-formed text at the front without a quote, a backslash or a byte below 0x20. */
size_t hm_utf8_string_span(struct hm_str text);

/* "64K 2M 24G" (binary units) to bytes; plain numbers pass. */
int hm_parse_size(const char *text, uint64_t *ret_bytes, struct hm_error *err);
/* Integer counts, also "1e6" and "2.5e3" when integral. */
int hm_parse_count(const char *text, uint64_t *ret_count, struct hm_error *err);
/* finite, whole string */
int hm_parse_double(const char *text, double *ret_value, struct hm_error *err);
int hm_parse_bool(const char *text, bool *ret_value, struct hm_error *err);

/* The shortest decimal text that reads back as value, laid out as Python's repr (0.1, 1e-05, 3.0).
 */
#define HM_DOUBLE_TEXT_BYTES 48
void hm_double_text(double value, char out[HM_DOUBLE_TEXT_BYTES]);

/* Damerau-Levenshtein distance of short names, for "did you mean". */
unsigned hm_edit_distance(const char *a, const char *b);

#endif
