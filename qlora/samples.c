/* SPDX-License-Identifier: MIT */
/*
 * Where training and evaluation samples come from: windows of a packed file, in shuffled or file
 * order, or rows of a safetensors file of ids. A sample is found from its position alone, so that
 * resuming needs one number. Owns the slots that samples are decoded into; what a batch is made of
 * is the trainer's business.
 */
#include <string.h>

#include "hanmix/corpus/packed.h"
#include "hanmix/model/ids_file.h"
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
    struct hm_ids_file file;
    uint32_t seq_len;
    uint64_t count;
    struct sample_slot *slot;
    uint32_t n_slots;
};

static int source_new(struct hm_sample_source **ret, const char *path, struct hm_error *err)
{
    *ret = hm_calloc(HM_MEM_OTHER, 1, sizeof(**ret));
    return *ret ? HM_OK : hm_fail_nomem(err, "opening '%s'", path);
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

int hm_samples_open_ids(const char *path, struct hm_sample_source **ret, struct hm_error *err)
{
    struct hm_sample_source *source = NULL;

    HM_TRY(source_new(&source, path, err));
    int status = hm_ids_file_open(path, &source->file, err);
    if (status < 0) {
        hm_samples_close(source);
        return status;
    }
    source->seq_len = source->file.seq_len;
    source->count = source->file.rows;
    *ret = source;
    return HM_OK;
}

int hm_samples_check(const struct hm_sample_source *source, const struct hm_arch *arch,
                     struct hm_error *err)
{
    if (!source->is_packed)
        return hm_ids_file_check(&source->file, arch->vocab_size, err);
    return hm_arch_vocab_check(arch, source->packed.vocab_size, source->packed.path, err);
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
    hm_ids_file_close(&source->file);
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
    return source->file.micro_rows;
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
            return hm_fail_nomem(err, "for %u samples", slot + 1);
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
        return hm_fail_nomem(err, "for a sample of %zu tokens", len);
    return HM_OK;
}

static int ids_get(struct hm_sample_source *source, uint64_t index, struct sample_slot *slot,
                   struct hm_sample *ret, struct hm_error *err)
{
    struct hm_ids_row row = { .ids = slot->ids, .labels = slot->labels, .mask = slot->mask };

    HM_TRY(hm_ids_file_row(&source->file, index, true, &row, err));
    *ret = (struct hm_sample){ .ids = slot->ids,
                               .labels = row.has_labels ? slot->labels : NULL,
                               .mask = row.has_mask ? slot->mask : NULL };
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
