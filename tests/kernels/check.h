/* SPDX-License-Identifier: MIT */
/*
 * What the check_<stem> programs share: buffers that end at an unreadable page and begin behind
 * guard bytes, random numbers from a printed seed, comparisons that name the first difference.
 * `check_main` runs `values` (the reference against f64 formulas) and then `path` for every table
 * of this machine against the reference. Options: --seed N, --bench (speed instead of checks).
 */
#ifndef HANMIX_TESTS_CHECK_H
#define HANMIX_TESTS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hanmix/kernels/kernels.h"

int check_main(int argc, char **argv, const char *stem,
               void (*values)(const struct hm_kernels *ref),
               void (*path)(const struct hm_kernels *ref, const struct hm_kernels *path));

/* Element counts around every vector width and unroll; check_sizes ends with 0 after the last. */
extern const size_t check_sizes[];

/* Buffers live until check_release, which looks at their guards. Floats start as NaN. */
void *check_bytes(size_t size);
float *check_floats(size_t n);
float *check_normals(size_t n, double sigma);
void *check_copy(const void *source, size_t size);
void check_release(void);

double check_uniform(void); /* [0, 1) */
size_t check_below(size_t bound);

/* Words that precede the message of every failure, until the next call. */
void check_context(const char *format, ...) __attribute__((format(printf, 1, 2)));
void check_that(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same bits; any NaN equals any NaN. */
void check_equal(const char *what, const float *got, const float *want, size_t n);
/* |got - want| <= rel |want| + abs; NaN and infinities must agree. */
void check_near(const char *what, const float *got, const float *want, size_t n, double rel,
                double abs);
void check_near_f64(const char *what, const double *got, const double *want, size_t n, double rel,
                    double abs);
void check_bytes_equal(const char *what, const void *got, const void *want, size_t size);

#endif
