/* SPDX-License-Identifier: MIT */
/*
 * The streaming writer: tensors are declared first, so that the header's room is known and the data
 * follow in file order; the header itself comes last, at commit. Order, spelling and padding are
 * those of the reference library, so that files of the same tensors are the same bytes (a tensor
 * shortened across a power of ten leaves a few spaces more). The file appears under its name at
 * commit only.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/bytes.h"
#include "hanmix/base/direct.h"
#include "hanmix/base/file.h"
#include "hanmix/checkpoint/safetensors.h"

#define BUFFER_BYTES (256u * 1024) /* of small files */

struct pending {                /* one declared tensor */
    struct hm_tensor_spec spec; /* owns its name */
    uint64_t size_bytes;
    size_t index; /* in the caller's list */
    bool whole, skipped;
};

struct hm_st_writer {
    struct hm_writer *out;
    char *path, *temp_path;
    struct pending *pending; /* in file order */
    size_t count;
    json_t *metadata;    /* or NULL */
    uint64_t data_at;    /* bytes of length and header */
    size_t current;      /* first incomplete tensor; count when all are written */
    uint64_t begin;      /* of the current tensor, in the data */
    uint64_t left_bytes; /* of the current tensor */
};

struct hm_tensor_spec hm_tensor_spec_of(const struct hm_tensor *tensor)
{
    struct hm_tensor_spec spec = { .name = (char *)(uintptr_t)tensor->name, /* only read */
                                   .dtype = tensor->dtype,
                                   .n_dims = tensor->n_dims };

    memcpy(spec.shape, tensor->shape, sizeof spec.shape);
    return spec;
}

uint64_t hm_tensor_spec_bytes(const struct hm_tensor_spec *spec)
{
    uint64_t bytes;

    if (!hm_shape_count(spec->n_dims, spec->shape, &bytes) ||
        __builtin_mul_overflow(bytes, hm_dtype_bytes(spec->dtype), &bytes))
        return UINT64_MAX;
    return bytes;
}

/* Descending element type, then name. */
static int compare_pending(const void *a, const void *b)
{
    const struct pending *x = a, *y = b;

    if (x->spec.dtype != y->spec.dtype)
        return x->spec.dtype > y->spec.dtype ? -1 : 1;
    return strcmp(x->spec.name, y->spec.name);
}

int hm_st_order(const struct hm_tensor_spec *specs, size_t n, size_t *order, struct hm_error *err)
{
    struct pending *pending = hm_calloc(HM_MEM_TENSOR, n, sizeof *pending);

    if (!pending)
        return hm_fail_nomem(err, "ordering %zu tensors", n);
    for (size_t i = 0; i < n; i++)
        pending[i] = (struct pending){ .spec = specs[i], .index = i };
    qsort(pending, n, sizeof *pending, compare_pending);
    for (size_t i = 0; i < n; i++)
        order[i] = pending[i].index;
    hm_free(pending);
    return HM_OK;
}

static int compare_names(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;

    return strcmp(*x, *y);
}

static int check_distinct(const char *path, const struct pending *pending, size_t count,
                          struct hm_error *err)
{
    const char **name = hm_alloc_array(HM_MEM_TENSOR, count, sizeof *name);
    int status = HM_OK;

    if (!name)
        return hm_fail_nomem(err, "writing '%s'", path);
    for (size_t i = 0; i < count; i++)
        name[i] = pending[i].spec.name;
    qsort(name, count, sizeof *name, compare_names);
    for (size_t i = 1; i < count && status == HM_OK; i++)
        if (strcmp(name[i - 1], name[i]) == 0)
            status =
                hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is declared twice", path, name[i]);
    hm_free(name);
    return status;
}

static int declare(const char *path, const struct hm_tensor_spec *specs, size_t n,
                   struct hm_st_writer *writer, struct hm_error *err)
{
    uint64_t total = 0;

    writer->pending = hm_calloc(HM_MEM_TENSOR, n, sizeof *writer->pending);
    if (!writer->pending)
        return hm_fail_nomem(err, "writing '%s'", path);
    for (size_t i = 0; i < n; i++) {
        struct pending *pending = &writer->pending[i];

        pending->size_bytes = hm_tensor_spec_bytes(&specs[i]);
        if (specs[i].n_dims > HM_TENSOR_MAX_DIMS || strcmp(specs[i].name, "__metadata__") == 0 ||
            __builtin_add_overflow(total, pending->size_bytes, &total) || total > INT64_MAX)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' cannot be written", path,
                           specs[i].name);
        pending->spec = specs[i];
        pending->spec.name = hm_strdup(HM_MEM_TENSOR, specs[i].name);
        pending->index = i;
        writer->count = i + 1;
        if (!pending->spec.name)
            return hm_fail_nomem(err, "writing '%s'", path);
    }
    HM_TRY(check_distinct(path, writer->pending, n, err));
    qsort(writer->pending, n, sizeof *writer->pending, compare_pending);
    return HM_OK;
}

static int put_string(struct hm_buf *buf, const char *text, struct hm_error *err)
{
    json_t *value = json_string(text);

    if (!value)
        return hm_fail(err, hm_utf8_valid(hm_str_of(text), NULL) ? HM_ERR_NOMEM : HM_ERR_FORMAT,
                       "'%s' cannot be written as JSON", text);
    int status = hm_json_dump(value, buf, err);
    json_decref(value);
    return status;
}

static int put_metadata(struct hm_buf *buf, const json_t *metadata, struct hm_error *err)
{
    json_t *walked = (json_t *)(uintptr_t)metadata; /* jansson's iterators take no const */
    const char *key;
    json_t *value;
    bool first = true;

    if (!metadata)
        return hm_buf_text(buf, "{\"__metadata__\":{\"format\":\"pt\"}", err);
    HM_TRY(hm_buf_text(buf, "{\"__metadata__\":{", err));
    json_object_foreach(walked, key, value)
    {
        if (!json_is_string(value))
            return hm_fail(err, HM_ERR_FORMAT, "metadata '%s' is not a string", key);
        if (!first)
            HM_TRY(hm_buf_text(buf, ",", err));
        HM_TRY(put_string(buf, key, err));
        HM_TRY(hm_buf_text(buf, ":", err));
        HM_TRY(hm_json_dump(value, buf, err));
        first = false;
    }
    return hm_buf_text(buf, "}", err);
}

static int put_entry(struct hm_buf *buf, const struct pending *pending, uint64_t begin,
                     struct hm_error *err)
{
    const struct hm_tensor_spec *spec = &pending->spec;

    HM_TRY(hm_buf_text(buf, ",", err));
    HM_TRY(put_string(buf, spec->name, err));
    HM_TRY(hm_buf_printf(buf, err, ":{\"dtype\":\"%s\",\"shape\":[", hm_dtype_name(spec->dtype)));
    for (uint32_t i = 0; i < spec->n_dims; i++)
        HM_TRY(hm_buf_printf(buf, err, "%s%" PRIu64, i ? "," : "", spec->shape[i]));
    return hm_buf_printf(buf, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin,
                         begin + pending->size_bytes);
}

/* Length, JSON, and spaces up to a multiple of 8 bytes or to the room there is. */
static int make_header(const struct hm_st_writer *writer, struct hm_buf *buf, struct hm_error *err)
{
    uint64_t begin = 0;

    HM_TRY(hm_buf_append(buf, "\0\0\0\0\0\0\0", 8, err));
    HM_TRY(put_metadata(buf, writer->metadata, err));
    for (size_t i = 0; i < writer->count; i++) {
        HM_TRY(put_entry(buf, &writer->pending[i], begin, err));
        begin += writer->pending[i].size_bytes;
    }
    HM_TRY(hm_buf_text(buf, "}", err));
    while (buf->len % 8 != 0 || buf->len < writer->data_at)
        HM_TRY(hm_buf_text(buf, " ", err));
    hm_le_put((uint8_t *)buf->ptr, buf->len - 8, 8);
    return HM_OK;
}

/* The room of the header, from the sizes as planned. */
static int measure_header(struct hm_st_writer *writer, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    int status = make_header(writer, &buf, err);

    writer->data_at = buf.len;
    hm_buf_release(&buf);
    return status;
}

/* Stop at the first tensor that still needs bytes. */
static void find_current(struct hm_st_writer *writer)
{
    while (writer->left_bytes == 0 && writer->current < writer->count) {
        struct pending *pending = &writer->pending[writer->current];
        pending->whole |= !pending->skipped;
        writer->begin += pending->size_bytes;
        if (++writer->current < writer->count && !writer->pending[writer->current].whole)
            writer->left_bytes = writer->pending[writer->current].size_bytes;
    }
}

static void take_begun(struct hm_st_writer *writer, const struct hm_st_begun *begun)
{
    for (size_t i = 0; begun && i < writer->count; i++) {
        struct pending *pending = &writer->pending[i];
        pending->whole = begun->whole[pending->index];
        if (!pending->whole || begun->bytes[pending->index] == pending->size_bytes)
            continue;
        pending->size_bytes = begun->bytes[pending->index];
        pending->spec.shape[0] = pending->size_bytes / hm_dtype_bytes(pending->spec.dtype);
    }
}

static void release(struct hm_st_writer *writer)
{
    hm_writer_close(writer->out);
    for (size_t i = 0; i < writer->count; i++)
        hm_free(writer->pending[i].spec.name);
    hm_free(writer->pending);
    json_decref(writer->metadata);
    hm_free(writer->path);
    hm_free(writer->temp_path);
    hm_free(writer);
}

static int open_file(struct hm_st_writer *writer, const char *path, size_t buffer_bytes, bool keep,
                     struct hm_error *err)
{
    if (hm_path_is_dir(path))
        return hm_fail(err, HM_ERR_IO, "cannot write '%s': it is a folder", path);
    HM_TRY(hm_format(&writer->path, err, "%s", path));
    HM_TRY(hm_format(&writer->temp_path, err, "%s.tmp", path));
    if (!keep)
        (void)remove(writer->temp_path);
    return hm_writer_open(writer->temp_path, buffer_bytes, &writer->out, err);
}

static int open_writer(const char *path, const struct hm_tensor_spec *specs, size_t n,
                       const json_t *metadata, const struct hm_st_begun *begun, size_t buffer_bytes,
                       struct hm_st_writer **ret_writer, size_t *ret_order, struct hm_error *err)
{
    struct hm_st_writer *writer = hm_calloc(HM_MEM_TENSOR, 1, sizeof *writer);

    if (!writer)
        return hm_fail_nomem(err, "writing '%s'", path);
    writer->metadata = json_incref((json_t *)(uintptr_t)metadata);
    int status = declare(path, specs, n, writer, err);
    if (status == HM_OK)
        status = measure_header(writer, err);
    if (status == HM_OK)
        status = open_file(writer, path, buffer_bytes, begun != NULL, err);
    if (status < 0) {
        hm_st_writer_abort(writer);
        return status;
    }
    take_begun(writer, begun);
    for (size_t i = 0; ret_order && i < n; i++)
        ret_order[i] = writer->pending[i].index;
    if (n > 0 && !writer->pending[0].whole)
        writer->left_bytes = writer->pending[0].size_bytes;
    find_current(writer);
    *ret_writer = writer;
    return HM_OK;
}

int hm_st_writer_open(const char *path, const struct hm_tensor_spec *specs, size_t n,
                      const json_t *metadata, struct hm_st_writer **ret_writer, size_t *ret_order,
                      struct hm_error *err)
{
    return open_writer(path, specs, n, metadata, NULL, BUFFER_BYTES, ret_writer, ret_order, err);
}

int hm_st_writer_open_large(const char *path, const struct hm_tensor_spec *specs, size_t n,
                            const struct hm_st_begun *begun, struct hm_st_writer **ret_writer,
                            size_t *ret_order, struct hm_error *err)
{
    uint64_t total = 0; /* overflow is refused by the declaration */

    for (size_t i = 0; i < n && total < HM_DIRECT_BYTES; i++)
        total += hm_tensor_spec_bytes(&specs[i]);
    return open_writer(path, specs, n, NULL, begun,
                       total < HM_DIRECT_BYTES ? BUFFER_BYTES : HM_DIRECT_BYTES, ret_writer,
                       ret_order, err);
}

size_t hm_st_writer_current(const struct hm_st_writer *writer)
{
    return writer->current;
}

int hm_st_writer_data(struct hm_st_writer *writer, const void *data, size_t len,
                      struct hm_error *err)
{
    if (len == 0)
        return HM_OK;
    if (len > writer->left_bytes)
        return hm_fail(err, HM_ERR_CHECK,
                       "'%s': %zu bytes for tensor '%s', which has room for %" PRIu64, writer->path,
                       len,
                       writer->current < writer->count ? writer->pending[writer->current].spec.name
                                                       : "(none left)",
                       writer->left_bytes);
    uint64_t done = writer->pending[writer->current].size_bytes - writer->left_bytes;
    HM_TRY(hm_writer_put(writer->out, writer->data_at + writer->begin + done, data, len, err));
    writer->left_bytes -= len;
    find_current(writer);
    return HM_OK;
}

void hm_st_writer_skip(struct hm_st_writer *writer)
{
    writer->pending[writer->current].skipped = true;
    writer->left_bytes = 0;
    find_current(writer);
}

int hm_st_writer_fill(struct hm_st_writer *writer, size_t place, const void *data,
                      struct hm_error *err)
{
    struct pending *pending = &writer->pending[place];
    uint64_t begin = writer->data_at;

    HM_BUG(!pending->skipped || pending->whole);
    for (size_t i = 0; i < place; i++)
        begin += writer->pending[i].size_bytes;
    HM_TRY(hm_writer_put(writer->out, begin, data, pending->size_bytes, err));
    pending->whole = true;
    return HM_OK;
}

void hm_st_writer_shorten(struct hm_st_writer *writer, uint64_t elements)
{
    struct pending *pending = &writer->pending[writer->current];

    HM_BUG(pending->spec.n_dims != 1 || elements > pending->spec.shape[0] || elements == 0 ||
           writer->left_bytes != pending->size_bytes);
    pending->spec.shape[0] = elements;
    pending->size_bytes = writer->left_bytes = hm_tensor_spec_bytes(&pending->spec);
}

int hm_st_writer_sync(struct hm_st_writer *writer, struct hm_error *err)
{
    return hm_writer_sync(writer->out, err);
}

static int finish(struct hm_st_writer *writer, struct hm_error *err)
{
    struct hm_buf header = { 0 };

    for (size_t i = 0; i < writer->count; i++) {
        const struct pending *pending = &writer->pending[i];
        uint64_t left = i == writer->current ? writer->left_bytes : pending->size_bytes;
        if (!pending->whole)
            return hm_fail(err, HM_ERR_CHECK, "'%s': tensor '%s' lacks %" PRIu64 " bytes",
                           writer->path, pending->spec.name, left);
    }
    int status = make_header(writer, &header, err);
    if (status == HM_OK)
        status = hm_writer_put(writer->out, 0, header.ptr, header.len, err);
    if (status == HM_OK)
        status = hm_writer_sync(writer->out, err);
    if (status == HM_OK)
        status = hm_path_rename(writer->temp_path, writer->path, err);
    hm_buf_release(&header);
    return status;
}

int hm_st_writer_commit(struct hm_st_writer *writer, struct hm_error *err)
{
    int status = finish(writer, err);

    if (status == HM_OK)
        release(writer);
    else
        hm_st_writer_abort(writer);
    return status;
}

void hm_st_writer_abort(struct hm_st_writer *writer)
{
    if (!writer)
        return;
    if (writer->out)
        (void)remove(writer->temp_path);
    release(writer);
}

void hm_st_writer_leave(struct hm_st_writer *writer)
{
    if (writer)
        release(writer);
}

int hm_safetensors_write_each(const char *path, const struct hm_tensor *tensors, size_t n,
                              const json_t *metadata, const struct hm_tensor_written *then,
                              struct hm_error *err)
{
    struct hm_st_writer *writer = NULL;
    struct hm_tensor_spec *spec = hm_calloc(HM_MEM_TENSOR, n, sizeof *spec);
    size_t *order = hm_alloc_array(HM_MEM_TENSOR, n, sizeof *order);
    int status = HM_OK;

    if (!spec || !order) {
        status = hm_fail_nomem(err, "writing '%s'", path);
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        spec[i] = hm_tensor_spec_of(&tensors[i]);
    status = hm_st_writer_open(path, spec, n, metadata, &writer, order, err);
    for (size_t i = 0; i < n && status == HM_OK; i++) {
        uint64_t bytes = hm_tensor_spec_bytes(&spec[order[i]]);
        status = hm_st_writer_data(writer, tensors[order[i]].data, bytes, err);
        if (then)
            then->written(then->context, tensors[order[i]].data, bytes);
    }
    if (status == HM_OK) {
        status = hm_st_writer_commit(writer, err);
        writer = NULL;
    }
out:
    hm_st_writer_abort(writer);
    hm_free(order);
    hm_free(spec);
    return status;
}

int hm_safetensors_write(const char *path, const struct hm_tensor *tensors, size_t n,
                         const json_t *metadata, struct hm_error *err)
{
    return hm_safetensors_write_each(path, tensors, n, metadata, NULL, err);
}
