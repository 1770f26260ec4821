/* SPDX-License-Identifier: MIT */
/*
 * Named sets of text files as one source of documents: sets one after another, or mixed by weight;
 * exact duplicates and sampling by hash; names of sets as they appear; statistics. Reading one set
 * is set_reader.c.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "internal.h"
#include "seen_set.h"

#define LOOK_EVERY       256u          /* documents between looks at the stop flag */
#define BOUND_READ_BYTES (32ull << 20) /* larger files are not read through for a bound */

struct source {
    struct hm_text_set *set; /* owned copies */
    size_t n_sets;
    struct hm_text_options options; /* field and set_field are owned copies */
    struct set_reader *reader;      /* one per set */
    double *taken;                  /* documents handed out per set, divided by its weight */
    uint64_t *rest;                 /* of each set's part of the bound in bytes; NULL: no bound */
    uint64_t total;                 /* bytes of the files, all passes */
    bool *ended;
    bool mixed;
    struct hm_text_stats stats;
    struct seen_set seen; /* hashes, when options.dedup */
    char **name;          /* set names in order of appearance */
    size_t n_names, names_cap;
    double keep_share; /* 1, or the share of documents that sampling keeps */
};

static int text_copy(const char *text, char **ret_copy, struct hm_error *err)
{
    *ret_copy = text ? hm_strdup(HM_MEM_TEXT, text) : NULL;
    if (text && !*ret_copy)
        return hm_fail_nomem(err, "opening text files");
    return HM_OK;
}

static uint64_t source_position(void *context)
{
    struct source *source = context;
    uint64_t bytes = 0;

    for (size_t i = 0; i < source->n_sets; i++)
        bytes += hm_set_reader_position(&source->reader[i]);
    return bytes;
}

static void source_close(void *context)
{
    struct source *source = context;

    if (!source)
        return;
    if (source->rest && source->total > 0)
        source->options.bound->share = (double)source_position(source) / (double)source->total;
    for (size_t i = 0; i < source->n_sets; i++) {
        if (source->reader)
            hm_set_reader_release(&source->reader[i]);
        for (size_t f = 0; source->set[i].file && f < source->set[i].n_files; f++)
            hm_free(source->set[i].file[f]);
        hm_free(source->set[i].file);
        hm_free(source->set[i].name);
    }
    for (size_t i = 0; i < source->n_names; i++)
        hm_free(source->name[i]);
    hm_free(source->name);
    hm_free(source->set);
    hm_free(source->reader);
    hm_free(source->taken);
    hm_free(source->ended);
    hm_free(source->rest);
    hm_seen_set_release(&source->seen);
    hm_free((void *)(uintptr_t)source->options.field);
    hm_free((void *)(uintptr_t)source->options.set_field);
    hm_free(source);
}

/* The index of a set's name, added when new. */
static int name_index(struct source *source, const char *name, uint32_t *ret_index,
                      struct hm_error *err)
{
    for (size_t i = 0; i < source->n_names; i++) {
        if (strcmp(source->name[i], name) == 0) {
            *ret_index = (uint32_t)i;
            return HM_OK;
        }
    }
    if (source->n_names == source->names_cap) {
        size_t cap = source->names_cap ? 2 * source->names_cap : 8;
        char **grown = hm_realloc(HM_MEM_TEXT, source->name, cap * sizeof(*grown));
        if (!grown)
            return hm_fail_nomem(err, "for the names of text sets");
        source->name = grown;
        source->names_cap = cap;
    }
    HM_TRY(text_copy(name, &source->name[source->n_names], err));
    *ret_index = (uint32_t)source->n_names++;
    return HM_OK;
}

/* The set to read from: the first not ended, or, mixed, the one furthest behind its weight. */
static size_t set_choose(const struct source *source)
{
    size_t best = source->n_sets;

    for (size_t i = 0; i < source->n_sets; i++) {
        if (source->ended[i])
            continue;
        if (best == source->n_sets || source->taken[i] < source->taken[best])
            best = i;
        if (!source->mixed)
            break;
    }
    return best;
}

uint64_t hm_text_dedup_bytes(uint64_t documents)
{
    return hm_seen_set_bytes(documents);
}

/* A limit that will do, if the rest of the files is as what was read; a half more. */
static int fail_dedup(const struct source *source, const struct hm_error *why, struct hm_error *err)
{
    double read = (double)source_position((void *)(uintptr_t)source);
    double all = (double)source->seen.count;

    if (read > 0 && read < (double)source->total)
        all *= (double)source->total / read;
    uint64_t enough = HM_DEDUP_SHARE * hm_seen_set_bytes((uint64_t)(1.5 * all));
    return hm_fail(err, HM_ERR_NOFIT,
                   "%s, one part in %u of the memory limit; set.memory=%" PRIu64
                   "M will do, or leave dedup out",
                   why->text, HM_DEDUP_SHARE, (enough >> 20) + 1);
}

static int keep(struct source *source, struct hm_str text, bool *ret_keep, struct hm_error *err)
{
    *ret_keep = true;
    if (source->keep_share < 1) {
        uint64_t hash = hm_hash64(text.ptr, text.len, source->options.seed);
        *ret_keep = hm_unit_interval(hash) < source->keep_share;
    }
    if (*ret_keep && source->options.dedup) {
        struct hm_error why = { 0 };
        bool is_new = false;
        int status = hm_seen_set_add(&source->seen, text, &is_new, &why);
        if (status == HM_ERR_NOFIT)
            return fail_dedup(source, &why, err);
        if (status < 0)
            return hm_error_pass(err, &why);
        *ret_keep = is_new || source->options.dedup == HM_DEDUP_COUNT;
        source->stats.duplicates += !is_new;
    }
    return HM_OK;
}

static int source_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    struct source *source = context;

    for (;;) {
        struct hm_str text = { 0 };
        const char *name = NULL;
        bool kept = false;
        uint32_t index = 0;
        size_t set = set_choose(source);
        if (set == source->n_sets)
            return 0;
        int state = hm_set_reader_next(&source->reader[set], &text, &name, err);
        if (state < 0)
            return state;
        if (state == 0) {
            source->ended[set] = true;
            continue;
        }
        HM_TRY(keep(source, text, &kept, err));
        if (!kept)
            continue;
        if (source->rest) {
            source->ended[set] = source->rest[set] <= text.len;
            source->rest[set] -= source->ended[set] ? source->rest[set] : text.len;
        }
        HM_TRY(name_index(source, name, &index, err));
        source->taken[set] += 1 / source->set[set].weight;
        *ret_doc = (struct hm_doc){ .text = text,
                                    .set = source->name[index],
                                    .set_index = index,
                                    .number = source->stats.documents++ };
        source->stats.bytes += text.len;
        source->stats.chars += hm_utf8_begun(text);
        return 1;
    }
}

static void readers_begin(struct source *source)
{
    for (size_t i = 0; i < source->n_sets; i++) {
        hm_set_reader_release(&source->reader[i]);
        hm_set_reader_init(&source->reader[i], &source->set[i], &source->options, &source->stats);
        source->taken[i] = 0;
        source->ended[i] = false;
    }
    source->stats = (struct hm_text_stats){ 0 };
    hm_seen_set_release(&source->seen);
}

static int sets_copy(struct source *source, const struct hm_text_set *sets, struct hm_error *err)
{
    for (size_t i = 0; i < source->n_sets; i++) {
        struct hm_text_set *to = &source->set[i];
        HM_TRY(text_copy(sets[i].name, &to->name, err));
        to->file = hm_calloc(HM_MEM_TEXT, sets[i].n_files, sizeof(*to->file));
        if (!to->file)
            return hm_fail_nomem(err, "opening text files");
        to->n_files = sets[i].n_files;
        for (size_t f = 0; f < to->n_files; f++)
            HM_TRY(text_copy(sets[i].file[f], &to->file[f], err));
        source->mixed = source->mixed || sets[i].weight > 0;
        to->weight = sets[i].weight > 0 ? sets[i].weight : 1;
        to->epochs = sets[i].epochs > 0 ? sets[i].epochs : 1;
    }
    return HM_OK;
}

static int set_bytes(const struct source *source, size_t set, uint64_t *ret_bytes,
                     struct hm_error *err)
{
    double total = 0;

    for (size_t f = 0; f < source->set[set].n_files; f++) {
        uint64_t size = 0;
        HM_TRY(hm_file_size(source->set[set].file[f], &size, err));
        total += (double)size * ceil(source->set[set].epochs);
    }
    *ret_bytes = (uint64_t)total;
    return HM_OK;
}

/* Compressed bytes of all passes; a missing file is told here, before any work. */
static int total_bytes(const struct source *source, uint64_t *ret_total, struct hm_error *err)
{
    double total = 0;

    for (size_t i = 0; i < source->n_sets; i++) {
        uint64_t set = 0;
        HM_TRY(set_bytes(source, i, &set, err));
        total += (double)set;
    }
    *ret_total = (uint64_t)total;
    return HM_OK;
}

/* Sampling: one pass of decompression tells what share of the documents makes about so many bytes
 * of text. */
static int share_find(struct source *source, uint64_t wanted, uint64_t *ret_bytes,
                      struct hm_error *err)
{
    struct hm_doc doc;
    uint64_t bytes = 0;
    int state;

    struct hm_progress progress = { .what = "choose sample",
                                    .unit = "bytes",
                                    .total = source->total };

    while ((state = source_next(source, &doc, err)) == 1) {
        bytes += doc.text.len;
        if (source->stats.documents % LOOK_EVERY != 0)
            continue;
        if (hm_ctl_stopped(source->options.ctl))
            return hm_fail(err, HM_ERR_STOPPED, "choosing a sample was stopped");
        progress.done = source_position(source);
        hm_ctl_progress(source->options.ctl, &progress);
    }
    if (state < 0)
        return state;
    readers_begin(source);
    if (bytes > wanted)
        source->keep_share = (double)wanted / (double)bytes;
    *ret_bytes = bytes;
    return HM_OK;
}

/* Large files: the beginning of each set, as long as its part of all. */
static int begin_only(struct source *source, uint64_t bytes, struct hm_error *err)
{
    source->rest = hm_calloc(HM_MEM_TEXT, source->n_sets, sizeof(*source->rest));
    if (!source->rest)
        return hm_fail_nomem(err, "opening text files");
    for (size_t i = 0; i < source->n_sets; i++) {
        uint64_t set = 0;
        HM_TRY(set_bytes(source, i, &set, err));
        source->rest[i] = (uint64_t)((double)bytes * (double)set / ((double)source->total + 1)) + 1;
    }
    return HM_OK;
}

/* What of the documents is handed out. A bound on small files is a sample like any other; only
 * large ones are not read to their end for it. */
static int choose_part(struct source *source, struct hm_error *err)
{
    struct hm_text_bound *bound = source->options.bound;
    uint64_t wanted = source->options.sample_bytes, bytes = 0;
    double start = hm_clock_seconds();

    source->keep_share = 1;
    if (!bound)
        return wanted > 0 ? share_find(source, wanted, &bytes, err) : HM_OK;
    if (wanted == 0 && source->total > BOUND_READ_BYTES)
        return begin_only(source, bound->bytes, err);
    uint64_t least = wanted == 0 || bound->bytes < wanted ? bound->bytes : wanted;
    HM_TRY(share_find(source, least, &bytes, err));
    uint64_t whole = wanted == 0 || bytes < wanted ? bytes : wanted;
    bound->share = whole <= least ? 1 : (double)least / (double)whole;
    if (wanted == 0)
        bound->seconds += hm_clock_seconds() - start;
    return HM_OK;
}

int hm_text_files_open(const struct hm_text_set *sets, size_t n_sets,
                       const struct hm_text_options *options, struct hm_text_source *ret_source,
                       struct hm_error *err)
{
    struct source *source = hm_calloc(HM_MEM_TEXT, 1, sizeof(*source));
    int r;

    if (!source)
        return hm_fail_nomem(err, "opening text files");
    source->options = *options;
    source->options.field = source->options.set_field = NULL;
    source->seen.max_bytes = options->memory_bytes / HM_DEDUP_SHARE;
    source->set = hm_calloc(HM_MEM_TEXT, n_sets, sizeof(*source->set));
    source->reader = hm_calloc(HM_MEM_TEXT, n_sets, sizeof(*source->reader));
    source->taken = hm_calloc(HM_MEM_TEXT, n_sets, sizeof(*source->taken));
    source->ended = hm_calloc(HM_MEM_TEXT, n_sets, sizeof(*source->ended));
    source->n_sets = source->set && source->reader ? n_sets : 0;
    if (!source->set || !source->reader || !source->taken || !source->ended) {
        r = hm_fail_nomem(err, "opening text files");
        goto out;
    }
    r = text_copy(options->field, (char **)(uintptr_t)&source->options.field, err);
    if (r == HM_OK)
        r = text_copy(options->set_field, (char **)(uintptr_t)&source->options.set_field, err);
    if (r == HM_OK)
        r = sets_copy(source, sets, err);
    if (r == HM_OK)
        r = total_bytes(source, &source->total, err);
    if (r < 0)
        goto out;
    readers_begin(source);
    r = choose_part(source, err);
    if (r < 0)
        goto out;
    *ret_source = (struct hm_text_source){ .context = source,
                                           .next = source_next,
                                           .position_bytes = source_position,
                                           .total_bytes = source->total,
                                           .close = source_close };
    return HM_OK;
out:
    source_close(source);
    return r;
}

struct hm_text_stats hm_text_files_stats(const struct hm_text_source *text_source)
{
    return ((const struct source *)text_source->context)->stats;
}
