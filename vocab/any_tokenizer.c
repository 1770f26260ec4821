/* SPDX-License-Identifier: MIT */
/*
 * Tokenizers as counting sees them; see any_tokenizer.h. What an id holds is worked out once here,
 * so that a token costs a table look-up when text is measured.
 */
#include <string.h>

#include "hanmix/vocab/any_tokenizer.h"
#include "hanmix/vocab/bpe_train.h"

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

int hm_any_tokenizer_open(const char *path, struct hm_any_tokenizer **ret_tokenizer,
                          struct hm_error *err)
{
    struct hm_any_tokenizer *tokenizer = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*tokenizer));

    if (!tokenizer)
        return hm_fail_nomem(err, "for a tokenizer");
    int status = open_spm(path, tokenizer, err);
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
    hm_free(tokenizer->facts);
    hm_free(tokenizer);
}

int hm_any_tokenizer_encode(const struct hm_any_tokenizer *tokenizer, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err)
{
    return hm_tokenizer_encode(tokenizer->spm, text, ids, err);
}

bool hm_any_tokenizer_extends(const struct hm_any_tokenizer *longer,
                              const struct hm_any_tokenizer *base)
{
    if (longer->count < base->count)
        return false;
    for (size_t i = 0; i < base->count; i++) {
        const struct hm_piece *a = &base->spm->model.piece[i], *b = &longer->spm->model.piece[i];
        if (a->type != b->type || !hm_str_equal(a->text, b->text))
            return false;
    }
    return true;
}
