/* SPDX-License-Identifier: MIT */
/*
 * Gathering documents and cutting them at line ends; see line_batch.h.
 */
#include "line_batch.h"

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"

#define BATCH_BYTES (2u << 20) /* two of them are held */
#define UNIT_BYTES  (64u << 10)

static int add_unit(struct hm_line_text *batch, struct hm_line_unit unit, struct hm_error *err)
{
    if (batch->n_units == batch->cap_units) {
        size_t cap = batch->cap_units ? 2 * batch->cap_units : 64;
        struct hm_line_unit *grown =
            hm_realloc(HM_MEM_VOCAB, batch->unit, cap * sizeof(*batch->unit));
        if (!grown)
            return hm_fail_nomem(err, "for a batch of text");
        batch->unit = grown;
        batch->cap_units = cap;
    }
    batch->unit[batch->n_units++] = unit;
    return HM_OK;
}

static int add_document(struct hm_line_text *batch, const struct hm_doc *doc, struct hm_error *err)
{
    size_t begin = batch->text.len;
    size_t end = begin + doc->text.len;
    uint64_t line = 0;

    HM_TRY(hm_buf_append(&batch->text, doc->text.ptr, doc->text.len, err));
    for (size_t at = begin; at < end;) {
        struct hm_line_unit unit = { .begin = at, .document = doc->number, .first_line = line };
        while (at < end && at - unit.begin < UNIT_BYTES) {
            const char *from = batch->text.ptr + at;
            const char *found = memchr(from, '\n', end - at);
            at = found ? at + (size_t)(found - from) + 1 : end;
            line++;
        }
        unit.end = at;
        HM_TRY(add_unit(batch, unit, err));
    }
    return HM_OK;
}

static int text_gather(struct hm_text_source *source, struct hm_line_text *batch,
                       struct hm_error *err)
{
    hm_buf_clear(&batch->text);
    batch->n_units = 0;
    batch->documents = 0;
    batch->more = true;
    while (batch->text.len < BATCH_BYTES) {
        struct hm_doc doc;
        int got = source->next(source->context, &doc, err);
        if (got < 0)
            return got;
        if (got == 0) {
            batch->more = false;
            return HM_OK;
        }
        batch->documents++;
        HM_TRY(add_document(batch, &doc, err));
    }
    return HM_OK;
}

int hm_line_batch_gather(struct hm_text_source *source, struct hm_line_batch *batch, bool *ret_more,
                         struct hm_error *err)
{
    struct hm_line_text *ahead = &batch->ahead, last = batch->now;

    if (!ahead->is_read)
        ahead->status = text_gather(source, ahead, &ahead->err);
    if (ahead->status < 0)
        return hm_error_pass(err, &ahead->err);
    batch->documents += ahead->documents;
    *ret_more = ahead->more;
    batch->now = *ahead;
    last.is_read = false;
    batch->ahead = last;
    return HM_OK;
}

struct beside { /* unit 0 reads on */
    struct hm_text_source *source;
    struct hm_line_batch *batch;
    void (*unit)(void *context, size_t index, int worker);
    void *context;
};

static void beside_unit(void *context, size_t index, int worker)
{
    struct beside *beside = context;
    struct hm_line_text *ahead = &beside->batch->ahead;

    if (index > 0) {
        beside->unit(beside->context, index - 1, worker);
        return;
    }
    ahead->is_read = beside->batch->now.more;
    if (ahead->is_read)
        ahead->status = text_gather(beside->source, ahead, &ahead->err);
}

void hm_line_batch_for(struct hm_text_source *source, struct hm_line_batch *batch,
                       void (*unit)(void *context, size_t index, int worker), void *context)
{
    struct beside beside = { source, batch, unit, context };

    hm_parallel_for(batch->now.n_units + 1, beside_unit, &beside);
}

void hm_line_batch_release(struct hm_line_batch *batch)
{
    hm_buf_release(&batch->now.text);
    hm_buf_release(&batch->ahead.text);
    hm_free(batch->now.unit);
    hm_free(batch->ahead.unit);
    *batch = (struct hm_line_batch){ 0 };
}
