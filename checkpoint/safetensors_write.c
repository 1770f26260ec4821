/* SPDX-License-Identifier: MIT */
/*
 * The streaming writer: tensors are declared first, so that the header is written once and the data
 * follow in file order. Order, spelling and padding are those of the reference library, so that
 * files of the same tensors are the same bytes. The file appears under its name at commit only.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/bytes.h"
#include "hanmix/checkpoint/safetensors.h"

struct pending {                       /* one declared tensor */
    const struct hm_tensor_spec *spec; /* borrowed; NULL after open */
    char *name;
    uint64_t size_bytes;
    size_t index; /* in the caller's list */
};

struct hm_st_writer {
    struct hm_out_file out;
    struct pending *pending; /* in file order */
    size_t count;
    size_t current;      /* first incomplete tensor; count when all are written */
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

    if (x->spec->dtype != y->spec->dtype)
        return x->spec->dtype > y->spec->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
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
        name[i] = pending[i].name;
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
        pending->spec = &specs[i];
        pending->index = i;
        pending->name = hm_strdup(HM_MEM_TENSOR, specs[i].name);
        writer->count = i + 1;
        if (!pending->name)
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
    const struct hm_tensor_spec *spec = pending->spec;

    HM_TRY(hm_buf_text(buf, ",", err));
    HM_TRY(put_string(buf, pending->name, err));
    HM_TRY(hm_buf_printf(buf, err, ":{\"dtype\":\"%s\",\"shape\":[", hm_dtype_name(spec->dtype)));
    for (uint32_t i = 0; i < spec->n_dims; i++)
        HM_TRY(hm_buf_printf(buf, err, "%s%" PRIu64, i ? "," : "", spec->shape[i]));
    return hm_buf_printf(buf, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin,
                         begin + pending->size_bytes);
}

/* Length, JSON, and spaces up to a multiple of 8 bytes. */
static int write_header(struct hm_st_writer *writer, const json_t *metadata, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    uint8_t len[8];
    uint64_t begin = 0;

    int status = put_metadata(&buf, metadata, err);
    for (size_t i = 0; i < writer->count && status == HM_OK; i++) {
        status = put_entry(&buf, &writer->pending[i], begin, err);
        begin += writer->pending[i].size_bytes;
    }
    if (status == HM_OK)
        status = hm_buf_text(&buf, "}", err);
    while (status == HM_OK && buf.len % 8 != 0)
        status = hm_buf_text(&buf, " ", err);
    hm_le_put(len, buf.len, sizeof len);
    if (status == HM_OK)
        status = hm_out_write(&writer->out, len, sizeof len, err);
    if (status == HM_OK)
        status = hm_out_write(&writer->out, buf.ptr, buf.len, err);
    hm_buf_release(&buf);
    return status;
}

/* Stop at the first tensor that still needs bytes. */
static void find_current(struct hm_st_writer *writer)
{
    while (writer->left_bytes == 0 && writer->current < writer->count) {
        writer->current++;
        if (writer->current < writer->count)
            writer->left_bytes = writer->pending[writer->current].size_bytes;
    }
}

int hm_st_writer_open(const char *path, const struct hm_tensor_spec *specs, size_t n,
                      const json_t *metadata, struct hm_st_writer **ret_writer, size_t *ret_order,
                      struct hm_error *err)
{
    struct hm_st_writer *writer = hm_calloc(HM_MEM_TENSOR, 1, sizeof *writer);

    if (!writer)
        return hm_fail_nomem(err, "writing '%s'", path);
    int status = declare(path, specs, n, writer, err);
    if (status == HM_OK)
        status = hm_out_open(path, &writer->out, err);
    if (status == HM_OK)
        status = write_header(writer, metadata, err);
    if (status < 0) {
        hm_st_writer_abort(writer);
        return status;
    }
    for (size_t i = 0; i < n; i++) {
        writer->pending[i].spec = NULL;
        if (ret_order)
            ret_order[i] = writer->pending[i].index;
    }
    if (n > 0)
        writer->left_bytes = writer->pending[0].size_bytes;
    find_current(writer);
    *ret_writer = writer;
    return HM_OK;
}

int hm_st_writer_data(struct hm_st_writer *writer, const void *data, size_t len,
                      struct hm_error *err)
{
    if (len == 0)
        return HM_OK;
    if (len > writer->left_bytes)
        return hm_fail(
            err, HM_ERR_CHECK, "'%s': %zu bytes for tensor '%s', which has room for %" PRIu64,
            writer->out.path, len,
            writer->current < writer->count ? writer->pending[writer->current].name : "(none left)",
            writer->left_bytes);
    HM_TRY(hm_out_write(&writer->out, data, len, err));
    writer->left_bytes -= len;
    find_current(writer);
    return HM_OK;
}

static void release(struct hm_st_writer *writer)
{
    for (size_t i = 0; i < writer->count; i++)
        hm_free(writer->pending[i].name);
    hm_free(writer->pending);
    hm_free(writer);
}

int hm_st_writer_commit(struct hm_st_writer *writer, struct hm_error *err)
{
    int status;

    if (writer->current < writer->count) {
        status =
            hm_fail(err, HM_ERR_CHECK, "'%s': tensor '%s' lacks %" PRIu64 " bytes",
                    writer->out.path, writer->pending[writer->current].name, writer->left_bytes);
        hm_out_abort(&writer->out);
    } else {
        status = hm_out_commit(&writer->out, err);
    }
    release(writer);
    return status;
}

void hm_st_writer_abort(struct hm_st_writer *writer)
{
    if (!writer)
        return;
    hm_out_abort(&writer->out);
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
