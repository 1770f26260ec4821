/* SPDX-License-Identifier: MIT */
/*
 * The lint of a grown vocabulary: one function per rule, each over all pieces. What it proves: if
 * old pieces are unchanged and every new piece holds a Han character, no concatenation inside text
 * without one can be a new piece, so such text is cut exactly as before.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/vocab_check.h"

struct lint_run {
    const struct hm_spm_model *old_model, *new_model;
    const struct hm_tokenizer *new_tokenizer;
    struct hm_lints lints;
};

static int add(struct lint_run *run, struct hm_str piece, const char *rule, struct hm_error *err,
               const char *format, ...) __attribute__((format(printf, 5, 6)));

static int add(struct lint_run *run, struct hm_str piece, const char *rule, struct hm_error *err,
               const char *format, ...)
{
    struct hm_lints *lints = &run->lints;
    char text[HM_ERROR_TEXT_BYTES];
    va_list args;

    if (lints->count == lints->cap) {
        size_t cap = lints->cap ? 2 * lints->cap : 16;
        struct hm_lint *item = hm_realloc(HM_MEM_VOCAB, lints->item, cap * sizeof(*item));
        if (!item)
            return hm_fail_nomem(err, "for %zu findings", cap);
        lints->item = item;
        lints->cap = cap;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    struct hm_lint lint = { hm_strndup(HM_MEM_VOCAB, piece.ptr, piece.len), rule,
                            hm_strdup(HM_MEM_VOCAB, text) };
    if (!lint.piece || !lint.detail) {
        hm_free(lint.piece);
        hm_free(lint.detail);
        return hm_fail_nomem(err, "for a finding");
    }
    lints->item[lints->count++] = lint;
    return HM_OK;
}

static int rule_prefix(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *old = run->old_model;
    const struct hm_spm_model *new = run->new_model;

    if (new->count < old->count)
        HM_TRY(add(run, hm_str_of(""), "prefix", err,
                   "the new vocabulary has %zu pieces, the old one %zu: start from the old model "
                   "and append",
                   new->count, old->count));
    for (size_t i = 0; i < old->count && i < new->count; i++) {
        const struct hm_piece *a = &old->piece[i];
        const struct hm_piece *b = &new->piece[i];
        if (!hm_str_equal(a->text, b->text))
            HM_TRY(add(run, a->text, "prefix", err,
                       "id %zu is '%.*s' in the new vocabulary: its embedding row would stand for "
                       "another piece; append new pieces at the end",
                       i, (int)(b->text.len < 100 ? b->text.len : 100), b->text.ptr));
        else if (a->score != b->score || a->type != b->type)
            HM_TRY(add(run, a->text, "prefix", err,
                       "score or type of id %zu changed (score %g to %g, type %d to %d): keep the "
                       "old record",
                       i, (double)a->score, (double)b->score, (int)a->type, (int)b->type));
    }
    return HM_OK;
}

static int rule_settings(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *a = run->old_model;
    const struct hm_spm_model *b = run->new_model;
    const char *what = NULL;

    if (a->kind != b->kind)
        what = "the kind of model";
    else if (a->byte_fallback != b->byte_fallback)
        what = "byte fallback";
    else if (a->add_dummy_prefix != b->add_dummy_prefix)
        what = "the dummy prefix";
    else if (a->remove_extra_whitespaces != b->remove_extra_whitespaces ||
             a->escape_whitespaces != b->escape_whitespaces ||
             a->whitespace_as_suffix != b->whitespace_as_suffix)
        what = "the treatment of spaces";
    else if (a->has_charsmap != b->has_charsmap || a->has_denormalizer != b->has_denormalizer)
        what = "the normaliser";
    if (!what)
        return HM_OK;
    return add(run, hm_str_of(""), "settings", err,
               "%s changed, so all text is cut differently: keep the old model's trainer and "
               "normaliser settings",
               what);
}

static int rule_type(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        if (piece->type == HM_PIECE_NORMAL)
            continue;
        HM_TRY(add(run, piece->text, "type", err,
                   "id %zu has type %d: %s; make it a normal piece (type 1)", i, (int)piece->type,
                   piece->type == HM_PIECE_USER
                       ? "user-defined pieces are cut out of text before any merge"
                       : "only normal pieces stand for text"));
    }
    return HM_OK;
}

static bool holds(struct hm_str text, bool (*is)(uint32_t code))
{
    uint32_t code;

    for (size_t at = 0; at < text.len;) {
        at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (is(code))
            return true;
    }
    return false;
}

static bool is_space(uint32_t code)
{
    return code == HM_SPM_SPACE_CODE;
}

static int rule_space(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        if (holds(text, is_space))
            HM_TRY(add(run, text, "space", err,
                       "id %zu holds U+2581: it is reached at the start of a text or after a space "
                       "only; learn pieces from runs without spaces",
                       i));
    }
    return HM_OK;
}

static int rule_han(struct lint_run *run, bool *ret_every, struct hm_error *err)
{
    bool every = true;

    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        if (holds(text, hm_is_ideograph))
            continue;
        every = false;
        HM_TRY(add(run, text, "han", err,
                   "id %zu holds no Han character: text without Chinese may be cut differently; "
                   "drop it (vocab.merge does)",
                   i));
    }
    *ret_every = every;
    return HM_OK;
}

static bool is_normal(const struct hm_spm_model *model, struct hm_str text)
{
    int32_t id = hm_spm_model_find(model, text);

    return id >= 0 && model->piece[id].type == HM_PIECE_NORMAL;
}

static int rule_split(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        bool found = hm_utf8_count(text) == 1;
        for (size_t at = 1; at < text.len && !found; at++)
            found = ((unsigned char)text.ptr[at] & 0xc0) != 0x80 &&
                    is_normal(run->new_model, (struct hm_str){ text.ptr, at }) &&
                    is_normal(run->new_model, (struct hm_str){ text.ptr + at, text.len - at });
        if (!found)
            HM_TRY(add(run, text, "split", err,
                       "id %zu is not made of two pieces, so no merge forms it: drop it, or add "
                       "its halves",
                       i));
    }
    return HM_OK;
}

/* Whether the tokenizer cuts the text of piece id into that one id; a text the library refuses (it
 * holds a character that is a control piece) it does not. */
static int encodes_to_itself(const struct hm_tokenizer *tokenizer, size_t id, struct hm_ids *ids,
                             bool *ret_does, struct hm_error *err)
{
    hm_ids_clear(ids);
    int status = hm_tokenizer_encode_bare(tokenizer, tokenizer->model.piece[id].text, ids, err);
    if (status < 0 && status != HM_ERR_FORMAT)
        return status;
    *ret_does = ids->count == 1 && ids->id[0] == (int32_t)id;
    return HM_OK;
}

static int rule_self(struct lint_run *run, struct hm_ids *ids, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        bool does;
        if (piece->type != HM_PIECE_NORMAL)
            continue; /* told by the rule of types */
        HM_TRY(encodes_to_itself(run->new_tokenizer, i, ids, &does, err));
        if (!does)
            HM_TRY(add(run, piece->text, "self", err,
                       "id %zu is never used: its own text is cut into %zu ids, the first %" PRId32
                       "; drop it, or rank scores in merge order",
                       i, ids->count, ids->count > 0 ? ids->id[0] : -1));
    }
    return HM_OK;
}

static int rule_old(struct lint_run *run, struct hm_ids *ids, struct hm_error *err)
{
    const struct hm_spm_model *old = run->old_model;
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_str bytes = { old->bytes.ptr, old->bytes.len };
    int status = hm_tokenizer_open_bytes(bytes, old->path ? old->path : "old", &tokenizer, err);

    for (size_t i = 0; status == HM_OK && i < old->count && i < run->new_model->count; i++) {
        bool before = false;
        bool after = false;
        if (old->piece[i].type != HM_PIECE_NORMAL ||
            !hm_str_equal(old->piece[i].text, run->new_model->piece[i].text))
            continue;
        status = encodes_to_itself(tokenizer, i, ids, &before, err);
        if (status == HM_OK && before)
            status = encodes_to_itself(run->new_tokenizer, i, ids, &after, err);
        if (status == HM_OK && before && !after)
            status = add(run, old->piece[i].text, "old", err,
                         "id %zu is no longer used: new pieces take its text apart; give new "
                         "pieces scores below all old ones",
                         i);
    }
    hm_tokenizer_free(tokenizer);
    return status;
}

static int rule_order(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;
    size_t first = run->old_model->count;
    float lowest = INFINITY;
    size_t above = 0;
    size_t rising = 0;

    for (size_t i = 0; i < first && i < new->count; i++)
        if (new->piece[i].type == HM_PIECE_NORMAL &&new->piece[i].score > HM_SPM_WHITESPACE_SCORE)
            lowest = fminf(lowest, new->piece[i].score);
    for (size_t i = first; i < new->count; i++) {
        above += new->piece[i].score >= lowest;
        rising += i > first && new->piece[i].score >= new->piece[i - 1].score;
    }
    if (above > 0)
        HM_TRY(add(run, hm_str_of(""), "order", err,
                   "%zu new pieces score no lower than the old merges (lowest %g): they are formed "
                   "first; use ranked scores",
                   above, (double)lowest));
    if (rising > 0)
        HM_TRY(add(run, hm_str_of(""), "order", err,
                   "%zu new pieces score no lower than the piece before them: loaders that order "
                   "merges by id or by score will disagree; use ranked scores",
                   rising));
    return HM_OK;
}

int hm_vocab_lint(const struct hm_spm_model *old_model, const struct hm_tokenizer *new_tokenizer,
                  struct hm_lints *ret_lints, bool *ret_every_new_piece_has_han,
                  struct hm_error *err)
{
    struct lint_run run = { old_model, &new_tokenizer->model, new_tokenizer, { 0 } };
    struct hm_ids ids = { 0 };
    bool every = false;

    int status = rule_prefix(&run, err);
    if (status == HM_OK)
        status = rule_settings(&run, err);
    if (status == HM_OK)
        status = rule_type(&run, err);
    if (status == HM_OK)
        status = rule_space(&run, err);
    if (status == HM_OK)
        status = rule_han(&run, &every, err);
    if (status == HM_OK)
        status = rule_split(&run, err);
    if (status == HM_OK)
        status = rule_self(&run, &ids, err);
    if (status == HM_OK)
        status = rule_old(&run, &ids, err);
    if (status == HM_OK)
        status = rule_order(&run, err);
    hm_ids_release(&ids);
    if (status < 0) {
        hm_lints_release(&run.lints);
        return status;
    }
    *ret_lints = run.lints;
    *ret_every_new_piece_has_han = every;
    return HM_OK;
}

void hm_lints_release(struct hm_lints *lints)
{
    for (size_t i = 0; i < lints->count; i++) {
        hm_free(lints->item[i].piece);
        hm_free(lints->item[i].detail);
    }
    hm_free(lints->item);
    *lints = (struct hm_lints){ 0 };
}
