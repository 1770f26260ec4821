/* SPDX-License-Identifier: MIT */
/*
 * vocab/spm_json.c: a tokenizer.json of SentencePiece's kind that is read must encode any text to
 * ids it has, and have merges of pieces it has. The first byte says how much of the input is text;
 * the rest is the file.
 */
#include "fuzz/fuzz.h"

#include "hanmix/vocab/tokenizer.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    size_t text_len = size > 0 ? data[0] : 0;
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_ids ids = { 0 };
    struct hm_buf text = { 0 };

    if (size < 1 + text_len)
        return 0;
    const char *path = fuzz_file(data + 1 + text_len, size - 1 - text_len, ".json");
    if (hm_tokenizer_open(path, &tokenizer, NULL) == HM_OK) {
        const struct hm_spm_model *model = &tokenizer->model;
        for (size_t i = 0; i < model->n_merges; i++)
            HM_BUG((size_t)model->merge[i].left >= model->count ||
                   (size_t)model->merge[i].right >= model->count ||
                   (size_t)model->merge[i].result >= model->count);
        (void)hm_tokenizer_encode(tokenizer, (struct hm_str){ (const char *)data + 1, text_len },
                                  &ids, NULL);
        for (size_t i = 0; i < ids.count; i++)
            HM_BUG(ids.id[i] < 0 || (size_t)ids.id[i] >= model->count);
        (void)hm_tokenizer_decode(tokenizer, ids.id, ids.count, &text, NULL);
    }
    hm_buf_release(&text);
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    return 0;
}
