/* SPDX-License-Identifier: MIT */
/*
 * Byte-level BPE; see byte_bpe.h. Merging is segment_merge.h's: lowest rank first, leftmost among
 * equals, n log n for long words, which is the rule of the tokenizers library.
 */
#include "byte_bpe.h"

#include <string.h>

#include "hanmix/base/hash.h"
#include "json_parts.h"
#include "segment_merge.h"

#define MAX_TOKENS   (1u << 22)
#define MAX_MERGES   (1u << 24)
#define SHORT_WORD   256u
#define HASH_MIX     0x9e3779b97f4a7c15u
#define NO_SUCH_BYTE (-1)

/* --- words ------------------------------------------------------------------------------------ */

static uint64_t word_hash(struct hm_str word)
{
    uint64_t hash = hm_hash64(word.ptr, word.len, 0);

    return hash ? hash : 1;
}

struct hm_str hm_byte_bpe_token(const struct hm_byte_bpe *bpe, size_t id)
{
    if (id >= bpe->count || bpe->token[id].len == 0)
        return (struct hm_str){ "", 0 };
    return (struct hm_str){ bpe->bytes.ptr + bpe->token[id].first, bpe->token[id].len };
}

/* -1 when no token that stands for itself has these bytes. */
static int32_t whole_find(const struct hm_byte_bpe *bpe, struct hm_str word)
{
    uint64_t hash = word_hash(word);

    for (size_t at = hash & bpe->whole_mask; bpe->whole[at].hash != 0;
         at = (at + 1) & bpe->whole_mask)
        if (bpe->whole[at].hash == hash &&
            hm_str_equal(hm_byte_bpe_token(bpe, (size_t)bpe->whole[at].id), word))
            return bpe->whole[at].id;
    return -1;
}

static void whole_put(struct hm_byte_bpe *bpe, int32_t id)
{
    uint64_t hash = word_hash(hm_byte_bpe_token(bpe, (size_t)id));
    size_t at = hash & bpe->whole_mask;

    while (bpe->whole[at].hash != 0)
        at = (at + 1) & bpe->whole_mask;
    bpe->whole[at] = (struct hm_byte_whole){ hash, id };
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
}

static uint32_t rule_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    const struct hm_byte_bpe *bpe = context;
    uint64_t key = pair_key(left, right);
    size_t at = (size_t)(key * HASH_MIX >> bpe->pair_shift);

    for (; bpe->pair[at].key != 0; at = (at + 1) & bpe->pair_mask)
        if (bpe->pair[at].key == key) {
            *ret_result = (int32_t)bpe->pair[at].result;
            return bpe->pair[at].rank;
        }
    return HM_NO_RANK;
}

static void rule_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    (void)context, (void)left, (void)right, (void)result;
}

static const struct hm_segment_rule rule = { .rank = rule_rank, .merged = rule_merged };

/* Merge a word from its bytes; symbol has room for them. */
static int merge_word(const struct hm_byte_bpe *bpe, struct hm_str word, int32_t *symbol,
                      size_t *ret_n, struct hm_error *err)
{
    size_t n = 0;

    for (size_t i = 0; i < word.len; i++) {
        int32_t id = bpe->byte_id[(unsigned char)word.ptr[i]];
        if (id != NO_SUCH_BYTE)
            symbol[n++] = id;
    }
    *ret_n = n;
    return hm_segment_merge(rule, (void *)(uintptr_t)bpe, symbol, ret_n, err);
}

int hm_byte_bpe_word(const struct hm_byte_bpe *bpe, struct hm_str word, struct hm_ids *ids,
                     struct hm_error *err)
{
    int32_t few[SHORT_WORD];
    int32_t id = whole_find(bpe, word);
    size_t n = 0;

    if (id >= 0)
        return hm_ids_append(ids, &id, 1, err);
    int32_t *symbol =
        word.len <= SHORT_WORD ? few : hm_alloc_array(HM_MEM_SCRATCH, word.len, sizeof(*symbol));
    if (!symbol)
        return hm_fail_nomem(err, "for a word of %zu bytes", word.len);
    int status = merge_word(bpe, word, symbol, &n, err);
    if (status == HM_OK)
        status = hm_ids_append(ids, symbol, n, err);
    if (symbol != few)
        hm_free(symbol);
    return status;
}

/* --- making ----------------------------------------------------------------------------------- */

/* Bytes that are shown as themselves; the others, in order, are U+0100 and on. */
static bool is_shown(unsigned byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static void alphabet_make(int16_t byte_of[512])
{
    int16_t next = 256;

    for (size_t i = 0; i < 512; i++)
        byte_of[i] = -1;
    for (int16_t byte = 0; byte < 256; byte++)
        byte_of[is_shown((unsigned)byte) ? byte : next++] = byte;
}

/* The bytes that the characters of a token stand for; none when some is not of the alphabet, for
 * no text reaches such a token. */
static int token_bytes(const int16_t byte_of[512], struct hm_str text, struct hm_buf *bytes,
                       struct hm_error *err)
{
    size_t before = bytes->len;
    uint32_t code = 0;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (len == 0 || code >= 512 || byte_of[code] < 0) {
            bytes->len = before;
            return HM_OK;
        }
        unsigned char byte = (unsigned char)byte_of[code];
        HM_TRY(hm_buf_append(bytes, &byte, 1, err));
        at += len;
    }
    return HM_OK;
}

static int id_of(const json_t *value, const char *token, const char *what, size_t *ret_id,
                 struct hm_error *err)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;

    if (id < 0 || id >= (json_int_t)MAX_TOKENS)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': the token '%.80s' has no id from 0 to %u", what,
                       token, MAX_TOKENS - 1);
    *ret_id = (size_t)id;
    return HM_OK;
}

static int tokens_read(const json_t *vocab, const char *what, struct hm_byte_bpe *bpe,
                       struct hm_error *err)
{
    int16_t byte_of[512];
    void *all = (void *)(uintptr_t)vocab; /* the iterators of jansson 2.14 take no const */
    size_t id = 0;

    for (void *at = json_object_iter(all); at; at = json_object_iter_next(all, at)) {
        HM_TRY(id_of(json_object_iter_value(at), json_object_iter_key(at), what, &id, err));
        bpe->count = id + 1 > bpe->count ? id + 1 : bpe->count;
    }
    alphabet_make(byte_of);
    bpe->token = hm_calloc(HM_MEM_VOCAB, bpe->count, sizeof(*bpe->token));
    bool *taken = hm_calloc(HM_MEM_VOCAB, bpe->count + 1, sizeof(*taken));
    int status = bpe->token && taken ? HM_OK : hm_fail_nomem(err, "for '%s'", what);
    for (void *at = json_object_iter(all); status == HM_OK && at;
         at = json_object_iter_next(all, at)) {
        const char *text = json_object_iter_key(at);
        status = id_of(json_object_iter_value(at), text, what, &id, err);
        if (status == HM_OK && taken[id])
            status = hm_fail(err, HM_ERR_FORMAT, "'%s': '%.80s' has id %zu, as another token has",
                             what, text, id);
        if (status < 0)
            break;
        taken[id] = true;
        bpe->token[id].first = bpe->bytes.len;
        status = token_bytes(byte_of, hm_str_of(text), &bpe->bytes, err);
        bpe->token[id].len = bpe->bytes.len - bpe->token[id].first;
    }
    hm_free(taken);
    return status;
}

/* The two halves of a merge, and what they make, as ids. */
static int merge_read(const json_t *vocab, const json_t *merge, const char *what, size_t rank,
                      struct hm_buf *joined, int32_t half[3], struct hm_error *err)
{
    struct hm_str part[2] = { { NULL, 0 }, { NULL, 0 } };

    if (!hm_json_merge_halves(merge, part))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': merge %zu is neither \"a b\" nor [\"a\", \"b\"]",
                       what, rank);
    for (size_t i = 0; i < 3; i++) {
        hm_buf_clear(joined);
        HM_TRY(hm_buf_append(joined, part[i == 1].ptr, part[i == 1].len, err));
        if (i == 2)
            HM_TRY(hm_buf_append(joined, part[1].ptr, part[1].len, err));
        const json_t *id = json_object_getn(vocab, joined->ptr, joined->len);
        if (!id)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': merge %zu needs '%.80s', which is no token",
                           what, rank, joined->ptr);
        half[i] = (int32_t)json_integer_value(id);
    }
    return HM_OK;
}

/* Of a pair that stands twice, the tokenizers library keeps the later rank. */
static void pair_put(struct hm_byte_bpe *bpe, const int32_t half[3], uint32_t rank)
{
    uint64_t key = pair_key(half[0], half[1]);
    size_t at = (size_t)(key * HASH_MIX >> bpe->pair_shift);

    while (bpe->pair[at].key != 0 && bpe->pair[at].key != key)
        at = (at + 1) & bpe->pair_mask;
    bpe->pair[at] = (struct hm_pair_slot){ key, (uint32_t)half[2], rank };
}

static int merges_read(const json_t *vocab, const json_t *merges, const char *what,
                       struct hm_byte_bpe *bpe, struct hm_error *err)
{
    size_t n = json_array_size(merges), slots = 64;
    struct hm_buf joined = { 0 };
    int32_t half[3] = { 0 };
    int status = HM_OK;

    if (n > MAX_MERGES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': %zu merges; at most %u are read", what, n,
                       MAX_MERGES);
    for (bpe->pair_shift = 64 - 6; slots < 2 * n; bpe->pair_shift--)
        slots *= 2;
    bpe->pair_mask = slots - 1;
    bpe->pair = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*bpe->pair));
    if (!bpe->pair)
        return hm_fail_nomem(err, "for '%s'", what);
    for (size_t rank = 0; status == HM_OK && rank < n; rank++) {
        status = merge_read(vocab, json_array_get(merges, rank), what, rank, &joined, half, err);
        if (status == HM_OK)
            pair_put(bpe, half, (uint32_t)rank);
    }
    hm_buf_release(&joined);
    return status;
}

/* Every token that its own bytes merge to, or every token where merges are ignored. */
static int wholes_make(struct hm_byte_bpe *bpe, struct hm_error *err)
{
    size_t slots = 64, longest = 1;

    while (slots < 2 * bpe->count)
        slots *= 2;
    for (size_t id = 0; id < bpe->count; id++)
        longest = bpe->token[id].len > longest ? bpe->token[id].len : longest;
    bpe->whole_mask = slots - 1;
    bpe->whole = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*bpe->whole));
    int32_t *symbol = hm_alloc_array(HM_MEM_VOCAB, longest, sizeof(*symbol));
    int status = bpe->whole && symbol ? HM_OK : hm_fail_nomem(err, "for a tokenizer");
    for (size_t id = 0; status == HM_OK && id < bpe->count; id++) {
        size_t n = 0;
        if (bpe->token[id].len == 0)
            continue;
        status = merge_word(bpe, hm_byte_bpe_token(bpe, id), symbol, &n, err);
        if (status == HM_OK && (bpe->ignore_merges || (n == 1 && symbol[0] == (int32_t)id)))
            whole_put(bpe, (int32_t)id);
    }
    hm_free(symbol);
    return status;
}

static int bytes_find(struct hm_byte_bpe *bpe, const json_t *model, const char *what,
                      struct hm_error *err)
{
    bool all = true;

    for (size_t byte = 0; byte < 256; byte++)
        bpe->byte_id[byte] = NO_SUCH_BYTE;
    for (size_t id = 0; id < bpe->count; id++)
        if (bpe->token[id].len == 1)
            bpe->byte_id[(unsigned char)bpe->bytes.ptr[bpe->token[id].first]] = (int32_t)id;
    for (size_t byte = 0; byte < 256; byte++) /* 13 of them stand in no UTF-8 */
        all = all && (bpe->byte_id[byte] >= 0 || byte == 0xc0 || byte == 0xc1 || byte > 0xf4);
    if (all || (!json_is_string(json_object_get(model, "unk_token")) &&
                !json_is_true(json_object_get(model, "byte_fallback"))))
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s': model.unk_token or model.byte_fallback beside a byte-level alphabet that "
                   "is not whole cannot be read exactly",
                   what);
}

static int parts_make(const json_t *model, const char *what, struct hm_byte_bpe *bpe,
                      struct hm_error *err)
{
    const json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");

    if (!json_is_object(vocab) || !json_is_array(merges) || json_object_size(vocab) == 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': model.vocab or model.merges is missing", what);
    HM_TRY(hm_json_bool_opt(model, "ignore_merges", what, &bpe->ignore_merges, err));
    HM_TRY(tokens_read(vocab, what, bpe, err));
    HM_TRY(bytes_find(bpe, model, what, err));
    HM_TRY(merges_read(vocab, merges, what, bpe, err));
    return wholes_make(bpe, err);
}

int hm_byte_bpe_make(const json_t *model, const char *what, struct hm_byte_bpe *ret_bpe,
                     struct hm_error *err)
{
    struct hm_byte_bpe bpe = { 0 };
    int status = parts_make(model, what, &bpe, err);

    if (status == HM_OK)
        *ret_bpe = bpe;
    else
        hm_byte_bpe_release(&bpe);
    return status;
}

void hm_byte_bpe_release(struct hm_byte_bpe *bpe)
{
    hm_buf_release(&bpe->bytes);
    hm_free(bpe->token);
    hm_free(bpe->pair);
    hm_free(bpe->whole);
    *bpe = (struct hm_byte_bpe){ 0 };
}
