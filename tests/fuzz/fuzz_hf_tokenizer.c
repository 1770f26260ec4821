/* SPDX-License-Identifier: MIT */
/*
 * vocab/hf_tokenizer.c: a tokenizer.json that is read must encode any text to ids it has. The first
 * byte says how much of the input is text; the rest is the file.
 */
#include "fuzz/fuzz.h"

#include "vocab/hf_tokenizer.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    size_t text_len = size > 0 ? data[0] : 0;
    struct hm_hf_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    bool special = false;

    if (size < 1 + text_len)
        return 0;
    struct hm_str text = { (const char *)data + 1, text_len };
    struct hm_str file = { text.ptr + text_len, size - 1 - text_len };
    if (hm_hf_tokenizer_parse(file, "input", &tokenizer, NULL) == HM_OK) {
        (void)hm_hf_tokenizer_encode(tokenizer, text, &ids, NULL);
        for (size_t i = 0; i < ids.count; i++) {
            HM_BUG(ids.id[i] < 0 || (size_t)ids.id[i] >= tokenizer->count);
            (void)hm_hf_tokenizer_text(tokenizer, (size_t)ids.id[i], &special);
        }
    }
    hm_ids_release(&ids);
    hm_hf_tokenizer_free(tokenizer);
    return 0;
}
