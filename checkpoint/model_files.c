/* SPDX-License-Identifier: MIT */
/*
 * What travels with a model besides weights and config: tokenizer files, generation settings, and
 * hanmix.json, the record of a grown vocabulary.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"

int hm_model_file_copy(const char *from_dir, const char *to_dir, const char *name,
                       struct hm_error *err)
{
    char *from = NULL;
    char *to = NULL;

    int status = hm_path_join(&from, from_dir, name, err);
    if (status == HM_OK)
        status = hm_path_join(&to, to_dir, name, err);
    if (status == HM_OK && hm_path_exists(from))
        status = hm_file_copy(from, to, err);
    hm_free(from);
    hm_free(to);
    return status;
}

int hm_model_files_copy(const char *from_dir, const char *to_dir, struct hm_error *err)
{
    static const char *const names[] = {
        "tokenizer.model",         "tokenizer.json",    "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "generation_config.json",  HM_RECORD_FILE,
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        HM_TRY(hm_model_file_copy(from_dir, to_dir, names[i], err));
    return HM_OK;
}

static int read_digest(const json_t *object, const char *key, const char *path,
                       char digest[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    const char *text = NULL;

    HM_TRY(hm_json_text(object, key, path, &text, err));
    if (strlen(text) != HM_SHA256_HEX_BYTES - 1 ||
        strspn(text, "0123456789abcdef") != HM_SHA256_HEX_BYTES - 1)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' is no SHA-256 of 64 hexadecimal digits",
                       path, key);
    memcpy(digest, text, HM_SHA256_HEX_BYTES);
    return HM_OK;
}

int hm_record_version_check(const json_t *root, const char *path, struct hm_error *err)
{
    uint64_t version = 0;

    HM_TRY(hm_json_u64(root, "version", path, &version, err));
    if (version != HM_RECORD_VERSION)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': version %" PRIu64 ", expected %u", path, version,
                       HM_RECORD_VERSION);
    return HM_OK;
}

static int parse_record(const json_t *root, const char *path, uint64_t vocab_size,
                        struct hm_vocab_record *record, struct hm_error *err)
{
    const json_t *block = json_object_get(root, "vocab_resize");

    HM_TRY(hm_record_version_check(root, path, err));
    HM_TRY(hm_json_u64(block, "old_vocab_size", path, &record->old_vocab_size, err));
    HM_TRY(hm_json_u64(block, "new_vocab_size", path, &record->new_vocab_size, err));
    HM_TRY(read_digest(block, "old_tokenizer_sha256", path, record->old_tokenizer, err));
    HM_TRY(read_digest(block, "new_tokenizer_sha256", path, record->new_tokenizer, err));
    if (record->new_vocab_size != vocab_size || record->old_vocab_size > vocab_size)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': records a vocabulary grown from %" PRIu64 " to %" PRIu64
                       ", but the model has %" PRIu64 " rows",
                       path, record->old_vocab_size, record->new_vocab_size, vocab_size);
    record->present = true;
    return HM_OK;
}

int hm_vocab_record_read(const char *dir, uint64_t vocab_size, struct hm_vocab_record *ret,
                         struct hm_error *err)
{
    struct hm_vocab_record record = { .old_vocab_size = vocab_size, .new_vocab_size = vocab_size };
    char *path = NULL;
    json_t *root = NULL;

    int status = hm_path_join(&path, dir, HM_RECORD_FILE, err);
    if (status == HM_OK && hm_path_exists(path)) {
        status = hm_json_load(path, HM_RECORD_MAX_BYTES, &root, err);
        if (status == HM_OK)
            status = parse_record(root, path, vocab_size, &record, err);
    }
    if (status == HM_OK)
        *ret = record;
    json_decref(root);
    hm_free(path);
    return status;
}

json_t *hm_vocab_record_json(const struct hm_vocab_record *record)
{
    return json_pack("{s:I, s:I, s:s, s:s}", "old_vocab_size", (json_int_t)record->old_vocab_size,
                     "new_vocab_size", (json_int_t)record->new_vocab_size, "old_tokenizer_sha256",
                     record->old_tokenizer, "new_tokenizer_sha256", record->new_tokenizer);
}

int hm_vocab_record_write(const char *dir, const struct hm_vocab_record *record,
                          struct hm_error *err)
{
    json_t *root = json_pack("{s:I, s:o}", "version", (json_int_t)HM_RECORD_VERSION, "vocab_resize",
                             hm_vocab_record_json(record));
    int status = hm_json_save_in(dir, HM_RECORD_FILE, root, err);

    json_decref(root);
    return status;
}
