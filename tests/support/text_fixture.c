/* SPDX-License-Identifier: MIT */
/*
 * A source over an array of texts and an encoder of bytes.
 */
#include "support/text_fixture.h"

#include <string.h>

static int fixture_encode(void *context, struct hm_str text, struct hm_ids *ids,
                          struct hm_error *err)
{
    int32_t id = FIXTURE_SPACE;

    (void)context;
    if (text.len == 0)
        return HM_OK;
    HM_TRY(hm_ids_append(ids, &id, 1, err));
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = (uint8_t)text.ptr[i];
        id = byte == ' ' ? FIXTURE_SPACE : FIXTURE_BYTE0 + byte;
        HM_TRY(hm_ids_append(ids, &id, 1, err));
    }
    return HM_OK;
}

static int fixture_verify(void *context, struct hm_str text, const int32_t *ids, size_t n,
                          struct hm_error *err)
{
    struct hm_ids again = { 0 };
    size_t at = 0;
    int status = fixture_encode(context, text, &again, err);

    while (at < n && at < again.count && ids[at] == again.id[at])
        at++;
    if (status == HM_OK && (at < n || at < again.count))
        status = hm_fail(err, HM_ERR_CHECK, "token %zu differs", at);
    hm_ids_release(&again);
    return status;
}

static int fixture_dropout(void *context, struct hm_str text, double rate, struct hm_rng_key key,
                           struct hm_ids *ids, struct hm_error *err)
{
    const int32_t unk = FIXTURE_UNK;
    struct hm_ids plain = { 0 };
    int status = fixture_encode(context, text, &plain, err);

    for (size_t i = 0; status == HM_OK && i < plain.count; i++) {
        status = hm_ids_append(ids, &plain.id[i], 1, err);
        if (status == HM_OK && hm_rng_uniform(key, i) < rate)
            status = hm_ids_append(ids, &unk, 1, err);
    }
    hm_ids_release(&plain);
    return status;
}

static void fixture_token_size(void *context, int32_t id, uint32_t *ret_bytes, uint32_t *ret_chars)
{
    (void)context;
    *ret_bytes = id >= FIXTURE_BYTE0;
    *ret_chars =
        id == FIXTURE_SPACE || (id >= FIXTURE_BYTE0 && ((id - FIXTURE_BYTE0) & 0xc0) != 0x80);
}

struct hm_text_encoder fixture_encoder(void)
{
    struct hm_text_encoder encoder = { .encode = fixture_encode,
                                       .verify = fixture_verify,
                                       .encode_dropout = fixture_dropout,
                                       .token_size = fixture_token_size,
                                       .vocab_size = FIXTURE_VOCAB,
                                       .bos_id = FIXTURE_BOS,
                                       .eos_id = FIXTURE_EOS,
                                       .unk_id = FIXTURE_UNK };

    memset(encoder.fingerprint, 'a', 64);
    return encoder;
}

static int fixture_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    struct fixture_texts *texts = context;
    size_t at = texts->at;

    if (at == texts->count)
        return 0;
    texts->at++;
    if (texts->fail_at > 0 && at == texts->fail_at)
        return hm_fail(err, HM_ERR_FORMAT, "document %zu is broken", at);
    const char *set = texts->set ? texts->set[at] : "text";
    uint32_t set_index = 0;
    for (size_t i = 0; texts->set && strcmp(texts->set[i], set) != 0; i++) /* sets come in blocks */
        set_index += i == 0 || strcmp(texts->set[i], texts->set[i - 1]) != 0;
    *ret_doc = (struct hm_doc){ hm_str_of(texts->text[at]), set, set_index, at };
    return 1;
}

static uint64_t fixture_position(void *context)
{
    return ((struct fixture_texts *)context)->at;
}

struct hm_text_source fixture_source(struct fixture_texts *texts)
{
    return (struct hm_text_source){ .context = texts,
                                    .next = fixture_next,
                                    .position_bytes = fixture_position,
                                    .total_bytes = texts->count };
}
