/* SPDX-License-Identifier: MIT */
/*
 * tokenizer.json of byte-level BPE; see hf_tokenizer.h. Added tokens are cut out first, what is
 * left goes through the pre-tokenizer to words, and words to ids.
 */
#include "hf_tokenizer.h"

#include <string.h>

#include "hanmix/base/file.h"
#include "json_parts.h"
#include "unicode_nfc.h"

#define NORMALIZER_DEPTH 8

struct encoding { /* one call of encode */
    const struct hm_hf_tokenizer *tokenizer;
    struct hm_ids *ids;
};

/* --- encoding --------------------------------------------------------------------------------- */

static int word_encode(void *context, struct hm_str word, struct hm_error *err)
{
    struct encoding *encoding = context;

    return hm_byte_bpe_word(&encoding->tokenizer->bpe, word, encoding->ids, err);
}

static int token_put(void *context, int32_t id, struct hm_error *err)
{
    struct encoding *encoding = context;

    return hm_ids_append(encoding->ids, &id, 1, err);
}

static int plain_encode(void *context, struct hm_str text, struct hm_error *err)
{
    struct encoding *encoding = context;

    return hm_pre_tokenizer_run(&encoding->tokenizer->pre_tokenizer, text, word_encode, encoding,
                                err);
}

/* Text between added tokens: normalised, then cut at those that are looked for in such text. */
static int gap_encode(void *context, struct hm_str text, struct hm_error *err)
{
    struct encoding *encoding = context;
    const struct hm_added_sink sink = { plain_encode, token_put, encoding };
    struct hm_buf normal = { 0 };
    int status = HM_OK;

    if (encoding->tokenizer->nfc && !hm_nfc_is_plain(text)) {
        status = hm_nfc_append(text, &normal, err);
        text = (struct hm_str){ normal.ptr, normal.len };
    }
    if (status == HM_OK)
        status = hm_added_tokens_cut(&encoding->tokenizer->added, true, text, &sink, err);
    hm_buf_release(&normal);
    return status;
}

/* Each malformed byte becomes U+FFFD. */
static int text_mend(struct hm_str text, struct hm_buf *buf, struct hm_error *err)
{
    uint32_t code = 0;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        HM_TRY(len ? hm_buf_append(buf, text.ptr + at, len, err)
                   : hm_buf_text(buf, "\xef\xbf\xbd", err));
        at += len ? len : 1;
    }
    return HM_OK;
}

int hm_hf_tokenizer_encode(const struct hm_hf_tokenizer *tokenizer, struct hm_str text,
                           struct hm_ids *ids, struct hm_error *err)
{
    struct encoding encoding = { tokenizer, ids };
    const struct hm_added_sink sink = { gap_encode, token_put, &encoding };
    struct hm_buf mended = { 0 };
    size_t count = ids->count;
    int status = HM_OK;

    if (!hm_utf8_valid(text, NULL)) {
        status = text_mend(text, &mended, err);
        text = (struct hm_str){ mended.ptr, mended.len };
    }
    if (status == HM_OK)
        status = hm_added_tokens_cut(&tokenizer->added, false, text, &sink, err);
    hm_buf_release(&mended);
    if (status < 0)
        ids->count = count;
    return status;
}

struct hm_str hm_hf_tokenizer_text(const struct hm_hf_tokenizer *tokenizer, size_t id,
                                   bool *ret_special)
{
    struct hm_str text = hm_byte_bpe_token(&tokenizer->bpe, id);

    *ret_special = false;
    for (size_t i = 0; text.len == 0 && i < tokenizer->added.count; i++) {
        const struct hm_added_token *token = &tokenizer->added.token[i];
        if ((size_t)token->id == id) {
            *ret_special = token->special;
            return (struct hm_str){ token->content, token->len };
        }
    }
    return text;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* None, form C, or a sequence of these, as DeepSeek's empty one; an added token that the form would
 * change is left to the library. depth: of sequences that may still lie in this one. */
static int normalizer_read(const json_t *value, const char *what, int depth, bool *ret_nfc,
                           struct hm_error *err)
{
    const char *type = NULL;

    if (!hm_json_is_set(value))
        return HM_OK;
    HM_TRY(hm_json_text(value, "type", what, &type, err));
    if (strcmp(type, "NFC") == 0) {
        *ret_nfc = true;
        return HM_OK;
    }
    const json_t *list = json_object_get(value, "normalizers");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(list) || depth == 0)
        return hm_json_refuse(what, "a normalizer other than NFC", err);
    for (size_t i = 0; i < json_array_size(list); i++)
        HM_TRY(normalizer_read(json_array_get(list, i), what, depth - 1, ret_nfc, err));
    return HM_OK;
}

static int added_check(const struct hm_hf_tokenizer *tokenizer, const char *what,
                       struct hm_error *err)
{
    for (size_t i = 0; tokenizer->nfc && i < tokenizer->added.count; i++) {
        const struct hm_added_token *token = &tokenizer->added.token[i];
        if (token->normalized && !hm_nfc_is_plain((struct hm_str){ token->content, token->len }))
            return hm_json_refuse(
                what, "a normalized added token of other characters than plain ones", err);
    }
    return HM_OK;
}

static int root_read(const json_t *root, const char *what, struct hm_hf_tokenizer *tokenizer,
                     struct hm_error *err)
{
    const json_t *model = json_object_get(root, "model");

    if (!json_is_object(model))
        return hm_fail(err, HM_ERR_FORMAT, "'%s' is no tokenizer.json: it has no model", what);
    HM_TRY(hm_json_bpe_check(model, what, err));
    HM_TRY(normalizer_read(json_object_get(root, "normalizer"), what, NORMALIZER_DEPTH,
                           &tokenizer->nfc, err));
    if (!hm_json_is_set(json_object_get(root, "pre_tokenizer")))
        return hm_json_refuse(what, "a model without pre_tokenizer", err);
    HM_TRY(hm_pre_tokenizer_make(json_object_get(root, "pre_tokenizer"), what,
                                 &tokenizer->pre_tokenizer, err));
    HM_TRY(
        hm_added_tokens_make(json_object_get(root, "added_tokens"), what, &tokenizer->added, err));
    HM_TRY(added_check(tokenizer, what, err));
    HM_TRY(hm_byte_bpe_make(model, what, &tokenizer->bpe, err));
    tokenizer->count = tokenizer->bpe.count;
    for (size_t i = 0; i < tokenizer->added.count; i++)
        if ((size_t)tokenizer->added.token[i].id >= tokenizer->count)
            tokenizer->count = (size_t)tokenizer->added.token[i].id + 1;
    return HM_OK;
}

int hm_hf_tokenizer_read(const json_t *root, const char *what,
                         struct hm_hf_tokenizer **ret_tokenizer, struct hm_error *err)
{
    struct hm_hf_tokenizer *tokenizer = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*tokenizer));
    int status =
        tokenizer ? root_read(root, what, tokenizer, err) : hm_fail_nomem(err, "for '%s'", what);

    if (status == HM_OK)
        *ret_tokenizer = tokenizer;
    else
        hm_hf_tokenizer_free(tokenizer);
    return status;
}

int hm_hf_tokenizer_parse(struct hm_str text, const char *what,
                          struct hm_hf_tokenizer **ret_tokenizer, struct hm_error *err)
{
    json_t *root = NULL;

    HM_TRY(hm_json_parse(text, what, &root, err));
    int status = hm_hf_tokenizer_read(root, what, ret_tokenizer, err);
    json_decref(root);
    return status;
}

void hm_hf_tokenizer_free(struct hm_hf_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    hm_added_tokens_release(&tokenizer->added);
    hm_pre_tokenizer_release(&tokenizer->pre_tokenizer);
    hm_byte_bpe_release(&tokenizer->bpe);
    hm_free(tokenizer);
}
