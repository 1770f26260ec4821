/* SPDX-License-Identifier: MIT */
/*
 * Reading files of token ids: shapes agree, every value is in range, padding is no target.
 */
#include "hanmix/model/ids_file.h"

#include <inttypes.h>
#include <string.h>

#include "hanmix/model/model.h"

#define SEQ_LEN_MAX (1u << 24)

static int shape_take(struct hm_ids_file *file, const char *path, struct hm_error *err)
{
    const struct hm_tensor *ids = file->ids;
    uint64_t seq_len = ids->n_dims > 0 ? ids->shape[ids->n_dims - 1] : 0;
    char shape[128];

    if ((ids->n_dims != 2 && ids->n_dims != 3) || ids->count == 0 || seq_len < 2 ||
        seq_len > SEQ_LEN_MAX || (ids->n_dims == 3 && ids->shape[1] > UINT32_MAX))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': %s has shape %s; expected [rows, T] or [micro-batches, rows, T] with "
                       "T from 2 on",
                       path, ids->name,
                       hm_shape_text(ids->n_dims, ids->shape, shape, sizeof(shape)));
    file->seq_len = (uint32_t)seq_len;
    file->rows = ids->count / seq_len;
    file->micro_rows = ids->n_dims == 3 ? (uint32_t)ids->shape[1] : 0;
    return HM_OK;
}

static int optional_like_ids(struct hm_ids_file *file, const char *name,
                             const struct hm_tensor **ret, struct hm_error *err)
{
    if (!hm_safetensors_find(&file->file, name))
        return HM_OK;
    return hm_safetensors_need(&file->file, name, HM_DTYPE_I64, file->ids->n_dims, file->ids->shape,
                               ret, err);
}

static int file_check(struct hm_ids_file *file, const char *path, struct hm_error *err)
{
    const char *name = hm_safetensors_find(&file->file, "input_ids") ? "input_ids" : "ids";

    if (!hm_safetensors_find(&file->file, name))
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has neither a tensor input_ids nor one named ids",
                       path);
    HM_TRY(hm_safetensors_need(&file->file, name, HM_DTYPE_I64, 0, NULL, &file->ids, err));
    HM_TRY(shape_take(file, path, err));
    HM_TRY(optional_like_ids(file, "labels", &file->labels, err));
    return optional_like_ids(file, "attention_mask", &file->mask, err);
}

int hm_ids_file_open(const char *path, struct hm_ids_file *ret_file, struct hm_error *err)
{
    struct hm_ids_file file = { 0 };

    HM_TRY(hm_safetensors_open(path, &file.file, err));
    int status = file_check(&file, path, err);
    if (status < 0) {
        hm_ids_file_close(&file);
        return status;
    }
    *ret_file = file;
    return HM_OK;
}

void hm_ids_file_close(struct hm_ids_file *file)
{
    hm_safetensors_close(&file->file);
    *file = (struct hm_ids_file){ 0 };
}

/* One row of an I64 tensor, each value in 0..highest, or -100 when it may be. */
static int values_read(const struct hm_ids_file *file, const struct hm_tensor *tensor, uint64_t row,
                       int64_t highest, bool may_ignore, int32_t *out, struct hm_error *err)
{
    for (uint32_t t = 0; t < file->seq_len; t++) {
        int64_t value;
        memcpy(&value, tensor->data + (row * file->seq_len + t) * sizeof(value), sizeof(value));
        if ((value < 0 || value > highest) && !(may_ignore && value == HM_LABEL_IGNORE))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': %s holds %" PRId64 " in row %" PRIu64
                           " at position %u; expected 0 to %" PRId64 "%s",
                           file->file.path, tensor->name, value, row, t, highest,
                           may_ignore ? " or -100" : "");
        out[t] = (int32_t)value;
    }
    return HM_OK;
}

int hm_ids_file_row(const struct hm_ids_file *file, uint64_t row, bool own_labels,
                    struct hm_ids_row *row_out, struct hm_error *err)
{
    own_labels = own_labels && file->labels;
    if (file->mask) {
        HM_TRY(values_read(file, file->mask, row, 1, false, row_out->labels, err));
        for (uint32_t t = 0; t < file->seq_len; t++)
            row_out->mask[t] = (uint8_t)row_out->labels[t];
    }
    HM_TRY(values_read(file, file->ids, row, INT32_MAX, false, row_out->ids, err));
    if (own_labels)
        HM_TRY(values_read(file, file->labels, row, INT32_MAX, true, row_out->labels, err));
    else if (file->mask)
        for (uint32_t t = 0; t < file->seq_len; t++)
            row_out->labels[t] = row_out->mask[t] ? row_out->ids[t] : HM_LABEL_IGNORE;
    row_out->has_mask = file->mask != NULL;
    row_out->has_labels = own_labels || file->mask;
    return HM_OK;
}

int hm_ids_file_check(const struct hm_ids_file *file, uint32_t vocab_size, struct hm_error *err)
{
    int32_t *values = hm_alloc_array(HM_MEM_OTHER, file->seq_len, sizeof(*values));
    int64_t highest = (int64_t)vocab_size - 1;
    int status = values ? HM_OK : hm_fail_nomem(err, "for a row of %u tokens", file->seq_len);

    for (uint64_t row = 0; status == HM_OK && row < file->rows; row++) {
        status = values_read(file, file->ids, row, highest, false, values, err);
        if (status == HM_OK && file->labels)
            status = values_read(file, file->labels, row, highest, true, values, err);
        if (status == HM_OK && file->mask)
            status = values_read(file, file->mask, row, 1, false, values, err);
    }
    hm_free(values);
    return status;
}
