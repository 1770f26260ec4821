/* SPDX-License-Identifier: MIT */
/*
 * A model folder with a grown vocabulary: the shards that hold embed_tokens and lm_head are written
 * anew, the others linked, or copied where they cannot be. What the new rows are is embed_rows.c,
 * what lies beside the weights resize_folder.c. A tied head is not stored, or stored as a copy, and
 * stays so.
 */
#include <string.h>
#include <sys/stat.h>

#include "resize_folder.h"

#define WRITE_BYTES (8u << 20)

struct resize {
    struct hm_checkpoint ckpt;
    struct hm_row_plan plan;
    struct hm_resize_folder folder; /* of the two above */
    const struct hm_resize_options *options;
    struct hm_resize_report report;
    struct hm_progress progress;
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
    HM_TRY(hm_checkpoint_need(&resize->ckpt, name, &resize->folder.embed, err));
    HM_TRY(matrix_check(resize, resize->folder.embed, err));
    hm_arch_slot_name(&resize->ckpt.arch, &head, name);
    strcat(name, ".weight");
    resize->folder.head = hm_checkpoint_find(&resize->ckpt, name);
    if (resize->folder.head)
        return matrix_check(resize, resize->folder.head, err);
    if (resize->ckpt.arch.tied)
        return HM_OK;
    return hm_checkpoint_need(&resize->ckpt, name, &resize->folder.head, err);
}

/* A tokenizer that lies with the model tells whether the old one is the model's. */
static int old_tokenizer_check(const struct resize *resize, struct hm_error *err)
{
    const struct hm_spm_model *old = &resize->folder.old_tokenizer->model;
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
    return tensor == resize->folder.embed || tensor == resize->folder.head;
}

/* Of a tensor as it will be. */
static uint64_t grown_bytes(const struct resize *resize, const struct hm_tensor *tensor)
{
    return is_grown(resize, tensor) ? tensor->size_bytes / tensor->shape[0] * resize->plan.rows
                                    : tensor->size_bytes;
}

static int stop_look(const struct resize *resize, struct hm_error *err)
{
    if (hm_ctl_stopped(resize->folder.ctl))
        return hm_fail(err, HM_ERR_STOPPED, "growing the vocabulary was stopped");
    return HM_OK;
}

static void advance(struct resize *resize, uint64_t bytes)
{
    resize->report.bytes_written += bytes;
    resize->progress.done = resize->report.bytes_written;
    hm_ctl_progress(resize->folder.ctl, &resize->progress);
}

static int tensor_copy(struct resize *resize, const struct hm_tensor *tensor,
                       struct hm_st_writer *writer, struct hm_error *err)
{
    for (uint64_t at = 0; at < tensor->size_bytes; at += WRITE_BYTES) {
        uint64_t left = tensor->size_bytes - at;
        uint64_t bytes = left < WRITE_BYTES ? left : WRITE_BYTES;
        HM_TRY(stop_look(resize, err));
        HM_TRY(hm_st_writer_data(writer, tensor->data + at, (size_t)bytes, err));
        hm_checkpoint_drop(&resize->ckpt, tensor, at, bytes);
        advance(resize, bytes);
    }
    return HM_OK;
}

static int tensor_write(struct resize *resize, const struct hm_tensor *tensor,
                        struct hm_st_writer *writer, struct hm_error *err)
{
    /* A tied head that is stored all the same must stay equal to the embedding. */
    bool embedding = tensor == resize->folder.embed || resize->ckpt.arch.tied;
    struct hm_grown_matrix matrix = {
        .ckpt = &resize->ckpt,
        .tensor = tensor,
        .head = !embedding,
        .key = { resize->options->seed, embedding ? hm_hash64("vocab.resize embed", 18, 0)
                                                  : hm_hash64("vocab.resize head", 17, 0) }
    };

    if (!is_grown(resize, tensor))
        return tensor_copy(resize, tensor, writer, err);
    HM_TRY(hm_rows_write(&resize->plan, resize->options, &matrix, resize->folder.ctl, writer, err));
    hm_checkpoint_drop(&resize->ckpt, tensor, 0, tensor->size_bytes);
    advance(resize, grown_bytes(resize, tensor));
    if (tensor == resize->folder.embed)
        resize->report.duplicate_rows = matrix.duplicates;
    if (matrix.not_definite) {
        resize->report.not_definite = true;
        hm_ctl_message(
            resize->folder.ctl,
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
    for (size_t i = 0; status == HM_OK && i < file->count; i++)
        status = tensor_write(resize, &file->tensor[order[i]], writer, err);
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
    return resize->folder.embed->file == number ||
           (resize->folder.head && resize->folder.head->file == number);
}

static int file_copy(struct resize *resize, const struct hm_safetensors *file, const char *to,
                     struct hm_error *err)
{
    struct hm_out_file out = { 0 };
    int status = hm_out_open(to, &out, err);

    if (status < 0)
        return status;
    for (uint64_t at = 0; status == HM_OK && at < file->map.size_bytes; at += WRITE_BYTES) {
        uint64_t left = file->map.size_bytes - at;
        uint64_t bytes = left < WRITE_BYTES ? left : WRITE_BYTES;
        status = stop_look(resize, err);
        if (status == HM_OK)
            status = hm_out_write(&out, file->map.data + at, (size_t)bytes, err);
        hm_map_drop(&file->map, at, bytes);
        advance(resize, bytes);
    }
    return hm_out_end(&out, status, err);
}

/* Link what need not change; *ret_done: nothing is left to do for this file. */
static int file_link(struct resize *resize, size_t number, const char *to, bool *ret_done,
                     struct hm_error *err)
{
    const struct hm_safetensors *file = &resize->ckpt.file[number];

    *ret_done = false;
    if (file_is_grown(resize, number)) {
        for (size_t i = 0; i < file->count; i++)
            resize->progress.total += grown_bytes(resize, &file->tensor[i]);
        return HM_OK;
    }
    HM_TRY(hm_file_link(file->path, to, ret_done, err));
    resize->report.files_linked += *ret_done;
    resize->report.files_copied += !*ret_done;
    resize->progress.total += *ret_done ? 0 : file->map.size_bytes;
    return HM_OK;
}

static int file_write(struct resize *resize, size_t number, const char *to, struct hm_error *err)
{
    const struct hm_safetensors *file = &resize->ckpt.file[number];

    return file_is_grown(resize, number) ? file_rewrite(resize, file, to, err)
                                         : file_copy(resize, file, to, err);
}

/* Links first: then it is known how much is to be written. */
static int files_write(struct resize *resize, struct hm_error *err)
{
    size_t n = resize->ckpt.n_files;
    bool *done = hm_calloc(HM_MEM_TENSOR, n, sizeof(*done));
    int status = done ? HM_OK : hm_fail_nomem(err, "for the files of '%s'", resize->ckpt.dir);

    resize->progress = (struct hm_progress){ .what = "resize", .unit = "bytes" };
    for (size_t k = 0; status == HM_OK && k < 2 * n; k++) {
        char *to = NULL;
        if (k >= n && done[k - n])
            continue;
        status = stop_look(resize, err);
        if (status == HM_OK)
            status = hm_path_join(&to, resize->folder.out_dir,
                                  hm_path_tail(resize->ckpt.file[k % n].path, 1), err);
        if (status == HM_OK)
            status = k < n ? file_link(resize, k, to, &done[k], err)
                           : file_write(resize, k - n, to, err);
        hm_free(to);
    }
    hm_free(done);
    return status;
}

/* --- outside ---------------------------------------------------------------------------------- */

/* Opens the model and looks at everything before anything is written. */
static int begin(struct resize *resize, const char *model_dir, struct hm_error *err)
{
    resize->folder.ckpt = &resize->ckpt;
    resize->folder.plan = &resize->plan;
    HM_TRY(hm_checkpoint_open(model_dir, &resize->ckpt, err));
    HM_TRY(matrices_find(resize, err));
    HM_TRY(hm_row_plan_make(resize->folder.old_tokenizer, resize->folder.new_tokenizer,
                            resize->options, resize->ckpt.arch.vocab_size, &resize->plan, err));
    HM_TRY(old_tokenizer_check(resize, err));
    return hm_resize_companions_check(resize->folder.new_tokenizer, err);
}

static void end(struct resize *resize)
{
    hm_row_plan_release(&resize->plan);
    hm_checkpoint_close(&resize->ckpt);
}

int hm_embed_resize(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                    const struct hm_tokenizer *new_tokenizer,
                    const struct hm_resize_options *options, const char *out_dir,
                    const struct hm_ctl *ctl, struct hm_resize_report *ret_report,
                    struct hm_error *err)
{
    struct resize resize = { .options = options,
                             .folder = { .old_tokenizer = old_tokenizer,
                                         .new_tokenizer = new_tokenizer,
                                         .out_dir = out_dir,
                                         .ctl = ctl } };
    int status = begin(&resize, model_dir, err);

    if (status == HM_OK)
        status = folders_check(model_dir, out_dir, err);
    if (status == HM_OK)
        status = hm_resize_replaced_tell(&resize.folder, err);
    if (status == HM_OK)
        status = files_write(&resize, err);
    if (status == HM_OK)
        status = hm_resize_folder_write(&resize.folder, err);
    if (status == HM_OK) {
        resize.report.old_rows = resize.ckpt.arch.vocab_size;
        resize.report.new_rows = resize.plan.rows;
        resize.report.padded_rows = resize.plan.rows - resize.plan.pieces;
        resize.report.kept_rows = resize.plan.first_new;
        resize.report.moved_rows = resize.plan.n_moved;
        resize.report.replaced_rows = hm_row_plan_replaced(&resize.plan);
        *ret_report = resize.report;
    }
    end(&resize);
    return status;
}

int hm_embed_resize_check(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                          const struct hm_tokenizer *new_tokenizer,
                          const struct hm_resize_options *options,
                          struct hm_resize_outlook *ret_outlook, struct hm_error *err)
{
    struct resize resize = { .options = options,
                             .folder = { .old_tokenizer = old_tokenizer,
                                         .new_tokenizer = new_tokenizer } };
    int status = begin(&resize, model_dir, err);

    if (status == HM_OK) {
        const struct hm_tensor *embed = resize.folder.embed;
        const struct hm_tensor *head = resize.folder.head ? resize.folder.head : embed;
        ret_outlook->rows = resize.plan.rows;
        ret_outlook->kept_rows = resize.plan.first_new;
        ret_outlook->matrix_bytes =
            embed->size_bytes > head->size_bytes ? embed->size_bytes : head->size_bytes;
    }
    end(&resize);
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
