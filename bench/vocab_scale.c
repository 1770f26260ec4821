/* SPDX-License-Identifier: MIT */
/*
 * Learning a vocabulary from more text than memory, or the disk, holds. Usage:
 *     vocab_scale FILE.jsonl.zst... --csv FILE --dir DIR [--sizes MB,MB...] [--limits GIB,GIB...]
 *                 [--merges N] [--threads N] [--seed N]
 *     vocab_scale FILE.jsonl.zst... --fit [--sizes MB,MB...] [--source MB]
 * Text like that of the files is generated (zh_stream.h) and never stored. Each size (in MB of
 * text) is trained within each limit (in GiB of the vocabulary's memory; 0: none), spilling into
 * DIR; a row is appended to the csv after each, and rows that are there are passed over. The merge
 * lists of one size must have one digest. --fit prints the growth of pairs, runs and segments of
 * the generated beside that of the real text; --source fits to the first so many MB only, so that
 * what lies beyond is foretold.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_args.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/corpus/text_files.h"
#include "hanmix/vocab/bpe_train.h"
#include "text_growth.h"
#include "zh_stream.h"

#define GIB       ((double)(1u << 30))
#define MB        1e6
#define LIST_MAX  16u
#define HOLD_PART 4u /* of the limit: runs held before they go to the disk */
#define CSV_BYTES (1u << 20)

struct settings {
    char **file;
    size_t n_files;
    const char *csv, *dir, *sizes, *limits;
    uint64_t merges, threads, seed;
    double source_mb, same_two, same_one, anywhere;
    bool fit;
};

struct measured {
    double size_mb, limit_gib, count_seconds, generate_seconds, train_seconds;
    uint64_t rss_bytes, heap_bytes, last_count;
    struct hm_han_totals totals;
    struct hm_han_spilled spilled;
    char digest[HM_SHA256_HEX_BYTES];
};

static int files_open(const struct settings *settings, struct hm_text_source *source,
                      struct hm_error *err)
{
    static char name[] = "text";
    struct hm_text_set set = {
        .name = name, .file = settings->file, .n_files = settings->n_files, .epochs = 1
    };
    struct hm_text_options options = { .field = "text" };

    return hm_text_files_open(&set, 1, &options, source, err);
}

static size_t list_parse(const char *text, double list[LIST_MAX])
{
    size_t n = 0;

    while (*text && n < LIST_MAX) {
        char *end = NULL;
        list[n] = strtod(text, &end);
        if (end == text || list[n] < 0)
            return 0;
        n++;
        text = *end == ',' ? end + 1 : end;
        if (*end != ',' && *end != '\0')
            return 0;
    }
    return n;
}

static int model_make(const struct settings *settings, struct zh_model **ret_model,
                      struct hm_error *err)
{
    struct zh_rates rates = zh_rates_fitted;
    struct hm_text_source source = { 0 };

    if (settings->same_two + settings->same_one + settings->anywhere > 0)
        rates = (struct zh_rates){ settings->same_two, settings->same_one, settings->anywhere };
    HM_TRY(files_open(settings, &source, err));
    int status = zh_model_new(&source, (uint64_t)(settings->source_mb * MB), rates, ret_model, err);
    source.close(source.context);
    return status;
}

/* --- the fit ---------------------------------------------------------------------------------- */

static int growth_print(const char *what, double source_mb, struct hm_text_source *source,
                        double size_mb, struct hm_error *err)
{
    struct text_growth growth = { 0 };

    HM_TRY(text_growth_measure(source, (uint64_t)(size_mb * MB), &growth, err));
    printf("%s,%.0f,%.0f,%.3f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.3f,%" PRIu64 ",%" PRIu64
           ",%" PRIu64 "\n",
           what, source_mb, size_mb, 3.0 * (double)growth.han_characters / (double)growth.bytes,
           growth.distinct_characters, growth.pairs, growth.distinct_runs, growth.kept_share,
           growth.kept_pairs, growth.segments, growth.segment_characters);
    fflush(stdout);
    return HM_OK;
}

static int fit(const struct settings *settings, const struct zh_model *model, const double *size_mb,
               size_t n_sizes, struct hm_error *err)
{
    printf("text,source_mb,mb,han_share,distinct_characters,distinct_pairs,distinct_runs,kept_"
           "share,kept_"
           "pairs,distinct_segments,segment_characters\n");
    for (size_t i = 0; i < n_sizes; i++) {
        struct hm_text_source source = { 0 };
        HM_TRY(files_open(settings, &source, err));
        int status = growth_print("real", 0, &source, size_mb[i], err);
        source.close(source.context);
        if (status < 0)
            return status;
        HM_TRY(
            zh_stream_open(model, settings->seed, (uint64_t)(size_mb[i] * MB), NULL, &source, err));
        status = growth_print("generated", settings->source_mb, &source, size_mb[i], err);
        source.close(source.context);
        if (status < 0)
            return status;
    }
    return HM_OK;
}

/* --- training --------------------------------------------------------------------------------- */

static int list_digest(const struct hm_bpe_result *result, char hex[HM_SHA256_HEX_BYTES],
                       struct hm_error *err)
{
    struct hm_buf lines = { 0 };
    int status = HM_OK;

    for (size_t i = 0; status == HM_OK && i < result->n_merges; i++)
        status = hm_buf_printf(&lines, err, "%.*s\t%" PRIu64 "\n", (int)result->merge[i].text.len,
                               result->merge[i].text.ptr, result->merge[i].count);
    if (status == HM_OK)
        status = hm_sha256_of(lines.ptr, lines.len, hex, err);
    hm_buf_release(&lines);
    return status;
}

static int learn(const struct settings *settings, struct hm_han_counts *counts,
                 struct hm_text_source *source, struct measured *measured, struct hm_error *err)
{
    uint64_t limit_bytes = (uint64_t)(measured->limit_gib * GIB);
    struct hm_han_spill_options spill = { .dir = settings->dir,
                                          .key = "vocab_scale",
                                          .hold_bytes = limit_bytes / HOLD_PART };
    struct hm_bpe_options options = { .merges = (size_t)settings->merges,
                                      .max_piece_chars = 8,
                                      .memory_bytes = limit_bytes };
    struct hm_bpe_result result = { 0 };
    double began = hm_clock_seconds();

    hm_han_counts_limit(counts, limit_bytes);
    if (limit_bytes > 0)
        HM_TRY(hm_han_counts_spill(counts, &spill, err));
    HM_TRY(hm_han_counts_read(counts, source, NULL, err));
    if (limit_bytes > 0)
        HM_TRY(hm_han_counts_end(counts, NULL, err));
    measured->count_seconds = hm_clock_seconds() - began;
    measured->totals = hm_han_counts_totals(counts);
    began = hm_clock_seconds();
    HM_TRY(hm_bpe_train(counts, &options, NULL, &result, err));
    measured->train_seconds = hm_clock_seconds() - began;
    measured->spilled = hm_han_counts_spilled(counts);
    measured->heap_bytes = hm_mem_peak_bytes(HM_MEM_VOCAB);
    measured->rss_bytes = hm_rss_peak_bytes();
    measured->last_count = result.merge[result.n_merges - 1].count;
    int status = list_digest(&result, measured->digest, err);
    hm_bpe_result_release(&result);
    return status;
}

static int measure(const struct settings *settings, const struct zh_model *model,
                   struct measured *measured, struct hm_error *err)
{
    struct hm_han_counts *counts = NULL;
    struct hm_text_source source = { 0 };

    hm_mem_peak_reset();
    hm_rss_peak_reset();
    HM_TRY(zh_stream_open(model, settings->seed, (uint64_t)(measured->size_mb * MB),
                          &measured->generate_seconds, &source, err));
    int status = hm_han_counts_new(&counts, err);
    if (status == HM_OK)
        status = learn(settings, counts, &source, measured, err);
    hm_han_counts_free(counts);
    source.close(source.context);
    return status;
}

/* --- the csv ---------------------------------------------------------------------------------- */

static const char head[] =
    "size_mb,limit_gib,merges,threads,han_characters,runs,count_s,generate_s,train_s,"
    "total_s,peak_rss_gib,generator_gib,heap_peak_gib,spilled_gb,partitions,passes,last_count,"
    "digest\n";

static int csv_append(const struct settings *settings, const struct zh_model *model,
                      const struct measured *m, struct hm_error *err)
{
    bool there = hm_path_exists(settings->csv);
    FILE *file = fopen(settings->csv, "a");

    if (!file)
        return hm_fail(err, HM_ERR_IO, "'%s' cannot be written", settings->csv);
    if (!there)
        fputs(head, file);
    fprintf(file,
            "%.0f,%g,%" PRIu64 ",%d,%" PRIu64 ",%" PRIu64
            ",%.1f,%.1f,%.1f,%.1f,%.3f,%.3f,%.3f,%.3f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%s\n",
            m->size_mb, m->limit_gib, settings->merges, hm_threads(), m->totals.han_characters,
            m->totals.runs, m->count_seconds, m->generate_seconds, m->train_seconds,
            m->count_seconds + m->train_seconds, (double)m->rss_bytes / GIB,
            (double)zh_model_bytes(model) / GIB, (double)m->heap_bytes / GIB,
            (double)m->spilled.spilled_bytes / 1e9, m->spilled.partitions, m->spilled.passes,
            m->last_count, m->digest);
    return fclose(file) == 0 ? HM_OK
                             : hm_fail(err, HM_ERR_IO, "'%s' cannot be written", settings->csv);
}

/* The digest of a row of that size (and, with_limit, that limit), or NULL. */
static const char *csv_find(const struct hm_buf *csv, double size_mb, double limit_gib,
                            bool with_limit)
{
    for (const char *line = csv->ptr; line && *line;
         line = strchr(line, '\n'), line += line != NULL) {
        double size, limit;
        if (sscanf(line, "%lf,%lf,", &size, &limit) != 2 || size != size_mb ||
            (with_limit && limit != limit_gib))
            continue;
        size_t len = strcspn(line, "\n");
        return len > HM_SHA256_HEX_BYTES ? line + len - (HM_SHA256_HEX_BYTES - 1) : NULL;
    }
    return NULL;
}

static int csv_read(const struct settings *settings, struct hm_buf *csv, struct hm_error *err)
{
    hm_buf_clear(csv);
    if (!hm_path_exists(settings->csv))
        return HM_OK;
    HM_TRY(hm_file_read(settings->csv, CSV_BYTES, csv, err));
    return hm_buf_append(csv, "", 1, err);
}

static int row(const struct settings *settings, const struct zh_model *model, double size_mb,
               double limit_gib, struct hm_buf *csv, struct hm_error *err)
{
    struct measured measured = { .size_mb = size_mb, .limit_gib = limit_gib };

    HM_TRY(csv_read(settings, csv, err));
    if (csv_find(csv, size_mb, limit_gib, true))
        return HM_OK;
    HM_TRY(measure(settings, model, &measured, err));
    HM_TRY(csv_append(settings, model, &measured, err));
    printf(
        "%.0f MB within %g GiB: count %.1f s (generating %.1f s), train %.1f s, %.2f GiB resident, "
        "%.2f GB spilled\n",
        size_mb, limit_gib, measured.count_seconds, measured.generate_seconds,
        measured.train_seconds, (double)measured.rss_bytes / GIB,
        (double)measured.spilled.spilled_bytes / 1e9);
    fflush(stdout);
    const char *other = csv_find(csv, size_mb, 0, false);
    if (other && strncmp(other, measured.digest, HM_SHA256_HEX_BYTES - 1) != 0)
        return hm_fail(err, HM_ERR_FORMAT, "%.0f MB: two limits give two merge lists", size_mb);
    return HM_OK;
}

static int rows(const struct settings *settings, const struct zh_model *model,
                const double *size_mb, size_t n_sizes, const double *limit_gib, size_t n_limits,
                struct hm_error *err)
{
    struct hm_buf csv = { 0 };
    int status = HM_OK;

    for (size_t i = 0; i < n_sizes; i++)
        for (size_t k = 0; status == HM_OK && k < n_limits; k++)
            status = row(settings, model, size_mb[i], limit_gib[k], &csv, err);
    hm_buf_release(&csv);
    return status;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: vocab_scale FILE... --csv FILE --dir DIR [--sizes MB,...] [--limits "
            "GIB,...] [--merges N] [--threads N] [--seed N]\n"
            "       vocab_scale FILE... --fit [--sizes MB,...] [--source MB] [--two R --one R "
            "--any R]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .sizes = "1000,2000,4000,8000,14000", .limits = "16,6", .merges = 25000, .seed = 1
    };
    double size_mb[LIST_MAX], limit_gib[LIST_MAX];
    struct zh_model *model = NULL;
    struct hm_error err = { 0 };
    const struct bench_option option[] = {
        { "--csv", .text = &settings.csv },        { "--dir", .text = &settings.dir },
        { "--sizes", .text = &settings.sizes },    { "--limits", .text = &settings.limits },
        { "--merges", .count = &settings.merges }, { "--threads", .count = &settings.threads },
        { "--seed", .count = &settings.seed },     { "--source", .real = &settings.source_mb },
        { "--two", .real = &settings.same_two },   { "--one", .real = &settings.same_one },
        { "--any", .real = &settings.anywhere },   { "--fit", .flag = &settings.fit },
    };

    if (bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), &settings.n_files,
                   &err) < 0 ||
        settings.n_files == 0 || (!settings.fit && (!settings.csv || !settings.dir)))
        return usage();
    size_t n_sizes = list_parse(settings.sizes, size_mb);
    size_t n_limits = list_parse(settings.limits, limit_gib);
    if (n_sizes == 0 || n_limits == 0)
        return usage();
    settings.file = argv + 1;
    hm_threads_set((int)settings.threads);
    int status = model_make(&settings, &model, &err);
    if (status == HM_OK)
        status = settings.fit ? fit(&settings, model, size_mb, n_sizes, &err)
                              : rows(&settings, model, size_mb, n_sizes, limit_gib, n_limits, &err);
    zh_model_free(model);
    if (status < 0)
        fprintf(stderr, "vocab_scale: %s\n", err.text);
    return hm_status_exit_code(status);
}
