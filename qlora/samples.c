/* SPDX-License-Identifier: MIT */
/*
 * Where training and evaluation samples come from: windows of a packed file, in shuffled or file
 * order, or rows of a safetensors file of ids. A sample is found from its position alone, so that
 * resuming needs one number. Owns the slots that samples are decoded into; what a batch is made of
 * is the trainer's business.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/checkpoint/safetensors.h"
#include "hanmix/corpus/packed.h"
#include "hanmix/qlora/trainer.h"

struct sample_slot {
    int32_t *ids, *labels; /* [T] */
    uint8_t *mask, *doc_start;
};

struct hm_sample_source {
    bool is_packed;
    struct hm_packed packed;
    bool shuffle, document_attention;
    uint64_t seed;
    struct hm_safetensors file;
    const struct hm_tensor *ids, *labels,
        *mask; /* borrowed from file; labels and mask may be NULL */
    uint32_t seq_len, micro_rows;
    uint64_t count;
    struct sample_slot *slot;
    uint32_t n_slots;
};

static int source_new(struct hm_sample_source **ret, const char *path, struct hm_error *err)
{
    *ret = hm_calloc(HM_MEM_OTHER, 1, sizeof(**ret));
    return *ret ? HM_OK : hm_fail(err, HM_ERR_NOMEM, "'%s': out of memory", path);
}

int hm_samples_open_packed(const char *path, bool shuffle, uint64_t seed, bool document_attention,
                           struct hm_sample_source **ret, struct hm_error *err)
{
    struct hm_sample_source *source = NULL;

    HM_TRY(source_new(&source, path, err));
    int status = hm_packed_open(path, &source->packed, err);
    if (status == HM_OK && source->packed.windows == 0)
        status = hm_fail(err, HM_ERR_FORMAT, "'%s' holds no window", path);
    if (status < 0) {
        hm_samples_close(source);
        return status;
    }
    source->is_packed = true;
    source->shuffle = shuffle;
    source->document_attention = document_attention;
    source->seed = seed;
    source->seq_len = source->packed.seq_len;
    source->count = source->packed.windows;
    *ret = source;
    return HM_OK;
}

static int ids_shape(struct hm_sample_source *source, const char *path, struct hm_error *err)
{
    const struct hm_tensor *ids = source->ids;
    uint64_t seq_len = ids->n_dims > 0 ? ids->shape[ids->n_dims - 1] : 0;
    char shape[128];

    if ((ids->n_dims != 2 && ids->n_dims != 3) || ids->count == 0 || seq_len < 2 ||
        seq_len > 1u << 24 || (ids->n_dims == 3 && ids->shape[1] > UINT32_MAX))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': %s has shape %s; expected [rows, T] or [micro-batches, rows, T] with "
                       "T from 2 on",
                       path, ids->name,
                       hm_shape_text(ids->n_dims, ids->shape, shape, sizeof(shape)));
    source->seq_len = (uint32_t)seq_len;
    source->count = ids->count / seq_len;
    source->micro_rows = ids->n_dims == 3 ? (uint32_t)ids->shape[1] : 0;
    return HM_OK;
}

static int optional_like_ids(struct hm_sample_source *source, const char *name,
                             const struct hm_tensor **ret, struct hm_error *err)
{
    if (!hm_safetensors_find(&source->file, name))
        return HM_OK;
    return hm_safetensors_need(&source->file, name, HM_DTYPE_I64, source->ids->n_dims,
                               source->ids->shape, ret, err);
}

static int ids_open(struct hm_sample_source *source, const char *path, struct hm_error *err)
{
    HM_TRY(hm_safetensors_open(path, &source->file, err));
    const char *name = hm_safetensors_find(&source->file, "input_ids") ? "input_ids" : "ids";
    if (!hm_safetensors_find(&source->file, name))
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has neither a tensor input_ids nor one named ids",
                       path);
    HM_TRY(hm_safetensors_need(&source->file, name, HM_DTYPE_I64, 0, NULL, &source->ids, err));
    HM_TRY(ids_shape(source, path, err));
    HM_TRY(optional_like_ids(source, "labels", &source->labels, err));
    return optional_like_ids(source, "attention_mask", &source->mask, err);
}

int hm_samples_open_ids(const char *path, struct hm_sample_source **ret, struct hm_error *err)
{
    struct hm_sample_source *source = NULL;

    HM_TRY(source_new(&source, path, err));
    int status = ids_open(source, path, err);
    if (status < 0) {
        hm_samples_close(source);
        return status;
    }
    *ret = source;
    return HM_OK;
}

void hm_samples_close(struct hm_sample_source *source)
{
    if (!source)
        return;
    for (uint32_t i = 0; i < source->n_slots; i++) {
        hm_free(source->slot[i].ids);
        hm_free(source->slot[i].labels);
        hm_free(source->slot[i].mask);
        hm_free(source->slot[i].doc_start);
    }
    hm_free(source->slot);
    hm_packed_close(&source->packed);
    hm_safetensors_close(&source->file);
    hm_free(source);
}

uint32_t hm_samples_seq_len(const struct hm_sample_source *source)
{
    return source->seq_len;
}

uint64_t hm_samples_count(const struct hm_sample_source *source)
{
    return source->count;
}

uint32_t hm_samples_micro_rows(const struct hm_sample_source *source)
{
    return source->micro_rows;
}

const char *hm_samples_tokenizer(const struct hm_sample_source *source)
{
    return source->is_packed ? source->packed.tokenizer : "";
}

static int slot_need(struct hm_sample_source *source, uint32_t slot, struct hm_error *err)
{
    if (slot >= source->n_slots) {
        struct sample_slot *grown =
            hm_realloc(HM_MEM_OTHER, source->slot, ((size_t)slot + 1) * sizeof(*grown));
        if (!grown)
            return hm_fail(err, HM_ERR_NOMEM, "out of memory for %u samples", slot + 1);
        memset(grown + source->n_slots, 0, (slot + 1 - source->n_slots) * sizeof(*grown));
        source->slot = grown;
        source->n_slots = slot + 1;
    }
    struct sample_slot *made = &source->slot[slot];
    size_t len = source->seq_len;
    if (!made->ids)
        made->ids = hm_alloc_array(HM_MEM_OTHER, len, sizeof(*made->ids));
    if (!made->labels)
        made->labels = hm_alloc_array(HM_MEM_OTHER, len, sizeof(*made->labels));
    if (!made->mask)
        made->mask = hm_alloc(HM_MEM_OTHER, len);
    if (!made->doc_start)
        made->doc_start = hm_alloc(HM_MEM_OTHER, len);
    if (!made->ids || !made->labels || !made->mask || !made->doc_start)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for a sample of %zu tokens", len);
    return HM_OK;
}

/* Values first..first+T-1 of an I64 tensor, each in 0..highest, or -100 when it may be. */
static int values_read(const struct hm_sample_source *source, const struct hm_tensor *tensor,
                       uint64_t first, int64_t highest, bool may_ignore, int32_t *out,
                       struct hm_error *err)
{
    for (uint32_t t = 0; t < source->seq_len; t++) {
        int64_t value;
        memcpy(&value, tensor->data + (first + t) * sizeof(value), sizeof(value));
        if ((value < 0 || value > highest) && !(may_ignore && value == HM_LABEL_IGNORE))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': %s holds %" PRId64 " in row %" PRIu64 " at position %u",
                           source->file.path, tensor->name, value, first / source->seq_len, t);
        out[t] = (int32_t)value;
    }
    return HM_OK;
}

/* Padding is no target, unless the file's own labels say so. */
static int ids_get(struct hm_sample_source *source, uint64_t row, struct sample_slot *slot,
                   struct hm_sample *ret, struct hm_error *err)
{
    uint64_t first = row * source->seq_len;
    struct hm_sample sample = { .ids = slot->ids };

    if (source->mask) {
        HM_TRY(values_read(source, source->mask, first, 1, false, slot->labels, err));
        for (uint32_t t = 0; t < source->seq_len; t++)
            slot->mask[t] = (uint8_t)slot->labels[t];
        sample.mask = slot->mask;
    }
    HM_TRY(values_read(source, source->ids, first, INT32_MAX, false, slot->ids, err));
    if (source->labels) {
        HM_TRY(values_read(source, source->labels, first, INT32_MAX, true, slot->labels, err));
        sample.labels = slot->labels;
    } else if (source->mask) {
        for (uint32_t t = 0; t < source->seq_len; t++)
            slot->labels[t] = slot->mask[t] ? slot->ids[t] : HM_LABEL_IGNORE;
        sample.labels = slot->labels;
    }
    *ret = sample;
    return HM_OK;
}

int hm_samples_get(struct hm_sample_source *source, uint64_t position, uint32_t slot_index,
                   struct hm_sample *ret, struct hm_error *err)
{
    HM_TRY(slot_need(source, slot_index, err));
    struct sample_slot *slot = &source->slot[slot_index];
    uint64_t index = hm_sample_index(source->count, source->seed, source->shuffle, position);
    if (!source->is_packed)
        return ids_get(source, index, slot, ret, err);
    struct hm_window window;
    HM_TRY(hm_packed_window(&source->packed, index, slot->ids, slot->doc_start, &window, err));
    *ret = (struct hm_sample){ .ids = slot->ids,
                               .doc_start = source->document_attention ? slot->doc_start : NULL,
                               .utf8_bytes = window.utf8_bytes,
                               .chars = window.chars };
    return HM_OK;
}
