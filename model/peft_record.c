/* SPDX-License-Identifier: MIT */
/*
 * hanmix.json of an adapter folder: the base it was trained over, which rows were trained, the
 * dropout of the training, and the record of the grown vocabulary (the "vocab_resize" block that
 * model folders carry too). PEFT never looks at this file.
 */
#include "peft_record.h"

#include <inttypes.h>
#include <string.h>

static const char *rows_name(enum hm_rows rows)
{
    return rows == HM_ROWS_NEW ? "new" : rows == HM_ROWS_ALL ? "all" : "none";
}

/* "new" narrows what the configuration trains in full; anything else leaves it. */
static int read_rows(const json_t *block, const char *key, const char *path, enum hm_rows *rows,
                     struct hm_error *err)
{
    const char *text = "all";

    HM_TRY(hm_json_text_opt(block, key, path, &text, err));
    if (strcmp(text, "new") == 0 && *rows != HM_ROWS_NONE)
        *rows = HM_ROWS_NEW;
    else if (strcmp(text, "new") != 0 && strcmp(text, "all") != 0 && strcmp(text, "none") != 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' is '%.100s', expected none, new or all",
                       path, key, text);
    return HM_OK;
}

static int parse_record(const json_t *root, const char *path, const struct hm_checkpoint *ckpt,
                        struct hm_adapter_config *config, struct hm_error *err)
{
    const json_t *block = json_object_get(root, "adapter");
    uint64_t rows = 0;

    HM_TRY(hm_record_version_check(root, path, err));
    if (!block)
        return HM_OK;
    HM_TRY(hm_json_u64(block, "vocab_size", path, &rows, err));
    if (rows != ckpt->arch.vocab_size)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the adapter was trained with a vocabulary of %" PRIu64
                       " pieces, but the model '%s' has %" PRIu32,
                       path, rows, ckpt->dir, ckpt->arch.vocab_size);
    HM_TRY(read_rows(block, "train_embeddings", path, &config->embed, err));
    HM_TRY(read_rows(block, "train_head", path, &config->head, err));
    return hm_json_f64_opt(block, "dropout", path, &config->dropout, err);
}

static int check_vocabulary(const char *dir, const struct hm_checkpoint *ckpt,
                            uint64_t *ret_old_vocab, struct hm_error *err)
{
    struct hm_vocab_record ours = { 0 }, base = { 0 };

    HM_TRY(hm_vocab_record_read(dir, ckpt->arch.vocab_size, &ours, err));
    HM_TRY(hm_vocab_record_read(ckpt->dir, ckpt->arch.vocab_size, &base, err));
    if (ours.present && base.present && strcmp(ours.new_tokenizer, base.new_tokenizer) != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the adapter was trained with the tokenizer %.16s..., but the model "
                       "'%s' has %.16s...",
                       dir, ours.new_tokenizer, ckpt->dir, base.new_tokenizer);
    *ret_old_vocab = ours.old_vocab_size;
    return HM_OK;
}

int hm_peft_record_read(const char *dir, const struct hm_checkpoint *ckpt,
                        struct hm_adapter_config *config, uint64_t *ret_old_vocab,
                        struct hm_error *err)
{
    uint64_t old_vocab = ckpt->arch.vocab_size;
    char *path = NULL;
    json_t *root = NULL;
    int status = hm_path_join(&path, dir, HM_RECORD_FILE, err);

    if (status == HM_OK && hm_path_exists(path)) {
        status = hm_json_load(path, HM_RECORD_MAX_BYTES, &root, err);
        if (status == HM_OK)
            status = parse_record(root, path, ckpt, config, err);
        if (status == HM_OK && json_object_get(root, "vocab_resize"))
            status = check_vocabulary(dir, ckpt, &old_vocab, err);
    }
    if (status == HM_OK)
        *ret_old_vocab = old_vocab;
    json_decref(root);
    hm_free(path);
    return status;
}

int hm_peft_record_write(const char *dir, const struct hm_adapter *adapter,
                         const struct hm_checkpoint *ckpt, struct hm_error *err)
{
    const struct hm_adapter_config *config = &adapter->config;
    struct hm_vocab_record record = { 0 };
    char fingerprint[HM_SHA256_HEX_BYTES];
    json_t *root = NULL;

    HM_TRY(hm_checkpoint_fingerprint(ckpt, false, fingerprint, err));
    HM_TRY(hm_vocab_record_read(ckpt->dir, ckpt->arch.vocab_size, &record, err));
    root =
        json_pack("{s:I, s:{s:s, s:I, s:s, s:s, s:f}}", "version", (json_int_t)HM_RECORD_VERSION,
                  "adapter", "base", fingerprint, "vocab_size", (json_int_t)ckpt->arch.vocab_size,
                  "train_embeddings", rows_name(config->embed), "train_head",
                  rows_name(config->head), "dropout", config->dropout);
    if (root && record.present &&
        json_object_set_new(root, "vocab_resize", hm_vocab_record_json(&record)) < 0) {
        json_decref(root);
        root = NULL;
    }
    int status = hm_json_save_in(dir, HM_RECORD_FILE, root, err);
    json_decref(root);
    return status;
}
