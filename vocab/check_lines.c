/* SPDX-License-Identifier: MIT */
/*
 * Text through an old and a new tokenizer, line by line. Documents are gathered into batches of a
 * few MiB and cut at line ends into units of fixed size; units are checked in parallel and joined
 * in the order of the text, so the result is the same for any number of threads.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/vocab_check.h"

#define BATCH_BYTES     (4u << 20)
#define UNIT_BYTES      (64u << 10)
#define KEPT_TEXT_BYTES 400u

struct check_unit {
    size_t begin, end; /* of its lines in the batch's text */
    uint64_t document, first_line;
    uint64_t lines, han_lines, differing;
    struct hm_differing_line *first; /* owned; at most HM_CHECK_FIRST_LINES */
    size_t n_first;
    int status;
    struct hm_error error;
};

struct check_batch {
    const struct hm_tokenizer *old_tokenizer, *new_tokenizer;
    struct hm_buf text;
    struct check_unit *unit;
    size_t n_units, cap_units;
    struct hm_ids *ids; /* two per worker */
};

static bool has_han(struct hm_str line)
{
    uint32_t code;

    for (size_t at = 0; at < line.len;) {
        unsigned len = hm_utf8_decode(line.ptr + at, line.len - at, &code);
        if (len >= 3 && hm_is_ideograph(code))
            return true;
        at += len ? len : 1;
    }
    return false;
}

static int keep_line(struct check_unit *unit, uint64_t number, struct hm_str line,
                     const struct hm_ids *before, const struct hm_ids *after, size_t at)
{
    size_t len = line.len < KEPT_TEXT_BYTES ? line.len : KEPT_TEXT_BYTES;

    if (unit->n_first == HM_CHECK_FIRST_LINES)
        return HM_OK;
    if (!unit->first)
        unit->first = hm_calloc(HM_MEM_VOCAB, HM_CHECK_FIRST_LINES, sizeof(*unit->first));
    while (len < line.len && len > 0 && ((unsigned char)line.ptr[len] & 0xc0) == 0x80)
        len--; /* not inside a character */
    char *text = unit->first ? hm_strndup(HM_MEM_VOCAB, line.ptr, len) : NULL;
    if (!text)
        return hm_fail_nomem(&unit->error, "for differing lines");
    unit->first[unit->n_first++] =
        (struct hm_differing_line){ unit->document, number, text, before->count, after->count, at };
    return HM_OK;
}

static int check_line(const struct check_batch *batch, struct check_unit *unit, uint64_t number,
                      struct hm_str line, struct hm_ids *ids)
{
    size_t at = 0;

    unit->lines++;
    if (has_han(line)) {
        unit->han_lines++;
        return HM_OK;
    }
    hm_ids_clear(&ids[0]);
    hm_ids_clear(&ids[1]);
    HM_TRY(hm_tokenizer_encode(batch->old_tokenizer, line, &ids[0], &unit->error));
    HM_TRY(hm_tokenizer_encode(batch->new_tokenizer, line, &ids[1], &unit->error));
    while (at < ids[0].count && at < ids[1].count && ids[0].id[at] == ids[1].id[at])
        at++;
    if (at == ids[0].count && at == ids[1].count)
        return HM_OK;
    unit->differing++;
    return keep_line(unit, number, line, &ids[0], &ids[1], at);
}

static void check_unit_lines(void *context, size_t index, int worker)
{
    struct check_batch *batch = context;
    struct check_unit *unit = &batch->unit[index];
    uint64_t number = unit->first_line;

    for (size_t at = unit->begin; at < unit->end && unit->status == HM_OK; number++) {
        const char *from = batch->text.ptr + at;
        const char *end = memchr(from, '\n', unit->end - at);
        size_t len = end ? (size_t)(end - from) : unit->end - at;
        if (len > 0)
            unit->status = check_line(batch, unit, number, (struct hm_str){ from, len },
                                      &batch->ids[2 * worker]);
        at += len + 1;
    }
}

static int add_unit(struct check_batch *batch, struct check_unit unit, struct hm_error *err)
{
    if (batch->n_units == batch->cap_units) {
        size_t cap = batch->cap_units ? 2 * batch->cap_units : 64;
        struct check_unit *grown =
            hm_realloc(HM_MEM_VOCAB, batch->unit, cap * sizeof(*batch->unit));
        if (!grown)
            return hm_fail_nomem(err, "for a batch of text");
        batch->unit = grown;
        batch->cap_units = cap;
    }
    batch->unit[batch->n_units++] = unit;
    return HM_OK;
}

/* Copy a document into the batch and cut it into units at line ends. */
static int add_document(struct check_batch *batch, const struct hm_doc *doc, struct hm_error *err)
{
    size_t begin = batch->text.len;
    size_t end = begin + doc->text.len;
    uint64_t line = 0;

    HM_TRY(hm_buf_append(&batch->text, doc->text.ptr, doc->text.len, err));
    for (size_t at = begin; at < end;) {
        struct check_unit unit = { .begin = at, .document = doc->number, .first_line = line };
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

/* Fill the batch; *ret_more is false when the source has ended. */
static int gather(struct hm_text_source *source, struct check_batch *batch,
                  struct hm_line_check *check, bool *ret_more, struct hm_error *err)
{
    hm_buf_clear(&batch->text);
    batch->n_units = 0;
    *ret_more = true;
    while (batch->text.len < BATCH_BYTES) {
        struct hm_doc doc;
        int got = source->next(source->context, &doc, err);
        if (got < 0)
            return got;
        if (got == 0) {
            *ret_more = false;
            return HM_OK;
        }
        check->documents++;
        HM_TRY(add_document(batch, &doc, err));
    }
    return HM_OK;
}

/* Take the counts and first lines of every unit over, in order; the first failure wins. */
static int join(struct check_batch *batch, struct hm_line_check *check, struct hm_error *err)
{
    int status = HM_OK;

    for (size_t i = 0; i < batch->n_units; i++) {
        struct check_unit *unit = &batch->unit[i];
        if (status == HM_OK && unit->status < 0)
            status = hm_error_pass(err, &unit->error);
        check->lines += unit->lines;
        check->han_lines += unit->han_lines;
        check->differing += unit->differing;
        for (size_t k = 0; k < unit->n_first; k++) {
            if (check->n_first < HM_CHECK_FIRST_LINES)
                check->first[check->n_first++] = unit->first[k];
            else
                hm_free(unit->first[k].text);
        }
        hm_free(unit->first);
    }
    batch->n_units = 0;
    return status;
}

static int check_batches(struct hm_text_source *source, struct check_batch *batch,
                         const struct hm_ctl *ctl, struct hm_line_check *check,
                         struct hm_error *err)
{
    bool more = true;

    while (more) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "the check stopped after %" PRIu64 " documents",
                           check->documents);
        HM_TRY(gather(source, batch, check, &more, err));
        hm_parallel_for(batch->n_units, check_unit_lines, batch);
        HM_TRY(join(batch, check, err));
        hm_text_progress(ctl, "check lines", source);
    }
    return HM_OK;
}

int hm_vocab_check_lines(struct hm_text_source *source, const struct hm_tokenizer *old_tokenizer,
                         const struct hm_tokenizer *new_tokenizer, const struct hm_ctl *ctl,
                         struct hm_line_check *ret_check, struct hm_error *err)
{
    struct check_batch batch = { .old_tokenizer = old_tokenizer, .new_tokenizer = new_tokenizer };
    struct hm_line_check check = { 0 };
    size_t workers = (size_t)hm_threads();
    int status;

    check.first = hm_calloc(HM_MEM_VOCAB, HM_CHECK_FIRST_LINES, sizeof(*check.first));
    batch.ids = hm_calloc(HM_MEM_VOCAB, 2 * workers, sizeof(*batch.ids));
    if (check.first && batch.ids)
        status = check_batches(source, &batch, ctl, &check, err);
    else
        status = hm_fail_nomem(err, "for a check of lines");
    for (size_t i = 0; batch.ids && i < 2 * workers; i++)
        hm_ids_release(&batch.ids[i]);
    hm_free(batch.ids);
    hm_free(batch.unit);
    hm_buf_release(&batch.text);
    if (status < 0) {
        hm_line_check_release(&check);
        return status;
    }
    *ret_check = check;
    return HM_OK;
}

void hm_line_check_release(struct hm_line_check *check)
{
    for (size_t i = 0; i < check->n_first; i++)
        hm_free(check->first[i].text);
    hm_free(check->first);
    *check = (struct hm_line_check){ 0 };
}
