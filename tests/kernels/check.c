/* SPDX-License-Identifier: MIT */
/*
 * See check.h. A buffer is the end of an anonymous mapping whose last page nobody may touch, so an
 * access behind it is a crash with the context on the standard error; 64 guard bytes stand before.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hanmix/base/rng.h"

#include "bench/kernel_cases.h"
#include "check.h"

#define GUARD_BYTES 64
#define GUARD_BYTE  0xa5
#define MAX_TABLES  8
#define MAX_BUFFERS 64

const size_t check_sizes[] = { 1,  2,  3,  7,  8,   9,   15,  16,  17,  31,  32,   33,   47, 63,
                               64, 65, 96, 97, 127, 128, 129, 200, 255, 257, 1000, 4099, 0 };

static struct {
    unsigned char *map, *data;
    size_t map_bytes;
} buffers[MAX_BUFFERS];
static size_t n_buffers;
static struct hm_rng_key key;
static uint64_t drawn;
static char context[256] = "start";
static unsigned failures;

void *check_bytes(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (size + GUARD_BYTES + page - 1) / page * page;
    unsigned char *map =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED || n_buffers == MAX_BUFFERS ||
        mprotect(map + body, page, PROT_NONE) != 0) {
        perror("check_bytes");
        exit(2);
    }
    unsigned char *data = map + body - size;
    memset(map, GUARD_BYTE, body - size);
    memset(data, 0xff, size);
    buffers[n_buffers].map = map;
    buffers[n_buffers].data = data;
    buffers[n_buffers++].map_bytes = body + page;
    return data;
}

void check_release(void)
{
    while (n_buffers > 0) {
        n_buffers--;
        unsigned char *map = buffers[n_buffers].map;
        for (unsigned char *p = map; p < buffers[n_buffers].data; p++)
            if (*p != GUARD_BYTE) {
                check_that(false, "wrote %td bytes before a buffer", buffers[n_buffers].data - p);
                break;
            }
        munmap(map, buffers[n_buffers].map_bytes);
    }
}

float *check_floats(size_t n)
{
    return check_bytes(n * sizeof(float)); /* all bits set is a NaN */
}

float *check_normals(size_t n, double sigma)
{
    float *values = check_floats(n);

    for (size_t i = 0; i < n; i++)
        values[i] = (float)(sigma * hm_rng_normal(key, drawn++));
    return values;
}

void *check_copy(const void *source, size_t size)
{
    void *copy = check_bytes(size);

    memcpy(copy, source, size);
    return copy;
}

double check_uniform(void)
{
    return hm_rng_uniform(key, drawn++);
}

size_t check_below(size_t bound)
{
    return (size_t)hm_rng_below(key, drawn++, bound);
}

void check_context(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(context, sizeof(context), format, args);
    va_end(args);
}

void check_that(bool good, const char *format, ...)
{
    va_list args;

    if (good)
        return;
    if (++failures > 20) {
        fprintf(stderr, "too many failures\n");
        exit(1);
    }
    fprintf(stderr, "%s: ", context);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void check_equal(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (hm_f32_bits(got[i]) != hm_f32_bits(want[i]) && !(isnan(got[i]) && isnan(want[i]))) {
            check_that(false, "%s[%zu] is %a, expected %a", what, i, (double)got[i],
                       (double)want[i]);
            return;
        }
}

static bool near(double got, double want, double rel, double abs)
{
    if (isnan(want) || isinf(want))
        return isnan(want) ? isnan(got) : got == want;
    return fabs(got - want) <= rel * fabs(want) + abs; /* false for NaN */
}

void check_near(const char *what, const float *got, const float *want, size_t n, double rel,
                double abs)
{
    for (size_t i = 0; i < n; i++)
        if (!near((double)got[i], (double)want[i], rel, abs)) {
            check_that(false, "%s[%zu] is %.9g, expected %.9g", what, i, (double)got[i],
                       (double)want[i]);
            return;
        }
}

void check_near_f64(const char *what, const double *got, const double *want, size_t n, double rel,
                    double abs)
{
    for (size_t i = 0; i < n; i++)
        if (!near(got[i], want[i], rel, abs)) {
            check_that(false, "%s[%zu] is %.17g, expected %.17g", what, i, got[i], want[i]);
            return;
        }
}

void check_bytes_equal(const char *what, const void *got, const void *want, size_t size)
{
    const unsigned char *a = got, *b = want;

    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i]) {
            check_that(false, "%s: byte %zu is 0x%02x, expected 0x%02x", what, i, a[i], b[i]);
            return;
        }
}

int check_main(int argc, char **argv, const char *stem,
               void (*values)(const struct hm_kernels *ref),
               void (*path)(const struct hm_kernels *ref, const struct hm_kernels *path))
{
    struct hm_kernels tables[MAX_TABLES];
    size_t count = hm_kernels_all(tables, MAX_TABLES);
    uint64_t seed = (uint64_t)getpid();

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            return bench_kernel_cases(stem, stdout);
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
    }
    printf("%s: seed %llu, paths", stem, (unsigned long long)seed);
    for (size_t i = 0; i < count; i++)
        printf(" %s", tables[i].name);
    printf("\n");
    fflush(stdout);
    key.seed = seed;
    values(&tables[0]);
    check_release();
    for (size_t i = 1; i < count; i++) {
        path(&tables[0], &tables[i]);
        check_release();
    }
    return failures > 0;
}
