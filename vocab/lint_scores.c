/* SPDX-License-Identifier: MIT */
/*
 * The rules about scores, which are the order of merges: new pieces that come before old merges
 * they overlap, scores that are no order at all, and pieces that come before their own halves. One
 * function a rule, each over all pieces.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lint_internal.h"

struct ordered { /* a merged piece in an order of texts or scores: qsort has no context argument */
    struct hm_str text;
    float score;
    int32_t id;
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static int by_begin(const void *left, const void *right)
{
    const struct hm_str a = ((const struct ordered *)left)->text;
    const struct hm_str b = ((const struct ordered *)right)->text;
    int order = memcmp(a.ptr, b.ptr, least(a.len, b.len));

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

/* Bytes from the last to the first. */
static int by_end(const void *left, const void *right)
{
    const struct hm_str a = ((const struct ordered *)left)->text;
    const struct hm_str b = ((const struct ordered *)right)->text;

    for (size_t i = 1; i <= a.len && i <= b.len; i++) {
        unsigned char x = (unsigned char)a.ptr[a.len - i];
        unsigned char y = (unsigned char)b.ptr[b.len - i];
        if (x != y)
            return x < y ? -1 : 1;
    }
    return (a.len > b.len) - (a.len < b.len);
}

static int by_score(const void *left, const void *right)
{
    const struct ordered *a = left;
    const struct ordered *b = right;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Normal pieces of several characters with ids from..end. */
static int merged_pieces(const struct hm_spm_model *model, size_t from, size_t end,
                         struct ordered **ret_list, size_t *ret_n, struct hm_error *err)
{
    struct ordered *list = hm_alloc_array(HM_MEM_VOCAB, end - from, sizeof(*list));
    size_t n = 0;

    if (!list)
        return hm_fail_nomem(err, "for %zu pieces", end - from);
    for (size_t i = from; i < end; i++) {
        const struct hm_piece *piece = &model->piece[i];
        if (piece->type == HM_PIECE_NORMAL && hm_utf8_count(piece->text) > 1)
            list[n++] = (struct ordered){ piece->text, piece->score, (int32_t)i };
    }
    *ret_list = list;
    *ret_n = n;
    return HM_OK;
}

typedef int order_of(const void *left, const void *right);

/* Note in first[id] each old piece that goes on behind (or before) `part` of a new one and scores
 * no higher. */
static void shadow_mark(const struct ordered *old, size_t n, order_of *order, struct hm_str part,
                        const struct hm_piece *new_piece, int32_t new_id, int32_t *first)
{
    struct ordered key = { part, 0, 0 };
    size_t low = 0;
    size_t high = n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (order(&old[middle], &key) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < n && old[low].text.len > part.len; low++) {
        struct hm_str text = old[low].text;
        const char *side = order == by_begin ? text.ptr : text.ptr + text.len - part.len;
        if (memcmp(side, part.ptr, part.len) != 0)
            break;
        if (new_piece->score >= old[low].score && first[old[low].id] < 0)
            first[old[low].id] = new_id;
    }
}

static int shadow_tell(struct lint_run *run, const int32_t *first, struct hm_error *err)
{
    for (size_t i = 0; i < run->old_model->count; i++) {
        if (first[i] < 0)
            continue;
        struct hm_str by = run->new_model->piece[first[i]].text;
        HM_TRY(
            hm_lint_add(&run->lints, HM_LINT_SHADOW, run->old_model->piece[i].text, (int32_t)i, err,
                        "id %zu: the new piece '%.*s' (id %" PRId32 ") is formed before it where "
                        "the two overlap",
                        i, (int)least(by.len, 100), by.ptr, first[i]));
    }
    return HM_OK;
}

static void shadow_sides(const struct lint_run *run, struct ordered *old, size_t n, order_of *order,
                         int32_t *first)
{
    const struct hm_spm_model *new = run->new_model;

    qsort(old, n, sizeof(*old), order);
    for (size_t i = run->old_model->count; i < new->count; i++) {
        struct hm_str text = new->piece[i].text;
        if (new->piece[i].type != HM_PIECE_NORMAL || run->dead[i])
            continue;
        for (size_t at = 1; at < text.len; at++) {
            struct hm_str begin = { text.ptr, at };
            struct hm_str end = { text.ptr + at, text.len - at };
            if (((unsigned char)text.ptr[at] & 0xc0) != 0x80)
                shadow_mark(old, n, order, order == by_begin ? end : begin, &new->piece[i],
                            (int32_t)i, first);
        }
    }
}

static int rule_shadow(struct lint_run *run, struct hm_error *err)
{
    size_t count = run->old_model->count;
    size_t n = 0;
    struct ordered *old = NULL;
    int32_t *first = NULL;

    int status = merged_pieces(run->old_model, 0, count, &old, &n, err);
    if (status == HM_OK) {
        first = hm_alloc_array(HM_MEM_VOCAB, count, sizeof(*first));
        if (!first)
            status = hm_fail_nomem(err, "for %zu pieces", count);
    }
    if (status == HM_OK) {
        memset(first, 0xff, count * sizeof(*first));
        shadow_sides(run, old, n, by_begin, first);
        shadow_sides(run, old, n, by_end, first);
        status = shadow_tell(run, first, err);
    }
    hm_free(old);
    hm_free(first);
    return status;
}

static int rule_order(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;
    float lowest = hm_lint_lowest_old(run);
    size_t first = run->old_model->count;
    size_t above = 0;
    size_t rising = 0;
    size_t first_above = 0;
    size_t first_rising = 0;

    for (size_t i = first; i < new->count; i++) {
        if (new->piece[i].score >= lowest && above++ == 0)
            first_above = i;
        if (i > first && new->piece[i].score > new->piece[i - 1].score && rising++ == 0)
            first_rising = i;
    }
    if (above > 0)
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_ORDER, new->piece[first_above].text,
                           (int32_t)first_above, err,
                           "%zu new pieces from id %zu on score no lower than the old merges "
                           "(lowest %g): they are formed first",
                           above, first_above, (double)lowest));
    if (rising > 0)
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_ORDER, new->piece[first_rising].text,
                           (int32_t)first_rising, err,
                           "%zu new pieces from id %zu on score higher than the piece before them: "
                           "loaders that order merges by id or by score will disagree",
                           rising, first_rising));
    return HM_OK;
}

/* Where scores are equal the leftmost pair is merged first, or whatever a loader makes of it. */
static int rule_tie(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;
    size_t from = run->old_model->count < new->count ? run->old_model->count : new->count;
    struct ordered *list = NULL;
    size_t n = 0;

    int status = merged_pieces(new, from, new->count, &list, &n, err);
    if (status < 0)
        return status;
    qsort(list, n, sizeof(*list), by_score);
    for (size_t i = 0, end; status == HM_OK && i < n; i = end) {
        for (end = i + 1; end < n && list[end].score == list[i].score; end++)
            continue;
        if (end - i > 1)
            status =
                hm_lint_add(&run->lints, HM_LINT_TIE, list[i].text, list[i].id, err,
                            "%zu new pieces have the score %g, '%.*s' is the next: SentencePiece "
                            "merges the leftmost first, lists of merges take them in another "
                            "order",
                            end - i, (double)list[i].score, (int)least(list[i + 1].text.len, 100),
                            list[i + 1].text.ptr);
    }
    hm_free(list);
    return status;
}

/* The best there is of the lower halves' scores; characters are there from the start. */
static float score_of_halves(const struct hm_spm_model *model, struct hm_str text)
{
    float best = -INFINITY;

    for (size_t at = 1; at < text.len; at++) {
        if (((unsigned char)text.ptr[at] & 0xc0) == 0x80)
            continue;
        struct hm_str half[2] = { { text.ptr, at }, { text.ptr + at, text.len - at } };
        float lower = INFINITY;
        for (int i = 0; i < 2; i++) {
            int32_t id = hm_lint_normal_id(model, half[i]);
            if (id < 0)
                lower = -INFINITY;
            else if (hm_utf8_count(half[i]) > 1)
                lower = fminf(lower, model->piece[id].score);
        }
        best = fmaxf(best, lower);
    }
    return best;
}

static int rule_inversion(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *new = run->new_model;

    for (size_t i = run->old_model->count; i < new->count; i++) {
        const struct hm_piece *piece = &new->piece[i];
        if (piece->type != HM_PIECE_NORMAL || hm_utf8_count(piece->text) == 1)
            continue;
        float halves = score_of_halves(new, piece->text);
        if (halves > -INFINITY && piece->score > halves) /* without halves: the rule of splits */
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_INVERSION, piece->text, (int32_t)i, err,
                               "id %zu scores %g, but a half it needs only %g: it is formed later "
                               "than its score says",
                               i, (double)piece->score, (double)halves));
    }
    return HM_OK;
}

int hm_lint_scores(struct lint_run *run, struct hm_error *err)
{
    HM_TRY(rule_shadow(run, err));
    HM_TRY(rule_order(run, err));
    HM_TRY(rule_tie(run, err));
    return rule_inversion(run, err);
}
