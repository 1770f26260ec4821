/* SPDX-License-Identifier: MIT */
/*
 * Helpers shared by the test programs: temporary folders, running a program, comparing floats,
 * golden data.
 *
 * Include it after "support/support.h"'s only companion, cmocka (this header pulls it in with what
 * it needs). Everything here ends the test with a message when it fails; nothing returns an error.
 */
#ifndef HANMIX_TESTS_SUPPORT_H
#define HANMIX_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/status.h"

/* --- status ----------------------------------------------------------------------------------- */

/* The call must succeed; else the test ends with the sentence of `error` (a struct hm_error
 * variable). */
#define assert_ok(call, error)                                                     \
    do {                                                                           \
        int assert_ok_status_ = (call);                                            \
        if (assert_ok_status_ < 0)                                                 \
            fail_msg("%s: status %d: %s", #call, assert_ok_status_, (error).text); \
    } while (0)

/* The call must fail with this code and a sentence that holds `part`. */
#define assert_fails(call, code, part, error)                                    \
    do {                                                                         \
        (error).text[0] = '\0';                                                  \
        int assert_fails_status_ = (call);                                       \
        if (assert_fails_status_ != (code))                                      \
            fail_msg("%s: expected status %d, found %d: %s", #call, (int)(code), \
                     assert_fails_status_, (error).text);                        \
        if (!strstr((error).text, (part)))                                       \
            fail_msg("%s: '%s' is not in: %s", #call, (part), (error).text);     \
    } while (0)

/* --- folders and files ------------------------------------------------------------------------ */

/* A fresh folder below $TMPDIR, or in memory, or below /tmp; tmp_release removes all and frees. */
char *tmp_new(void);
void tmp_release(char *dir);
/* One for a test or a group of tests: it is test_dir, and *state. */
extern char *test_dir;
int test_dir_setup(void **state);
int test_dir_teardown(void **state);

/* dir/name, printf style; one of 16 rotating static buffers. */
const char *tmp_path(const char *dir, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Write or read a whole file; the returned text is NUL-terminated and freed with hm_free. */
void file_put(const char *path, const void *data, size_t len);
char *file_get(const char *path, size_t *ret_len);

/* The path of recorded data, tests/golden/data/<relative>; a rotating static buffer as above. */
const char *golden_path(const char *relative);

/* --- programs --------------------------------------------------------------------------------- */

/*
 * Run argv[0] (argv ends with NULL) with its standard streams captured. Returns the exit code, or
 * 128 + signal. Texts are freed with hm_free; either pointer may be NULL. `input` may be NULL.
 */
int program_run(const char *const argv[], const char *input, char **ret_stdout, char **ret_stderr);

/* --- floats ----------------------------------------------------------------------------------- */

/* sqrt(sum (a-b)^2 / sum b^2); b is the reference. NaN or Inf in either gives infinity. */
double rel_rms(const float *a, const float *b, size_t count);
double rel_rms_f64(const double *a, const double *b, size_t count);
double max_abs_diff(const float *a, const float *b, size_t count);

/* Fail unless rel_rms is at most `limit`, telling both. */
void assert_close(const char *what, const float *a, const float *b, size_t count, double limit);

/* --- allocation failures ---------------------------------------------------------------------- */

/*
 * Run `attempt` with the first, second, third, ... allocation failing, jansson's included, until it
 * succeeds. Each failing attempt must return HM_ERR_NOMEM with a sentence and leave no block
 * behind; `attempt` releases what it made when it succeeds. Returns the number of failures seen (0
 * would mean that nothing was tested).
 */
unsigned oom_sweep(int (*attempt)(void *context, struct hm_error *err), void *context);

#endif
