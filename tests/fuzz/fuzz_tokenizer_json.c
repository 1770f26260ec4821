/* SPDX-License-Identifier: MIT */
/*
 * vocab/tokenizer_json.c: a base tokenizer.json that is accepted is extended to a file that is
 * accepted as a base again, with every piece of the model in its vocabulary.
 */
#include "fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hanmix/base/json.h"
#include "hanmix/vocab/piece_merge.h"

static int make_model(struct hm_spm_model *model)
{
    struct hm_piece piece[] = {
        { hm_str_of("<unk>"), 0, HM_PIECE_UNKNOWN }, { hm_str_of("<s>"), 0, HM_PIECE_CONTROL },
        { hm_str_of("a"), -1, HM_PIECE_NORMAL },     { hm_str_of("b"), -2, HM_PIECE_NORMAL },
        { hm_str_of("ab"), -3, HM_PIECE_NORMAL },    { hm_str_of("aba"), -4, HM_PIECE_NORMAL }
    };
    struct hm_buf bytes = { 0 };

    int status = hm_spm_model_build(piece, 6, false, &bytes, NULL);
    if (status == HM_OK)
        status = hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "made", model, NULL);
    hm_buf_release(&bytes);
    return status;
}

static void check_written(const struct hm_spm_model *model, const char *out)
{
    char path[300];
    json_t *root = NULL;

    snprintf(path, sizeof(path), "%s/tokenizer.json", out);
    int status = hm_json_load(path, 1 << 24, &root, NULL);
    HM_BUG(status < 0 && status != HM_ERR_NOMEM);
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    for (size_t i = 0; status == HM_OK && i < model->count; i++)
        HM_BUG(!json_object_getn(vocab, model->piece[i].text.ptr, model->piece[i].text.len));
    json_decref(root);
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    const char *base = fuzz_folder_file(data, size, "tokenizer.json");
    struct hm_spm_model model = { 0 };
    char out[256];

    snprintf(out, sizeof(out), "%.200s/out", base);
    (void)mkdir(out, 0777);
    if (make_model(&model) < 0)
        return 0;
    if (hm_tokenizer_json_write(&model, base, out, NULL) == HM_OK) {
        check_written(&model, out);
        int again = hm_tokenizer_json_write(&model, out, out, NULL);
        HM_BUG(again < 0 && again != HM_ERR_NOMEM);
    }
    hm_spm_model_release(&model);
    return 0;
}
