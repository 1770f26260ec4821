/* SPDX-License-Identifier: MIT */
/*
 * The strict reader: a file is mapped, its header checked to the last byte, and every tensor
 * becomes a view. Nothing of the data is touched at open. What the format leaves open to the reader
 * (duplicate names, whitespace before the header, trailing bytes) is refused here.
 * Invariant: after open, each view lies within the mapping and the views cover the buffer exactly.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/bytes.h"
#include "hanmix/checkpoint/safetensors.h"

#define HEADER_MAX_BYTES 100000000u /* the format's limit */
#define LENGTH_BYTES     8u
#define METADATA_KEY     "__metadata__"

bool hm_shape_count(uint32_t n_dims, const uint64_t *shape, uint64_t *ret_count)
{
    uint64_t count = 1;

    for (uint32_t i = 0; i < n_dims; i++)
        if (__builtin_mul_overflow(count, shape[i], &count))
            return false;
    *ret_count = count;
    return true;
}

const char *hm_shape_text(uint32_t n_dims, const uint64_t *shape, char *buf, size_t size)
{
    size_t len = 0;

    for (uint32_t i = 0; i < n_dims && len < size; i++)
        len += (size_t)snprintf(buf + len, size - len, "%s%" PRIu64, i ? ", " : "[", shape[i]);
    if (len < size)
        snprintf(buf + len, size - len, "%s", n_dims ? "]" : "[]");
    return buf;
}

/* The header's text, without the trailing spaces. */
static int header_find(const char *path, const struct hm_map *map, struct hm_str *ret_header,
                       uint64_t *ret_buffer_at, struct hm_error *err)
{
    if (map->size_bytes < LENGTH_BYTES)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': %" PRIu64 " bytes are too few for a safetensors header", path,
                       map->size_bytes);
    uint64_t len = hm_le_get(map->data, LENGTH_BYTES);
    if (len > HEADER_MAX_BYTES)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the header claims %" PRIu64 " bytes, at most %u are allowed", path,
                       len, HEADER_MAX_BYTES);
    if (len > map->size_bytes - LENGTH_BYTES)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the header claims %" PRIu64 " bytes but the file holds %" PRIu64
                       "; it is truncated or not safetensors",
                       path, len, map->size_bytes);
    struct hm_str header = { (const char *)map->data + LENGTH_BYTES, len };
    while (header.len > 0 && header.ptr[header.len - 1] == ' ')
        header.len--;
    if (header.len < 2 || header.ptr[0] != '{' || header.ptr[header.len - 1] != '}')
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the header is not '{...}' padded with spaces; not safetensors", path);
    *ret_header = header;
    *ret_buffer_at = LENGTH_BYTES + len;
    return HM_OK;
}

static int check_metadata(const char *path, json_t *metadata, struct hm_error *err)
{
    const char *key;
    json_t *value;

    if (!json_is_object(metadata))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': " METADATA_KEY " must be an object", path);
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value))
            return hm_fail(err, HM_ERR_FORMAT, "'%s': " METADATA_KEY " '%s' must be a string", path,
                           key);
    }
    return HM_OK;
}

static int entry_number(const char *path, const char *name, const json_t *value, uint64_t *ret,
                        struct hm_error *err)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' has a shape or offset that is not a non-negative integer",
                       path, name);
    *ret = (uint64_t)json_integer_value(value);
    return HM_OK;
}

static int entry_shape(const char *path, const json_t *shape, struct hm_tensor *tensor,
                       struct hm_error *err)
{
    size_t n_dims = json_array_size(shape);

    if (!json_is_array(shape))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has no 'shape' list", path,
                       tensor->name);
    if (n_dims > HM_TENSOR_MAX_DIMS)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has %zu dimensions, at most %d", path,
                       tensor->name, n_dims, HM_TENSOR_MAX_DIMS);
    for (size_t i = 0; i < n_dims; i++)
        HM_TRY(entry_number(path, tensor->name, json_array_get(shape, i), &tensor->shape[i], err));
    tensor->n_dims = (uint32_t)n_dims;
    if (!hm_shape_count(tensor->n_dims, tensor->shape, &tensor->count) ||
        __builtin_mul_overflow(tensor->count, hm_dtype_bytes(tensor->dtype), &tensor->size_bytes))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': the shape of tensor '%s' overflows", path,
                       tensor->name);
    return HM_OK;
}

/* One header entry: tensor->name is set, the rest is filled; data points to buffer + begin. */
static int entry_read(const char *path, const json_t *entry, const uint8_t *buffer,
                      uint64_t buffer_bytes, struct hm_tensor *tensor, struct hm_error *err)
{
    const char *dtype = NULL;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin = 0, end = 0;
    char text[160];

    if (hm_json_text(entry, "dtype", path, &dtype, NULL) < 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has no 'dtype' string", path,
                       tensor->name);
    if (hm_dtype_parse(dtype, &tensor->dtype, NULL) < 0 ||
        strcmp(dtype, hm_dtype_name(tensor->dtype)) != 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has the unsupported dtype '%s'", path,
                       tensor->name, dtype);
    HM_TRY(entry_shape(path, json_object_get(entry, "shape"), tensor, err));
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has no pair 'data_offsets'", path,
                       tensor->name);
    HM_TRY(entry_number(path, tensor->name, json_array_get(offsets, 0), &begin, err));
    HM_TRY(entry_number(path, tensor->name, json_array_get(offsets, 1), &end, err));
    if (begin > end || end > buffer_bytes)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' lies at %" PRIu64 "..%" PRIu64 " of a buffer of %" PRIu64
                       " bytes",
                       path, tensor->name, begin, end, buffer_bytes);
    if (end - begin != tensor->size_bytes)
        return hm_fail(
            err, HM_ERR_FORMAT,
            "'%s': tensor '%s', %s %s, needs %" PRIu64 " bytes but its offsets give %" PRIu64, path,
            tensor->name, dtype, hm_shape_text(tensor->n_dims, tensor->shape, text, sizeof text),
            tensor->size_bytes, end - begin);
    tensor->data = buffer + begin;
    return HM_OK;
}

static int compare_place(const void *a, const void *b)
{
    const struct hm_tensor *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

static int compare_name(const void *a, const void *b)
{
    const struct hm_tensor *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* No hole, no overlap, no trailing byte; leaves the tensors sorted by name. */
static int check_cover(const char *path, struct hm_tensor *tensor, size_t count,
                       const uint8_t *buffer, uint64_t buffer_bytes, struct hm_error *err)
{
    const uint8_t *at = buffer;

    qsort(tensor, count, sizeof *tensor, compare_place);
    for (size_t i = 0; i < count; i++) {
        if (tensor[i].data != at)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' begins at byte %td, %s the previous one's end at %td",
                           path, tensor[i].name, tensor[i].data - buffer,
                           tensor[i].data < at ? "before" : "after", at - buffer);
        at += tensor[i].size_bytes;
    }
    if ((uint64_t)(at - buffer) != buffer_bytes)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': %" PRIu64 " bytes follow the last tensor; expected none", path,
                       buffer_bytes - (uint64_t)(at - buffer));
    qsort(tensor, count, sizeof *tensor, compare_name);
    return HM_OK;
}

/* Fill file->tensor from the parsed header; names are copied into one block. */
static int entries_read(json_t *header, uint64_t buffer_at, struct hm_safetensors *file,
                        struct hm_error *err)
{
    const uint8_t *buffer = file->map.data + buffer_at;
    uint64_t buffer_bytes = file->map.size_bytes - buffer_at;
    size_t name_bytes = 0, at = 0;
    const char *key;
    json_t *value;

    json_object_foreach(header, key, value) name_bytes += strlen(key) + 1;
    file->tensor = hm_calloc(HM_MEM_TENSOR, json_object_size(header), sizeof *file->tensor);
    char *names = file->names = hm_alloc(HM_MEM_TENSOR, name_bytes);
    if (!file->tensor || !names)
        return hm_fail_nomem(err, "reading '%s'", file->path);
    json_object_foreach(header, key, value)
    {
        if (strcmp(key, METADATA_KEY) == 0) {
            HM_TRY(check_metadata(file->path, value, err));
            file->metadata = json_incref(value);
            continue;
        }
        struct hm_tensor *tensor = &file->tensor[file->count];
        size_t len = strlen(key) + 1;
        tensor->name = memcpy(names + at, key, len);
        at += len;
        HM_TRY(entry_read(file->path, value, buffer, buffer_bytes, tensor, err));
        file->count++;
    }
    return check_cover(file->path, file->tensor, file->count, buffer, buffer_bytes, err);
}

int hm_safetensors_open(const char *path, struct hm_safetensors *ret_file, struct hm_error *err)
{
    struct hm_safetensors file = { 0 };
    struct hm_str header;
    json_t *root = NULL;
    uint64_t buffer_at = 0;

    int status = hm_map_open(path, &file.map, err);
    if (status < 0)
        return status;
    file.path = hm_strdup(HM_MEM_TENSOR, path);
    if (!file.path) {
        status = hm_fail_nomem(err, "reading '%s'", path);
        goto out;
    }
    status = header_find(path, &file.map, &header, &buffer_at, err);
    if (status < 0)
        goto out;
    status = hm_json_parse(header, path, &root, err);
    if (status < 0) {
        hm_error_prefix(err, "safetensors header");
        goto out;
    }
    status = entries_read(root, buffer_at, &file, err);
    if (status < 0)
        goto out;
    *ret_file = file;
    file = (struct hm_safetensors){ 0 };
out:
    json_decref(root);
    hm_safetensors_close(&file);
    return status;
}

void hm_safetensors_close(struct hm_safetensors *file)
{
    if (!file)
        return;
    hm_map_close(&file->map);
    json_decref(file->metadata);
    hm_free(file->tensor);
    hm_free(file->names);
    hm_free(file->path);
    *file = (struct hm_safetensors){ 0 };
}

const struct hm_tensor *hm_safetensors_find(const struct hm_safetensors *file, const char *name)
{
    struct hm_tensor key = { .name = name };

    if (file->count == 0)
        return NULL;
    return bsearch(&key, file->tensor, file->count, sizeof key, compare_name);
}

int hm_safetensors_need(const struct hm_safetensors *file, const char *name, enum hm_dtype dtype,
                        uint32_t n_dims, const uint64_t *shape, const struct hm_tensor **ret_tensor,
                        struct hm_error *err)
{
    const struct hm_tensor *tensor = hm_safetensors_find(file, name);
    char found[160], expected[160];

    if (!tensor)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is missing", file->path, name);
    if (dtype != HM_DTYPE_COUNT && tensor->dtype != dtype)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is %s, expected %s", file->path, name,
                       hm_dtype_name(tensor->dtype), hm_dtype_name(dtype));
    if (shape &&
        (tensor->n_dims != n_dims || memcmp(tensor->shape, shape, n_dims * sizeof *shape) != 0))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has shape %s, expected %s",
                       file->path, name,
                       hm_shape_text(tensor->n_dims, tensor->shape, found, sizeof found),
                       hm_shape_text(n_dims, shape, expected, sizeof expected));
    *ret_tensor = tensor;
    return HM_OK;
}
