/* SPDX-License-Identifier: MIT */
/*
 * Text before it is merged; see text_before.h. As the tokenizers library has it: tokens that are
 * not normalized are cut out of the text as it is, what lies between is normalised, and the others
 * are cut out of that.
 */
#include "text_before.h"

#include <string.h>

#include "hanmix/vocab/spm_model.h"

static int normalise(const struct hm_text_before *rule, struct hm_str text, struct hm_buf *buf,
                     struct hm_error *err)
{
    hm_buf_clear(buf);
    if (rule->prepend && text.len > 0)
        HM_TRY(hm_buf_text(buf, HM_SPM_SPACE, err));
    for (size_t at = 0; at < text.len;) {
        const char *space = rule->replace ? memchr(text.ptr + at, ' ', text.len - at) : NULL;
        size_t end = space ? (size_t)(space - text.ptr) : text.len;
        HM_TRY(hm_buf_append(buf, text.ptr + at, end - at, err));
        if (space)
            HM_TRY(hm_buf_text(buf, HM_SPM_SPACE, err));
        at = end + 1;
    }
    return HM_OK;
}

int hm_text_before_ready(struct hm_text_before *rule, const char *what, struct hm_error *err)
{
    struct hm_buf normal = { 0 };
    int status = HM_OK;

    for (size_t i = 0; status == HM_OK && i < rule->added.count; i++) {
        struct hm_added_token *token = &rule->added.token[i];
        if (!token->normalized)
            continue;
        status = normalise(rule, (struct hm_str){ token->content, token->len }, &normal, err);
        char *content = status == HM_OK ? hm_strndup(HM_MEM_VOCAB, normal.ptr, normal.len) : NULL;
        if (status == HM_OK && !content)
            status = hm_fail_nomem(err, "for '%s'", what);
        if (status < 0)
            break;
        hm_free(token->content);
        token->content = content;
        token->len = normal.len;
    }
    hm_buf_release(&normal);
    return status == HM_OK ? hm_added_tokens_index(&rule->added, what, err) : status;
}

void hm_text_before_free(struct hm_text_before *rule)
{
    if (!rule)
        return;
    hm_added_tokens_release(&rule->added);
    hm_free(rule);
}

struct cutting { /* one call of hm_text_before_cut */
    const struct hm_text_before *rule;
    const struct hm_before_sink *sink;
    const char *text, *begin; /* where the whole begins, and what lies between raw tokens */
    bool first, normalised;   /* that is the first; it is in normal */
    struct hm_buf normal;
};

static bool begins_with_space(struct hm_str text)
{
    uint32_t code = 0;

    hm_utf8_decode(text.ptr, text.len, &code);
    return code == ' ' || code == HM_SPM_SPACE_CODE;
}

static int token_found(void *context, int32_t id, struct hm_error *err)
{
    const struct cutting *c = context;

    return c->sink->token(c->sink->context, id, err);
}

static int part_found(void *context, struct hm_str text, struct hm_error *err)
{
    const struct cutting *c = context;
    bool prefix = c->rule->prepend && !c->normalised;

    if (c->rule->metaspace == HM_METASPACE_ALWAYS || (c->first && text.ptr == c->begin))
        prefix |= c->rule->metaspace != HM_METASPACE_NONE && !begins_with_space(text);
    return c->sink->part(c->sink->context, prefix, text, err);
}

static int gap_found(void *context, struct hm_str text, struct hm_error *err)
{
    struct cutting *c = context;
    const struct hm_added_sink sink = { part_found, token_found, c };
    const uint32_t *normalized = c->rule->added.first[1];

    c->first = text.ptr == c->text;
    c->begin = text.ptr;
    if (normalized[0] == normalized[256])
        return part_found(c, text, err);
    HM_TRY(normalise(c->rule, text, &c->normal, err));
    c->normalised = true;
    c->begin = c->normal.ptr;
    return hm_added_tokens_cut(&c->rule->added, true,
                               (struct hm_str){ c->normal.ptr, c->normal.len }, &sink, err);
}

int hm_text_before_cut(const struct hm_text_before *rule, struct hm_str text,
                       const struct hm_before_sink *sink, struct hm_error *err)
{
    struct cutting c = { .rule = rule, .sink = sink, .text = text.ptr };
    const struct hm_added_sink raw = { gap_found, token_found, &c };
    int status = hm_added_tokens_cut(&rule->added, false, text, &raw, err);

    hm_buf_release(&c.normal);
    return status;
}
