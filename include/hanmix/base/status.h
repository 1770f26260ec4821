/* SPDX-License-Identifier: MIT */
/*
 * Status codes and the one-sentence error that every fallible function fills.
 *
 * A fallible function returns HM_OK (0) or a negative enum hm_status and takes `struct hm_error
 * *err` last. err may be NULL. The table below is the only list: code, value, process exit code,
 * short text. Thread class: pure functions; an hm_error belongs to its caller.
 */
#ifndef HANMIX_BASE_STATUS_H
#define HANMIX_BASE_STATUS_H

#include <stddef.h>

#define HM_STATUS_TABLE(X)                          \
    X(HM_ERR_CHECK, -1, 1, "a check failed")        \
    X(HM_ERR_USAGE, -2, 2, "usage or recipe error") \
    X(HM_ERR_NOFIT, -3, 3, "will not fit")          \
    X(HM_ERR_FORMAT, -4, 4, "bad data or file")     \
    X(HM_ERR_NUMERIC, -5, 5, "numeric tripwire")    \
    X(HM_ERR_IO, -6, 6, "input/output error")       \
    X(HM_ERR_NOMEM, -7, 6, "out of memory")         \
    X(HM_ERR_STOPPED, -8, 75, "stopped, resumable")

enum hm_status {
    HM_OK = 0,
#define X(name, value, exit_code, text) name = value,
    HM_STATUS_TABLE(X)
#undef X
};

#define HM_ERROR_TEXT_BYTES 1024

struct hm_error {
    int code;                       /* enum hm_status; 0 when nothing was recorded */
    char text[HM_ERROR_TEXT_BYTES]; /* one sentence, no newline */
};

/* Record a sentence (printf style) and return `code`. A NULL err only returns the code. */
int hm_fail(struct hm_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "out of memory " and the sentence's end: "for %zu ids", "opening '%s'". Returns HM_ERR_NOMEM. */
int hm_fail_nomem(struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Hand on an error kept apart, such as that of a unit of a parallel loop; returns its code. */
int hm_error_pass(struct hm_error *err, const struct hm_error *from);

/* Put "context: " before the sentence already recorded. */
void hm_error_prefix(struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Process exit code of a status (interface: 0 ok, 1 check, 2 usage, 3 fit, 4 data, 5 numeric, 6
 * environment, 75 stopped). */
int hm_status_exit_code(int status);

/* Short text of a status, for messages without a sentence. */
const char *hm_status_text(int status);

/* Forward a failure; use only while nothing is held. */
#define HM_TRY(call)                 \
    do {                             \
        int hm_try_status_ = (call); \
        if (hm_try_status_ < 0)      \
            return hm_try_status_;   \
    } while (0)

/* Internal invariant; aborts in every build type. Never depends on input. */
void hm_bug(const char *file, int line, const char *condition) __attribute__((noreturn));
#define HM_BUG(cond)                           \
    do {                                       \
        if (cond)                              \
            hm_bug(__FILE__, __LINE__, #cond); \
    } while (0)

#endif
