/* SPDX-License-Identifier: MIT */
/*
 * Writes the weights of a model folder: planned first, cut into shards in the caller's order,
 * streamed tensor by tensor. Each shard is committed when full, the index last, so that a folder
 * with an index is complete. Every tensor's SHA-256 is taken on the way.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"

struct planned {
    struct hm_tensor_spec spec; /* owns its name */
    size_t shard;
    char sha256[HM_SHA256_HEX_BYTES];
};

struct hm_folder_writer {
    char *dir;
    struct planned *tensor; /* in the caller's order */
    size_t count;
    size_t n_shards;
    size_t shard;      /* the open one; n_shards when all are committed */
    size_t first, end; /* its tensors */
    size_t *order;     /* of the open shard: file order -> index from `first` */
    size_t at;         /* in order */
    uint64_t left_bytes;
    struct hm_st_writer *file;
    struct hm_sha256 sha; /* of the current tensor */
};

static int fail_nomem(const char *dir, struct hm_error *err)
{
    return hm_fail_nomem(err, "writing model folder '%s'", dir);
}

static int shard_name(char **ret_name, const struct hm_folder_writer *writer, size_t shard,
                      struct hm_error *err)
{
    if (writer->n_shards == 1)
        return hm_format(ret_name, err, HM_MODEL_FILE);
    return hm_format(ret_name, err, "model-%05zu-of-%05zu.safetensors", shard + 1,
                     writer->n_shards);
}

static int compare_planned(const void *a, const void *b)
{
    const struct planned *const *x = a, *const *y = b;

    return strcmp((*x)->spec.name, (*y)->spec.name);
}

/* The tensors by name; free with hm_free. */
static struct planned **sorted_by_name(const struct hm_folder_writer *writer)
{
    struct planned **sorted = hm_alloc_array(HM_MEM_TENSOR, writer->count, sizeof *sorted);

    for (size_t i = 0; sorted && i < writer->count; i++)
        sorted[i] = &writer->tensor[i];
    if (sorted)
        qsort(sorted, writer->count, sizeof *sorted, compare_planned);
    return sorted;
}

/* Across shards; within one the file writer looks too. */
static int check_names(const struct hm_folder_writer *writer, struct hm_error *err)
{
    struct planned **sorted = sorted_by_name(writer);
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
    if (!writer->tensor || !writer->order)
        return fail_nomem(writer->dir, err);
    for (size_t i = 0; i < n; i++) {
        struct planned *tensor = &writer->tensor[i];
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

/* Start the shard writer->shard, whose tensors begin at writer->end. */
static int open_shard(struct hm_folder_writer *writer, struct hm_error *err)
{
    struct hm_tensor_spec *specs = NULL;
    char *name = NULL;
    char *path = NULL;
    int status = HM_OK;

    writer->first = writer->end;
    while (writer->end < writer->count && writer->tensor[writer->end].shard == writer->shard)
        writer->end++;
    writer->at = 0;
    size_t n = writer->end - writer->first;
    specs = hm_alloc_array(HM_MEM_TENSOR, n, sizeof *specs);
    if (!specs) {
        status = fail_nomem(writer->dir, err);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        specs[i] = writer->tensor[writer->first + i].spec;
    status = shard_name(&name, writer, writer->shard, err);
    if (status == HM_OK)
        status = hm_path_join(&path, writer->dir, name, err);
    if (status == HM_OK)
        status = hm_st_writer_open(path, specs, n, NULL, &writer->file, writer->order, err);
out:
    hm_free(specs);
    hm_free(name);
    hm_free(path);
    return status;
}

static struct planned *current(const struct hm_folder_writer *writer)
{
    return &writer->tensor[writer->first + writer->order[writer->at]];
}

/*
 * Go to the next tensor that needs bytes: finish empty ones, commit full shards, open the next.
 * Called with no tensor begun.
 */
static int begin_next(struct hm_folder_writer *writer, struct hm_error *err)
{
    while (writer->shard < writer->n_shards) {
        if (writer->at == writer->end - writer->first) {
            struct hm_st_writer *file = writer->file;
            writer->file = NULL;
            HM_TRY(hm_st_writer_commit(file, err));
            if (++writer->shard == writer->n_shards)
                break;
            HM_TRY(open_shard(writer, err));
        }
        writer->left_bytes = hm_tensor_spec_bytes(&current(writer)->spec);
        HM_TRY(hm_sha256_init(&writer->sha, err));
        if (writer->left_bytes > 0)
            break;
        hm_sha256_finish(&writer->sha, current(writer)->sha256);
        writer->at++;
    }
    return HM_OK;
}

int hm_folder_writer_open(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                          uint64_t shard_bytes, struct hm_folder_writer **ret_writer,
                          struct hm_error *err)
{
    struct hm_folder_writer *writer = hm_calloc(HM_MEM_TENSOR, 1, sizeof *writer);

    if (!writer)
        return fail_nomem(dir, err);
    writer->dir = hm_strdup(HM_MEM_TENSOR, dir);
    int status = writer->dir ? plan(writer, specs, n, shard_bytes, err) : fail_nomem(dir, err);
    if (status == HM_OK)
        status = hm_dir_make(dir, err);
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

size_t hm_folder_writer_next(const struct hm_folder_writer *writer)
{
    return writer->shard == writer->n_shards ? writer->count
                                             : writer->first + writer->order[writer->at];
}

int hm_folder_writer_data(struct hm_folder_writer *writer, const void *data, size_t len,
                          struct hm_error *err)
{
    if (len == 0)
        return HM_OK;
    if (writer->shard == writer->n_shards || len > writer->left_bytes)
        return hm_fail(err, HM_ERR_CHECK, "'%s': %zu bytes more than the planned tensors hold",
                       writer->dir, len);
    HM_TRY(hm_st_writer_data(writer->file, data, len, err));
    hm_sha256_add(&writer->sha, data, len);
    writer->left_bytes -= len;
    if (writer->left_bytes > 0)
        return HM_OK;
    hm_sha256_finish(&writer->sha, current(writer)->sha256);
    writer->at++;
    return begin_next(writer, err);
}

/* {"metadata": {"total_size": N}, "weight_map": {tensor: file}}, names sorted as transformers does.
 */
static int build_index(const struct hm_folder_writer *writer, json_t *map, struct hm_error *err)
{
    struct planned **sorted = sorted_by_name(writer);
    int status = sorted ? HM_OK : fail_nomem(writer->dir, err);

    for (size_t i = 0; i < writer->count && status == HM_OK; i++) {
        char *name = NULL;
        status = shard_name(&name, writer, sorted[i]->shard, err);
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
        total += hm_tensor_spec_bytes(&writer->tensor[i].spec);
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
        status =
            hm_out_printf(&out, err, "%s\t%s\t%s\t%s\n", spec->name, hm_dtype_name(spec->dtype),
                          hm_shape_text(spec->n_dims, spec->shape, shape, sizeof shape),
                          writer->tensor[i].sha256);
    }
    return hm_out_end(&out, status, err);
}

int hm_folder_writer_finish(struct hm_folder_writer *writer, bool digests, struct hm_error *err)
{
    int status = HM_OK;

    if (writer->shard < writer->n_shards)
        status = hm_fail(err, HM_ERR_CHECK, "'%s': tensor '%s' lacks %" PRIu64 " bytes",
                         writer->dir, current(writer)->spec.name, writer->left_bytes);
    if (status == HM_OK && digests)
        status = write_digests(writer, err);
    if (status == HM_OK && writer->n_shards > 1)
        status = write_index(writer, err);
    hm_folder_writer_abort(writer); /* only the memory is left of it */
    return status;
}

void hm_folder_writer_abort(struct hm_folder_writer *writer)
{
    if (!writer)
        return;
    hm_st_writer_abort(writer->file);
    hm_sha256_release(&writer->sha);
    for (size_t i = 0; i < writer->count; i++)
        hm_free(writer->tensor[i].spec.name);
    hm_free(writer->tensor);
    hm_free(writer->order);
    hm_free(writer->dir);
    hm_free(writer);
}
