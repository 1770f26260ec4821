/* SPDX-License-Identifier: MIT */
/*
 * Text through an old and a new tokenizer, line by line. Units of lines (line_batch.h) are checked
 * in parallel and joined in the order of the text, so the result is the same for any number of
 * threads.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/vocab_check.h"

#include "line_batch.h"

#define KEPT_TEXT_BYTES 400u

struct check_unit { /* what was found in a unit of lines */
    uint64_t document;
    uint64_t lines, han_lines, differing, verified;
    struct hm_differing_line *first; /* owned; at most HM_CHECK_FIRST_LINES */
    size_t n_first;
    int status;
    struct hm_error error;
};

struct line_check {
    const struct hm_tokenizer *old_tokenizer, *new_tokenizer;
    uint64_t verify; /* one document in so many; 0 none */
    struct hm_line_batch batch;
    struct check_unit *unit; /* of the batch */
    size_t cap_units;
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

static bool is_verified(const struct line_check *lines, uint64_t document)
{
    return lines->verify > 0 && document % lines->verify == 0;
}

static int verify_line(const struct line_check *lines, struct check_unit *unit, uint64_t number,
                       struct hm_str line, const struct hm_ids *ids)
{
    int status =
        hm_tokenizer_verify(lines->old_tokenizer, line, ids[0].id, ids[0].count, &unit->error);
    bool old = status < 0;

    if (status == HM_OK)
        status =
            hm_tokenizer_verify(lines->new_tokenizer, line, ids[1].id, ids[1].count, &unit->error);
    if (status < 0)
        hm_error_prefix(&unit->error, "document %" PRIu64 ", line %" PRIu64 ", the %s tokenizer",
                        unit->document, number, old ? "old" : "new");
    return status;
}

/* Lines with Han are encoded only to be verified. */
static int check_line(const struct line_check *lines, struct check_unit *unit, uint64_t number,
                      struct hm_str line, struct hm_ids *ids)
{
    bool verified = is_verified(lines, unit->document);
    bool han = has_han(line);
    size_t at = 0;

    unit->lines++;
    unit->han_lines += han;
    if (han && !verified)
        return HM_OK;
    hm_ids_clear(&ids[0]);
    hm_ids_clear(&ids[1]);
    HM_TRY(hm_tokenizer_encode(lines->old_tokenizer, line, &ids[0], &unit->error));
    HM_TRY(hm_tokenizer_encode(lines->new_tokenizer, line, &ids[1], &unit->error));
    if (verified)
        HM_TRY(verify_line(lines, unit, number, line, ids));
    if (han)
        return HM_OK;
    while (at < ids[0].count && at < ids[1].count && ids[0].id[at] == ids[1].id[at])
        at++;
    if (at == ids[0].count && at == ids[1].count)
        return HM_OK;
    unit->differing++;
    return keep_line(unit, number, line, &ids[0], &ids[1], at);
}

static void check_unit_lines(void *context, size_t index, int worker)
{
    struct line_check *lines = context;
    const struct hm_line_unit *span = &lines->batch.now.unit[index];
    struct check_unit *unit = &lines->unit[index];
    uint64_t number = span->first_line;

    unit->document = span->document;
    unit->verified = span->first_line == 0 && is_verified(lines, span->document);
    for (size_t at = span->begin; at < span->end && unit->status == HM_OK; number++) {
        struct hm_str line = hm_line_next(&lines->batch, span, &at);
        if (line.len > 0)
            unit->status = check_line(lines, unit, number, line, &lines->ids[2 * worker]);
    }
}

static int units_reserve(struct line_check *lines, struct hm_error *err)
{
    if (lines->batch.now.n_units > lines->cap_units) {
        struct check_unit *grown = hm_realloc(HM_MEM_VOCAB, lines->unit,
                                              lines->batch.now.cap_units * sizeof(*lines->unit));
        if (!grown)
            return hm_fail_nomem(err, "for a batch of text");
        lines->unit = grown;
        lines->cap_units = lines->batch.now.cap_units;
    }
    for (size_t i = 0; i < lines->batch.now.n_units; i++)
        lines->unit[i] = (struct check_unit){ 0 };
    return HM_OK;
}

/* Take the counts and first lines of every unit over, in order; the first failure wins. */
static int join(struct line_check *lines, struct hm_line_check *check, struct hm_error *err)
{
    int status = HM_OK;

    for (size_t i = 0; i < lines->batch.now.n_units; i++) {
        struct check_unit *unit = &lines->unit[i];
        if (status == HM_OK && unit->status < 0)
            status = hm_error_pass(err, &unit->error);
        check->lines += unit->lines;
        check->han_lines += unit->han_lines;
        check->differing += unit->differing;
        check->verified += unit->verified;
        for (size_t k = 0; k < unit->n_first; k++) {
            if (check->n_first < HM_CHECK_FIRST_LINES)
                check->first[check->n_first++] = unit->first[k];
            else
                hm_free(unit->first[k].text);
        }
        hm_free(unit->first);
    }
    return status;
}

static int check_batches(struct hm_text_source *source, struct line_check *lines,
                         const struct hm_ctl *ctl, struct hm_line_check *check,
                         struct hm_error *err)
{
    bool more = true;

    while (more) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "the check stopped after %" PRIu64 " documents",
                           check->documents);
        HM_TRY(hm_line_batch_gather(source, &lines->batch, &more, err));
        check->documents = lines->batch.documents;
        HM_TRY(units_reserve(lines, err));
        hm_line_batch_for(source, &lines->batch, check_unit_lines, lines);
        HM_TRY(join(lines, check, err));
        hm_text_progress(ctl, "check lines", source);
    }
    return HM_OK;
}

int hm_vocab_check_lines(struct hm_text_source *source, const struct hm_tokenizer *old_tokenizer,
                         const struct hm_tokenizer *new_tokenizer, uint64_t verify,
                         const struct hm_ctl *ctl, struct hm_line_check *ret_check,
                         struct hm_error *err)
{
    struct line_check lines = { .old_tokenizer = old_tokenizer,
                                .new_tokenizer = new_tokenizer,
                                .verify = verify };
    struct hm_line_check check = { 0 };
    size_t workers = (size_t)hm_threads();
    int status;

    check.first = hm_calloc(HM_MEM_VOCAB, HM_CHECK_FIRST_LINES, sizeof(*check.first));
    lines.ids = hm_calloc(HM_MEM_VOCAB, 2 * workers, sizeof(*lines.ids));
    if (check.first && lines.ids)
        status = check_batches(source, &lines, ctl, &check, err);
    else
        status = hm_fail_nomem(err, "for a check of lines");
    for (size_t i = 0; lines.ids && i < 2 * workers; i++)
        hm_ids_release(&lines.ids[i]);
    hm_free(lines.ids);
    hm_free(lines.unit);
    hm_line_batch_release(&lines.batch);
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
