/* SPDX-License-Identifier: MIT */
/*
 * Parting cut runs and merging the parts; see cut_parts.h. A part's number is the hash's: the part
 * of han_store.c below, further bits above, so that the parts of han_store.c pour without meeting
 * each other. What is parted again goes by other hashes. Order in the files depends on the text
 * alone as long as no part is parted again; the trainer needs none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "cut_parts.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

#define FLUSH_WORDS (128u << 10) /* of a part at once: 256 KiB */
#define READ_BYTES  (1u << 20)
#define SPLITS      8u
#define DEPTH_MAX   8u
#define TOLD_PARTS  8u /* merged between two reports */

void hm_cut_segments_name(char name[HM_CUT_NAME_BYTES], size_t number)
{
    snprintf(name, HM_CUT_NAME_BYTES, HM_SPILL_NAME "segments.%04zu", number);
}

int hm_cut_parts_found(const char *dir, size_t n, struct hm_han_budget *budget,
                       struct cut_parts **ret_parts, struct hm_error *err)
{
    struct cut_parts *parts = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*parts));

    if (!parts)
        return hm_fail_nomem(err, "for %zu parts of Han runs", n);
    parts->budget = budget;
    parts->dir = dir;
    parts->n = n;
    for (size_t i = 0; i < HM_CUT_PARTS_MAX; i++) {
        parts->part[i].file.fd = -1;
        parts->part[i].words.budget = budget;
    }
    *ret_parts = parts;
    return HM_OK;
}

int hm_cut_parts_new(const char *dir, size_t n, struct hm_han_budget *budget,
                     struct cut_parts **ret_parts, struct hm_error *err)
{
    struct cut_parts *parts = NULL;
    char name[HM_CUT_NAME_BYTES];
    int status = hm_cut_parts_found(dir, n, budget, &parts, err);

    for (size_t i = 0; status == HM_OK && i < n; i++) {
        snprintf(name, sizeof(name), HM_SPILL_NAME "cut.%04zu", i);
        status = hm_run_file_create(dir, name, &parts->part[i].file, err);
    }
    if (status == HM_OK)
        *ret_parts = parts;
    else
        hm_cut_parts_free(parts);
    return status;
}

void hm_cut_parts_free(struct cut_parts *parts)
{
    if (!parts)
        return;
    for (size_t i = 0; i < HM_CUT_PARTS_MAX; i++) {
        hm_run_words_release(&parts->part[i].words);
        hm_run_file_close(&parts->part[i].file);
    }
    hm_free(parts);
}

/* --- parting ---------------------------------------------------------------------------------- */

static int words_take(struct run_words *words, struct run_file *file, const struct hm_run *run,
                      struct hm_error *err)
{
    HM_TRY(hm_run_words_put(words, run, err));
    return words->n >= FLUSH_WORDS ? hm_run_file_put(file, words, err) : HM_OK;
}

static int run_take(struct cut_parts *parts, const struct hm_run *run, uint64_t hash,
                    struct hm_error *err)
{
    struct cut_part *part = &parts->part[hash >> 40 & (parts->n - 1)];

    return words_take(&part->words, &part->file, run, err);
}

struct pouring {
    struct cut_parts *parts;
    const struct hm_han_list *list;
    size_t n_lists;
    const struct hm_han_sums *sums;
    struct hm_error err[HM_HAN_PARTS];
};

static void pour_unit(void *context, size_t number, int worker)
{
    struct pouring *pouring = context;
    int status = HM_OK;

    (void)worker;
    for (size_t i = 0; i < pouring->n_lists; i++) {
        const struct hm_han_list *list = &pouring->list[i];
        for (size_t k = list->start[number]; status == HM_OK && k < list->start[number + 1]; k++) {
            const struct hm_han_item *item = &list->sorted[k];
            struct hm_run run = { .unit = list->unit + item->first,
                                  .n_units = item->n_units,
                                  .count = item->count };
            status = run_take(pouring->parts, &run, item->hash, &pouring->err[number]);
        }
    }
}

static void take_unit(void *context, size_t number, int worker)
{
    struct pouring *pouring = context;
    uint64_t cursor = 0;
    struct hm_run run;
    int status = HM_OK;

    (void)worker;
    while (status == HM_OK && hm_han_part_next(&pouring->sums->part[number], &cursor, &run))
        status = run_take(pouring->parts, &run, hm_run_hash(run.unit, run.n_units),
                          &pouring->err[number]);
}

static int pouring_end(const struct pouring *pouring, struct hm_error *err)
{
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        if (pouring->err[p].code < 0)
            return hm_error_pass(err, &pouring->err[p]);
    return HM_OK;
}

int hm_cut_parts_pour(struct cut_parts *parts, const struct hm_han_list *list, size_t n_lists,
                      struct hm_error *err)
{
    struct pouring pouring = { .parts = parts, .list = list, .n_lists = n_lists };

    hm_parallel_for(HM_HAN_PARTS, pour_unit, &pouring);
    return pouring_end(&pouring, err);
}

int hm_cut_parts_take(struct cut_parts *parts, const struct hm_han_sums *sums, struct hm_error *err)
{
    struct pouring pouring = { .parts = parts, .sums = sums };

    hm_parallel_for(HM_HAN_PARTS, take_unit, &pouring);
    return pouring_end(&pouring, err);
}

/* --- merging ---------------------------------------------------------------------------------- */

struct merging {
    struct cut_parts *parts;
    struct cut_part *own;
    size_t number;
    struct run_file out;
    struct run_words words;
    struct hm_error *err;
};

struct loading { /* the runs of a block as a list without copies of them */
    struct hm_han_list list;
    size_t cap_items;
};

static int block_list(struct merging *merging, const struct run_block *block,
                      struct loading *loading)
{
    size_t n = 0, at = 0;
    struct hm_run run;

    /* a record has two words at least */
    if (block->n_words / 2 > loading->cap_items) {
        size_t cap = block->n_words / 2;
        struct hm_han_item *item =
            hm_realloc(HM_MEM_VOCAB, loading->list.sorted, cap * sizeof(*item));
        if (!item)
            return hm_fail_nomem(merging->err, "for a list of %zu Han runs", cap);
        loading->list.sorted = item;
        loading->cap_items = cap;
    }
    loading->list.unit = (uint16_t *)(uintptr_t)block->word;
    while (hm_run_block_next(block, &at, &run))
        loading->list.sorted[n++] =
            (struct hm_han_item){ .hash = hm_run_hash(run.unit, run.n_units),
                                  .count = run.count,
                                  .first = (uint32_t)(run.unit - block->word),
                                  .n_units = run.n_units };
    loading->list.n_items = n;
    loading->list.n_units = block->n_words;
    loading->list.start[0] = 0;
    loading->list.start[1] = n;
    return HM_OK;
}

/* All runs of a file into one part in memory; *ret_fits false: it would hold too much. */
static int part_load(struct merging *merging, struct run_reader *reader, struct hm_han_part *part,
                     bool *ret_fits)
{
    struct loading loading = { 0 };
    struct run_block block;
    size_t n = 0;
    int status = HM_OK;

    for (*ret_fits = true; status == HM_OK && *ret_fits;) {
        status = hm_run_reader_next(reader, &block, 1, &n, merging->err);
        if (status < 0 || n == 0)
            break;
        status = hm_run_block_check(&block, reader->path, merging->err);
        if (status == HM_OK)
            status = block_list(merging, &block, &loading);
        if (status < 0)
            break;
        *ret_fits = part->held_bytes +
                        hm_han_part_growth(part, loading.list.n_items, loading.list.n_units) <=
                    merging->parts->hold_bytes;
        if (*ret_fits)
            status = hm_han_part_add(part, 0, &loading.list, merging->err);
    }
    hm_free(loading.list.sorted);
    return status;
}

static int part_write(struct merging *merging, const struct hm_han_part *part)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_part_next(part, &cursor, &run))
        HM_TRY(words_take(&merging->words, &merging->out, &run, merging->err));
    return HM_OK;
}

static int file_merge(struct merging *merging, const char *path, uint64_t bytes, unsigned depth);

static int split_files(struct merging *merging, struct run_reader *reader, unsigned depth,
                       struct run_file file[SPLITS], struct run_words words[SPLITS])
{
    struct run_block block;
    struct hm_run run;
    size_t n = 0;

    for (;;) {
        HM_TRY(hm_run_reader_next(reader, &block, 1, &n, merging->err));
        if (n == 0)
            break;
        HM_TRY(hm_run_block_check(&block, reader->path, merging->err));
        for (size_t at = 0; hm_run_block_next(&block, &at, &run);) {
            size_t to = hm_mix64(hm_run_hash(run.unit, run.n_units) + depth) % SPLITS;
            HM_TRY(words_take(&words[to], &file[to], &run, merging->err));
        }
    }
    for (size_t i = 0; i < SPLITS; i++)
        HM_TRY(hm_run_file_put(&file[i], &words[i], merging->err));
    return HM_OK;
}

/* The file at `path` parted by other bits of the hash, its parts merged one after another. */
static int file_split(struct merging *merging, const char *path, uint64_t bytes, unsigned depth)
{
    struct run_file file[SPLITS];
    struct run_words words[SPLITS];
    struct run_reader reader = { .fd = -1 };
    char name[HM_CUT_NAME_BYTES];
    int status = HM_OK;

    if (depth == DEPTH_MAX)
        return hm_fail(merging->err, HM_ERR_NOFIT,
                       "counting Han runs needs more than %" PRIu64
                       " bytes for one part of them: raise the memory limit or sample the text",
                       merging->parts->hold_bytes);
    for (size_t i = 0; i < SPLITS; i++) {
        file[i] = (struct run_file){ .fd = -1 };
        words[i] = (struct run_words){ .budget = merging->parts->budget };
    }
    for (size_t i = 0; status == HM_OK && i < SPLITS; i++) {
        snprintf(name, sizeof(name), HM_SPILL_NAME "split.%04zu.%u.%zu", merging->number, depth, i);
        status = hm_run_file_create(merging->parts->dir, name, &file[i], merging->err);
    }
    if (status == HM_OK)
        status = hm_run_reader_open(path, bytes, READ_BYTES, merging->parts->budget, &reader,
                                    merging->err);
    if (status == HM_OK)
        status = split_files(merging, &reader, depth, file, words);
    hm_run_reader_close(&reader);
    unlink(path);
    for (size_t i = 0; i < SPLITS; i++)
        hm_run_words_release(&words[i]);
    for (size_t i = 0; i < SPLITS; i++) {
        if (status == HM_OK)
            status = file_merge(merging, file[i].path, file[i].bytes, depth + 1);
        hm_run_file_remove(&file[i]);
    }
    merging->own->splits++;
    return status;
}

/* Distinct segments of one file to the end of merging->out; the file goes. */
static int file_merge(struct merging *merging, const char *path, uint64_t bytes, unsigned depth)
{
    struct hm_han_part *part = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*part));
    struct run_reader reader = { .fd = -1 };
    bool fits = true;
    int status = part ? HM_OK : hm_fail_nomem(merging->err, "for counting Han runs");

    if (status == HM_OK)
        status = hm_han_part_init(part, merging->parts->budget, merging->err);
    if (status == HM_OK)
        status = hm_run_reader_open(path, bytes, READ_BYTES, merging->parts->budget, &reader,
                                    merging->err);
    if (status == HM_OK)
        status = part_load(merging, &reader, part, &fits);
    hm_run_reader_close(&reader);
    if (status == HM_OK && fits)
        status = part_write(merging, part);
    if (part)
        hm_han_part_release(part);
    hm_free(part);
    if (status == HM_OK && fits)
        unlink(path);
    return status == HM_OK && !fits ? file_split(merging, path, bytes, depth) : status;
}

static void merge_unit(void *context, size_t index, int worker)
{
    struct cut_parts *parts = context;
    size_t number = parts->first + index;
    struct cut_part *part = &parts->part[number];
    struct merging merging = { .parts = parts,
                               .own = part,
                               .number = number,
                               .out = { .fd = -1 },
                               .words = { .budget = parts->budget },
                               .err = &part->err };
    char name[HM_CUT_NAME_BYTES];
    int status = HM_OK;

    (void)worker;
    if (hm_ctl_stopped(parts->ctl)) {
        hm_fail(&part->err, HM_ERR_STOPPED, "counting segments was stopped");
        return;
    }
    hm_cut_segments_name(name, number);
    status = hm_run_file_create(parts->dir, name, &merging.out, &part->err);
    if (status == HM_OK)
        status = file_merge(&merging, part->file.path, part->bytes, 0);
    if (status == HM_OK)
        status = hm_run_file_put(&merging.out, &merging.words, &part->err);
    if (status == HM_OK)
        status = hm_run_file_sync(&merging.out, &part->err);
    part->bytes = merging.out.bytes;
    hm_run_words_release(&merging.words);
    hm_run_file_close(&merging.out);
    hm_run_file_close(&part->file);
}

int hm_cut_parts_merge(struct cut_parts *parts, uint64_t hold_bytes, const struct hm_ctl *ctl,
                       struct hm_error *err)
{
    parts->hold_bytes = hold_bytes;
    parts->ctl = ctl;
    for (size_t i = 0; i < parts->n; i++) {
        struct cut_part *part = &parts->part[i];
        HM_TRY(hm_run_file_put(&part->file, &part->words, err));
        hm_run_words_release(&part->words);
        part->bytes = part->file.bytes;
    }
    for (size_t first = 0; first < parts->n; first += TOLD_PARTS) {
        struct hm_progress progress = {
            .what = "merge parts", .unit = "parts", .done = first, .total = parts->n
        };
        hm_ctl_progress(ctl, &progress);
        parts->first = first;
        hm_parallel_for(hm_least(TOLD_PARTS, parts->n - first), merge_unit, parts);
    }
    for (size_t i = 0; i < parts->n; i++)
        if (parts->part[i].err.code < 0)
            return hm_error_pass(err, &parts->part[i].err);
    return HM_OK;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int part_walk(struct run_reader *reader, int (*each)(void *user, const struct hm_run *run),
                     void *user, struct hm_error *err)
{
    struct run_block block;
    struct hm_run run;
    size_t n = 0;

    for (;;) {
        HM_TRY(hm_run_reader_next(reader, &block, 1, &n, err));
        if (n == 0)
            return HM_OK;
        HM_TRY(hm_run_block_check(&block, reader->path, err));
        for (size_t at = 0; hm_run_block_next(&block, &at, &run);)
            HM_TRY(each(user, &run));
    }
}

int hm_cut_parts_walk(void *context, size_t part, int (*each)(void *user, const struct hm_run *run),
                      void *user, struct hm_error *err)
{
    struct cut_parts *parts = context;
    struct run_reader reader = { .fd = -1 };
    char name[HM_CUT_NAME_BYTES], *path = NULL;

    hm_cut_segments_name(name, part);
    int status = hm_path_join(&path, parts->dir, name, err);
    if (status == HM_OK)
        status = hm_run_reader_open(path, parts->part[part].bytes, READ_BYTES, parts->budget,
                                    &reader, err);
    if (status == HM_OK)
        status = part_walk(&reader, each, user, err);
    hm_run_reader_close(&reader);
    hm_free(path);
    return status;
}
