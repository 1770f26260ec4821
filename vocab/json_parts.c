/* SPDX-License-Identifier: MIT */
/*
 * What the readers of a tokenizer.json share; see json_parts.h.
 */
#include "json_parts.h"

#include <string.h>

int hm_json_refuse(const char *what, const char *component, struct hm_error *err)
{
    return hm_fail(
        err, HM_ERR_FORMAT,
        "'%s': %s cannot be read exactly; byte-level BPE with no normalizer or NFC can, BPE with "
        "byte fallback as LLaMA and Mistral have it, and SentencePiece's tokenizer.model",
        what, component);
}

bool hm_json_is_set(const json_t *value)
{
    return value && !json_is_null(value) && !json_is_false(value) &&
           !(json_is_string(value) && json_string_length(value) == 0) &&
           !(json_is_number(value) && json_number_value(value) == 0);
}

int hm_json_bpe_check(const json_t *model, const char *what, struct hm_error *err)
{
    static const char *const unknown[] = { "dropout", "continuing_subword_prefix",
                                           "end_of_word_suffix" };
    const char *type = "BPE"; /* files of old do not say */

    HM_TRY(hm_json_text_opt(model, "type", what, &type, err));
    if (strcmp(type, "BPE") != 0)
        return hm_json_refuse(what, "a model of another type than BPE", err);
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        if (hm_json_is_set(json_object_get(model, unknown[i])))
            return hm_json_refuse(what, unknown[i], err);
    return HM_OK;
}

bool hm_json_merge_halves(const json_t *merge, struct hm_str half[2])
{
    if (json_is_string(merge)) {
        struct hm_str text = { json_string_value(merge), json_string_length(merge) };
        const char *space = memchr(text.ptr, ' ', text.len);
        if (!space)
            return false;
        half[0] = (struct hm_str){ text.ptr, (size_t)(space - text.ptr) };
        half[1] = (struct hm_str){ space + 1, text.len - half[0].len - 1 };
        return half[0].len > 0 && half[1].len > 0 && !memchr(half[1].ptr, ' ', half[1].len);
    }
    for (size_t i = 0; i < 2; i++) {
        const json_t *text = json_array_get(merge, i);
        if (!json_is_string(text))
            return false;
        half[i] = (struct hm_str){ json_string_value(text), json_string_length(text) };
    }
    return json_array_size(merge) == 2 && half[0].len > 0 && half[1].len > 0;
}
