/* SPDX-License-Identifier: MIT */
/*
 * vocab/spm_model.c: a model that parses finds each of its pieces, and grows by one piece that is
 * found at the end.
 */
#include "fuzz/fuzz.h"

#include "hanmix/vocab/spm_model.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_piece more = { hm_str_of("\xe6\x96\xb0 piece of the test"), -1, HM_PIECE_NORMAL };
    struct hm_spm_model model = { 0 };
    struct hm_spm_model grown = { 0 };
    struct hm_buf bytes = { 0 };

    if (hm_spm_model_parse((struct hm_str){ (const char *)data, size }, "input", &model, NULL) < 0)
        return 0;
    for (size_t i = 0; i < model.count; i++)
        HM_BUG(hm_spm_model_find(&model, model.piece[i].text) != (int32_t)i);
    if (hm_spm_model_append(&model, &more, 1, &bytes, NULL) == HM_OK) {
        int status =
            hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "grown", &grown, NULL);
        HM_BUG(status == HM_ERR_FORMAT && hm_spm_model_find(&model, more.text) < 0);
        HM_BUG(status == HM_OK && grown.count != model.count + 1);
    }
    hm_spm_model_release(&grown);
    hm_buf_release(&bytes);
    hm_spm_model_release(&model);
    return 0;
}
