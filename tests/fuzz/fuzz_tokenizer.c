/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer.c: a model that parses must be safe in the library's hands, and what it encodes
 * must be ids of the vocabulary. The first byte says how much of the input is text; the rest is the
 * model.
 */
#include "fuzz/fuzz.h"

#include "hanmix/vocab/tokenizer.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    size_t text_len = size > 0 ? data[0] : 0;
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    struct hm_buf back = { 0 };

    if (size < 1 + text_len)
        return 0;
    struct hm_str text = { (const char *)data + 1, text_len };
    struct hm_str model = { text.ptr + text_len, size - 1 - text_len };
    if (hm_tokenizer_open_bytes(model, "input", &tokenizer, NULL) == HM_OK) {
        (void)hm_tokenizer_encode(tokenizer, text, &ids, NULL);
        (void)hm_tokenizer_encode_bare(tokenizer, text, &ids, NULL);
        for (size_t i = 0; i < ids.count; i++)
            HM_BUG(ids.id[i] < 0 || (size_t)ids.id[i] >= tokenizer->model.count);
        (void)hm_tokenizer_decode(tokenizer, ids.id, ids.count, &back, NULL);
    }
    hm_buf_release(&back);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    return 0;
}
