/* SPDX-License-Identifier: MIT */
/*
 * safetensors files: a strict mapped reader and a streaming writer.
 *
 * Reader: every offset, shape, overflow, hole, overlap, duplicate name and trailing byte is checked
 * at open (rules of the format as in specs: header < 100 MB, buffer exactly covered). Views borrow
 * from the mapping. Writer: all tensors are declared first; data follow in file order; header
 * padded with spaces to 8 bytes; order by dtype alignment descending, then name, as the reference
 * library writes. Thread class: reader immutable after open; writer owner thread.
 */
#ifndef HANMIX_CHECKPOINT_SAFETENSORS_H
#define HANMIX_CHECKPOINT_SAFETENSORS_H

#include "hanmix/base/file.h"
#include "hanmix/base/json.h"
#include "hanmix/checkpoint/dtype.h"

#define HM_TENSOR_MAX_DIMS 8

struct hm_tensor {    /* a view */
    const char *name; /* borrowed */
    enum hm_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[HM_TENSOR_MAX_DIMS];
    uint64_t count; /* product of shape */
    uint64_t size_bytes;
    const uint8_t *data; /* borrowed from the mapping, any alignment */
    uint32_t file;       /* index of the file within a checkpoint */
};

struct hm_safetensors {
    char *path;
    struct hm_map map;
    struct hm_tensor *tensor; /* sorted by name */
    size_t count;
    json_t *metadata; /* string to string object; may be NULL */
    void *names;      /* owned storage of the names */
};

int hm_safetensors_open(const char *path, struct hm_safetensors *ret_file, struct hm_error *err);
void hm_safetensors_close(struct hm_safetensors *file);
/* or NULL */
const struct hm_tensor *hm_safetensors_find(const struct hm_safetensors *file, const char *name);
/* Same, missing or of another shape/dtype is an error. shape may be NULL (n_dims ignored); dtype
 * HM_DTYPE_COUNT = any. */
int hm_safetensors_need(const struct hm_safetensors *file, const char *name, enum hm_dtype dtype,
                        uint32_t n_dims, const uint64_t *shape, const struct hm_tensor **ret_tensor,
                        struct hm_error *err);

/* Product of the dimensions (1 for rank 0); false when it overflows. */
bool hm_shape_count(uint32_t n_dims, const uint64_t *shape, uint64_t *ret_count);
/* "[2, 48]" into buf, for messages. */
const char *hm_shape_text(uint32_t n_dims, const uint64_t *shape, char *buf, size_t size);

struct hm_tensor_spec { /* what will be written */
    char *name;         /* owned by the list that holds it */
    enum hm_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[HM_TENSOR_MAX_DIMS];
};
/* The same type and shape; the name is borrowed. */
struct hm_tensor_spec hm_tensor_spec_of(const struct hm_tensor *tensor);
/* UINT64_MAX when the size overflows. */
uint64_t hm_tensor_spec_bytes(const struct hm_tensor_spec *spec);

struct hm_st_writer;
/*
 * Starts path (beside, renamed at commit). specs may come in any order; ret_order (n entries, may
 * be NULL) receives the file order: write tensor order[0] first. metadata may be NULL: {"format":
 * "pt"} is written.
 */
int hm_st_writer_open(const char *path, const struct hm_tensor_spec *specs, size_t n,
                      const json_t *metadata, struct hm_st_writer **ret_writer, size_t *ret_order,
                      struct hm_error *err);

/* The file order of specs: order[0] comes first. */
int hm_st_order(const struct hm_tensor_spec *specs, size_t n, size_t *order, struct hm_error *err);

/* A file that an earlier writer began; both lists [n] in the order of specs. */
struct hm_st_begun {
    const bool *whole;     /* tensors that are on the disk */
    const uint64_t *bytes; /* what they were shortened to, or their size */
};
/* The same for large files, past the page cache; begun may be NULL. */
int hm_st_writer_open_large(const char *path, const struct hm_tensor_spec *specs, size_t n,
                            const struct hm_st_begun *begun, struct hm_st_writer **ret_writer,
                            size_t *ret_order, struct hm_error *err);
/* Place in file order of the first tensor that is neither whole nor skipped; n when there is none.
 */
size_t hm_st_writer_current(const struct hm_st_writer *writer);
/* Bytes of the current tensor; may come in pieces; a tensor is complete when all its bytes came. */
int hm_st_writer_data(struct hm_st_writer *writer, const void *data, size_t len,
                      struct hm_error *err);
/* Leave the current tensor to hm_st_writer_fill, which gives it whole, by its place in file order.
   No tensor before it may be shortened any more. */
void hm_st_writer_skip(struct hm_st_writer *writer);
int hm_st_writer_fill(struct hm_st_writer *writer, size_t place, const void *data,
                      struct hm_error *err);
/* The current tensor, of one dimension and not begun, is shorter than planned. The header keeps the
   room that the plan asked for. */
void hm_st_writer_shorten(struct hm_st_writer *writer, uint64_t elements);
/* What was complete is on the disk. */
int hm_st_writer_sync(struct hm_st_writer *writer, struct hm_error *err);
/* fails if bytes are missing; frees */
int hm_st_writer_commit(struct hm_st_writer *writer, struct hm_error *err);
void hm_st_writer_abort(struct hm_st_writer *writer);
/* Frees, and leaves the unfinished file to a later writer. */
void hm_st_writer_leave(struct hm_st_writer *writer);

/* Convenience: whole small files from memory. */
int hm_safetensors_write(const char *path, const struct hm_tensor *tensors, size_t n,
                         const json_t *metadata, struct hm_error *err);
/* The same; `written` hears of each tensor whose data is not read any more. */
struct hm_tensor_written {
    void (*written)(void *context, const void *data, size_t bytes);
    void *context;
};
int hm_safetensors_write_each(const char *path, const struct hm_tensor *tensors, size_t n,
                              const json_t *metadata, const struct hm_tensor_written *then,
                              struct hm_error *err);

#endif
