/* SPDX-License-Identifier: MIT */
/*
 * Base and adapter to a plain model folder. Neither is ever held whole: base weights come from
 * threads that read ahead and digest what they read; scales and the adapter are mapped, and their
 * pages dropped behind. The arithmetic is merge_rows.c's; what belongs to what is
 * peft_read.c's. Output types are the base's, tensor by tensor, unless one is asked for.
 */
#include "hanmix/qlora/adapter_merge.h"

#include <math.h>

#include "merge_rows.h"

struct job {
    struct hm_checkpoint ckpt;
    struct hm_peft_folder folder;
    const struct hm_adapter_merge_options *options;
    struct hm_tensor_spec *spec; /* [n_slots]; own names */
    size_t n_slots;
    struct hm_merge_rows *rows;
    struct hm_merge_sums *sums; /* [n_slots] */
    struct hm_reader *reader;
    struct hm_adapter_merge_report report;
    const struct hm_ctl *ctl;
    struct hm_error *err;
};

static int check(const struct job *job)
{
    enum hm_dtype dtype = job->options->dtype;

    if (job->ckpt.arch.quant.present && !job->options->onto_dequantised)
        return hm_fail(job->err, HM_ERR_USAGE,
                       "'%s' is a 4-bit model: merge onto its dequantised weights "
                       "(onto: dequantised), or give the original model",
                       job->ckpt.dir);
    if (dtype != HM_DTYPE_COUNT && !hm_dtype_is_weight(dtype))
        return hm_fail(job->err, HM_ERR_USAGE,
                       "dtype: found %s, expected bfloat16, float16 or float32",
                       hm_dtype_hf_name(dtype));
    return HM_OK;
}

/* The weight of a slot; name is the tensor's, the spec's once it is made. */
static int open_weight(const struct job *job, size_t index, struct hm_weight_slot *slot,
                       char name[HM_SLOT_NAME_BYTES], struct hm_weight **ret_weight)
{
    hm_arch_slot(&job->ckpt.arch, index, slot, name);
    return hm_weight_open(&job->ckpt, slot, ret_weight, job->err);
}

static int plan_tensors(struct job *job)
{
    job->n_slots = hm_arch_slot_count(&job->ckpt.arch);
    job->spec = hm_calloc(HM_MEM_OTHER, job->n_slots, sizeof *job->spec);
    job->sums = hm_calloc(HM_MEM_OTHER, job->n_slots, sizeof *job->sums);
    if (!job->spec || !job->sums)
        return hm_fail_nomem(job->err, "planning %zu tensors", job->n_slots);
    for (size_t i = 0; job->ckpt.arch.quant.present && i < job->ckpt.n_files; i++) {
        const struct hm_map *map = &job->ckpt.file[i].map; /* codes come past it */
        hm_map_advise(map, 0, map->size_bytes, HM_MAP_ROWS);
    }
    for (size_t i = 0; i < job->n_slots; i++) {
        struct hm_tensor_spec *spec = &job->spec[i];
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        HM_TRY(open_weight(job, i, &slot, name, &weight));
        spec->dtype =
            job->options->dtype == HM_DTYPE_COUNT ? hm_weight_dtype(weight) : job->options->dtype;
        spec->n_dims = slot.cols > 1 ? 2 : 1;
        spec->shape[0] = slot.rows;
        spec->shape[1] = slot.cols;
        hm_weight_free(weight);
        HM_TRY(hm_format(&spec->name, job->err, "%s.weight", name));
    }
    return HM_OK;
}

static int write_tensor(struct job *job, struct hm_folder_writer *writer, size_t index)
{
    const struct hm_adapter *layout = job->folder.layout;
    int32_t lora = layout->lora_of_slot[index], full = layout->full_of_slot[index];
    struct hm_merge_source source = { .name = job->spec[index].name,
                                      .map = &job->folder.file.map,
                                      .dtype = job->spec[index].dtype };
    struct hm_weight *weight = NULL;
    struct hm_weight_slot slot;
    char name[HM_SLOT_NAME_BYTES];
    int status;

    if (lora >= 0) {
        source.a = job->folder.tensor[layout->lora[lora].a];
        source.b = job->folder.tensor[layout->lora[lora].b];
        source.rank = layout->lora[lora].rank;
        source.scale = layout->lora[lora].scale;
    } else if (full >= 0) {
        source.full = job->folder.tensor[full];
    }
    HM_TRY(open_weight(job, index, &slot, name, &weight));
    source.weight = weight;
    source.reader = hm_merge_rows_streamed(weight) ? job->reader : NULL;
    status = hm_weight_fetch_scales(weight, job->err);
    if (status == HM_OK)
        status = hm_merge_rows_write(job->rows, &source, writer, &job->sums[index], job->err);
    if (hm_weight_is_nf4(weight))
        hm_weight_drop_pages(weight);
    hm_weight_free(weight);
    return status;
}

/* The weights among `order` that a reader brings, as they will be read. */
static int add_ranges(const struct job *job, const size_t *order, size_t count,
                      struct hm_read_range *range, size_t *ret_n)
{
    *ret_n = 0;
    for (size_t i = 0; i < count; i++) {
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        HM_TRY(open_weight(job, order[i], &slot, name, &weight));
        if (hm_merge_rows_streamed(weight)) {
            uint64_t window = (uint64_t)hm_merge_window_rows(slot.cols) * slot.cols;
            hm_weight_range(weight, &range[*ret_n]);
            range[(*ret_n)++].piece_bytes = (size_t)hm_weight_value_bytes(weight, window);
        }
        hm_weight_free(weight);
    }
    return HM_OK;
}

/* Reads ahead what is left to write; what an earlier run found out is recalled. */
static int open_reader(struct job *job, const struct hm_folder_writer *writer)
{
    size_t *order = hm_alloc_array(HM_MEM_OTHER, job->n_slots, sizeof *order);
    struct hm_read_range *range = hm_alloc_array(HM_MEM_OTHER, job->n_slots, sizeof *range);
    size_t count = 0, n = 0;
    int status = order && range ? hm_folder_writer_order(writer, order, &count, job->err)
                                : hm_fail_nomem(job->err, "planning to read '%s'", job->ckpt.dir);

    for (size_t i = 0; i < job->n_slots && status == HM_OK; i++) {
        const char *note;
        if (!hm_folder_writer_whole(writer, i, &note))
            continue;
        job->report.tensors++;
        if (!hm_merge_sums_recall(note, &job->sums[i]))
            status = hm_fail(job->err, HM_ERR_FORMAT, "'%s': its journal is damaged; remove it",
                             job->spec[i].name);
    }
    if (status == HM_OK)
        status = add_ranges(job, order, count, range, &n);
    if (status == HM_OK)
        status = job->options->digests ? hm_reader_new_digesting(range, n, &job->reader, job->err)
                                       : hm_reader_new(range, n, &job->reader, job->err);
    hm_free(order);
    hm_free(range);
    return status;
}

static int write_tensors(struct job *job, const char *out_dir)
{
    const struct hm_folder_options options = { .shard_bytes = job->options->shard_bytes,
                                               .digests = true,
                                               .sync_bytes = job->options->sync_bytes };
    struct hm_folder_writer *writer = NULL;
    struct hm_progress progress = { "merge", "tensors", 0, job->n_slots, NULL };
    size_t next;
    int status =
        hm_folder_writer_open_large(out_dir, job->spec, job->n_slots, &options, &writer, job->err);

    if (status == HM_OK)
        status = open_reader(job, writer);
    while (status == HM_OK && (next = hm_folder_writer_next(writer)) < job->n_slots) {
        status = write_tensor(job, writer, next);
        progress.done = ++job->report.tensors;
        hm_ctl_progress(job->ctl, &progress);
        if (status == HM_OK && hm_ctl_stopped(job->ctl))
            status = hm_fail(job->err, HM_ERR_STOPPED, "merging was stopped");
    }
    if (status == HM_OK)
        return hm_folder_writer_finish(writer, true, job->err);
    hm_folder_writer_leave(writer, status == HM_ERR_STOPPED || status == HM_ERR_IO);
    return status;
}

static int write_folder(struct job *job, const char *out_dir)
{
    struct hm_arch arch = job->ckpt.arch; /* borrows; not released */
    json_t *config = NULL;
    int status;

    arch.quant.present = false;
    if (job->options->dtype != HM_DTYPE_COUNT)
        arch.dtype = job->options->dtype;
    HM_TRY(hm_arch_config(job->ckpt.config, &arch, &config, job->err));
    if ((status = write_tensors(job, out_dir)) == HM_OK &&
        (status = hm_model_files_copy(job->ckpt.dir, out_dir, job->err)) == HM_OK)
        status = hm_config_write(config, out_dir, job->err);
    json_decref(config);
    return status;
}

/* In the order of slots, so that it does not matter which run wrote them. */
static void fill_report(struct job *job)
{
    struct hm_merge_sums all = { 0 };

    for (size_t i = 0; i < job->n_slots; i++) {
        bool lora = job->folder.layout->lora_of_slot[i] >= 0;
        hm_merge_sums_join(&all, &job->sums[i]);
        job->report.merged += lora;
        job->report.replaced += !lora && job->folder.layout->full_of_slot[i] >= 0;
    }
    job->report.changed_values = all.changed;
    job->report.unchanged_values = all.unchanged;
    job->report.max_abs_delta = all.delta_max;
    job->report.relative_norm =
        all.weight_square > 0 ? sqrt(all.delta_square / all.weight_square) : 0;
}

int hm_adapter_merge(const char *model_dir, const char *adapter_dir,
                     const struct hm_adapter_merge_options *options,
                     const struct hm_kernels *kernels, const char *out_dir,
                     const struct hm_ctl *ctl, struct hm_adapter_merge_report *ret_report,
                     struct hm_error *err)
{
    struct job job = { .options = options, .ctl = ctl, .err = err };
    int status;

    if ((status = hm_checkpoint_open(model_dir, &job.ckpt, err)) < 0 ||
        (status = check(&job)) < 0 ||
        (status = hm_peft_open(adapter_dir, &job.ckpt, &job.folder, err)) < 0 ||
        (status = plan_tensors(&job)) < 0 ||
        (status = hm_merge_rows_new(kernels, &job.rows, err)) < 0 ||
        (status = write_folder(&job, out_dir)) < 0)
        goto out;
    if (options->digests && (status = hm_reader_digests(job.reader, options->digests, err)) < 0)
        goto out;
    fill_report(&job);
    *ret_report = job.report;
    if (!options->keep_journal)
        hm_folder_journal_remove(out_dir);
out:
    for (size_t i = 0; job.spec && i < job.n_slots; i++)
        hm_free(job.spec[i].name);
    hm_free(job.spec);
    hm_free(job.sums);
    hm_reader_free(job.reader);
    hm_merge_rows_free(job.rows);
    hm_peft_close(&job.folder);
    hm_checkpoint_close(&job.ckpt);
    return status;
}

void hm_adapter_merge_memory(const struct hm_arch *arch, enum hm_dtype written, uint32_t rank,
                             int threads, uint64_t *ret_heap_bytes, uint64_t *ret_mapped_bytes)
{
    uint64_t heap = 0, mapped = 0, piece = 0, all = 0, tables = 0;
    size_t size = hm_dtype_bytes(written == HM_DTYPE_COUNT ? arch->dtype : written);
    size_t source = hm_dtype_bytes(arch->dtype);

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(arch, i, &slot, name);
        uint64_t buffers, window, pages = ((uint64_t)slot.rows + slot.cols) * rank * sizeof(float);
        hm_merge_rows_memory(slot.rows, slot.cols, rank, threads, size, &buffers, &window);
        if (arch->quant.present) /* scales, of the smallest blocks and not nested */
            pages += (uint64_t)slot.rows * slot.cols / 32 * sizeof(float);
        if (slot.kind == HM_WEIGHT_EMBED || slot.kind == HM_WEIGHT_HEAD)
            pages += window * sizeof(float); /* a whole matrix of the adapter takes its place */
        heap = buffers > heap ? buffers : heap;
        piece = window > piece ? window : piece;
        mapped = pages > mapped ? pages : mapped;
        all += (uint64_t)slot.rows * slot.cols;
        tables += 1024;
    }
    heap += hm_reader_bytes(all * source, piece * source);
    *ret_heap_bytes = heap + tables + hm_writer_bytes(all * size, HM_DIRECT_BYTES);
    *ret_mapped_bytes = mapped;
}
