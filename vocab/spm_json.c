/* SPDX-License-Identifier: MIT */
/*
 * Reading a tokenizer.json of SentencePiece's kind; see spm_json.h. The file is hostile: every
 * component is either one that is known to give SentencePiece's text before merging, or refused by
 * name. The result is parsed as a .model file is, so that it obeys the same rules.
 */
#include "spm_json.h"

#include <string.h>

#include "json_parts.h"
#include "piece_encoder.h"
#include "text_before.h"

#define MAX_MERGES (1u << 23) /* twice their number is exact in a float */

struct reading {
    const char *what;
    const json_t *root, *model, *vocab;
    bool byte_fallback;
    struct hm_str unk; /* borrowed */
    struct hm_text_before *before;
    struct hm_piece *piece; /* texts borrowed from root and before */
    size_t count;
    struct hm_spm_merge *merge;
    size_t n_merges;
};

/* --- what happens to text before it is merged ------------------------------------------------- */

static bool text_is(const json_t *value, const char *wanted)
{
    return json_is_string(value) && json_string_length(value) == strlen(wanted) &&
           memcmp(json_string_value(value), wanted, strlen(wanted)) == 0;
}

static int step_read(struct reading *r, const json_t *step, struct hm_error *err)
{
    const json_t *type = json_object_get(step, "type");

    if (text_is(type, "Prepend") && text_is(json_object_get(step, "prepend"), HM_SPM_SPACE) &&
        !r->before->prepend) {
        r->before->prepend = true;
        return HM_OK;
    }
    if (text_is(type, "Replace") && text_is(json_object_get(step, "content"), HM_SPM_SPACE) &&
        text_is(json_object_get(json_object_get(step, "pattern"), "String"), " ")) {
        r->before->replace = true;
        return HM_OK;
    }
    return hm_json_refuse(r->what, "a normalizer that is not Prepend and Replace with U+2581 alone",
                          err);
}

static int normalizer_read(struct reading *r, struct hm_error *err)
{
    const json_t *normalizer = json_object_get(r->root, "normalizer");
    const json_t *steps = json_object_get(normalizer, "normalizers");

    if (!hm_json_is_set(normalizer))
        return HM_OK;
    if (!text_is(json_object_get(normalizer, "type"), "Sequence"))
        return step_read(r, normalizer, err);
    if (!json_is_array(steps))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': a normalizer of type Sequence has no list",
                       r->what);
    for (size_t i = 0; i < json_array_size(steps); i++)
        HM_TRY(step_read(r, json_array_get(steps, i), err));
    return HM_OK;
}

/* Metaspace: U+2581 for spaces, and one before text that does not begin with it already. */
static int metaspace_read(const struct reading *r, bool *ret_replaces, struct hm_error *err)
{
    const json_t *pre = json_object_get(r->root, "pre_tokenizer");
    const char *scheme = "always";
    bool split = true, add = true;

    if (!hm_json_is_set(pre))
        return HM_OK;
    HM_TRY(hm_json_text_opt(pre, "prepend_scheme", r->what, &scheme, err));
    HM_TRY(hm_json_bool_opt(pre, "add_prefix_space", r->what, &add, err)); /* files of old */
    HM_TRY(hm_json_bool_opt(pre, "split", r->what, &split, err));
    if (!text_is(json_object_get(pre, "type"), "Metaspace") ||
        !text_is(json_object_get(pre, "replacement"), HM_SPM_SPACE) || split ||
        r->before->prepend ||
        (strcmp(scheme, "always") != 0 && strcmp(scheme, "first") != 0 &&
         strcmp(scheme, "never") != 0))
        return hm_json_refuse(r->what, "a pre_tokenizer that is not Metaspace with split: false",
                              err);
    if (add && strcmp(scheme, "never") != 0)
        r->before->metaspace =
            strcmp(scheme, "first") == 0 ? HM_METASPACE_FIRST : HM_METASPACE_ALWAYS;
    *ret_replaces = true;
    return HM_OK;
}

static int settings_read(struct reading *r, struct hm_error *err)
{
    const json_t *unk = json_object_get(r->model, "unk_token");
    bool ignore_merges = false, fuse = false, replaced = false;

    HM_TRY(hm_json_bpe_check(r->model, r->what, err));
    HM_TRY(hm_json_bool_opt(r->model, "byte_fallback", r->what, &r->byte_fallback, err));
    HM_TRY(hm_json_bool_opt(r->model, "ignore_merges", r->what, &ignore_merges, err));
    HM_TRY(hm_json_bool_opt(r->model, "fuse_unk", r->what, &fuse, err));
    if (ignore_merges)
        return hm_json_refuse(r->what, "ignore_merges", err);
    if (!json_is_string(unk))
        return hm_json_refuse(r->what, "a model without unk_token", err);
    if (!fuse && !r->byte_fallback)
        return hm_json_refuse(r->what, "a model without fuse_unk and byte_fallback", err);
    r->unk = (struct hm_str){ json_string_value(unk), json_string_length(unk) };
    HM_TRY(normalizer_read(r, err));
    replaced = r->before->replace;
    HM_TRY(metaspace_read(r, &replaced, err));
    return replaced ? (int)HM_OK
                    : hm_json_refuse(r->what, "a model that leaves spaces as they are", err);
}

/* --- pieces ----------------------------------------------------------------------------------- */

static int piece_put(struct reading *r, struct hm_str text, json_int_t id, struct hm_error *err)
{
    if (id < 0 || id >= (json_int_t)r->count)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the piece '%.80s' has no id from 0 to %zu: the ids of vocab and "
                       "added_tokens must be all numbers from 0 on",
                       r->what, text.ptr, r->count - 1);
    struct hm_piece *piece = &r->piece[id];
    if (piece->text.ptr && hm_str_equal(piece->text, text))
        return HM_OK; /* an added token that vocab has as well */
    if (piece->text.ptr)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%.80s' has id %zu, as '%.80s' has", r->what,
                       text.ptr, (size_t)id, piece->text.ptr);
    piece->text = text;
    return HM_OK;
}

/* U+2581 and nothing else, more than once: below every merge in SentencePiece's files. */
static bool is_spaces(struct hm_str text)
{
    const size_t space = strlen(HM_SPM_SPACE);

    for (size_t at = 0; at < text.len; at += space)
        if (text.len - at < space || memcmp(text.ptr + at, HM_SPM_SPACE, space) != 0)
            return false;
    return text.len > space;
}

static void types_set(struct reading *r)
{
    const struct hm_added_tokens *added = &r->before->added;

    for (size_t i = 0; i < r->count; i++)
        r->piece[i].type = r->byte_fallback && hm_spm_byte_of(r->piece[i].text) >= 0
                               ? HM_PIECE_BYTE
                               : HM_PIECE_NORMAL;
    for (size_t i = 0; i < added->count; i++)
        r->piece[added->token[i].id].type =
            added->token[i].special ? HM_PIECE_CONTROL : HM_PIECE_USER;
    for (size_t i = 0; i < r->count; i++)
        if (hm_str_equal(r->piece[i].text, r->unk))
            r->piece[i].type = HM_PIECE_UNKNOWN;
}

static int pieces_read(struct reading *r, struct hm_error *err)
{
    const struct hm_added_tokens *added = &r->before->added;
    void *all = (void *)(uintptr_t)r->vocab; /* the iterators of jansson 2.14 take no const */

    HM_TRY(hm_added_tokens_make(json_object_get(r->root, "added_tokens"), r->what,
                                &r->before->added, err));
    r->count = json_object_size(r->vocab);
    for (size_t i = 0; i < added->count; i++)
        if (!json_object_get(r->vocab, added->token[i].content))
            r->count++;
    if (r->count == 0 || r->count > HM_SPM_MAX_PIECES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has %zu pieces; 1 to %d are read", r->what,
                       r->count, HM_SPM_MAX_PIECES);
    r->piece = hm_calloc(HM_MEM_VOCAB, r->count, sizeof(*r->piece));
    if (!r->piece)
        return hm_fail_nomem(err, "for '%s'", r->what);
    for (void *at = json_object_iter(all); at; at = json_object_iter_next(all, at)) {
        const json_t *id = json_object_iter_value(at);
        HM_TRY(piece_put(r, hm_str_of(json_object_iter_key(at)),
                         json_is_integer(id) ? json_integer_value(id) : -1, err));
    }
    for (size_t i = 0; i < added->count; i++) {
        const struct hm_added_token *token = &added->token[i];
        HM_TRY(piece_put(r, (struct hm_str){ token->content, token->len }, token->id, err));
    }
    types_set(r); /* as many texts as ids, and none twice: every id has one */
    return HM_OK;
}

/* --- merges ----------------------------------------------------------------------------------- */

static int32_t merged_id(const struct reading *r, const struct hm_buf *text)
{
    const json_t *id = json_object_getn(r->vocab, text->ptr, text->len);

    if (!id || r->piece[json_integer_value(id)].type != HM_PIECE_NORMAL)
        return -1;
    return (int32_t)json_integer_value(id);
}

static int merge_read(struct reading *r, const json_t *value, struct hm_buf *text,
                      struct hm_error *err)
{
    struct hm_str half[2] = { { NULL, 0 }, { NULL, 0 } };
    int32_t id[3] = { -1, -1, -1 };

    if (!hm_json_merge_halves(value, half))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                       r->what, r->n_merges);
    for (size_t i = 0; i < 3; i++) {
        hm_buf_clear(text);
        if (i != 1)
            HM_TRY(hm_buf_append(text, half[0].ptr, half[0].len, err));
        if (i != 0)
            HM_TRY(hm_buf_append(text, half[1].ptr, half[1].len, err));
        id[i] = merged_id(r, text);
        if (id[i] < 0)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': merge %zu needs '%.*s', which is no piece of text", r->what,
                           r->n_merges, (int)(text->len < 80 ? text->len : 80), text->ptr);
    }
    r->merge[r->n_merges++] = (struct hm_spm_merge){ id[0], id[1], id[2] };
    return HM_OK;
}

static int merges_read(struct reading *r, struct hm_error *err)
{
    const json_t *merges = json_object_get(r->model, "merges");
    size_t n = json_array_size(merges);
    struct hm_buf text = { 0 };
    int status = HM_OK;

    if (n > MAX_MERGES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': %zu merges; at most %u are read", r->what, n,
                       MAX_MERGES);
    r->merge = hm_alloc_array(HM_MEM_VOCAB, n ? n : 1, sizeof(*r->merge));
    if (!r->merge)
        return hm_fail_nomem(err, "for '%s'", r->what);
    for (size_t i = 0; status == HM_OK && i < n; i++)
        status = merge_read(r, json_array_get(merges, i), &text, err);
    hm_buf_release(&text);
    return status;
}

/* Falling with the first merge that makes a piece; what no merge makes is below what stands before
 * it, as single characters are in SentencePiece's files. */
static void scores_set(struct reading *r)
{
    float lowest = 0;

    for (size_t i = r->n_merges; i-- > 0;)
        r->piece[r->merge[i].result].score = -2 * (float)(i + 1);
    for (size_t i = 0; i < r->count; i++) {
        struct hm_piece *piece = &r->piece[i];
        if (piece->type != HM_PIECE_NORMAL)
            continue;
        if (is_spaces(piece->text))
            piece->score = HM_SPM_WHITESPACE_SCORE;
        else if (piece->score < 0)
            lowest = piece->score < lowest ? piece->score : lowest;
        else
            piece->score = lowest - 1;
    }
}

/* --- the model -------------------------------------------------------------------------------- */

/* Bytes behind a model that override its add_dummy_prefix. */
static int prefix_put(struct hm_buf *bytes, struct hm_error *err)
{
    return hm_buf_append(bytes, "\x1a\x02\x18\x01", 4, err);
}

static int model_make(struct reading *r, struct hm_str text, struct hm_spm_model *model,
                      struct hm_error *err)
{
    struct hm_buf bytes = { 0 };
    int status = hm_spm_model_build(r->piece, r->count, r->byte_fallback, &bytes, err);

    if (status == HM_OK && (r->before->prepend || r->before->metaspace != HM_METASPACE_NONE))
        status = prefix_put(&bytes, err);
    if (status == HM_OK)
        status = hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, r->what, model, err);
    hm_buf_release(&bytes);
    HM_TRY(status);
    model->by_merges = true;
    model->merge = r->merge;
    model->n_merges = r->n_merges;
    model->before = r->before;
    r->merge = NULL;
    r->before = NULL;
    HM_TRY(hm_text_before_ready(model->before, r->what, err)); /* pieces no longer borrow from it */
    const char *obstacle = hm_piece_encoder_obstacle(model);
    if (obstacle) /* there is no library to leave it to */
        return hm_fail(err, HM_ERR_FORMAT, "'%s' cannot be read exactly, for %s", r->what,
                       obstacle);
    return hm_sha256_of(text.ptr, text.len, model->sha256, err);
}

bool hm_spm_json_is(const json_t *root)
{
    const json_t *pre = json_object_get(root, "pre_tokenizer");

    return !hm_json_is_set(pre) || text_is(json_object_get(pre, "type"), "Metaspace");
}

int hm_spm_json_read(const json_t *root, const char *what, struct hm_str text,
                     struct hm_spm_model *ret_model, struct hm_error *err)
{
    struct reading r = { .what = what, .root = root, .model = json_object_get(root, "model") };
    struct hm_spm_model model = { 0 };
    int status = HM_OK;

    r.vocab = json_object_get(r.model, "vocab");
    if (!json_is_object(r.vocab) || !json_is_array(json_object_get(r.model, "merges")))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' is no tokenizer.json of a BPE model with vocab and merges", what);
    if (!hm_spm_json_is(root))
        return hm_json_refuse(what, "a pre_tokenizer that cuts text into words", err);
    r.before = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*r.before));
    status = r.before ? settings_read(&r, err) : hm_fail_nomem(err, "for '%s'", what);
    if (status == HM_OK)
        status = pieces_read(&r, err);
    if (status == HM_OK)
        status = merges_read(&r, err);
    if (status == HM_OK) {
        scores_set(&r);
        status = model_make(&r, text, &model, err);
    }
    if (status == HM_OK)
        *ret_model = model;
    else
        hm_spm_model_release(&model);
    hm_text_before_free(r.before);
    hm_free(r.piece);
    hm_free(r.merge);
    return status;
}
