/* SPDX-License-Identifier: MIT */
/*
 * Speed of text to ids: encode --model FILE TEXT... [--bytes N] [--threads N] [--repeats N]
 * [--library] [--worst]. Documents are read first, N bytes of text (64M) of each file. One CSV row
 * for each file: MB/s of UTF-8, best of the repeats, one document after the other without anything
 * kept from earlier ones; ids, and a hash of them. --library adds the same by libsentencepiece,
 * line for line and with a comparison of ids. --worst needs no TEXT: single texts that are hard for
 * merging (encode_worst.h).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench_args.h"
#include "encode_worst.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/corpus/text_files.h"
#include "hanmix/vocab/tokenizer.h"
#include "vocab/spm_shim.h"

/* Of ids: sums of FACTOR * place * id over a document, and of FACTOR * place * that over documents,
   modulo 2^64; rivals/encode_tools.py takes the same. */
#define HASH_FACTOR 0x9e3779b97f4a7c15u

struct settings {
    const char *model;
    char **file;
    size_t n_files;
    uint64_t bytes, threads, repeats;
    bool library, worst;
};

struct texts {
    struct hm_buf text;
    size_t *end; /* [count] of each document */
    size_t count, cap;
};

struct encoding {
    const struct hm_tokenizer *tokenizer;
    const void *library; /* NULL: our own */
    const struct texts *texts;
    struct hm_ids *ids;     /* of each worker */
    uint64_t *hash, *n_ids; /* of each document */
    bool failed;
};

static int texts_read(const struct settings *settings, size_t file, struct texts *texts,
                      struct hm_error *err)
{
    static char name[] = "text";
    struct hm_text_set set = {
        .name = name, .file = &settings->file[file], .n_files = 1, .epochs = 1
    };
    struct hm_text_options options = { .field = "text" };
    struct hm_text_source source = { 0 };
    struct hm_doc doc;
    int more = hm_text_files_open(&set, 1, &options, &source, err);

    while (more >= 0 && texts->text.len < settings->bytes &&
           (more = source.next(source.context, &doc, err)) > 0) {
        if (texts->count == texts->cap) {
            texts->cap = texts->cap ? 2 * texts->cap : 1024;
            texts->end = hm_realloc(HM_MEM_TEXT, texts->end, texts->cap * sizeof(*texts->end));
        }
        if (!texts->end || hm_buf_append(&texts->text, doc.text.ptr, doc.text.len, err) < 0)
            more = HM_ERR_NOMEM;
        else
            texts->end[texts->count++] = texts->text.len;
    }
    if (source.close)
        source.close(source.context);
    return more < 0 ? more : HM_OK;
}

static void encode_unit(void *context, size_t index, int worker)
{
    struct encoding *e = context;
    size_t first = index > 0 ? e->texts->end[index - 1] : 0;
    struct hm_str text = { e->texts->text.ptr + first, e->texts->end[index] - first };
    struct hm_ids *ids = &e->ids[worker];
    struct hm_error err = { 0 };
    uint64_t hash = 0;

    hm_ids_clear(ids);
    int r = e->library ? hm_spm_shim_encode(e->library, text, ids, &err)
                       : hm_tokenizer_encode(e->tokenizer, text, ids, &err);
    if (r < 0)
        e->failed = true;
    for (size_t i = 0; i < ids->count; i++)
        hash += HASH_FACTOR * (i + 1) * (uint64_t)ids->id[i];
    e->hash[index] = hash;
    e->n_ids[index] = ids->count;
}

/* Best MB/s of the repeats. */
static double encode_rate(struct encoding *e, uint64_t repeats)
{
    double best = 0;

    for (uint64_t i = 0; i < repeats; i++) {
        double began = hm_clock_seconds();
        hm_parallel_for(e->texts->count, encode_unit, e);
        double rate = (double)e->texts->text.len / (hm_clock_seconds() - began) / 1e6;
        best = rate > best ? rate : best;
    }
    return best;
}

static int file_run(const struct settings *settings, size_t file,
                    const struct hm_tokenizer *tokenizer, const void *library, struct hm_error *err)
{
    size_t workers = (size_t)hm_threads();
    struct texts texts = { 0 };
    struct encoding e = { .tokenizer = tokenizer, .texts = &texts };
    uint64_t ids = 0, hash = 0, differing = 0;

    HM_TRY(texts_read(settings, file, &texts, err));
    e.ids = hm_calloc(HM_MEM_OTHER, workers, sizeof(*e.ids));
    e.hash = hm_calloc(HM_MEM_OTHER, texts.count + 1, sizeof(*e.hash));
    e.n_ids = hm_calloc(HM_MEM_OTHER, texts.count + 1, sizeof(*e.n_ids));
    uint64_t *ours = hm_calloc(HM_MEM_OTHER, texts.count + 1, sizeof(*ours));
    if (!e.ids || !e.hash || !e.n_ids || !ours)
        return hm_fail_nomem(err, "for a benchmark");
    double rate = encode_rate(&e, settings->repeats), library_rate = 0;
    for (size_t i = 0; i < texts.count; i++) {
        ids += e.n_ids[i];
        hash += HASH_FACTOR * (i + 1) * e.hash[i];
        ours[i] = e.hash[i];
    }
    if (library) {
        e.library = library;
        library_rate = encode_rate(&e, 1);
        for (size_t i = 0; i < texts.count; i++)
            differing += ours[i] != e.hash[i];
    }
    printf("%s,%s,%zu,%d,%zu,%.1f,%" PRIu64 ",%016" PRIx64, settings->file[file], settings->model,
           tokenizer->model.count, hm_threads(), texts.text.len, rate, ids, hash);
    if (library)
        printf(",%.1f,%.2f,%" PRIu64, library_rate, rate / library_rate, differing);
    printf("\n");
    return e.failed ? hm_fail(err, HM_ERR_FORMAT, "a document could not be encoded") : HM_OK;
}

static int run(const struct settings *settings, struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = NULL;
    void *library = NULL;

    if (settings->threads > 0)
        hm_threads_set((int)settings->threads);
    HM_TRY(hm_tokenizer_open(settings->model, &tokenizer, err));
    if (settings->library)
        HM_TRY(hm_spm_shim_open(
            (struct hm_str){ tokenizer->model.bytes.ptr, tokenizer->model.bytes.len },
            settings->model, &library, err));
    if (settings->worst) {
        int r = encode_worst(settings->model, tokenizer, library, settings->repeats, err);
        hm_spm_shim_close(library);
        hm_tokenizer_free(tokenizer);
        return r;
    }
    printf("file,model,pieces,threads,bytes,mb_s,ids,hash%s\n",
           library ? ",library_mb_s,ratio,differing" : "");
    for (size_t i = 0; i < settings->n_files; i++)
        HM_TRY(file_run(settings, i, tokenizer, library, err));
    hm_spm_shim_close(library);
    hm_tokenizer_free(tokenizer);
    return HM_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = { .bytes = 64u << 20, .repeats = 3 };
    const struct bench_option option[] = {
        { "--model", .text = &settings.model },      { "--bytes", .count = &settings.bytes },
        { "--threads", .count = &settings.threads }, { "--repeats", .count = &settings.repeats },
        { "--library", .flag = &settings.library },  { "--worst", .flag = &settings.worst }
    };
    struct hm_error err = { 0 };
    int r =
        bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), &settings.n_files, &err);

    settings.file = argv + 1;
    if (r == HM_OK && settings.model && (settings.n_files > 0) != settings.worst)
        r = run(&settings, &err);
    else if (r == HM_OK)
        r = hm_fail(&err, HM_ERR_USAGE,
                    "usage: encode --model FILE TEXT... [--bytes N] [--threads N] [--repeats N] "
                    "[--library], or --worst without TEXT");
    if (r < 0)
        fprintf(stderr, "encode: %s\n", err.text);
    return r < 0;
}
