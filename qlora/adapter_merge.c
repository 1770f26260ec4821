/* SPDX-License-Identifier: MIT */
/*
 * Base and adapter to a plain model folder. Neither is ever held whole: both are mapped, read by
 * blocks of rows, and their pages dropped behind. The arithmetic is merge_rows.c's; what belongs to
 * what is peft_read.c's. Output types are the base's, tensor by tensor, unless one is asked for.
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
    struct hm_merge_sums sums;
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
    if (!job->spec)
        return hm_fail_nomem(job->err, "planning %zu tensors", job->n_slots);
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
        job->report.merged++;
    } else if (full >= 0) {
        source.full = job->folder.tensor[full];
        job->report.replaced++;
    }
    HM_TRY(open_weight(job, index, &slot, name, &weight));
    source.weight = weight;
    status = hm_merge_rows_write(job->rows, &source, writer, &job->sums, job->err);
    hm_weight_free(weight);
    return status;
}

static int write_tensors(struct job *job, const char *out_dir)
{
    struct hm_folder_writer *writer = NULL;
    struct hm_progress progress = { "merge", "tensors", 0, job->n_slots, NULL };
    size_t next;
    int status = hm_folder_writer_open(out_dir, job->spec, job->n_slots, job->options->shard_bytes,
                                       &writer, job->err);

    while (status == HM_OK && (next = hm_folder_writer_next(writer)) < job->n_slots) {
        status = write_tensor(job, writer, next);
        progress.done = ++job->report.tensors;
        hm_ctl_progress(job->ctl, &progress);
        if (status == HM_OK && hm_ctl_stopped(job->ctl))
            status = hm_fail(job->err, HM_ERR_STOPPED, "merging was stopped");
    }
    if (status == HM_OK)
        return hm_folder_writer_finish(writer, true, job->err);
    hm_folder_writer_abort(writer);
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
    job.report.changed_values = job.sums.changed;
    job.report.unchanged_values = job.sums.unchanged;
    job.report.max_abs_delta = job.sums.delta_max;
    job.report.relative_norm =
        job.sums.weight_square > 0 ? sqrt(job.sums.delta_square / job.sums.weight_square) : 0;
    *ret_report = job.report;
out:
    for (size_t i = 0; job.spec && i < job.n_slots; i++)
        hm_free(job.spec[i].name);
    hm_free(job.spec);
    hm_merge_rows_free(job.rows);
    hm_peft_close(&job.folder);
    hm_checkpoint_close(&job.ckpt);
    return status;
}

void hm_adapter_merge_memory(const struct hm_arch *arch, uint32_t rank, int threads,
                             uint64_t *ret_heap_bytes, uint64_t *ret_mapped_bytes)
{
    uint64_t heap = 0;
    uint64_t mapped = 0;

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(arch, i, &slot, name);
        uint64_t buffers, window;
        hm_merge_rows_memory(slot.rows, slot.cols, rank, threads, &buffers, &window);
        uint64_t pages = window * hm_dtype_bytes(arch->dtype) +
                         ((uint64_t)slot.rows + slot.cols) * rank * sizeof(float);
        heap = buffers > heap ? buffers : heap;
        if (slot.kind == HM_WEIGHT_EMBED || slot.kind == HM_WEIGHT_HEAD)
            pages += window * sizeof(float); /* a whole matrix of the adapter takes its place */
        mapped = pages > mapped ? pages : mapped;
    }
    *ret_heap_bytes = heap;
    *ret_mapped_bytes = mapped;
}
