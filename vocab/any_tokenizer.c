/* SPDX-License-Identifier: MIT */
/*
 * Tokenizers as counting sees them; see any_tokenizer.h. What an id holds is worked out once here,
 * so that a token costs a table look-up when text is measured.
 */
#include <string.h>

#include "hanmix/base/file.h"
#include "hanmix/vocab/any_tokenizer.h"
#include "hanmix/vocab/bpe_train.h"
#include "hf_tokenizer.h"
#include "json_parts.h"
#include "spm_json.h"

/* Whole characters of text and Han characters among them; bytes of parts of characters are passed
 * over. */
static struct hm_token_facts facts_of(struct hm_str text)
{
    uint64_t chars = 0, han = 0;
    uint32_t code = 0;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        chars += len > 0;
        han += len > 0 && hm_is_ideograph(code);
        at += len ? len : 1;
    }
    return (struct hm_token_facts){ .chars = (uint16_t)chars, .han = (uint16_t)han };
}

static struct hm_token_facts facts_of_piece(const struct hm_piece *piece)
{
    struct hm_token_facts facts = { 0 };

    switch (piece->type) {
    case HM_PIECE_NORMAL:
    case HM_PIECE_USER:
    case HM_PIECE_UNUSED:
        facts = facts_of(piece->text);
        facts.traits = HM_TOKEN_PIECE;
        if (piece->text.len >= strlen(HM_SPM_SPACE) &&
            memcmp(piece->text.ptr, HM_SPM_SPACE, strlen(HM_SPM_SPACE)) == 0)
            facts.traits |= HM_TOKEN_PREFIX;
        break;
    case HM_PIECE_BYTE:
        facts.traits = HM_TOKEN_BYTE;
        break;
    case HM_PIECE_UNKNOWN:
        facts.traits = HM_TOKEN_UNKNOWN;
        break;
    case HM_PIECE_CONTROL:
        break;
    }
    return facts;
}

static const char *kind_name(enum hm_spm_kind kind)
{
    switch (kind) {
    case HM_SPM_UNIGRAM:
        return "SentencePiece unigram";
    case HM_SPM_WORD:
        return "SentencePiece word";
    case HM_SPM_CHAR:
        return "SentencePiece char";
    case HM_SPM_BPE:
        break;
    }
    return "SentencePiece BPE";
}

static int open_spm(const char *path, struct hm_any_tokenizer *tokenizer, struct hm_error *err)
{
    HM_TRY(hm_tokenizer_open(path, &tokenizer->spm, err));
    const struct hm_spm_model *model = &tokenizer->spm->model;
    tokenizer->count = model->count;
    tokenizer->dummy_prefix = model->add_dummy_prefix && !model->whitespace_as_suffix;
    tokenizer->kind = kind_name(model->kind);
    tokenizer->facts = hm_calloc(HM_MEM_VOCAB, model->count, sizeof(*tokenizer->facts));
    if (!tokenizer->facts)
        return hm_fail_nomem(err, "for a tokenizer");
    for (size_t i = 0; i < model->count; i++)
        tokenizer->facts[i] = facts_of_piece(&model->piece[i]);
    return HM_OK;
}

/* A token without a whole character is a part of one, as a byte piece is. */
static struct hm_token_facts facts_of_token(struct hm_str text, bool special)
{
    struct hm_token_facts facts = { 0 };

    if (special || text.len == 0)
        return facts;
    facts = facts_of(text);
    facts.traits = facts.chars > 0 ? HM_TOKEN_PIECE : HM_TOKEN_BYTE;
    return facts;
}

static int take_hf(const json_t *root, const char *path, struct hm_any_tokenizer *tokenizer,
                   struct hm_error *err)
{
    bool special = false;

    HM_TRY(hm_hf_tokenizer_read(root, path, &tokenizer->hf, err));
    tokenizer->count = tokenizer->hf->count;
    tokenizer->kind = "byte-level BPE";
    tokenizer->facts = hm_calloc(HM_MEM_VOCAB, tokenizer->count, sizeof(*tokenizer->facts));
    if (!tokenizer->facts)
        return hm_fail_nomem(err, "for a tokenizer");
    for (size_t i = 0; i < tokenizer->count; i++) {
        struct hm_str text = hm_hf_tokenizer_text(tokenizer->hf, i, &special);
        tokenizer->facts[i] = facts_of_token(text, special);
    }
    return HM_OK;
}

static int open_json(const char *path, struct hm_any_tokenizer *tokenizer, struct hm_error *err)
{
    json_t *root = NULL;

    HM_TRY(hm_file_size(path, &tokenizer->json_bytes, err));
    HM_TRY(hm_json_load(path, HM_TOKENIZER_JSON_MAX_BYTES, &root, err));
    bool spm = hm_spm_json_is(root);
    int status = spm ? (int)HM_OK : take_hf(root, path, tokenizer, err);
    json_decref(root);
    return spm ? open_spm(path, tokenizer, err) : status;
}

/* By the name of the file, or what the folder holds. */
static int open_either(const char *path, struct hm_any_tokenizer *tokenizer, struct hm_error *err)
{
    char *json = NULL;
    bool has_model = false;
    int status;

    if (!hm_path_is_dir(path))
        return hm_text_ends(path, ".json") ? open_json(path, tokenizer, err)
                                           : open_spm(path, tokenizer, err);
    HM_TRY(hm_dir_holds(path, "tokenizer.model", &has_model, err));
    HM_TRY(hm_path_join(&json, path, "tokenizer.json", err));
    status = has_model || !hm_path_exists(json) ? open_spm(path, tokenizer, err)
                                                : open_json(json, tokenizer, err);
    hm_free(json);
    return status;
}

int hm_any_tokenizer_open(const char *path, struct hm_any_tokenizer **ret_tokenizer,
                          struct hm_error *err)
{
    struct hm_any_tokenizer *tokenizer = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*tokenizer));

    if (!tokenizer)
        return hm_fail_nomem(err, "for a tokenizer");
    int status = open_either(path, tokenizer, err);
    if (status == HM_OK)
        *ret_tokenizer = tokenizer;
    else
        hm_any_tokenizer_free(tokenizer);
    return status;
}

void hm_any_tokenizer_free(struct hm_any_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    hm_tokenizer_free(tokenizer->spm);
    hm_hf_tokenizer_free(tokenizer->hf);
    hm_free(tokenizer->facts);
    hm_free(tokenizer);
}

int hm_any_tokenizer_encode(const struct hm_any_tokenizer *tokenizer, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err)
{
    return tokenizer->hf ? hm_hf_tokenizer_encode(tokenizer->hf, text, ids, err)
                         : hm_tokenizer_encode(tokenizer->spm, text, ids, err);
}

struct hm_str hm_any_tokenizer_text(const struct hm_any_tokenizer *tokenizer, size_t id)
{
    bool special;

    return tokenizer->hf ? hm_hf_tokenizer_text(tokenizer->hf, id, &special)
                         : tokenizer->spm->model.piece[id].text;
}

int hm_any_tokenizer_decode(const struct hm_any_tokenizer *tokenizer, const int32_t *ids, size_t n,
                            struct hm_buf *text, struct hm_error *err)
{
    if (tokenizer->spm)
        return hm_tokenizer_decode(tokenizer->spm, ids, n, text, err);
    for (size_t i = 0; i < n; i++) {
        struct hm_str bytes = hm_any_tokenizer_text(tokenizer, (size_t)ids[i]);
        HM_TRY(hm_buf_append(text, bytes.ptr, bytes.len, err));
    }
    return HM_OK;
}

static bool same_token(const struct hm_any_tokenizer *a, const struct hm_any_tokenizer *b,
                       size_t id)
{
    bool special[2];

    if (a->hf)
        return hm_str_equal(hm_hf_tokenizer_text(a->hf, id, &special[0]),
                            hm_hf_tokenizer_text(b->hf, id, &special[1])) &&
               special[0] == special[1];
    const struct hm_piece *x = &a->spm->model.piece[id], *y = &b->spm->model.piece[id];
    return x->type == y->type && hm_str_equal(x->text, y->text);
}

bool hm_any_tokenizer_extends(const struct hm_any_tokenizer *longer,
                              const struct hm_any_tokenizer *base)
{
    if (longer->count < base->count || (longer->hf != NULL) != (base->hf != NULL))
        return false;
    for (size_t i = 0; i < base->count; i++)
        if (!same_token(longer, base, i))
            return false;
    return true;
}
