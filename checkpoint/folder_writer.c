/* SPDX-License-Identifier: MIT */
/*
 * Writes the weights of a model folder: planned first, cut into shards in the caller's order,
 * streamed tensor by tensor. Each shard is committed when full, the index last, so that a folder
 * with an index is complete. Every tensor's SHA-256 is taken on the way when it will be told. Of a
 * large folder write_journal.c remembers what is whole; tensors found there are not asked for
 * again.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "folder_parts.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/checkpoint/checkpoint.h"

#define SYNC_BYTES   (4ull << 30) /* of whole tensors, until they are recorded */
#define SYNC_SECONDS 5.0

static int fail_nomem(const char *dir, struct hm_error *err)
{
    return hm_fail_nomem(err, "writing model folder '%s'", dir);
}

int hm_folder_shard_name(char **ret_name, const struct hm_folder_writer *writer, size_t shard,
                         struct hm_error *err)
{
    if (writer->n_shards == 1)
        return hm_format(ret_name, err, HM_MODEL_FILE);
    return hm_format(ret_name, err, "model-%05zu-of-%05zu.safetensors", shard + 1,
                     writer->n_shards);
}

static int compare_planned(const void *a, const void *b)
{
    const struct hm_planned_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->spec.name, (*y)->spec.name);
}

struct hm_planned_tensor **hm_folder_by_name(const struct hm_folder_writer *writer)
{
    struct hm_planned_tensor **sorted =
        hm_alloc_array(HM_MEM_TENSOR, writer->count, sizeof *sorted);

    for (size_t i = 0; sorted && i < writer->count; i++)
        sorted[i] = &writer->tensor[i];
    if (sorted)
        qsort(sorted, writer->count, sizeof *sorted, compare_planned);
    return sorted;
}

/* Across shards; within one the file writer looks too. */
static int check_names(const struct hm_folder_writer *writer, struct hm_error *err)
{
    struct hm_planned_tensor **sorted = hm_folder_by_name(writer);
    int status = sorted ? HM_OK : fail_nomem(writer->dir, err);

    for (size_t i = 1; i < writer->count && status == HM_OK; i++)
        if (compare_planned(&sorted[i - 1], &sorted[i]) == 0)
            status = hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is planned twice", writer->dir,
                             sorted[i]->spec.name);
    hm_free(sorted);
    return status;
}

/* Copy the specs and cut shards: a shard takes tensors while they fit, one at least. */
static int plan(struct hm_folder_writer *writer, const struct hm_tensor_spec *specs, size_t n,
                uint64_t shard_bytes, struct hm_error *err)
{
    uint64_t used = 0;

    writer->tensor = hm_calloc(HM_MEM_TENSOR, n, sizeof *writer->tensor);
    writer->order = hm_alloc_array(HM_MEM_TENSOR, n, sizeof *writer->order);
    writer->whole = hm_calloc(HM_MEM_TENSOR, n, sizeof *writer->whole);
    writer->done = hm_calloc(HM_MEM_TENSOR, n, sizeof *writer->done);
    if (!writer->tensor || !writer->order || !writer->whole || !writer->done)
        return fail_nomem(writer->dir, err);
    for (size_t i = 0; i < n; i++) {
        struct hm_planned_tensor *tensor = &writer->tensor[i];
        uint64_t bytes = hm_tensor_spec_bytes(&specs[i]);

        tensor->spec = specs[i];
        tensor->spec.name = hm_strdup(HM_MEM_TENSOR, specs[i].name);
        writer->count = i + 1;
        if (!tensor->spec.name)
            return fail_nomem(writer->dir, err);
        if (i == 0 || used > shard_bytes || bytes > shard_bytes - used) {
            writer->n_shards++;
            used = 0;
        }
        used += bytes;
        tensor->shard = writer->n_shards - 1;
    }
    if (n == 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': a model folder needs tensors", writer->dir);
    return check_names(writer, err);
}

/* A file of the open shard's tensors, begun earlier or not. */
static int open_file(struct hm_folder_writer *writer, const char *path, struct hm_error *err)
{
    size_t n = writer->end - writer->first;
    struct hm_tensor_spec *specs = hm_alloc_array(HM_MEM_TENSOR, n, sizeof *specs);
    uint64_t *bytes = hm_alloc_array(HM_MEM_TENSOR, n, sizeof *bytes);
    const struct hm_st_begun begun = { writer->whole + writer->first, bytes };
    bool any = false;
    int status = specs && bytes ? HM_OK : fail_nomem(writer->dir, err);

    for (size_t i = 0; i < n && status == HM_OK; i++) {
        specs[i] = writer->tensor[writer->first + i].spec;
        bytes[i] = writer->done[writer->first + i].bytes;
        any = any || begun.whole[i];
    }
    if (status == HM_OK && writer->large)
        status = hm_st_writer_open_large(path, specs, n, any ? &begun : NULL, &writer->file,
                                         writer->order, err);
    else if (status == HM_OK)
        status = hm_st_writer_open(path, specs, n, NULL, &writer->file, writer->order, err);
    hm_free(specs);
    hm_free(bytes);
    return status;
}

/* What the journal says of the shard's tensors holds only when their file is there. */
static bool shard_begun(const struct hm_folder_writer *writer, const char *path, bool *ret_complete)
{
    bool all = true, any = false;
    char *temp = NULL;

    for (size_t i = writer->first; i < writer->end; i++) {
        all = all && writer->whole[i];
        any = any || writer->whole[i];
    }
    *ret_complete = all && hm_path_exists(path);
    if (!any || hm_format(&temp, NULL, "%s.tmp", path) < 0)
        return false;
    bool there = hm_path_exists(temp);
    hm_free(temp);
    return there;
}

/* Start the shard writer->shard, whose tensors begin at writer->end; no file when it is finished.
 */
static int open_shard(struct hm_folder_writer *writer, struct hm_error *err)
{
    char *name = NULL;
    char *path = NULL;
    bool complete = false;

    writer->first = writer->end;
    while (writer->end < writer->count && writer->tensor[writer->end].shard == writer->shard)
        writer->end++;
    int status = hm_folder_shard_name(&name, writer, writer->shard, err);
    if (status == HM_OK)
        status = hm_path_join(&path, writer->dir, name, err);
    if (status == HM_OK && !shard_begun(writer, path, &complete) && !complete)
        memset(writer->whole + writer->first, 0,
               (writer->end - writer->first) * sizeof *writer->whole);
    if (status == HM_OK && !complete)
        status = open_file(writer, path, err);
    hm_free(name);
    hm_free(path);
    return status;
}

static size_t current(const struct hm_folder_writer *writer)
{
    return writer->first + writer->order[writer->at];
}

int hm_folder_record(struct hm_folder_writer *writer, struct hm_error *err)
{
    HM_TRY(hm_st_writer_sync(writer->file, err));
    return hm_write_journal_flush(&writer->journal, err);
}

static int commit_shard(struct hm_folder_writer *writer, struct hm_error *err)
{
    if (writer->large)
        HM_TRY(hm_folder_record(writer, err));
    struct hm_st_writer *file = writer->file;
    writer->file = NULL;
    return hm_st_writer_commit(file, err);
}

/* Tensor i got its last byte. */
static int complete(struct hm_folder_writer *writer, size_t i, struct hm_error *err)
{
    writer->whole[i] = true;
    writer->done[i].bytes = hm_tensor_spec_bytes(&writer->tensor[i].spec);
    return writer->large ? hm_write_journal_add(&writer->journal, i, &writer->done[i], err) : HM_OK;
}

/* Empty tensors take no call: they are whole once the file has passed them. */
static int complete_empty(struct hm_folder_writer *writer, struct hm_error *err)
{
    for (size_t i = writer->first; i < writer->end; i++) {
        if (writer->whole[i] || hm_tensor_spec_bytes(&writer->tensor[i].spec) > 0)
            continue;
        if (writer->digests)
            HM_TRY(hm_sha256_of("", 0, writer->done[i].sha256, err));
        HM_TRY(complete(writer, i, err));
    }
    return HM_OK;
}

static bool all_whole(const struct hm_folder_writer *writer)
{
    for (size_t i = writer->first; i < writer->end; i++)
        if (!writer->whole[i])
            return false;
    return true;
}

/*
 * Go to the next tensor that needs bytes: commit full shards, open the next. Called with no tensor
 * begun.
 */
static int begin_next(struct hm_folder_writer *writer, struct hm_error *err)
{
    while (writer->shard < writer->n_shards) {
        if (writer->file) {
            writer->at = hm_st_writer_current(writer->file);
            if (writer->at < writer->end - writer->first)
                break;
            HM_TRY(complete_empty(writer, err));
            if (!all_whole(writer)) /* waits for what was skipped */
                return HM_OK;
            HM_TRY(commit_shard(writer, err));
        }
        if (++writer->shard == writer->n_shards)
            return HM_OK;
        HM_TRY(open_shard(writer, err));
    }
    if (writer->shard == writer->n_shards)
        return HM_OK;
    writer->left_bytes = hm_tensor_spec_bytes(&writer->tensor[current(writer)].spec);
    writer->done[current(writer)] = (struct hm_whole_tensor){ 0 };
    if (writer->digests)
        HM_TRY(hm_sha256_init(&writer->sha, err));
    writer->hashing = writer->digests;
    return HM_OK;
}

/* The digest of the plan: another plan must not find itself in the journal. */
static int plan_key(const struct hm_folder_writer *writer, char key[HM_SHA256_HEX_BYTES],
                    struct hm_error *err)
{
    struct hm_sha256 sha = { 0 };
    char text[256], shape[192];

    HM_TRY(hm_sha256_init(&sha, err));
    for (size_t i = 0; i < writer->count; i++) {
        const struct hm_tensor_spec *spec = &writer->tensor[i].spec;
        int len = snprintf(text, sizeof text, " %s %s %zu %d\n", hm_dtype_name(spec->dtype),
                           hm_shape_text(spec->n_dims, spec->shape, shape, sizeof shape),
                           writer->tensor[i].shard, writer->digests);
        hm_sha256_add(&sha, spec->name, strlen(spec->name));
        hm_sha256_add(&sha, text, (size_t)len);
    }
    hm_sha256_finish(&sha, key);
    return HM_OK;
}

static int open_journal(struct hm_folder_writer *writer, struct hm_error *err)
{
    char key[HM_SHA256_HEX_BYTES];

    HM_TRY(plan_key(writer, key, err));
    HM_TRY(hm_write_journal_open(writer->dir, key, writer->whole, writer->done, writer->count,
                                 &writer->journal, err));
    for (size_t i = 0; i < writer->count; i++) { /* only one dimension may have been shortened */
        const struct hm_tensor_spec *spec = &writer->tensor[i].spec;
        uint64_t planned = hm_tensor_spec_bytes(spec), found = writer->done[i].bytes;
        if (writer->whole[i] && found != planned &&
            (spec->n_dims != 1 || found == 0 || found > planned ||
             found % hm_dtype_bytes(spec->dtype) != 0))
            writer->whole[i] = false;
    }
    return HM_OK;
}

static int open_folder(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                       const struct hm_folder_options *options, bool large,
                       struct hm_folder_writer **ret_writer, struct hm_error *err)
{
    struct hm_folder_writer *writer = hm_calloc(HM_MEM_TENSOR, 1, sizeof *writer);

    if (!writer)
        return fail_nomem(dir, err);
    writer->large = large;
    writer->digests = options->digests;
    writer->sync_bytes = options->sync_bytes ? options->sync_bytes : SYNC_BYTES;
    writer->dir = hm_strdup(HM_MEM_TENSOR, dir);
    int status =
        writer->dir ? plan(writer, specs, n, options->shard_bytes, err) : fail_nomem(dir, err);
    if (status == HM_OK)
        status = hm_dir_make(dir, err);
    if (status == HM_OK && large)
        status = open_journal(writer, err);
    if (status == HM_OK)
        status = open_shard(writer, err);
    if (status == HM_OK)
        status = begin_next(writer, err);
    if (status == HM_OK)
        *ret_writer = writer;
    else
        hm_folder_writer_abort(writer);
    return status;
}

int hm_folder_writer_open(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                          uint64_t shard_bytes, struct hm_folder_writer **ret_writer,
                          struct hm_error *err)
{
    const struct hm_folder_options options = { .shard_bytes = shard_bytes, .digests = true };

    return open_folder(dir, specs, n, &options, false, ret_writer, err);
}

int hm_folder_writer_open_large(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                                const struct hm_folder_options *options,
                                struct hm_folder_writer **ret_writer, struct hm_error *err)
{
    return open_folder(dir, specs, n, options, true, ret_writer, err);
}

size_t hm_folder_writer_next(const struct hm_folder_writer *writer)
{
    return writer->shard == writer->n_shards || writer->at == writer->end - writer->first
               ? writer->count
               : current(writer);
}

int hm_folder_writer_order(const struct hm_folder_writer *writer, size_t *order, size_t *ret_count,
                           struct hm_error *err)
{
    struct hm_tensor_spec *specs =
        hm_alloc_array(HM_MEM_TENSOR, writer->count, sizeof *specs); /* borrow names */
    size_t *place = hm_alloc_array(HM_MEM_TENSOR, writer->count, sizeof *place);
    int status = specs && place ? HM_OK : fail_nomem(writer->dir, err);
    size_t count = 0;

    for (size_t first = writer->first, end = first; first < writer->count && status == HM_OK;
         first = end) {
        while (end < writer->count && writer->tensor[end].shard == writer->tensor[first].shard)
            end++;
        for (size_t i = first; i < end; i++)
            specs[i - first] = writer->tensor[i].spec;
        status = hm_st_order(specs, end - first, place, err);
        for (size_t i = 0; i < end - first && status == HM_OK; i++)
            if (!writer->whole[first + place[i]])
                order[count++] = first + place[i];
    }
    hm_free(specs);
    hm_free(place);
    *ret_count = count;
    return status;
}

bool hm_folder_writer_whole(const struct hm_folder_writer *writer, size_t i, const char **ret_note)
{
    if (writer->whole[i] && ret_note)
        *ret_note = writer->done[i].note;
    return writer->whole[i];
}

bool hm_folder_writer_ahead(const struct hm_folder_writer *writer, size_t i)
{
    return i >= writer->first && i < writer->end && !writer->whole[i];
}

static void take_note(struct hm_whole_tensor *done, const char *note)
{
    HM_BUG(strlen(note) >= sizeof done->note);
    memcpy(done->note, note, strlen(note) + 1);
}

void hm_folder_writer_note(struct hm_folder_writer *writer, const char *note)
{
    take_note(&writer->done[current(writer)], note);
}

/* Record what is complete when there is much of it, or when long ago. */
static int record_at_times(struct hm_folder_writer *writer, struct hm_error *err)
{
    const struct hm_write_journal *journal = &writer->journal;

    if (!writer->large || (journal->waiting_bytes < writer->sync_bytes &&
                           hm_clock_seconds() - journal->since < SYNC_SECONDS))
        return HM_OK;
    return hm_folder_record(writer, err);
}

int hm_folder_writer_data(struct hm_folder_writer *writer, const void *data, size_t len,
                          struct hm_error *err)
{
    if (len == 0)
        return HM_OK;
    if (hm_folder_writer_next(writer) == writer->count || len > writer->left_bytes)
        return hm_fail(err, HM_ERR_CHECK, "'%s': %zu bytes more than the planned tensors hold",
                       writer->dir, len);
    size_t i = current(writer);
    HM_TRY(hm_st_writer_data(writer->file, data, len, err));
    if (writer->hashing)
        hm_sha256_add(&writer->sha, data, len);
    writer->left_bytes -= len;
    if (writer->left_bytes > 0)
        return HM_OK;
    if (writer->hashing)
        hm_sha256_finish(&writer->sha, writer->done[i].sha256);
    writer->hashing = false;
    HM_TRY(complete(writer, i, err));
    HM_TRY(record_at_times(writer, err));
    return begin_next(writer, err);
}

int hm_folder_writer_skip(struct hm_folder_writer *writer, struct hm_error *err)
{
    hm_sha256_release(&writer->sha);
    writer->hashing = false;
    hm_st_writer_skip(writer->file);
    return begin_next(writer, err);
}

int hm_folder_writer_fill(struct hm_folder_writer *writer, size_t i, const void *data,
                          const char *note, struct hm_error *err)
{
    size_t place = 0;

    while (writer->first + writer->order[place] != i)
        place++;
    HM_TRY(hm_st_writer_fill(writer->file, place, data, err));
    if (writer->digests)
        HM_TRY(hm_sha256_of(data, hm_tensor_spec_bytes(&writer->tensor[i].spec),
                            writer->done[i].sha256, err));
    take_note(&writer->done[i], note);
    HM_TRY(complete(writer, i, err));
    return writer->at == writer->end - writer->first ? begin_next(writer, err) : HM_OK;
}

void hm_folder_writer_shorten(struct hm_folder_writer *writer, uint64_t elements)
{
    struct hm_tensor_spec *spec = &writer->tensor[current(writer)].spec;

    hm_st_writer_shorten(writer->file, elements);
    spec->shape[0] = elements;
    writer->left_bytes = hm_tensor_spec_bytes(spec);
}
