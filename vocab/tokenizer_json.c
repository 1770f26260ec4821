/* SPDX-License-Identifier: MIT */
/*
 * tokenizer.json of a BPE model, for the Rust tokenizers. With a base folder its file is extended:
 * entries of the vocabulary and merges are added, all else stays as it was. Without one the legacy
 * form is written (a U+2581 before every text, which is what SentencePiece does).
 */
#include <math.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "hanmix/vocab/piece_merge.h"
#include "json_parts.h"
#include "merge_pairs.h"
#include "tokenizer_files.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for tokenizer.json");
}

int hm_json_quote(struct hm_buf *buf, struct hm_str text, struct hm_error *err)
{
    json_t *string = json_stringn(text.ptr, text.len);

    if (!string)
        return fail_nomem(err);
    int status = hm_json_dump(string, buf, err);
    json_decref(string);
    return status;
}

int hm_added_token_check(const struct hm_spm_model *model, const char *what, json_int_t id,
                         struct hm_str content, struct hm_error *err)
{
    if (id >= 0 && id < (json_int_t)model->count && hm_str_equal(model->piece[id].text, content))
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s': the added token '%.*s' has id %lld, which is %s; take it out of the base "
                   "folder or make it a piece of the model",
                   what, (int)content.len, content.ptr, (long long)id,
                   id >= 0 && id < (json_int_t)model->count ? "another piece"
                                                            : "outside the vocabulary");
}

int hm_tokenizer_json_check(const struct hm_spm_model *model, struct hm_error *err)
{
    const char *why = NULL;

    if (model->kind != HM_SPM_BPE)
        why = "is not BPE";
    else if (model->has_charsmap || model->has_denormalizer)
        why = "has a normaliser of its own";
    else if (!model->escape_whitespaces || model->whitespace_as_suffix)
        why = "leaves spaces as they are or puts them behind words";
    for (size_t i = 0; i < model->count && !why; i++)
        if (model->piece[i].type == HM_PIECE_UNUSED)
            why = "has unused pieces";
    if (!why)
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT, "tokenizer.json cannot express '%s': it %s",
                   model->path ? model->path : "the model", why);
}

static int post_processor_text(const struct hm_spm_model *model, struct hm_buf *buf,
                               struct hm_error *err)
{
    struct hm_buf bos = { 0 };

    if (model->bos_id < 0)
        return hm_buf_text(buf, "null", err);
    int status = hm_json_quote(&bos, model->piece[model->bos_id].text, err);
    if (status == HM_OK)
        status = hm_buf_printf(
            buf, err,
            "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": %s, "
            "\"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": "
            "[{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", "
            "\"type_id\": 0}}, {\"SpecialToken\": {\"id\": %s, \"type_id\": 1}}, {\"Sequence\": "
            "{\"id\": \"B\", \"type_id\": 1}}], \"special_tokens\": {%s: {\"id\": %s, \"ids\": "
            "[%d], \"tokens\": [%s]}}}",
            bos.ptr, bos.ptr, bos.ptr, bos.ptr, bos.ptr, (int)model->bos_id, bos.ptr);
    hm_buf_release(&bos);
    return status;
}

/* remove_extra_whitespaces: none before and behind the text (U+2581 counts there), one between. */
static const char trim_spaces[] =
    "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\A +\"}, \"content\": \"\"}, "
    "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[ " HM_SPM_SPACE
    "]+\\\\z\"}, \"content\": \"\"}, "
    "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" {2,}\"}, \"content\": \" \"}, ";

/* A file with an empty vocabulary, no merges and no added tokens. */
static int skeleton_text(const struct hm_spm_model *model, struct hm_buf *buf, struct hm_error *err)
{
    const char *prepend = model->add_dummy_prefix
                              ? "{\"type\": \"Prepend\", \"prepend\": \"" HM_SPM_SPACE "\"}, "
                              : "";
    const char *trim = model->remove_extra_whitespaces ? trim_spaces : "";
    const char *strip = model->add_dummy_prefix ? ", {\"type\": \"Strip\", \"content\": \" \", "
                                                  "\"start\": 1, \"stop\": 0}"
                                                : "";

    HM_TRY(hm_buf_printf(
        buf, err,
        "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], "
        "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s%s{\"type\": \"Replace\", "
        "\"pattern\": {\"String\": \" \"}, \"content\": \"" HM_SPM_SPACE "\"}]}, "
        "\"pre_tokenizer\": null, \"post_processor\": ",
        trim, prepend));
    HM_TRY(post_processor_text(model, buf, err));
    HM_TRY(hm_buf_printf(
        buf, err,
        ", \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
        "\"pattern\": {\"String\": \"" HM_SPM_SPACE "\"}, \"content\": \" \"}, {\"type\": "
        "\"ByteFallback\"}, {\"type\": \"Fuse\"}%s]}, \"model\": {\"type\": \"BPE\", \"dropout\": "
        "null, \"unk_token\": ",
        strip));
    HM_TRY(hm_json_quote(buf, model->piece[model->unk_id].text, err));
    return hm_buf_printf(buf, err,
                         ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                         "\"fuse_unk\": true, \"byte_fallback\": %s, \"ignore_merges\": false, "
                         "\"vocab\": {}, \"merges\": []}}",
                         model->byte_fallback ? "true" : "false");
}

static int append_token(json_t *tokens, const struct hm_spm_model *model, size_t id,
                        struct hm_error *err)
{
    json_t *token = json_object();

    if (!token || json_object_set_new(token, "id", json_integer((json_int_t)id)) < 0 ||
        json_object_set_new(token, "content",
                            json_stringn(model->piece[id].text.ptr, model->piece[id].text.len)) <
            0 ||
        json_object_set_new(token, "single_word", json_false()) < 0 ||
        json_object_set_new(token, "lstrip", json_false()) < 0 ||
        json_object_set_new(token, "rstrip", json_false()) < 0 ||
        json_object_set_new(token, "normalized", json_false()) < 0 ||
        json_object_set_new(token, "special",
                            json_boolean(model->piece[id].type != HM_PIECE_USER)) < 0) {
        json_decref(token);
        return fail_nomem(err);
    }
    return json_array_append_new(tokens, token) < 0 ? fail_nomem(err) : HM_OK;
}

static int make_skeleton(const struct hm_spm_model *model, json_t **ret_root, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    json_t *root = NULL;
    int status = skeleton_text(model, &text, err);

    if (status == HM_OK)
        status = hm_json_parse((struct hm_str){ text.ptr, text.len }, "tokenizer.json", &root, err);
    hm_buf_release(&text);
    for (size_t i = 0; status == HM_OK && i < model->count; i++) {
        enum hm_piece_type type = model->piece[i].type;
        if (type == HM_PIECE_UNKNOWN || type == HM_PIECE_CONTROL || type == HM_PIECE_USER)
            status = append_token(json_object_get(root, "added_tokens"), model, i, err);
    }
    if (status == HM_OK)
        *ret_root = root;
    else
        json_decref(root);
    return status;
}

static int check_added(const struct hm_spm_model *model, const json_t *root, const char *path,
                       struct hm_error *err)
{
    const json_t *tokens = json_object_get(root, "added_tokens");

    for (size_t i = 0; i < json_array_size(tokens); i++) {
        const json_t *token = json_array_get(tokens, i);
        const json_t *content = json_object_get(token, "content");
        const json_t *id = json_object_get(token, "id");
        if (!json_is_string(content) || !json_is_integer(id))
            return hm_fail(err, HM_ERR_FORMAT, "'%s': added token %zu lacks its id or content",
                           path, i);
        struct hm_str text = { json_string_value(content), json_string_length(content) };
        HM_TRY(hm_added_token_check(model, path, json_integer_value(id), text, err));
    }
    return HM_OK;
}

/* Loaders refuse a file with a merge that is not two pieces which make a third. */
static int check_merges(const json_t *part, const char *path, struct hm_error *err)
{
    const json_t *vocab = json_object_get(part, "vocab");
    const json_t *merges = json_object_get(part, "merges");
    struct hm_buf joined = { 0 };
    int status = HM_OK;

    for (size_t i = 0; status == HM_OK && i < json_array_size(merges); i++) {
        struct hm_str half[2] = { { NULL, 0 }, { NULL, 0 } };
        bool good = hm_json_merge_halves(json_array_get(merges, i), half);
        hm_buf_clear(&joined);
        for (size_t k = 0; status == HM_OK && good && k < 2; k++) {
            good = json_object_getn(vocab, half[k].ptr, half[k].len) != NULL;
            status = hm_buf_append(&joined, half[k].ptr, half[k].len, err);
        }
        if (status == HM_OK && (!good || !json_object_getn(vocab, joined.ptr, joined.len)))
            status = hm_fail(err, HM_ERR_FORMAT,
                             "'%s': merge %zu is not two pieces of its vocabulary that make a "
                             "third, as \"left right\" or [\"left\", \"right\"]; take the file of "
                             "the base anew",
                             path, i);
    }
    hm_buf_release(&joined);
    return status;
}

/* What makes the fast tokenizer cut text otherwise than the model: it would be wrong before any
 * piece is added. */
static int check_settings(const struct hm_spm_model *model, const json_t *part, const char *path,
                          struct hm_error *err)
{
    const json_t *fallback = json_object_get(part, "byte_fallback");
    const json_t *dropout = json_object_get(part, "dropout");

    if (json_is_true(fallback) != model->byte_fallback)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': model.byte_fallback is %s there but %s in the SentencePiece model; "
                       "take the folder of the same base",
                       path, json_is_true(fallback) ? "on" : "off",
                       model->byte_fallback ? "on" : "off");
    if (json_is_number(dropout) && json_number_value(dropout) != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': model.dropout is %g: the file encodes at random; set it to null",
                       path, json_number_value(dropout));
    return HM_OK;
}

/* Read a base file; its vocabulary must be that of the model's first pieces. */
static int load_base(const struct hm_spm_model *model, const char *path, json_t **ret_root,
                     size_t *ret_pieces, struct hm_error *err)
{
    json_t *root = NULL;
    const char *type = NULL;
    const char *key;
    json_t *value;
    size_t pieces = 0;

    HM_TRY(hm_json_load(path, HM_TOKENIZER_JSON_MAX_BYTES, &root, err));
    json_t *part = json_object_get(root, "model");
    json_t *vocab = json_object_get(part, "vocab");
    int status = hm_json_text_opt(part, "type", path, &type, err);
    if (status == HM_OK && (!json_is_object(vocab) || !type || strcmp(type, "BPE") != 0 ||
                            !json_is_array(json_object_get(part, "merges"))))
        status = hm_fail(err, HM_ERR_FORMAT,
                         "'%s' is no tokenizer.json of a BPE model with vocab and merges", path);
    if (status < 0)
        goto out;
    json_object_foreach(vocab, key, value)
    {
        json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
        if (id < 0 || id >= (json_int_t)model->count || !hm_str_is(model->piece[id].text, key)) {
            status = hm_fail(err, HM_ERR_FORMAT,
                             "'%s': '%s' has id %lld there but not in the model that is to extend "
                             "it; take the folder of the same base",
                             path, key, (long long)id);
            goto out;
        }
        pieces = (size_t)id + 1 > pieces ? (size_t)id + 1 : pieces;
    }
    status = check_merges(part, path, err);
    if (status == HM_OK)
        status = check_settings(model, part, path, err);
    if (status == HM_OK)
        status = check_added(model, root, path, err);
    if (status == HM_OK) {
        *ret_root = root;
        root = NULL;
        *ret_pieces = pieces;
    }
out:
    json_decref(root);
    return status;
}

static int add_vocab(const struct hm_spm_model *model, json_t *vocab, struct hm_error *err)
{
    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        if (!json_object_getn(vocab, text.ptr, text.len) &&
            json_object_setn_new(vocab, text.ptr, text.len, json_integer((json_int_t)i)) < 0)
            return fail_nomem(err);
    }
    return HM_OK;
}

/* Whether every merge of pieces from first_new on comes after all older ones. */
static bool new_come_last(const struct hm_spm_model *model, size_t first_new)
{
    float lowest_old = INFINITY;
    float highest_new = -INFINITY;

    for (size_t i = 0; i < model->count; i++) {
        const struct hm_piece *piece = &model->piece[i];
        if (piece->type != HM_PIECE_NORMAL || piece->score <= HM_SPM_WHITESPACE_SCORE)
            continue;
        if (i < first_new)
            lowest_old = fminf(lowest_old, piece->score);
        else
            highest_new = fmaxf(highest_new, piece->score);
    }
    return highest_new < lowest_old;
}

/* A merge in the form the file already uses: ["left", "right"] or "left right". */
static json_t *merge_value(const struct hm_spm_model *model, const struct hm_merge_pair *pair,
                           bool as_array, struct hm_buf *text)
{
    struct hm_str left = model->piece[pair->left].text;
    struct hm_str right = model->piece[pair->right].text;

    if (as_array) {
        json_t *both = json_array();
        if (!both || json_array_append_new(both, json_stringn(left.ptr, left.len)) < 0 ||
            json_array_append_new(both, json_stringn(right.ptr, right.len)) < 0) {
            json_decref(both);
            return NULL;
        }
        return both;
    }
    hm_buf_clear(text);
    if (hm_buf_append(text, left.ptr, left.len, NULL) < 0 || hm_buf_text(text, " ", NULL) < 0 ||
        hm_buf_append(text, right.ptr, right.len, NULL) < 0)
        return NULL;
    return json_stringn(text->ptr, text->len);
}

static int add_merges(const struct hm_spm_model *model, size_t first_new, json_t *merges,
                      struct hm_error *err)
{
    struct hm_merge_pairs pairs = { 0 };
    struct hm_buf text = { 0 };
    bool as_array = json_is_array(json_array_get(merges, 0));
    bool append = new_come_last(model, first_new);
    int status = hm_merge_pairs_make(model, append ? (int32_t)first_new : 0, &pairs, err);

    if (status == HM_OK && !append)
        json_array_clear(merges);
    for (size_t i = 0; status == HM_OK && i < pairs.count; i++)
        if (json_array_append_new(merges, merge_value(model, &pairs.pair[i], as_array, &text)) < 0)
            status = fail_nomem(err);
    hm_buf_release(&text);
    hm_merge_pairs_release(&pairs);
    return status;
}

int hm_tokenizer_json_write(const struct hm_spm_model *model, const char *base_dir_or_null,
                            const char *out_dir, struct hm_error *err)
{
    char *base_path = NULL;
    char *out_path = NULL;
    json_t *root = NULL;
    size_t first_new = 0;

    HM_TRY(hm_tokenizer_json_check(model, err));
    int status = hm_path_join(&out_path, out_dir, "tokenizer.json", err);
    if (status == HM_OK && base_dir_or_null)
        status = hm_path_join(&base_path, base_dir_or_null, "tokenizer.json", err);
    if (status < 0)
        goto out;
    if (base_path && hm_path_exists(base_path))
        status = load_base(model, base_path, &root, &first_new, err);
    else
        status = make_skeleton(model, &root, err);
    if (status == HM_OK) {
        json_t *part = json_object_get(root, "model");
        status = add_vocab(model, json_object_get(part, "vocab"), err);
        if (status == HM_OK)
            status = add_merges(model, first_new, json_object_get(part, "merges"), err);
    }
    if (status == HM_OK)
        status = hm_json_save(out_path, root, err);
    if (status == HM_OK)
        status = hm_tokenizer_config_write(model, base_dir_or_null, out_dir, err);
out:
    json_decref(root);
    hm_free(base_path);
    hm_free(out_path);
    return status;
}
