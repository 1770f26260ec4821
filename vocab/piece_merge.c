/* SPDX-License-Identifier: MIT */
/*
 * Which learned pieces join a base vocabulary, in which order and with which scores.
 *
 * A piece is kept when it is Han throughout with an ideograph among it (so text without Han cannot
 * see it), new to the base, and reachable: BPE forms a piece from two neighbours that are pieces,
 * and in the end the piece must encode to itself. Scores descend by one from below the base's
 * merges, so all of those keep their order and come first. With score 0 and any script it is what
 * the published scripts do: all that the base has not, in its order.
 */
#include <math.h>
#include <stdlib.h>

#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/piece_merge.h"

#define DEFAULT_MAX_CHARS   16u
#define EXACT_FLOAT_INTEGER 16777216.0 /* 2^24 */

struct candidate {
    uint32_t chars;
    bool considered;    /* a normal, user-defined or unused piece */
    const char *reason; /* why it was dropped; NULL while it is kept */
};

struct ranked_id {
    float score;
    uint32_t id;
};

struct merge_work {
    const struct hm_spm_model *base, *extra;
    struct candidate *candidate; /* per id of extra */
    struct ranked_id *order;     /* ids of extra in merge order */
    struct hm_piece *added;
    size_t n_added;
    uint32_t max_chars;
    bool score_zero, any_script, han_marks;
};

static const char *script_reason(struct hm_str text, bool han_marks)
{
    bool ideograph = false;
    uint32_t code;

    for (size_t at = 0; at < text.len;) {
        at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (code == HM_SPM_SPACE_CODE)
            return "holds a space";
        if (!hm_is_han_class(code) && !(han_marks && hm_is_han_mark(code)))
            return "holds a character outside the Han script";
        ideograph |= hm_is_ideograph(code);
    }
    return ideograph ? NULL : "holds no ideograph";
}

static bool is_text(enum hm_piece_type type)
{
    return type != HM_PIECE_BYTE && type != HM_PIECE_CONTROL && type != HM_PIECE_UNKNOWN;
}

/* Why a piece is not even a candidate; NULL when it is one. */
static const char *drop_reason(const struct merge_work *work, const struct hm_piece *piece,
                               uint32_t chars)
{
    if (hm_spm_model_find(work->base, piece->text) >= 0)
        return "in the base vocabulary";
    if (work->score_zero && work->any_script)
        return NULL;
    if (piece->type != HM_PIECE_NORMAL)
        return "user-defined or unused";
    const char *script = work->any_script ? NULL : script_reason(piece->text, work->han_marks);
    if (script)
        return script;
    return chars > work->max_chars ? "longer than the limit of characters" : NULL;
}

static void filter(struct merge_work *work)
{
    bool as_published = work->score_zero && work->any_script;

    for (size_t i = 0; i < work->extra->count; i++) {
        const struct hm_piece *piece = &work->extra->piece[i];
        struct candidate *candidate = &work->candidate[i];
        candidate->considered = is_text(piece->type) ||
                                (as_published && hm_spm_model_find(work->base, piece->text) < 0);
        if (!candidate->considered)
            continue;
        candidate->chars = (uint32_t)hm_utf8_count(piece->text);
        candidate->reason = drop_reason(work, piece, candidate->chars);
    }
}

static bool is_kept(const struct merge_work *work, struct hm_str text)
{
    int32_t id = hm_spm_model_find(work->base, text);

    if (id >= 0)
        return work->base->piece[id].type == HM_PIECE_NORMAL;
    id = hm_spm_model_find(work->extra, text);
    return id >= 0 && work->candidate[id].considered && !work->candidate[id].reason;
}

static bool has_split(const struct merge_work *work, struct hm_str text)
{
    for (size_t at = 1; at < text.len; at++) {
        if (((unsigned char)text.ptr[at] & 0xc0) == 0x80)
            continue;
        if (is_kept(work, (struct hm_str){ text.ptr, at }) &&
            is_kept(work, (struct hm_str){ text.ptr + at, text.len - at }))
            return true;
    }
    return false;
}

/* Characters stand at the bottom of every split. */
static bool has_characters(const struct merge_work *work, struct hm_str text)
{
    uint32_t code;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (!is_kept(work, (struct hm_str){ text.ptr + at, len }))
            return false;
        at += len;
    }
    return true;
}

/* A piece depends on shorter ones alone, so one pass by length closes the set. */
static void close_set(struct merge_work *work)
{
    for (uint32_t chars = 2; chars <= work->max_chars; chars++)
        for (size_t i = 0; i < work->extra->count; i++) {
            struct candidate *candidate = &work->candidate[i];
            struct hm_str text = work->extra->piece[i].text;
            if (!candidate->considered || candidate->reason || candidate->chars != chars)
                continue;
            if (!has_characters(work, text))
                candidate->reason = "holds a character that is no piece";
            else if (!has_split(work, text))
                candidate->reason = "not made of two shorter pieces";
        }
}

/* The score of the first new piece: below every base merge, a whole number. */
static int first_score(const struct merge_work *work, double *ret_score, struct hm_error *err)
{
    double lowest = 0;

    for (size_t i = 0; i < work->base->count; i++) {
        const struct hm_piece *piece = &work->base->piece[i];
        if (piece->type == HM_PIECE_NORMAL && piece->score > HM_SPM_WHITESPACE_SCORE)
            lowest = fmin(lowest, (double)piece->score);
    }
    lowest = floor(lowest) - 1;
    if (lowest - (double)work->extra->count < -EXACT_FLOAT_INTEGER)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the base vocabulary's lowest score is %.0f: %zu new scores below it would "
                       "not stay distinct in float32 (at most 2^24)",
                       lowest + 1, work->extra->count);
    *ret_score = lowest;
    return HM_OK;
}

static int merge_order(const void *a, const void *b)
{
    const struct ranked_id *left = a, *right = b;

    if (left->score != right->score)
        return left->score > right->score ? -1 : 1;
    return left->id < right->id ? -1 : 1;
}

/* BPE merges by score; a trainer gives ids in that order, other tools need not. */
static void order_candidates(struct merge_work *work)
{
    for (size_t i = 0; i < work->extra->count; i++)
        work->order[i] = (struct ranked_id){ work->extra->piece[i].score, (uint32_t)i };
    if (!work->score_zero)
        qsort(work->order, work->extra->count, sizeof(*work->order), merge_order);
}

static void add_piece(struct merge_work *work, size_t id, double score)
{
    work->added[work->n_added++] =
        (struct hm_piece){ work->extra->piece[id].text, (float)score, HM_PIECE_NORMAL };
}

/* Merges in the order of extra's scores, then single characters, each one below the last; with
 * score 0 the order of extra's ids is all there is. */
static int rank(struct merge_work *work, struct hm_error *err)
{
    double score = 0;

    if (!work->score_zero)
        HM_TRY(first_score(work, &score, err));
    work->n_added = 0;
    for (int singles = 0; singles < 2; singles++)
        for (size_t i = 0; i < work->extra->count; i++) {
            size_t id = work->order[i].id;
            const struct candidate *candidate = &work->candidate[id];
            if (!candidate->considered || candidate->reason)
                continue;
            if (work->score_zero && singles == 0)
                add_piece(work, id, 0);
            else if (!work->score_zero && (candidate->chars == 1) == singles)
                add_piece(work, id, score--);
        }
    return HM_OK;
}

/* Drop what does not encode to itself in the vocabulary as it stands; *ret_dropped counts them. */
static int drop_unreachable(struct merge_work *work, struct hm_str model_bytes, size_t *ret_dropped,
                            struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    size_t dropped = 0;

    int status = hm_tokenizer_open_bytes(model_bytes, "merged vocabulary", &tokenizer, err);
    for (size_t i = 0; status == HM_OK && i < work->n_added; i++) {
        struct hm_str text = work->added[i].text;
        hm_ids_clear(&ids);
        status = hm_tokenizer_encode_bare(tokenizer, text, &ids, err);
        if (status == HM_OK && (ids.count != 1 || ids.id[0] != (int32_t)(work->base->count + i))) {
            int32_t id = hm_spm_model_find(work->extra, text);
            work->candidate[id].reason = "does not encode to itself";
            dropped++;
        }
    }
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    *ret_dropped = dropped;
    return status;
}

/* Fewer pieces may leave others without a split or change how they encode: repeat until stable. */
static int settle(struct merge_work *work, struct hm_buf *bytes, struct hm_error *err)
{
    size_t dropped = 0;

    do {
        hm_buf_release(bytes);
        if (!work->score_zero)
            close_set(work);
        HM_TRY(rank(work, err));
        HM_TRY(hm_spm_model_append(work->base, work->added, work->n_added, bytes, err));
        if (!work->score_zero)
            HM_TRY(
                drop_unreachable(work, (struct hm_str){ bytes->ptr, bytes->len }, &dropped, err));
    } while (dropped > 0);
    return HM_OK;
}

static int collect_dropped(const struct merge_work *work, struct hm_merge_result *result,
                           struct hm_error *err)
{
    size_t n = 0;

    for (size_t i = 0; i < work->extra->count; i++)
        n += work->candidate[i].reason != NULL;
    result->dropped = hm_calloc(HM_MEM_VOCAB, n, sizeof(*result->dropped));
    if (!result->dropped)
        return hm_fail_nomem(err, "for %zu dropped pieces", n);
    for (size_t i = 0; i < work->extra->count; i++) {
        struct hm_str text = work->extra->piece[i].text;
        if (!work->candidate[i].reason)
            continue;
        struct hm_dropped_piece *dropped = &result->dropped[result->n_dropped++];
        dropped->reason = work->candidate[i].reason;
        dropped->piece = hm_strndup(HM_MEM_VOCAB, text.ptr, text.len);
        if (!dropped->piece)
            return hm_fail_nomem(err, "for %zu dropped pieces", n);
    }
    return HM_OK;
}

/* The result keeps the merged model, from which it borrows its pieces. */
static int collect_added(const struct merge_work *work, struct hm_merge_result *result,
                         struct hm_error *err)
{
    struct hm_str bytes = { result->model_bytes.ptr, result->model_bytes.len };
    struct hm_spm_model *model = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*model));

    result->storage = model;
    if (!model)
        return hm_fail_nomem(err, "for a merged vocabulary");
    HM_TRY(hm_spm_model_parse(bytes, "merged vocabulary", model, err));
    result->added = model->piece + work->base->count;
    result->n_added = work->n_added;
    return HM_OK;
}

int hm_piece_merge(const struct hm_spm_model *base, const struct hm_spm_model *extra,
                   const struct hm_merge_options *options, struct hm_merge_result *ret_result,
                   struct hm_error *err)
{
    struct hm_merge_result result = { 0 };
    struct merge_work work = { .base = base, .extra = extra };
    int status;

    if (base->kind != HM_SPM_BPE)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' is no BPE vocabulary: scores of new pieces would change how it cuts "
                       "text; take a BPE model as base",
                       base->path ? base->path : "base");
    if (base->has_charsmap)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' has a normaliser of its own (NFKC or the like): it would fold text "
                       "before new pieces are looked for, and tokenizer.json cannot express it; "
                       "take a base that leaves text as it is",
                       base->path ? base->path : "base");
    work.score_zero = options && options->score_zero;
    work.any_script = options && options->any_script;
    work.han_marks = options && options->han_marks;
    work.max_chars =
        options && options->max_piece_chars ? options->max_piece_chars : DEFAULT_MAX_CHARS;
    work.candidate = hm_calloc(HM_MEM_VOCAB, extra->count, sizeof(*work.candidate));
    work.added = hm_alloc_array(HM_MEM_VOCAB, extra->count, sizeof(*work.added));
    work.order = hm_alloc_array(HM_MEM_VOCAB, extra->count, sizeof(*work.order));
    if (!work.candidate || !work.added || !work.order) {
        status = hm_fail_nomem(err, "for %zu candidates", extra->count);
        goto out;
    }
    order_candidates(&work);
    filter(&work);
    status = settle(&work, &result.model_bytes, err);
    if (status == HM_OK)
        status = collect_dropped(&work, &result, err);
    if (status == HM_OK)
        status = collect_added(&work, &result, err);
    if (status == HM_OK) {
        *ret_result = result;
        result = (struct hm_merge_result){ 0 };
    }
out:
    hm_merge_result_release(&result);
    hm_free(work.candidate);
    hm_free(work.added);
    hm_free(work.order);
    return status;
}

void hm_merge_result_release(struct hm_merge_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; i < result->n_dropped; i++)
        hm_free(result->dropped[i].piece);
    hm_free(result->dropped);
    hm_spm_model_release(result->storage);
    hm_free(result->storage);
    hm_buf_release(&result->model_bytes);
    *result = (struct hm_merge_result){ 0 };
}
