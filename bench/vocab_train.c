/* SPDX-License-Identifier: MIT */
/*
 * Speed of learning a Chinese vocabulary. Usage:
 *     vocab_train FILE... [--merges N] [--threads N] [--repeats N] [--list FILE]
 * One CSV row per repeat: reading alone (decompression and JSON), reading with counting of Han
 * runs, training, the peak of the vocabulary's heap, and of resident memory, and that beyond the
 * bare program for each byte of text. --list writes the merges with their counts.
 * rivals/vocab_train_compare.sh does the same job with other trainers.
 */
#include <inttypes.h>
#include <stdio.h>

#include "bench_args.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/corpus/text_files.h"
#include "hanmix/vocab/bpe_train.h"

struct settings {
    char **file;
    size_t n_files;
    const char *list;
    uint64_t merges, repeats;
    uint64_t rss_start_bytes; /* of the program alone */
};

struct measured {
    double read_seconds, count_seconds, train_seconds;
    struct hm_han_totals totals;
    uint64_t last_count, peak_bytes, rss_bytes;
};

static int source_open(const struct settings *settings, struct hm_text_source *source,
                       struct hm_error *err)
{
    static char name[] = "text";
    struct hm_text_set set = {
        .name = name, .file = settings->file, .n_files = settings->n_files, .epochs = 1
    };
    struct hm_text_options options = { .field = "text" };

    return hm_text_files_open(&set, 1, &options, source, err);
}

static int read_alone(const struct settings *settings, double *ret_seconds, struct hm_error *err)
{
    struct hm_text_source source = { 0 };
    struct hm_doc doc;
    double began = hm_clock_seconds();
    int more = source_open(settings, &source, err);

    if (more < 0)
        return more;
    while ((more = source.next(source.context, &doc, err)) > 0)
        ;
    source.close(source.context);
    *ret_seconds = hm_clock_seconds() - began;
    return more;
}

static int list_write(const char *path, const struct hm_bpe_result *result, struct hm_error *err)
{
    struct hm_out_file file = { 0 };
    int status = HM_OK;

    HM_TRY(hm_out_open(path, &file, err));
    for (size_t i = 0; status == HM_OK && i < result->n_merges; i++)
        status = hm_out_printf(&file, err, "%.*s\t%" PRIu64 "\n", (int)result->merge[i].text.len,
                               result->merge[i].text.ptr, result->merge[i].count);
    return hm_out_end(&file, status, err);
}

static int learn(const struct settings *settings, struct hm_han_counts *counts,
                 struct measured *measured, struct hm_error *err)
{
    struct hm_bpe_options options = { .merges = (size_t)settings->merges, .max_piece_chars = 8 };
    struct hm_bpe_result result = { 0 };
    struct hm_text_source source = { 0 };
    double began = hm_clock_seconds();

    HM_TRY(source_open(settings, &source, err));
    int status = hm_han_counts_read(counts, &source, NULL, err);
    source.close(source.context);
    if (status < 0)
        return status;
    measured->count_seconds = hm_clock_seconds() - began;
    measured->totals = hm_han_counts_totals(counts);
    began = hm_clock_seconds();
    HM_TRY(hm_bpe_train(counts, &options, NULL, &result, err));
    measured->train_seconds = hm_clock_seconds() - began;
    measured->peak_bytes = hm_mem_peak_bytes(HM_MEM_VOCAB);
    measured->rss_bytes = hm_rss_peak_bytes();
    if (result.n_merges > 0)
        measured->last_count = result.merge[result.n_merges - 1].count;
    status = settings->list ? list_write(settings->list, &result, err) : (int)HM_OK;
    hm_bpe_result_release(&result);
    return status;
}

static int measure(const struct settings *settings, struct measured *measured, struct hm_error *err)
{
    struct hm_han_counts *counts = NULL;

    HM_TRY(read_alone(settings, &measured->read_seconds, err));
    hm_mem_peak_reset();
    hm_rss_peak_reset();
    HM_TRY(hm_han_counts_new(&counts, err));
    int status = learn(settings, counts, measured, err);
    hm_han_counts_free(counts);
    return status;
}

static void row_print(const struct settings *settings, uint64_t repeat, const struct measured *m)
{
    double mb = (double)m->totals.bytes / 1e6;

    printf("%d,%" PRIu64 ",%" PRIu64 ",%.1f,%" PRIu64 ",%" PRIu64
           ",%.3f,%.1f,%.3f,%.1f,%.3f,%.3f,%.1f,%.1f,%.2f,%" PRIu64 "\n",
           hm_threads(), repeat, settings->merges, mb, m->totals.han_characters, m->totals.runs,
           m->read_seconds, mb / m->read_seconds, m->count_seconds, mb / m->count_seconds,
           m->train_seconds, m->count_seconds + m->train_seconds, (double)m->peak_bytes / 1e6,
           (double)m->rss_bytes / 1048576,
           (double)(m->rss_bytes - settings->rss_start_bytes) / (double)m->totals.bytes,
           m->last_count);
    fflush(stdout);
}

static int usage(void)
{
    fprintf(stderr, "usage: vocab_train FILE... [--merges N] [--threads N] [--repeats N] "
                    "[--list FILE]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct settings settings = { .merges = 18600, .repeats = 3 };
    struct hm_error err = { 0 };
    uint64_t threads = 0;
    int status = HM_OK;
    const struct bench_option option[] = {
        { "--merges", .count = &settings.merges },
        { "--threads", .count = &threads },
        { "--repeats", .count = &settings.repeats },
        { "--list", .text = &settings.list },
    };

    if (bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), &settings.n_files,
                   &err) < 0 ||
        settings.n_files == 0)
        return usage();
    settings.file = argv + 1;
    settings.rss_start_bytes = hm_rss_bytes();
    hm_threads_set((int)threads);
    printf(
        "threads,repeat,merges,text_mb,han_characters,runs,read_s,read_mb_per_s,count_s,"
        "count_mb_per_s,train_s,total_s,heap_peak_mb,peak_rss_mib,rss_bytes_per_byte,last_count\n");
    for (uint64_t i = 1; status == HM_OK && i <= settings.repeats; i++) {
        struct measured measured = { 0 };
        status = measure(&settings, &measured, &err);
        if (status == HM_OK)
            row_print(&settings, i, &measured);
    }
    if (status < 0)
        fprintf(stderr, "vocab_train: %s\n", err.text);
    return hm_status_exit_code(status);
}
