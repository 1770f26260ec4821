/* SPDX-License-Identifier: MIT */
/*
 * Speed of reading text. Usage:
 *     read_text FILE... [--threads N] [--repeats N]
 * CSV rows for each file: a copy of its text in memory and its decompression alone (the limits),
 * reading it as documents, and reading with counting of Han runs by one and by N threads. Rates are
 * of raw text, by the clock and for each second of one core. bench/rivals/read_text_tools.py tells
 * the same of Python's fastest readers.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "bench_args.h"
#include "corpus/internal.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"

#define CHUNK_BYTES (4u << 20)

static int source_open(char *file, struct hm_text_source *source, struct hm_error *err)
{
    static char name[] = "text";
    struct hm_text_set set = { .name = name, .file = &file, .n_files = 1, .epochs = 1 };
    struct hm_text_options options = { .field = "text" };

    return hm_text_files_open(&set, 1, &options, source, err);
}

static int decompress(char *file, uint64_t *ret_bytes, struct hm_error *err)
{
    struct byte_stream stream = { 0 };
    char *out = hm_alloc(HM_MEM_OTHER, CHUNK_BYTES);
    size_t got = 0;

    if (!out)
        return hm_fail_nomem(err, "for reading");
    int status = hm_byte_stream_open(file, &stream, err);
    do {
        if (status == HM_OK)
            status = stream.read(&stream, out, CHUNK_BYTES, &got, err);
        *ret_bytes += got;
    } while (status == HM_OK && got > 0);
    hm_byte_stream_close(&stream);
    hm_free(out);
    return status;
}

static int read_alone(char *file, uint64_t *ret_bytes, struct hm_error *err)
{
    struct hm_text_source source = { 0 };
    struct hm_doc doc;
    int more;

    HM_TRY(source_open(file, &source, err));
    while ((more = source.next(source.context, &doc, err)) > 0)
        *ret_bytes += doc.text.len;
    source.close(source.context);
    return more;
}

static int read_count(char *file, uint64_t *ret_bytes, struct hm_error *err)
{
    struct hm_text_source source = { 0 };
    struct hm_han_counts *counts = NULL;

    HM_TRY(source_open(file, &source, err));
    int status = hm_han_counts_new(&counts, err);
    if (status == HM_OK)
        status = hm_han_counts_read(counts, &source, NULL, err);
    if (status == HM_OK)
        *ret_bytes = hm_han_counts_totals(counts).bytes;
    hm_han_counts_free(counts);
    source.close(source.context);
    return status;
}

static int copy(char *file, uint64_t *ret_bytes, struct hm_error *err)
{
    char *from = hm_calloc(HM_MEM_OTHER, 2, CHUNK_BYTES);
    uint64_t wanted = *ret_bytes;

    (void)file;
    if (!from)
        return hm_fail_nomem(err, "for copying");
    for (*ret_bytes = 0; *ret_bytes < wanted; *ret_bytes += CHUNK_BYTES) {
        memcpy(from + CHUNK_BYTES, from, CHUNK_BYTES);
        __asm__ volatile("" : : "r"(from) : "memory");
    }
    hm_free(from);
    return HM_OK;
}

struct step {
    const char *name;
    int (*run)(char *file, uint64_t *bytes, struct hm_error *err);
    bool threaded;
};

/* Of all threads so far. */
static double cpu_seconds(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int row(char *file, const struct step *step, int threads, uint64_t repeat, uint64_t text,
               uint64_t *ret_bytes, struct hm_error *err)
{
    const char *name = strrchr(file, '/');

    *ret_bytes = text;
    if (step->run != copy)
        *ret_bytes = 0;
    hm_threads_set(threads);
    double began = hm_clock_seconds(), cpu_began = cpu_seconds();
    HM_TRY(step->run(file, ret_bytes, err));
    double seconds = hm_clock_seconds() - began, cpu = cpu_seconds() - cpu_began;
    double mb = (double)*ret_bytes / 1e6;
    printf("%s,%s,%d,%u,%.1f,%.3f,%.1f,%.3f,%.1f\n", name ? name + 1 : file, step->name, threads,
           (unsigned)repeat, mb, seconds, mb / seconds, cpu, mb / cpu);
    fflush(stdout);
    return HM_OK;
}

static int measure(char *file, int threads, uint64_t repeat, struct hm_error *err)
{
    static const struct step step[] = { { "read", read_alone, false },
                                        { "read_count", read_count, true },
                                        { "decompress", decompress, false },
                                        { "memcpy", copy, false } };
    uint64_t text = 0;

    for (size_t i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
        uint64_t bytes = 0;
        HM_TRY(row(file, &step[i], 1, repeat, text, &bytes, err));
        text = bytes;
        if (step[i].threaded && threads > 1)
            HM_TRY(row(file, &step[i], threads, repeat, text, &bytes, err));
    }
    return HM_OK;
}

int main(int argc, char **argv)
{
    struct hm_error err = { 0 };
    uint64_t threads = 0, repeats = 3;
    size_t n_files = 0;
    int status = HM_OK;
    const struct bench_option option[] = { { "--threads", .count = &threads },
                                           { "--repeats", .count = &repeats } };

    if (bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), &n_files, &err) < 0 ||
        n_files == 0) {
        fprintf(stderr, "usage: read_text FILE... [--threads N] [--repeats N]\n");
        return 2;
    }
    int most = hm_threads_set((int)threads);
    printf("file,step,threads,repeat,text_mb,seconds,mb_per_s,cpu_s,mb_per_cpu_s\n");
    for (size_t f = 1; f <= n_files; f++)
        for (uint64_t r = 1; status == HM_OK && r <= repeats; r++)
            status = measure(argv[f], most, r, &err);
    if (status < 0)
        fprintf(stderr, "read_text: %s\n", err.text);
    return hm_status_exit_code(status);
}
