/* SPDX-License-Identifier: MIT */
/*
 * The rules that encode: whether a new piece can be formed at all, whether it is, whether old ones
 * still are, and whether every piece's text comes back from its ids. One function a rule, each over
 * all pieces.
 */
#include <inttypes.h>
#include <string.h>

#include "lint_internal.h"

struct encoding {
    struct lint_run *run;
    struct hm_ids ids;
    struct hm_buf text, back;
};

static int rule_character(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;

    for (size_t i = run->old_model->count; i < new->count; i++) {
        struct hm_str text = new->piece[i].text;
        uint32_t code;
        if (new->piece[i].type != HM_PIECE_NORMAL)
            continue; /* told by the rule of types: no merge makes it */
        for (size_t at = 0; at < text.len;) {
            unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
            struct hm_str character = { text.ptr + at, len };
            at += len;
            if (len == text.len || hm_lint_normal_id(new, character) >= 0)
                continue;
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_CHARACTER, text, (int32_t)i, err,
                               "id %zu holds '%.*s', which is no piece: SentencePiece may merge "
                               "through it, a list of merges cannot",
                               i, (int)len, character.ptr));
            break;
        }
    }
    return HM_OK;
}

static int rule_split(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;

    for (size_t i = run->old_model->count; i < new->count; i++) {
        struct hm_str text = new->piece[i].text;
        bool found = new->piece[i].type != HM_PIECE_NORMAL || hm_utf8_count(text) == 1;
        for (size_t at = 1; at < text.len && !found; at++)
            found = ((unsigned char)text.ptr[at] & 0xc0) != 0x80 &&
                    hm_lint_normal_id(new, (struct hm_str){ text.ptr, at }) >= 0 &&
                    hm_lint_normal_id(new, (struct hm_str){ text.ptr + at, text.len - at }) >= 0;
        if (!found)
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_SPLIT, text, (int32_t)i, err,
                               "id %zu is not made of two pieces, so no merge forms it", i));
    }
    return HM_OK;
}

/* Whether a tokenizer cuts the text of piece id into that one id; a text the library refuses (it
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

/* The pieces of ids, with a space between them. */
static int pieces_text(const struct hm_spm_model *model, const struct hm_ids *ids,
                       struct hm_buf *text, struct hm_error *err)
{
    const size_t most = 12;

    hm_buf_clear(text);
    for (size_t i = 0; i < ids->count && i < most; i++)
        HM_TRY(hm_buf_printf(text, err, "%s%.*s", i > 0 ? " " : "",
                             (int)model->piece[ids->id[i]].text.len,
                             model->piece[ids->id[i]].text.ptr));
    return ids->count > most ? hm_buf_text(text, " ...", err) : HM_OK;
}

static int rule_self(struct encoding *e, struct hm_error *err)
{
    struct lint_run *run = e->run;

    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        bool does;
        if (piece->type != HM_PIECE_NORMAL)
            continue;
        HM_TRY(encodes_to_itself(run->new_tokenizer, i, &e->ids, &does, err));
        if (does)
            continue;
        run->dead[i] = true;
        HM_TRY(pieces_text(run->new_model, &e->ids, &e->text, err));
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_SELF, piece->text, (int32_t)i, err,
                           "id %zu is never used: its own text is cut into %zu ids (%.*s)", i,
                           e->ids.count, (int)e->text.len, e->text.len ? e->text.ptr : ""));
    }
    return HM_OK;
}

static bool stands_unchanged(const struct lint_run *run, size_t id)
{
    const struct hm_piece *old = &run->old_model->piece[id];

    return old->type == HM_PIECE_NORMAL && hm_str_equal(old->text, run->new_model->piece[id].text);
}

static int rule_old(struct encoding *e, struct hm_error *err)
{
    struct lint_run *run = e->run;

    for (size_t i = 0; i < run->old_model->count && i < run->new_model->count; i++) {
        bool before = false;
        bool after = false;
        if (!stands_unchanged(run, i))
            continue;
        HM_TRY(encodes_to_itself(run->old_tokenizer, i, &e->ids, &before, err));
        if (!before)
            continue;
        HM_TRY(encodes_to_itself(run->new_tokenizer, i, &e->ids, &after, err));
        if (after)
            continue;
        HM_TRY(pieces_text(run->new_model, &e->ids, &e->text, err));
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_OLD, run->old_model->piece[i].text, (int32_t)i, err,
                           "id %zu is no longer used: new pieces take its text apart (%.*s)", i,
                           (int)e->text.len, e->text.len ? e->text.ptr : ""));
    }
    return HM_OK;
}

static int comes_back(struct encoding *e, const struct hm_tokenizer *tokenizer, struct hm_str text,
                      bool *ret_does, struct hm_error *err)
{
    hm_ids_clear(&e->ids);
    hm_buf_clear(&e->back);
    *ret_does = false;
    int status = hm_tokenizer_encode(tokenizer, text, &e->ids, err);
    if (status == HM_OK)
        status = hm_tokenizer_decode(tokenizer, e->ids.id, e->ids.count, &e->back, err);
    if (status < 0)
        return status == HM_ERR_FORMAT ? HM_OK : status;
    *ret_does = hm_str_equal(text, (struct hm_str){ e->back.ptr, e->back.len });
    return HM_OK;
}

/* A piece as text: spaces for U+2581. */
static int surface(struct encoding *e, struct hm_str piece, struct hm_str *ret_text,
                   struct hm_error *err)
{
    const size_t space = strlen(HM_SPM_SPACE);

    hm_buf_clear(&e->text);
    for (size_t at = 0; at < piece.len;) {
        bool is_space = piece.len - at >= space && memcmp(piece.ptr + at, HM_SPM_SPACE, space) == 0;
        HM_TRY(hm_buf_append(&e->text, is_space ? " " : piece.ptr + at, 1, err));
        at += is_space ? space : 1;
    }
    *ret_text = (struct hm_str){ e->text.ptr, e->text.len };
    return HM_OK;
}

/* Of all pieces; an old one counts when the old model brought it back. */
static int rule_round_trip(struct encoding *e, struct hm_error *err)
{
    struct lint_run *run = e->run;

    for (size_t i = 0; i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        struct hm_str text;
        bool does, did = i >= run->old_model->count;
        if (piece->type != HM_PIECE_NORMAL || (!did && !stands_unchanged(run, i)))
            continue;
        HM_TRY(surface(e, piece->text, &text, err));
        HM_TRY(comes_back(e, run->new_tokenizer, text, &does, err));
        if (!does && !did)
            HM_TRY(comes_back(e, run->old_tokenizer, text, &did, err));
        if (!does && did)
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_ROUND_TRIP, piece->text, (int32_t)i, err,
                               "the text of id %zu is not what its ids decode to", i));
    }
    return HM_OK;
}

int hm_lint_encoding(struct lint_run *run, struct hm_error *err)
{
    struct encoding e = { .run = run };

    int status = rule_character(run, err);
    if (status == HM_OK)
        status = rule_split(run, err);
    if (status == HM_OK)
        status = rule_self(&e, err);
    if (status == HM_OK)
        status = rule_old(&e, err);
    if (status == HM_OK)
        status = rule_round_trip(&e, err);
    hm_ids_release(&e.ids);
    hm_buf_release(&e.text);
    hm_buf_release(&e.back);
    return status;
}
