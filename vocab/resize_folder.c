/* SPDX-License-Identifier: MIT */
/*
 * A grown model folder besides its weights: the index with new totals, config.json with the new
 * number of rows, the new tokenizer's files, generation settings and the record of what grew.
 * Everything that is not about the vocabulary is carried on as it stands. Where pieces move, token
 * ids in the settings move with them. The weights are embed_resize.c.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/vocab/piece_merge.h"
#include "resize_folder.h"

#define INDEX_MAX_BYTES    (256u << 20)
#define TOKENS_MAX_BYTES   (256u << 20)
#define SETTINGS_MAX_BYTES (16u << 20)

/* --- index ------------------------------------------------------------------------------------ */

/* Bytes and elements of all tensors as they will be. */
static void totals_find(const struct hm_resize_folder *folder, uint64_t *ret_bytes,
                        uint64_t *ret_elements)
{
    uint64_t bytes = 0;
    uint64_t elements = 0;

    for (size_t i = 0; i < folder->ckpt->count; i++) {
        const struct hm_tensor *tensor = folder->ckpt->tensor[i];
        bool grown = tensor == folder->embed || tensor == folder->head;
        uint64_t times = grown ? folder->plan->rows : 1;
        uint64_t parts = grown ? tensor->shape[0] : 1;
        bytes += tensor->size_bytes / parts * times;
        elements += tensor->count / parts * times;
    }
    *ret_bytes = bytes;
    *ret_elements = elements;
}

static int index_change(const struct hm_resize_folder *folder, json_t *index, struct hm_error *err)
{
    json_t *metadata = json_object_get(index, "metadata");
    uint64_t bytes, elements;
    int failed = 0;

    if (!json_is_object(metadata)) {
        failed |= json_object_set_new(index, "metadata", json_object());
        metadata = json_object_get(index, "metadata");
    }
    totals_find(folder, &bytes, &elements);
    failed |= json_object_set_new(metadata, "total_size", json_integer((json_int_t)bytes));
    if (json_object_get(metadata, "total_parameters"))
        failed |=
            json_object_set_new(metadata, "total_parameters", json_integer((json_int_t)elements));
    return failed ? hm_fail_nomem(err, "for the index of '%s'", folder->out_dir) : HM_OK;
}

/* A model in HM_MODEL_FILE is read without an index, whatever lies beside it. */
static int index_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    char *from = NULL;
    json_t *index = NULL;

    if (strcmp(hm_path_tail(folder->ckpt->file[0].path, 1), HM_MODEL_FILE) == 0)
        return HM_OK;
    int status = hm_path_join(&from, folder->ckpt->dir, HM_MODEL_INDEX_FILE, err);
    if (status == HM_OK)
        status = hm_json_load(from, INDEX_MAX_BYTES, &index, err);
    if (status == HM_OK)
        status = index_change(folder, index, err);
    if (status == HM_OK)
        status = hm_json_save_in(folder->out_dir, HM_MODEL_INDEX_FILE, index, err);
    json_decref(index);
    hm_free(from);
    return status;
}

/* --- settings --------------------------------------------------------------------------------- */

/* A token id where the new tokenizer has its piece; as it is where the piece is gone. */
static json_t *id_moved(const struct hm_resize_folder *folder, const json_t *id)
{
    const struct hm_spm_model *old = &folder->old_tokenizer->model;
    json_int_t value = json_integer_value(id);
    int32_t found = -1;

    if (json_is_integer(id) && value >= 0 && (uint64_t)value < old->count)
        found = hm_spm_model_find(&folder->new_tokenizer->model, old->piece[value].text);
    return found >= 0 ? json_integer(found) : json_deep_copy(id);
}

/* Where ids move, so do those of the special tokens; one id or a list of them. */
static int ids_move(const struct hm_resize_folder *folder, json_t *settings, struct hm_error *err)
{
    static const char *const keys[] = { "bos_token_id", "eos_token_id", "pad_token_id" };
    int failed = 0;

    if (folder->plan->first_new == folder->plan->old_pieces)
        return HM_OK;
    for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
        json_t *value = json_object_get(settings, keys[k]);
        if (json_is_integer(value))
            failed |= json_object_set_new(settings, keys[k], id_moved(folder, value));
        for (size_t i = 0; i < json_array_size(value); i++)
            failed |= json_array_set_new(value, i, id_moved(folder, json_array_get(value, i)));
    }
    return failed ? hm_fail_nomem(err, "for the settings of '%s'", folder->out_dir) : HM_OK;
}

static int config_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    json_t *config = json_deep_copy(folder->ckpt->config);
    json_t *rows = json_integer((json_int_t)folder->plan->rows);
    int status = HM_OK;

    if (json_object_set_new(config, "vocab_size", rows) < 0)
        status = hm_fail_nomem(err, "for the config of '%s'", folder->out_dir);
    if (status == HM_OK)
        status = ids_move(folder, config, err);
    if (status == HM_OK)
        status = hm_config_write(config, folder->out_dir, err);
    json_decref(config);
    return status;
}

/* Byte for byte where ids stay. */
static int generation_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    static const char name[] = "generation_config.json";
    json_t *settings = NULL;
    char *from = NULL;

    if (folder->plan->first_new == folder->plan->old_pieces)
        return hm_model_file_copy(folder->ckpt->dir, folder->out_dir, name, err);
    int status = hm_path_join(&from, folder->ckpt->dir, name, err);
    if (status == HM_OK && hm_path_exists(from)) {
        status = hm_json_load(from, SETTINGS_MAX_BYTES, &settings, err);
        if (status == HM_OK)
            status = ids_move(folder, settings, err);
        if (status == HM_OK)
            status = hm_json_save_in(folder->out_dir, name, settings, err);
    }
    json_decref(settings);
    hm_free(from);
    return status;
}

/* --- tokenizer -------------------------------------------------------------------------------- */

/*
 * tokenizer.json and its companions where the new tokenizer came without: some models (unigram, own
 * normalisers) cannot be said in it, and loaders then read tokenizer.model.
 */
static int companions_make(const struct hm_resize_folder *folder, const char *base_dir,
                           struct hm_error *err)
{
    const struct hm_spm_model *model = &folder->new_tokenizer->model;
    struct hm_error reason = { 0 };
    bool there;

    HM_TRY(hm_dir_holds(folder->out_dir, "tokenizer.json", &there, err));
    if (there)
        return HM_OK;
    int status = hm_tokenizer_json_write(model, base_dir, folder->out_dir, &reason);
    if (status == HM_ERR_FORMAT) {
        hm_ctl_message(folder->ctl, "no tokenizer.json is written: %s", reason.text);
        return HM_OK;
    }
    return status < 0 ? hm_error_pass(err, &reason) : HM_OK;
}

/* The folder that the companions of a tokenizer.model come from; *ret_dir is NULL where it has
 * another name. hm_free it. */
static int companions_dir(const struct hm_tokenizer *tokenizer, char **ret_dir,
                          struct hm_error *err)
{
    const char *path = tokenizer->model.path ? tokenizer->model.path : "";
    const char *name = hm_path_tail(path, 1);

    *ret_dir = NULL;
    if (strcmp(name, "tokenizer.model") != 0)
        return HM_OK;
    if (name == path)
        return hm_format(ret_dir, err, ".");
    return hm_format(ret_dir, err, "%.*s", name - path > 1 ? (int)(name - path - 1) : 1, path);
}

/* Every normal piece has its id in the vocabulary of a tokenizer.json that is an object. */
static int vocabulary_check(const struct hm_spm_model *model, const json_t *root, const char *path,
                            struct hm_error *err)
{
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");

    for (size_t i = 0; json_is_object(vocab) && i < model->count; i++) {
        const struct hm_piece *piece = &model->piece[i];
        const json_t *id = json_object_getn(vocab, piece->text.ptr, piece->text.len);
        if (piece->type == HM_PIECE_NORMAL && json_integer_value(id) != (json_int_t)i)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': piece %zu of tokenizer.model beside it, '%.*s', %s there: take "
                           "both from one vocab.merge, or leave it out, then it is made",
                           path, i, (int)piece->text.len, piece->text.ptr,
                           id ? "has another id" : "is missing");
    }
    return HM_OK;
}

int hm_resize_companions_check(const struct hm_tokenizer *new_tokenizer, struct hm_error *err)
{
    char *dir = NULL;
    char *path = NULL;
    json_t *root = NULL;
    int status = companions_dir(new_tokenizer, &dir, err);

    if (status == HM_OK && dir)
        status = hm_path_join(&path, dir, "tokenizer.json", err);
    if (status == HM_OK && path && hm_path_exists(path)) {
        status = hm_json_load(path, TOKENS_MAX_BYTES, &root, err);
        if (status == HM_OK)
            status = vocabulary_check(&new_tokenizer->model, root, path, err);
    }
    json_decref(root);
    hm_free(path);
    hm_free(dir);
    return status;
}

/* tokenizer.model as it is, its companions from its folder. */
static int tokenizer_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    const struct hm_spm_model *model = &folder->new_tokenizer->model;
    char *from = NULL;
    int status = companions_dir(folder->new_tokenizer, &from, err);

    if (status == HM_OK && from)
        status = hm_model_files_copy(from, folder->out_dir, err);
    if (status == HM_OK)
        status = hm_file_write_in(folder->out_dir, "tokenizer.model", model->bytes.ptr,
                                  model->bytes.len, err);
    if (status == HM_OK)
        status = companions_make(folder, from ? from : folder->ckpt->dir, err);
    hm_free(from);
    return status;
}

/* A token that added_tokens.json beside the model puts on one of these rows; NULL: none is known.
 * Borrowed from `added`. */
static const char *added_token(json_t *added, uint64_t first, uint64_t end)
{
    const char *text;
    json_t *id;

    json_object_foreach(added, text, id)
    {
        json_int_t row = json_integer_value(id);
        if (json_is_integer(id) && row >= (json_int_t)first && row < (json_int_t)end)
            return text;
    }
    return NULL;
}

int hm_resize_replaced_tell(const struct hm_resize_folder *folder, struct hm_error *err)
{
    const struct hm_row_plan *plan = folder->plan;
    uint64_t end = hm_row_plan_replaced(plan) + plan->old_pieces;
    json_t *added = NULL;
    char *path = NULL;

    if (end == plan->old_pieces)
        return HM_OK;
    HM_TRY(hm_path_join(&path, folder->ckpt->dir, "added_tokens.json", err));
    if (hm_path_exists(path))
        (void)hm_json_load(path, SETTINGS_MAX_BYTES, &added, NULL); /* tells a name, no more */
    const char *token = added_token(added, plan->old_pieces, end);
    hm_ctl_message(folder->ctl,
                   "rows %" PRIu64 " to %" PRIu64 " of the model, which no piece of the old "
                   "tokenizer has, are not kept%s%s%s",
                   plan->old_pieces, end - 1, token ? ": what was learned for '" : "",
                   token ? token : "", token ? "' and its like (added_tokens.json) is lost" : "");
    json_decref(added);
    hm_free(path);
    return HM_OK;
}

/* --- all of it -------------------------------------------------------------------------------- */

static int record_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    struct hm_vocab_record record = { .old_vocab_size = folder->plan->first_new,
                                      .new_vocab_size = folder->plan->rows,
                                      .present = true };

    memcpy(record.old_tokenizer, folder->old_tokenizer->model.sha256, HM_SHA256_HEX_BYTES);
    memcpy(record.new_tokenizer, folder->new_tokenizer->model.sha256, HM_SHA256_HEX_BYTES);
    return hm_vocab_record_write(folder->out_dir, &record, err);
}

int hm_resize_folder_write(const struct hm_resize_folder *folder, struct hm_error *err)
{
    HM_TRY(index_write(folder, err));
    HM_TRY(config_write(folder, err));
    HM_TRY(tokenizer_write(folder, err));
    HM_TRY(generation_write(folder, err));
    return record_write(folder, err);
}
