/* SPDX-License-Identifier: MIT */
/*
 * A model folder with a grown vocabulary: the shards that hold embed_tokens and lm_head are written
 * anew, the others linked or copied, index, config.json and the record follow, and the new
 * tokenizer's files make the folder loadable. What the new rows are is embed_rows.c. A tied head is
 * not stored, or stored as a copy, and stays so.
 */
#include <string.h>
#include <sys/stat.h>

#include "embed_rows.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/vocab/piece_merge.h"

#define INDEX_MAX_BYTES (256u << 20)
#define WRITE_BYTES     (8u << 20)

struct resize {
    struct hm_checkpoint ckpt;
    const struct hm_tokenizer *old_tokenizer, *new_tokenizer;
    const struct hm_resize_options *options;
    const char *out_dir;
    const struct hm_ctl *ctl;
    struct hm_row_plan plan;
    const struct hm_tensor *embed;
    const struct hm_tensor *head; /* NULL when the head is tied and not stored */
    struct hm_resize_report report;
};

/* --- checks ----------------------------------------------------------------------------------- */

static int matrix_check(const struct resize *resize, const struct hm_tensor *tensor,
                        struct hm_error *err)
{
    uint64_t expected[2] = { resize->ckpt.arch.vocab_size, resize->ckpt.arch.hidden };
    char found_text[192];
    char expected_text[192];

    if (tensor->n_dims != 2 || tensor->shape[0] != expected[0] || tensor->shape[1] != expected[1])
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has shape %s, expected %s",
                       resize->ckpt.dir, tensor->name,
                       hm_shape_text(tensor->n_dims, tensor->shape, found_text, sizeof(found_text)),
                       hm_shape_text(2, expected, expected_text, sizeof(expected_text)));
    if (!hm_dtype_is_weight(tensor->dtype))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' is %s; rows can be added to F32, F16 and BF16: grow the "
                       "model before it is quantised",
                       resize->ckpt.dir, tensor->name, hm_dtype_name(tensor->dtype));
    return HM_OK;
}

static int matrices_find(struct resize *resize, struct hm_error *err)
{
    struct hm_weight_slot embed = { .kind = HM_WEIGHT_EMBED };
    struct hm_weight_slot head = { .kind = HM_WEIGHT_HEAD };
    char name[192];

    hm_arch_slot_name(&resize->ckpt.arch, &embed, name);
    strcat(name, ".weight");
    HM_TRY(hm_checkpoint_need(&resize->ckpt, name, &resize->embed, err));
    HM_TRY(matrix_check(resize, resize->embed, err));
    hm_arch_slot_name(&resize->ckpt.arch, &head, name);
    strcat(name, ".weight");
    resize->head = hm_checkpoint_find(&resize->ckpt, name);
    if (resize->head)
        return matrix_check(resize, resize->head, err);
    if (resize->ckpt.arch.tied)
        return HM_OK;
    return hm_checkpoint_need(&resize->ckpt, name, &resize->head, err);
}

/* A tokenizer that lies with the model tells whether the old one is the model's. */
static int old_tokenizer_check(const struct resize *resize, struct hm_error *err)
{
    const struct hm_spm_model *old = &resize->old_tokenizer->model;
    struct hm_spm_model own = { 0 };
    char *path = NULL;
    size_t i = 0;
    int status = HM_OK;

    HM_TRY(hm_path_join(&path, resize->ckpt.dir, "tokenizer.model", err));
    if (hm_path_exists(path) && hm_spm_model_load(path, &own, NULL) == HM_OK) {
        while (i < own.count && i < old->count &&
               hm_str_equal(own.piece[i].text, old->piece[i].text))
            i++;
        if (i < own.count || i < old->count)
            status = hm_fail(err, HM_ERR_FORMAT,
                             "the old tokenizer has %zu pieces, '%s' beside the model has %zu, and "
                             "piece %zu differs: give the tokenizer that the model was made with "
                             "as old",
                             old->count, path, own.count, i);
        hm_spm_model_release(&own);
    }
    hm_free(path);
    return status;
}

static int folders_check(const char *model_dir, const char *out_dir, struct hm_error *err)
{
    struct stat from;
    struct stat to;

    HM_TRY(hm_dir_make(out_dir, err));
    if (stat(model_dir, &from) == 0 && stat(out_dir, &to) == 0 && from.st_dev == to.st_dev &&
        from.st_ino == to.st_ino)
        return hm_fail(err, HM_ERR_USAGE, "'%s' is the model's own folder: write to another one",
                       out_dir);
    return HM_OK;
}

/* --- weights ---------------------------------------------------------------------------------- */

static bool is_grown(const struct resize *resize, const struct hm_tensor *tensor)
{
    return tensor == resize->embed || tensor == resize->head;
}

static int stop_look(const struct resize *resize, struct hm_error *err)
{
    if (hm_ctl_stopped(resize->ctl))
        return hm_fail(err, HM_ERR_STOPPED, "growing the vocabulary was stopped");
    return HM_OK;
}

static int tensor_copy(const struct resize *resize, const struct hm_tensor *tensor,
                       struct hm_st_writer *writer, struct hm_error *err)
{
    for (uint64_t at = 0; at < tensor->size_bytes; at += WRITE_BYTES) {
        uint64_t left = tensor->size_bytes - at;
        uint64_t bytes = left < WRITE_BYTES ? left : WRITE_BYTES;
        HM_TRY(stop_look(resize, err));
        HM_TRY(hm_st_writer_data(writer, tensor->data + at, (size_t)bytes, err));
        hm_checkpoint_drop(&resize->ckpt, tensor, at, bytes);
    }
    return HM_OK;
}

static int tensor_write(struct resize *resize, const struct hm_tensor *tensor,
                        struct hm_st_writer *writer, struct hm_error *err)
{
    /* A tied head that is stored all the same must stay equal to the embedding. */
    bool embedding = tensor == resize->embed || resize->ckpt.arch.tied;
    struct hm_grown_matrix matrix = {
        .ckpt = &resize->ckpt,
        .tensor = tensor,
        .head = !embedding,
        .key = { resize->options->seed, embedding ? hm_hash64("vocab.resize embed", 18, 0)
                                                  : hm_hash64("vocab.resize head", 17, 0) }
    };

    if (!is_grown(resize, tensor))
        return tensor_copy(resize, tensor, writer, err);
    HM_TRY(hm_rows_write(&resize->plan, resize->options, &matrix, resize->ctl, writer, err));
    hm_checkpoint_drop(&resize->ckpt, tensor, 0, tensor->size_bytes);
    if (tensor == resize->embed)
        resize->report.duplicate_rows = matrix.duplicates;
    if (matrix.not_definite) {
        resize->report.not_definite = true;
        hm_ctl_message(
            resize->ctl,
            "the covariance of '%s' is not positive definite (%llu rows of %llu columns, "
            "or columns that depend on each other): its new rows are all the mean of "
            "the old, as transformers does; init=mean tells them apart",
            tensor->name, (unsigned long long)resize->plan.old_pieces,
            (unsigned long long)tensor->shape[1]);
    }
    return HM_OK;
}

static int file_rewrite(struct resize *resize, const struct hm_safetensors *file, const char *to,
                        struct hm_error *err)
{
    struct hm_progress progress = { .what = "resize", .unit = "tensors", .total = file->count };
    struct hm_tensor_spec *spec = hm_calloc(HM_MEM_TENSOR, file->count, sizeof(*spec));
    size_t *order = hm_calloc(HM_MEM_TENSOR, file->count, sizeof(*order));
    struct hm_st_writer *writer = NULL;
    int status = HM_OK;

    if (!spec || !order) {
        status = hm_fail_nomem(err, "for the tensors of '%s'", to);
        goto out;
    }
    for (size_t i = 0; i < file->count; i++) {
        const struct hm_tensor *tensor = &file->tensor[i];
        spec[i] = hm_tensor_spec_of(tensor);
        if (is_grown(resize, tensor))
            spec[i].shape[0] = resize->plan.rows;
    }
    status = hm_st_writer_open(to, spec, file->count, file->metadata, &writer, order, err);
    for (size_t i = 0; status == HM_OK && i < file->count; i++) {
        status = tensor_write(resize, &file->tensor[order[i]], writer, err);
        resize->report.bytes_written += hm_tensor_spec_bytes(&spec[order[i]]);
        progress.done = i + 1;
        hm_ctl_progress(resize->ctl, &progress);
    }
    if (status == HM_OK)
        status = hm_st_writer_commit(writer, err);
    else
        hm_st_writer_abort(writer);
out:
    hm_free(spec);
    hm_free(order);
    return status;
}

static bool file_is_grown(const struct resize *resize, size_t number)
{
    return resize->embed->file == number || (resize->head && resize->head->file == number);
}

static int file_write(struct resize *resize, size_t number, struct hm_error *err)
{
    const struct hm_safetensors *file = &resize->ckpt.file[number];
    const char *slash = strrchr(file->path, '/');
    bool copied = false;
    char *to = NULL;

    HM_TRY(stop_look(resize, err));
    HM_TRY(hm_path_join(&to, resize->out_dir, slash ? slash + 1 : file->path, err));
    int status = file_is_grown(resize, number) ? file_rewrite(resize, file, to, err)
                                               : hm_file_link_or_copy(file->path, to, &copied, err);
    if (status == HM_OK && !file_is_grown(resize, number)) {
        resize->report.files_linked += !copied;
        resize->report.files_copied += copied;
        resize->report.bytes_written += copied ? file->map.size_bytes : 0;
    }
    hm_free(to);
    return status;
}

/* --- the rest of the folder ------------------------------------------------------------------- */

/* The index of a sharded model, with the new total; a model in one file has none. */
static int index_write(const struct resize *resize, struct hm_error *err)
{
    char *from = NULL;
    json_t *index = NULL;
    uint64_t total = 0;
    int status = hm_path_join(&from, resize->ckpt.dir, HM_MODEL_INDEX_FILE, err);

    if (status < 0 || resize->ckpt.n_files == 1 || !hm_path_exists(from))
        goto out;
    for (size_t i = 0; i < resize->ckpt.count; i++) {
        const struct hm_tensor *tensor = resize->ckpt.tensor[i];
        total += is_grown(resize, tensor)
                     ? tensor->size_bytes / tensor->shape[0] * resize->plan.rows
                     : tensor->size_bytes;
    }
    status = hm_json_load(from, INDEX_MAX_BYTES, &index, err);
    if (status < 0)
        goto out;
    json_t *metadata = json_object_get(index, "metadata");
    if (!json_is_object(metadata)) {
        metadata = json_object();
        json_object_set_new(index, "metadata", metadata);
    }
    if (json_object_set_new(metadata, "total_size", json_integer((json_int_t)total)) < 0)
        status = hm_fail_nomem(err, "for the index of '%s'", resize->out_dir);
    if (status == HM_OK)
        status = hm_json_save_in(resize->out_dir, HM_MODEL_INDEX_FILE, index, err);
out:
    json_decref(index);
    hm_free(from);
    return status;
}

static int config_write(const struct resize *resize, struct hm_error *err)
{
    json_t *config = json_deep_copy(resize->ckpt.config);
    json_t *rows = json_integer((json_int_t)resize->plan.rows);
    int status;

    if (json_object_set_new(config, "vocab_size", rows) < 0)
        status = hm_fail_nomem(err, "for the config of '%s'", resize->out_dir);
    else
        status = hm_config_write(config, resize->out_dir, err);
    json_decref(config);
    return status;
}

/*
 * tokenizer.json and its companions where the new tokenizer came without: some models (unigram, own
 * normalisers) cannot be said in it, and loaders then read tokenizer.model.
 */
static int companions_make(const struct resize *resize, const char *base_dir, struct hm_error *err)
{
    const struct hm_spm_model *model = &resize->new_tokenizer->model;
    struct hm_error reason = { 0 };
    bool there;

    HM_TRY(hm_dir_holds(resize->out_dir, "tokenizer.json", &there, err));
    if (there)
        return HM_OK;
    int status = hm_tokenizer_json_write(model, base_dir, resize->out_dir, &reason);
    if (status == HM_ERR_FORMAT) {
        hm_ctl_message(resize->ctl, "no tokenizer.json is written: %s", reason.text);
        return HM_OK;
    }
    return status < 0 ? hm_error_pass(err, &reason) : HM_OK;
}

/* tokenizer.model as it is, its companions from its folder. */
static int tokenizer_write(const struct resize *resize, struct hm_error *err)
{
    const struct hm_spm_model *model = &resize->new_tokenizer->model;
    const char *slash = model->path ? strrchr(model->path, '/') : NULL;
    bool in_folder = slash && strcmp(slash, "/tokenizer.model") == 0;
    char *folder = NULL;
    int status = HM_OK;

    if (in_folder) {
        status = hm_format(&folder, err, "%.*s",
                           slash > model->path ? (int)(slash - model->path) : 1, model->path);
        if (status == HM_OK)
            status = hm_model_files_copy(folder, resize->out_dir, err);
    }
    if (status == HM_OK)
        status = hm_file_write_in(resize->out_dir, "tokenizer.model", model->bytes.ptr,
                                  model->bytes.len, err);
    if (status == HM_OK)
        status = companions_make(resize, in_folder ? folder : resize->ckpt.dir, err);
    hm_free(folder);
    return status;
}

static int record_write(const struct resize *resize, struct hm_error *err)
{
    struct hm_vocab_record record = { .old_vocab_size = resize->plan.first_new,
                                      .new_vocab_size = resize->plan.rows,
                                      .present = true };

    memcpy(record.old_tokenizer, resize->old_tokenizer->model.sha256, HM_SHA256_HEX_BYTES);
    memcpy(record.new_tokenizer, resize->new_tokenizer->model.sha256, HM_SHA256_HEX_BYTES);
    return hm_vocab_record_write(resize->out_dir, &record, err);
}

static int folder_write(struct resize *resize, struct hm_error *err)
{
    for (size_t i = 0; i < resize->ckpt.n_files; i++)
        HM_TRY(file_write(resize, i, err));
    HM_TRY(index_write(resize, err));
    HM_TRY(config_write(resize, err));
    HM_TRY(tokenizer_write(resize, err));
    HM_TRY(hm_model_file_copy(resize->ckpt.dir, resize->out_dir, "generation_config.json", err));
    return record_write(resize, err);
}

int hm_embed_resize(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                    const struct hm_tokenizer *new_tokenizer,
                    const struct hm_resize_options *options, const char *out_dir,
                    const struct hm_ctl *ctl, struct hm_resize_report *ret_report,
                    struct hm_error *err)
{
    struct resize resize = { .old_tokenizer = old_tokenizer,
                             .new_tokenizer = new_tokenizer,
                             .options = options,
                             .out_dir = out_dir,
                             .ctl = ctl };
    int status = hm_checkpoint_open(model_dir, &resize.ckpt, err);

    if (status == HM_OK)
        status = matrices_find(&resize, err);
    if (status == HM_OK)
        status = hm_row_plan_make(old_tokenizer, new_tokenizer, options,
                                  resize.ckpt.arch.vocab_size, &resize.plan, err);
    if (status == HM_OK)
        status = old_tokenizer_check(&resize, err);
    if (status == HM_OK)
        status = folders_check(model_dir, out_dir, err);
    if (status == HM_OK)
        status = folder_write(&resize, err);
    if (status == HM_OK) {
        resize.report.old_rows = resize.ckpt.arch.vocab_size;
        resize.report.new_rows = resize.plan.rows;
        resize.report.padded_rows = resize.plan.rows - resize.plan.pieces;
        resize.report.kept_rows = resize.plan.first_new;
        resize.report.moved_rows = resize.plan.n_moved;
        *ret_report = resize.report;
    }
    hm_row_plan_release(&resize.plan);
    hm_checkpoint_close(&resize.ckpt);
    return status;
}

int hm_embed_resize_disk(const char *model_dir, uint64_t rows, bool may_link, uint64_t *ret_bytes,
                         struct hm_error *err)
{
    struct resize resize = { 0 };
    uint64_t bytes = 0;
    int status = hm_checkpoint_open(model_dir, &resize.ckpt, err);

    if (status == HM_OK)
        status = matrices_find(&resize, err);
    for (size_t i = 0; status == HM_OK && i < resize.ckpt.n_files; i++)
        if (!may_link || file_is_grown(&resize, i))
            bytes += resize.ckpt.file[i].map.size_bytes;
    for (size_t i = 0; status == HM_OK && i < resize.ckpt.count; i++)
        if (is_grown(&resize, resize.ckpt.tensor[i]) && rows > resize.ckpt.arch.vocab_size)
            bytes += resize.ckpt.tensor[i]->size_bytes / resize.ckpt.arch.vocab_size *
                     (rows - resize.ckpt.arch.vocab_size);
    if (status == HM_OK)
        *ret_bytes = bytes;
    hm_checkpoint_close(&resize.ckpt);
    return status;
}
