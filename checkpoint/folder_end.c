/* SPDX-License-Identifier: MIT */
/*
 * How the writing of a model folder ends: the index and the digests, or the folder left for a later
 * run, or nothing left of it. See folder_writer.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "folder_parts.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"

static int fail_nomem(const char *dir, struct hm_error *err)
{
    return hm_fail_nomem(err, "writing model folder '%s'", dir);
}

/* {"metadata": {"total_size": N}, "weight_map": {tensor: file}}, names sorted as transformers does.
 */
static int build_index(const struct hm_folder_writer *writer, json_t *map, struct hm_error *err)
{
    struct hm_planned_tensor **sorted = hm_folder_by_name(writer);
    int status = sorted ? HM_OK : fail_nomem(writer->dir, err);

    for (size_t i = 0; i < writer->count && status == HM_OK; i++) {
        char *name = NULL;
        status = hm_folder_shard_name(&name, writer, sorted[i]->shard, err);
        if (status == HM_OK && json_object_set_new(map, sorted[i]->spec.name, json_string(name)))
            status = fail_nomem(writer->dir, err);
        hm_free(name);
    }
    hm_free(sorted);
    return status;
}

static int write_index(const struct hm_folder_writer *writer, struct hm_error *err)
{
    uint64_t total = 0;

    for (size_t i = 0; i < writer->count; i++)
        total += writer->done[i].bytes;
    json_t *index =
        json_pack("{s:{s:I}, s:{}}", "metadata", "total_size", (json_int_t)total, "weight_map");
    int status = index ? build_index(writer, json_object_get(index, "weight_map"), err)
                       : fail_nomem(writer->dir, err);
    if (status == HM_OK)
        status = hm_json_save_in(writer->dir, HM_MODEL_INDEX_FILE, index, err);
    json_decref(index);
    return status;
}

static int write_digests(const struct hm_folder_writer *writer, struct hm_error *err)
{
    struct hm_out_file out = { 0 };
    char shape[192];

    HM_TRY(hm_out_open_in(writer->dir, "digests.tsv", &out, err));
    int status = hm_out_printf(&out, err, "tensor\tdtype\tshape\tsha256\n");
    for (size_t i = 0; i < writer->count && status == HM_OK; i++) {
        const struct hm_tensor_spec *spec = &writer->tensor[i].spec;
        status = hm_out_printf(
            &out, err, "%s\t%s\t%s\t%s\n", spec->name, hm_dtype_name(spec->dtype),
            hm_shape_text(spec->n_dims, spec->shape, shape, sizeof shape), writer->done[i].sha256);
    }
    return hm_out_end(&out, status, err);
}

int hm_folder_writer_finish(struct hm_folder_writer *writer, bool digests, struct hm_error *err)
{
    int status = HM_OK;
    size_t next = hm_folder_writer_next(writer);

    HM_BUG(digests && !writer->digests);
    if (writer->shard < writer->n_shards)
        status = hm_fail(err, HM_ERR_CHECK, "'%s': tensor '%s' lacks %" PRIu64 " bytes",
                         writer->dir, next < writer->count ? writer->tensor[next].spec.name : "?",
                         writer->left_bytes);
    if (status == HM_OK && digests)
        status = write_digests(writer, err);
    if (status == HM_OK && writer->n_shards > 1)
        status = write_index(writer, err);
    hm_folder_writer_abort(writer); /* only the memory is left of it */
    return status;
}

static void release(struct hm_folder_writer *writer)
{
    hm_sha256_release(&writer->sha);
    hm_write_journal_release(&writer->journal);
    for (size_t i = 0; i < writer->count; i++)
        hm_free(writer->tensor[i].spec.name);
    hm_free(writer->tensor);
    hm_free(writer->whole);
    hm_free(writer->done);
    hm_free(writer->order);
    hm_free(writer->dir);
    hm_free(writer);
}

void hm_folder_writer_abort(struct hm_folder_writer *writer)
{
    if (!writer)
        return;
    hm_st_writer_abort(writer->file);
    release(writer);
}

/* Every file of this plan, finished or not, and the journal. */
static void remove_shards(struct hm_folder_writer *writer)
{
    for (size_t shard = 0; shard < writer->n_shards; shard++) {
        char *name = NULL, *path = NULL, *temp = NULL;
        if (hm_folder_shard_name(&name, writer, shard, NULL) == HM_OK &&
            hm_path_join(&path, writer->dir, name, NULL) == HM_OK &&
            hm_format(&temp, NULL, "%s.tmp", path) == HM_OK) {
            (void)remove(path);
            (void)remove(temp);
        }
        hm_free(name);
        hm_free(path);
        hm_free(temp);
    }
    hm_write_journal_remove(&writer->journal);
}

void hm_folder_writer_leave(struct hm_folder_writer *writer, bool keep)
{
    if (!writer)
        return;
    if (keep && writer->file && writer->journal.waiting.len > 0)
        (void)hm_folder_record(writer,
                               NULL); /* full disks included: then the earlier record stands */
    keep = keep && writer->journal.begun;
    if (keep)
        hm_st_writer_leave(writer->file);
    else
        hm_st_writer_abort(writer->file);
    if (!keep)
        remove_shards(writer);
    release(writer);
}

void hm_folder_journal_remove(const char *dir)
{
    char *path = NULL;

    if (hm_path_join(&path, dir, HM_WRITE_JOURNAL_FILE, NULL) == HM_OK)
        (void)remove(path);
    hm_free(path);
}
