/* SPDX-License-Identifier: MIT */
/*
 * Added tokens; see added_tokens.h. Candidates are listed by their first byte and length, so that
 * text without them is passed over by one table.
 */
#include "added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "unicode_class.h"

#define MAX_ADDED 65536u
#define MAX_ID    (1 << 22)

static int token_order(const void *left, const void *right)
{
    const struct hm_added_token *a = left, *b = right;
    unsigned char x = (unsigned char)a->content[0], y = (unsigned char)b->content[0];

    if (a->normalized != b->normalized)
        return a->normalized - b->normalized;
    if (x != y)
        return x < y ? -1 : 1;
    if (a->len != b->len)
        return a->len > b->len ? -1 : 1;
    return memcmp(a->content, b->content, a->len);
}

static int token_read(const json_t *value, const char *what, struct hm_added_token *token,
                      struct hm_error *err)
{
    const json_t *content = json_object_get(value, "content");
    const json_t *id = json_object_get(value, "id");
    bool single_word = false;

    if (!json_is_string(content) || !json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= MAX_ID)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': an added token lacks its content or its id",
                       what);
    token->len = json_string_length(content);
    token->id = (int32_t)json_integer_value(id);
    token->content = hm_strndup(HM_MEM_VOCAB, json_string_value(content), token->len);
    if (!token->content)
        return hm_fail_nomem(err, "for '%s'", what);
    HM_TRY(hm_json_bool_opt(value, "single_word", what, &single_word, err));
    HM_TRY(hm_json_bool_opt(value, "lstrip", what, &token->lstrip, err));
    HM_TRY(hm_json_bool_opt(value, "rstrip", what, &token->rstrip, err));
    HM_TRY(hm_json_bool_opt(value, "special", what, &token->special, err));
    token->normalized = !token->special;
    HM_TRY(hm_json_bool_opt(value, "normalized", what, &token->normalized, err));
    if (single_word)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the added token '%.80s' is single_word, which cannot be read exactly",
                       what, token->content);
    return HM_OK;
}

static int tokens_check(const struct hm_added_tokens *tokens, const char *what,
                        struct hm_error *err)
{
    for (size_t i = 1; i < tokens->count; i++) {
        const struct hm_added_token *a = &tokens->token[i - 1], *b = &tokens->token[i];
        if (a->len == b->len && memcmp(a->content, b->content, a->len) == 0)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': the added token '%.80s' stands there twice",
                           what, a->content);
    }
    return HM_OK;
}

static int tokens_read(const json_t *value, const char *what, struct hm_added_tokens *tokens,
                       struct hm_error *err)
{
    size_t n = json_array_size(value);

    if ((value && !json_is_null(value) && !json_is_array(value)) || n > MAX_ADDED)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': added_tokens is no list of at most %u", what,
                       MAX_ADDED);
    tokens->token = hm_calloc(HM_MEM_VOCAB, n, sizeof(*tokens->token));
    if (!tokens->token)
        return hm_fail_nomem(err, "for '%s'", what);
    for (size_t i = 0; i < n; i++) {
        HM_TRY(token_read(json_array_get(value, i), what, &tokens->token[tokens->count++], err));
        if (tokens->token[tokens->count - 1].len == 0) /* matches nothing */
            hm_free(tokens->token[--tokens->count].content);
    }
    return hm_added_tokens_index(tokens, what, err);
}

int hm_added_tokens_index(struct hm_added_tokens *tokens, const char *what, struct hm_error *err)
{
    qsort(tokens->token, tokens->count, sizeof(*tokens->token), token_order);
    HM_TRY(tokens_check(tokens, what, err));
    for (int normalized = 0; normalized < 2; normalized++) {
        uint32_t at = 0;
        while (at < tokens->count && tokens->token[at].normalized < normalized)
            at++;
        for (unsigned byte = 0; byte < 256; byte++) {
            tokens->first[normalized][byte] = at;
            while (at < tokens->count && tokens->token[at].normalized == normalized &&
                   (unsigned char)tokens->token[at].content[0] == byte)
                at++;
        }
        tokens->first[normalized][256] = at;
    }
    return HM_OK;
}

int hm_added_tokens_make(const json_t *value, const char *what, struct hm_added_tokens *ret_tokens,
                         struct hm_error *err)
{
    struct hm_added_tokens tokens = { 0 };
    int status = tokens_read(value, what, &tokens, err);

    if (status == HM_OK)
        *ret_tokens = tokens;
    else
        hm_added_tokens_release(&tokens);
    return status;
}

void hm_added_tokens_release(struct hm_added_tokens *tokens)
{
    for (size_t i = 0; i < tokens->count; i++)
        hm_free(tokens->token[i].content);
    hm_free(tokens->token);
    *tokens = (struct hm_added_tokens){ 0 };
}

/* The longest token that stands at this place; NULL none. */
static const struct hm_added_token *token_at(const struct hm_added_tokens *tokens, bool normalized,
                                             struct hm_str text, size_t at)
{
    const uint32_t *first = &tokens->first[normalized][(unsigned char)text.ptr[at]];

    for (uint32_t i = first[0]; i < first[1]; i++) {
        const struct hm_added_token *token = &tokens->token[i];
        if (token->len <= text.len - at && memcmp(token->content, text.ptr + at, token->len) == 0)
            return token;
    }
    return NULL;
}

/* Where the white space before a place begins, no earlier than floor. */
static size_t space_before(struct hm_str text, size_t floor, size_t at)
{
    uint32_t code = 0;

    while (at > floor) {
        size_t start = at - 1;
        while (start > floor && ((unsigned char)text.ptr[start] & 0xc0) == 0x80)
            start--;
        if (hm_utf8_decode(text.ptr + start, at - start, &code) == 0 || !hm_unicode_is_space(code))
            break;
        at = start;
    }
    return at;
}

static size_t space_after(struct hm_str text, size_t at)
{
    uint32_t code = 0;

    while (at < text.len) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (len == 0 || !hm_unicode_is_space(code))
            break;
        at += len;
    }
    return at;
}

int hm_added_tokens_cut(const struct hm_added_tokens *tokens, bool normalized, struct hm_str text,
                        const struct hm_added_sink *sink, struct hm_error *err)
{
    size_t done = 0; /* text before is given away */

    for (size_t at = 0; at < text.len;) {
        const struct hm_added_token *token = token_at(tokens, normalized, text, at);
        if (!token) {
            at++;
            continue;
        }
        size_t start = token->lstrip && at > done ? space_before(text, done, at) : at;
        size_t end = at + token->len;
        if (start > done)
            HM_TRY(sink->gap(sink->context, (struct hm_str){ text.ptr + done, start - done }, err));
        HM_TRY(sink->token(sink->context, token->id, err));
        done = token->rstrip ? space_after(text, end) : end;
        at = end;
    }
    return done < text.len
               ? sink->gap(sink->context, (struct hm_str){ text.ptr + done, text.len - done }, err)
               : (int)HM_OK;
}
