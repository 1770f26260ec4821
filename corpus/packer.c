/* SPDX-License-Identifier: MIT */
/*
 * Documents to packed windows: read in batches, encoded in parallel, written in order, so that the
 * bytes do not depend on the thread count. Owns batch and shuffle buffer; the file is
 * packed_writer.c's, text and vocabulary the caller's.
 *
 * While one batch is encoded the next is read and the one before is written. Memory is bounded by
 * the text of two batches (each BATCH_BYTES or one document), the ids of three, and the shuffle
 * buffer (SHUFFLE_TOKENS).
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/corpus/packed.h"
#include "packed_writer.h"

#define BATCH_DOCS      256u
#define BATCH_BYTES     (2u << 20)
#define N_BATCHES       3u
#define SHUFFLE_TOKENS  (32u << 20)
#define SHUFFLE_DEFAULT 10000u
#define SHUFFLE_STREAM  0x7061636b73687566u
#define DROPOUT_STREAM  0x62706564726f7000u
#define VALID_HASH_SEED                                                                          \
    0x76616c6964u /* not the user's seed: another order must not move documents between the sets \
                   */

struct pack_doc { /* an encoded document */
    struct hm_ids ids;
    /* What the token sizes exceed the text's own size by; below 0 when a normaliser or <unk> lost
     * text. */
    int64_t excess_bytes, excess_chars;
};

struct pack_slot {      /* of a batch */
    size_t offset, len; /* text in batch_text */
    uint64_t number;
    bool valid;
    uint64_t chars;
    struct pack_doc doc;
    int status;
    struct hm_error error;
};

struct pack_batch {
    struct pack_slot *slot; /* [BATCH_DOCS] */
    size_t n_slots;         /* filled */
    struct hm_buf text;
    int more; /* 1, 0 at the end of the source, or what failed */
    struct hm_error error;
};

struct packer {
    const struct hm_text_encoder *encoder;
    const struct hm_pack_options *options;
    const struct hm_ctl *ctl;
    struct hm_text_source *source;
    struct pack_batch batch[N_BATCHES];
    struct pack_batch *behind, *now, *ahead; /* written, encoded, read */
    int write_status;
    struct hm_error write_error;
    struct hm_ids *plain;  /* of each worker: what dropout hides from the verification */
    struct pack_doc *held; /* shuffle buffer */
    size_t n_held, held_cap;
    uint64_t held_tokens, drawn;
    struct packed_writer train, valid;
    struct hm_pack_report report;
};

static void doc_release(struct pack_doc *doc)
{
    hm_ids_release(&doc->ids);
    *doc = (struct pack_doc){ 0 };
}

static void packer_release(struct packer *packer)
{
    for (size_t b = 0; b < N_BATCHES; b++) {
        struct pack_batch *batch = &packer->batch[b];
        for (size_t i = 0; batch->slot && i < BATCH_DOCS; i++)
            doc_release(&batch->slot[i].doc);
        hm_free(batch->slot);
        hm_buf_release(&batch->text);
    }
    for (size_t i = 0; i < packer->n_held; i++)
        doc_release(&packer->held[i]);
    hm_free(packer->held);
    for (size_t i = 0; packer->plain && i < (size_t)hm_threads(); i++)
        hm_ids_release(&packer->plain[i]);
    hm_free(packer->plain);
    hm_packed_writer_abort(&packer->train);
    hm_packed_writer_abort(&packer->valid);
}

/* Fill the batch with documents. */
static void batch_read(struct pack_batch *batch, struct hm_text_source *source)
{
    batch->n_slots = 0;
    batch->more = 1;
    hm_buf_clear(&batch->text);
    while (batch->n_slots < BATCH_DOCS && batch->text.len < BATCH_BYTES) {
        struct hm_doc doc = { 0 };
        batch->more = source->next(source->context, &doc, &batch->error);
        if (batch->more <= 0)
            return;
        struct pack_slot *slot = &batch->slot[batch->n_slots++];
        slot->offset = batch->text.len;
        slot->len = doc.text.len;
        slot->number = doc.number;
        if (hm_buf_append(&batch->text, doc.text.ptr, doc.text.len, &batch->error) < 0) {
            batch->more = batch->error.code;
            return;
        }
    }
}

static struct hm_str slot_text(const struct packer *packer, const struct pack_slot *slot)
{
    return (struct hm_str){ packer->now->text.ptr + slot->offset, slot->len };
}

static int slot_measure(const struct packer *packer, struct pack_slot *slot, struct hm_error *err)
{
    const struct hm_text_encoder *encoder = packer->encoder;
    uint64_t bytes = 0, chars = 0;

    for (size_t i = 0; i < slot->doc.ids.count; i++) {
        int32_t id = slot->doc.ids.id[i];
        uint32_t id_bytes = 0, id_chars = 0;
        if (id < 0 || (uint32_t)id >= encoder->vocab_size)
            return hm_fail(err, HM_ERR_CHECK,
                           "document %" PRIu64 ": the tokenizer gave id %" PRId32
                           ", its vocabulary has %u",
                           slot->number, id, encoder->vocab_size);
        encoder->token_size(encoder->context, id, &id_bytes, &id_chars);
        bytes += id_bytes;
        chars += id_chars;
    }
    slot->doc.excess_bytes = (int64_t)(bytes - slot->len);
    slot->doc.excess_chars = (int64_t)(chars - slot->chars);
    return HM_OK;
}

static bool slot_chosen(const struct packer *packer, const struct pack_slot *slot)
{
    return packer->options->verify > 0 && slot->number % packer->options->verify == 0;
}

static int slot_ids(const struct packer *packer, struct pack_slot *slot, struct hm_ids *plain,
                    struct hm_error *err)
{
    const struct hm_text_encoder *encoder = packer->encoder;
    struct hm_rng_key key = { packer->options->seed, DROPOUT_STREAM + slot->number };
    struct hm_str text = slot_text(packer, slot);
    struct hm_ids *ids = &slot->doc.ids;
    bool dropout = packer->options->bpe_dropout > 0 && !slot->valid;

    hm_ids_clear(ids);
    HM_TRY(dropout ? encoder->encode_dropout(encoder->context, text, packer->options->bpe_dropout,
                                             key, ids, err)
                   : encoder->encode(encoder->context, text, ids, err));
    if (!slot_chosen(packer, slot))
        return HM_OK;
    if (dropout) {
        hm_ids_clear(plain);
        HM_TRY(encoder->encode(encoder->context, text, plain, err));
        ids = plain;
    }
    return encoder->verify(encoder->context, text, ids->id, ids->count, err);
}

static void slot_encode(void *context, size_t index, int worker)
{
    const struct packer *packer = context;
    struct pack_slot *slot = &packer->now->slot[index];
    struct hm_str text = slot_text(packer, slot);
    uint64_t hash = hm_hash64(text.ptr, text.len, VALID_HASH_SEED);

    slot->valid = hm_unit_interval(hash) < packer->options->valid_fraction;
    slot->chars = hm_utf8_count(text);
    slot->status = slot_ids(packer, slot, &packer->plain[worker], &slot->error);
    if (slot->status < 0)
        hm_error_prefix(&slot->error, "document %" PRIu64, slot->number);
    else
        slot->status = slot_measure(packer, slot, &slot->error);
}

/* Take the excess off from the front; a lack goes to the first token, so that sums stay exact. */
static uint64_t size_corrected(uint32_t size, int64_t *excess)
{
    int64_t taken = *excess < (int64_t)size ? *excess : (int64_t)size;

    *excess -= taken;
    return (uint64_t)((int64_t)size - taken);
}

static int doc_write(struct packer *packer, struct packed_writer *writer,
                     const struct pack_doc *doc, struct hm_error *err)
{
    const struct hm_text_encoder *encoder = packer->encoder;
    int64_t excess_bytes = doc->excess_bytes, excess_chars = doc->excess_chars;
    bool first = true;

    if (doc->ids.count == 0)
        return HM_OK;
    if (packer->options->bos) {
        HM_TRY(hm_packed_writer_add(
            writer, &(struct packed_token){ .id = encoder->bos_id, .starts_document = true }, err));
        packer->report.tokens++;
        first = false;
    }
    for (size_t i = 0; i < doc->ids.count; i++) {
        uint32_t bytes = 0, chars = 0;
        encoder->token_size(encoder->context, doc->ids.id[i], &bytes, &chars);
        struct packed_token token = { .id = doc->ids.id[i],
                                      .starts_document = first,
                                      .utf8_bytes = size_corrected(bytes, &excess_bytes),
                                      .chars = size_corrected(chars, &excess_chars) };
        HM_TRY(hm_packed_writer_add(writer, &token, err));
        first = false;
    }
    packer->report.tokens += doc->ids.count;
    if (packer->options->eos) {
        HM_TRY(hm_packed_writer_add(writer, &(struct packed_token){ .id = encoder->eos_id }, err));
        packer->report.tokens++;
    }
    return HM_OK;
}

/* Write one document drawn from the shuffle buffer. */
static int held_draw(struct packer *packer, struct hm_error *err)
{
    struct hm_rng_key key = { packer->options->seed, SHUFFLE_STREAM };
    size_t at = (size_t)hm_rng_below(key, packer->drawn++, packer->n_held);
    struct pack_doc *doc = &packer->held[at];

    HM_TRY(doc_write(packer, &packer->train, doc, err));
    packer->held_tokens -= doc->ids.count;
    doc_release(doc);
    *doc = packer->held[--packer->n_held];
    return HM_OK;
}

/* Takes over *doc when it succeeds. */
static int held_add(struct packer *packer, struct pack_doc *doc, struct hm_error *err)
{
    uint64_t limit =
        packer->options->shuffle_buffer > 0 ? packer->options->shuffle_buffer : SHUFFLE_DEFAULT;

    while (packer->n_held > 0 &&
           (packer->n_held >= limit || packer->held_tokens + doc->ids.count > SHUFFLE_TOKENS))
        HM_TRY(held_draw(packer, err));
    if (packer->n_held == packer->held_cap) {
        size_t cap = packer->held_cap == 0 ? 64 : 2 * packer->held_cap;
        struct pack_doc *grown = hm_realloc(HM_MEM_TEXT, packer->held, cap * sizeof(*grown));
        if (!grown)
            return hm_fail_nomem(err, "for %zu documents to shuffle", cap);
        packer->held = grown;
        packer->held_cap = cap;
    }
    packer->held[packer->n_held++] = *doc;
    packer->held_tokens += doc->ids.count;
    *doc = (struct pack_doc){ 0 };
    return HM_OK;
}

static int batch_write(struct packer *packer, struct hm_error *err)
{
    for (size_t i = 0; i < packer->behind->n_slots; i++) {
        struct pack_slot *slot = &packer->behind->slot[i];
        if (slot->status < 0)
            return hm_error_pass(err, &slot->error);
        packer->report.verified += slot_chosen(packer, slot);
        packer->report.documents++;
        packer->report.bytes += slot->len;
        packer->report.chars += slot->chars;
        if (slot->valid)
            HM_TRY(doc_write(packer, &packer->valid, &slot->doc, err));
        else if (packer->options->shuffle)
            HM_TRY(held_add(packer, &slot->doc, err));
        else
            HM_TRY(doc_write(packer, &packer->train, &slot->doc, err));
    }
    return HM_OK;
}

/* Unit 0 reads on, unit 1 writes what was encoded before, the others encode. */
static void batch_unit(void *context, size_t index, int worker)
{
    struct packer *packer = context;

    if (index > 1)
        slot_encode(packer, index - 2, worker);
    else if (index == 1)
        packer->write_status = batch_write(packer, &packer->write_error);
    else if (packer->now->more > 0)
        batch_read(packer->ahead, packer->source);
}

/* A batch that is written needs its text no more: the next one to be read takes it over. */
static void batches_turn(struct packer *packer)
{
    struct pack_batch *written = packer->behind;
    struct hm_buf text = packer->now->text;

    packer->now->text = written->text;
    written->text = text;
    written->n_slots = 0;
    packer->behind = packer->now;
    packer->now = packer->ahead;
    packer->ahead = written;
}

static int source_pack(struct packer *packer, struct hm_error *err)
{
    int more = 1;

    batch_read(packer->now, packer->source);
    while (more > 0) {
        if (hm_ctl_stopped(packer->ctl))
            return hm_fail(err, HM_ERR_STOPPED, "packing stopped after %" PRIu64 " documents",
                           packer->report.documents);
        if (packer->now->more < 0)
            return hm_error_pass(err, &packer->now->error);
        hm_parallel_for(packer->now->n_slots + 2, batch_unit, packer);
        if (packer->write_status < 0)
            return hm_error_pass(err, &packer->write_error);
        hm_text_progress(packer->ctl, "pack", packer->source);
        more = packer->now->more;
        batches_turn(packer);
    }
    HM_TRY(batch_write(packer, err));
    while (packer->n_held > 0)
        HM_TRY(held_draw(packer, err));
    return HM_OK;
}

static int options_check(const struct hm_text_encoder *encoder,
                         const struct hm_pack_options *options, struct hm_error *err)
{
    if (options->bos && encoder->bos_id < 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "bos is asked for, the tokenizer has no such token; set "
                       "bos: false");
    if (options->eos && encoder->eos_id < 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "eos is asked for, the tokenizer has no such token; set "
                       "eos: false");
    if (options->bpe_dropout > 0 && !encoder->encode_dropout)
        return hm_fail(err, HM_ERR_USAGE,
                       "bpe_dropout is %g; this tokenizer is not encoded by merges of our own, so "
                       "none can be left out",
                       options->bpe_dropout);
    if (!(options->valid_fraction >= 0 && options->valid_fraction < 1))
        return hm_fail(err, HM_ERR_USAGE, "valid_fraction is %g; it must be at least 0 and below 1",
                       options->valid_fraction);
    return HM_OK;
}

/* Commit one file; without a whole window it is refused. Its remainder counts as dropped. */
static int file_finish(struct packer *packer, struct packed_writer *writer, const char *path,
                       uint64_t *ret_windows, struct hm_error *err)
{
    struct hm_packed packed = { 0 };

    if (writer->windows == 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' would hold %u tokens, less than one window of seq_len %u (%" PRIu64
                       " documents were read); give more text or a shorter seq_len",
                       path, writer->filled, writer->seq_len, packer->report.documents);
    packer->report.dropped_tokens += writer->filled;
    *ret_windows = writer->windows;
    HM_TRY(hm_packed_writer_commit(writer, err));
    if (packer->options->verify == 0)
        return HM_OK;
    HM_TRY(hm_packed_open(path, &packed, err));
    int status = hm_packed_verify(&packed, err);
    hm_packed_close(&packed);
    return status;
}

int hm_pack(struct hm_text_source *source, const struct hm_text_encoder *encoder,
            const struct hm_pack_options *options, const char *text_digest, const char *out_dir,
            const struct hm_ctl *ctl, struct hm_pack_report *ret_report, struct hm_error *err)
{
    struct packer packer = { .encoder = encoder, .options = options, .ctl = ctl, .source = source };
    char *train_path = NULL, *valid_path = NULL;
    int status = options_check(encoder, options, err);

    packer.behind = &packer.batch[0];
    packer.now = &packer.batch[1];
    packer.ahead = &packer.batch[2];
    if (status == HM_OK)
        status = hm_dir_make(out_dir, err);
    if (status == HM_OK)
        status = hm_path_join(&train_path, out_dir, "train.hmp", err);
    if (status == HM_OK)
        status = hm_path_join(&valid_path, out_dir, "valid.hmp", err);
    if (status < 0)
        goto out;
    bool room = true;
    for (size_t b = 0; b < N_BATCHES; b++) {
        packer.batch[b].slot = hm_calloc(HM_MEM_TEXT, BATCH_DOCS, sizeof(struct pack_slot));
        room = room && packer.batch[b].slot;
    }
    packer.plain = hm_calloc(HM_MEM_TEXT, (size_t)hm_threads(), sizeof(*packer.plain));
    if (!room || !packer.plain) {
        status = hm_fail_nomem(err, "for packing");
        goto out;
    }
    status = hm_packed_writer_open(train_path, options->seq_len, encoder->vocab_size,
                                   encoder->fingerprint, text_digest, &packer.train, err);
    if (status == HM_OK && options->valid_fraction > 0)
        status = hm_packed_writer_open(valid_path, options->seq_len, encoder->vocab_size,
                                       encoder->fingerprint, text_digest, &packer.valid, err);
    if (status == HM_OK)
        status = source_pack(&packer, err);
    if (status == HM_OK)
        status = file_finish(&packer, &packer.train, train_path, &packer.report.windows, err);
    if (status == HM_OK && options->valid_fraction > 0)
        status = file_finish(&packer, &packer.valid, valid_path, &packer.report.valid_windows, err);
    if (status == HM_OK)
        *ret_report = packer.report;
out:
    packer_release(&packer);
    hm_free(train_path);
    hm_free(valid_path);
    return status;
}
