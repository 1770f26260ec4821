/* SPDX-License-Identifier: MIT */
/*
 * A 16- or 32-bit model folder to bitsandbytes' 4-bit layout, streamed weight by weight.
 *
 * Each weight is read once, by a thread that is ahead: what comes before the codes in a file (its
 * scales) is filled in behind them, and the quant_state text, which holds the mean of all scales,
 * is planned for its longest form. Digests of the files read are taken on the way when wanted. Only
 * where a shard ends between codes and scales, or a run continues there, is a matrix read again.
 * Values are first rounded to the compute type, as transformers loads them before bitsandbytes sees
 * them. What was written is opened again and every expert shown to be 4-bit. Memory: the buffers of
 * one stream, of reading and writing, and the scales of one matrix.
 */
#include "hanmix/qlora/quantize.h"

#include <math.h>
#include <stdio.h>

#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/map8.h"
#include "quantize_plan.h"
#include "quantize_stream.h"

struct scales { /* of the matrix worked on last */
    size_t slot;
    bool valid;
    float *absmax;
    struct hm_block_sums *sums;
    size_t cap; /* blocks */
    struct hm_nf4_nested nested;
};

struct job {
    struct hm_quantize_plan plan;
    struct hm_stream *stream;
    struct hm_reader *reader;
    struct hm_folder_writer *writer;
    struct scales scales;
    float map[256]; /* of nested scales */
    uint64_t steps_done, steps;
    const struct hm_ctl *ctl;
    struct hm_error *err;
};

/* Progress counts weights. */
static int step_done(struct job *job)
{
    const struct hm_progress progress = { "quantise", "weights", ++job->steps_done, job->steps,
                                          NULL };

    hm_ctl_progress(job->ctl, &progress);
    if (hm_ctl_stopped(job->ctl))
        return hm_fail(job->err, HM_ERR_STOPPED, "quantising was stopped");
    return HM_OK;
}

static void bind(struct job *job, size_t slot, bool ahead, char name[HM_SLOT_NAME_BYTES])
{
    struct hm_weight_slot weight;

    hm_arch_slot(&job->plan.arch, slot, &weight, name);
    hm_stream_bind(job->stream, job->plan.module[slot].weight, name, ahead ? job->reader : NULL);
}

static int reserve_scales(struct job *job, size_t n_blocks)
{
    struct scales *scales = &job->scales;

    scales->valid = false;
    hm_nf4_nested_release(&scales->nested);
    if (n_blocks <= scales->cap)
        return HM_OK;
    hm_free(scales->absmax);
    hm_free(scales->sums);
    scales->cap = 0;
    scales->absmax = hm_alloc_array(HM_MEM_SCRATCH, n_blocks, sizeof *scales->absmax);
    scales->sums = hm_alloc_array(HM_MEM_SCRATCH, n_blocks, sizeof *scales->sums);
    if (!scales->absmax || !scales->sums)
        return hm_fail_nomem(job->err, "for %zu block scales", n_blocks);
    scales->cap = n_blocks;
    return HM_OK;
}

/* Error of the codes just made, by the scales that a reader will compute. */
static void take_error(struct job *job, struct hm_quantize_module *module)
{
    const struct scales *scales = &job->scales;

    module->energy = module->error = 0;
    for (size_t b = 0; b < module->n_blocks; b++) {
        const struct hm_block_sums *sum = &scales->sums[b];
        float scale = scales->absmax[b];

        if (job->plan.options->double_quant) {
            float a = job->map[scales->nested.code[b]] *
                      scales->nested.nested_absmax[b / HM_NF4_NESTED_BLOCK];
            scale = a + scales->nested.offset;
        }
        module->energy += sum->energy;
        module->error +=
            sum->energy - 2.0 * scale * sum->product + (double)scale * scale * sum->square;
    }
    module->summed = true;
}

static int make_state(struct job *job, struct hm_quantize_module *module)
{
    const struct hm_quantize_options *options = job->plan.options;

    if (module->state.len > 0)
        return HM_OK;
    return hm_nf4_state_json(options->blocksize, options->compute_dtype,
                             hm_weight_rows(module->weight), hm_weight_cols(module->weight),
                             options->double_quant ? &job->scales.nested.offset : NULL,
                             &module->state, job->err);
}

/* Scales, error and state text of a slot, and its codes into the writer when `write`. */
static int encode(struct job *job, size_t slot, bool write)
{
    struct hm_quantize_module *module = &job->plan.module[slot];
    struct scales *scales = &job->scales;
    char name[HM_SLOT_NAME_BYTES];

    HM_TRY(reserve_scales(job, module->n_blocks));
    bind(job, slot, write, name);
    HM_TRY(hm_stream_encode(job->stream, write ? job->writer : NULL, scales->absmax, scales->sums,
                            job->err));
    if (job->plan.options->double_quant)
        HM_TRY(hm_nf4_nest(scales->absmax, module->n_blocks, &scales->nested, job->err));
    scales->slot = slot;
    scales->valid = true;
    take_error(job, module);
    return make_state(job, module);
}

/* Scales are right behind their codes, unless a shard or a run ended in between. */
static int need_scales(struct job *job, size_t slot)
{
    return job->scales.valid && job->scales.slot == slot ? HM_OK : encode(job, slot, false);
}

static const void *scales_of(const struct job *job, enum hm_quantize_part_kind kind)
{
    if (kind == HM_PART_NESTED_ABSMAX)
        return job->scales.nested.nested_absmax;
    return job->plan.options->double_quant ? (const void *)job->scales.nested.code
                                           : job->scales.absmax;
}

/* The error of a module is kept with its absmax, for a run that continues. */
static void error_note(const struct hm_quantize_module *module, enum hm_quantize_part_kind kind,
                       char note[HM_WRITE_NOTE_BYTES])
{
    note[0] = '\0';
    if (kind == HM_PART_ABSMAX)
        snprintf(note, HM_WRITE_NOTE_BYTES, "%a %a", module->energy, module->error);
}

/* What lies before the codes in their file. */
static int fill_scales(struct job *job, size_t slot)
{
    const struct hm_quantize_module *module = &job->plan.module[slot];

    for (size_t i = module->first_part; i < module->first_part + module->n_parts; i++) {
        enum hm_quantize_part_kind kind = job->plan.part[i].kind;
        char note[HM_WRITE_NOTE_BYTES];
        if (!job->plan.part[i].skipped)
            continue;
        job->plan.part[i].skipped = false;
        error_note(module, kind, note);
        HM_TRY(hm_folder_writer_fill(job->writer, i, scales_of(job, kind), note, job->err));
    }
    return HM_OK;
}

static int write_scales(struct job *job, size_t index)
{
    struct hm_quantize_part *part = &job->plan.part[index];
    const struct hm_quantize_module *module = &job->plan.module[part->slot];
    char note[HM_WRITE_NOTE_BYTES];

    if (job->plan.spec[index].dtype == HM_DTYPE_F32 &&
        hm_folder_writer_ahead(job->writer, module->first_part)) { /* codes come first there */
        part->skipped = true;
        return hm_folder_writer_skip(job->writer, job->err);
    }
    HM_TRY(need_scales(job, part->slot));
    error_note(module, part->kind, note);
    hm_folder_writer_note(job->writer, note);
    return hm_folder_writer_data(job->writer, scales_of(job, part->kind),
                                 hm_tensor_spec_bytes(&job->plan.spec[index]), job->err);
}

static int write_part(struct job *job, size_t index)
{
    const struct hm_quantize_part *part = &job->plan.part[index];
    struct hm_quantize_module *module = &job->plan.module[part->slot];
    size_t bytes = (size_t)hm_tensor_spec_bytes(&job->plan.spec[index]);
    char name[HM_SLOT_NAME_BYTES];

    switch (part->kind) {
    case HM_PART_DENSE:
        bind(job, part->slot, true, name);
        HM_TRY(hm_stream_dense(job->stream, job->writer, job->err));
        return step_done(job);
    case HM_PART_CODES:
        HM_TRY(encode(job, part->slot, true));
        HM_TRY(fill_scales(job, part->slot));
        return step_done(job);
    case HM_PART_ABSMAX:
    case HM_PART_NESTED_ABSMAX:
        return write_scales(job, index);
    case HM_PART_MAP:
        return hm_folder_writer_data(job->writer, hm_nf4_code, bytes, job->err);
    case HM_PART_NESTED_MAP:
        return hm_folder_writer_data(job->writer, job->map, bytes, job->err);
    case HM_PART_STATE:
        if (module->state.len == 0)
            HM_TRY(need_scales(job, part->slot));
        hm_folder_writer_shorten(job->writer, module->state.len);
        return hm_folder_writer_data(job->writer, module->state.ptr, module->state.len, job->err);
    }
    HM_BUG(true);
    return HM_ERR_CHECK;
}

/* What an earlier run found out, and the order of reading what is left. */
static int open_reader(struct job *job)
{
    const struct hm_quantize_plan *plan = &job->plan;
    size_t *order = hm_alloc_array(HM_MEM_OTHER, plan->n_parts, sizeof *order);
    struct hm_read_range *range = hm_alloc_array(HM_MEM_OTHER, plan->n_parts, sizeof *range);
    size_t count = 0, n = 0;
    int status = order && range ? hm_folder_writer_order(job->writer, order, &count, job->err)
                                : hm_fail_nomem(job->err, "planning to read '%s'", plan->ckpt.dir);

    for (size_t i = 0; i < count && status == HM_OK; i++) {
        const struct hm_quantize_part *part = &plan->part[order[i]];
        const struct hm_weight *weight = plan->module[part->slot].weight;
        if (part->kind != HM_PART_DENSE && part->kind != HM_PART_CODES)
            continue;
        hm_weight_range(weight, &range[n]);
        range[n++].piece_bytes =
            hm_stream_window_values() * hm_dtype_bytes(hm_weight_dtype(weight));
    }
    job->steps = n;
    if (status == HM_OK)
        status = plan->options->digests ? hm_reader_new_digesting(range, n, &job->reader, job->err)
                                        : hm_reader_new(range, n, &job->reader, job->err);
    hm_free(order);
    hm_free(range);
    return status;
}

static void recall_errors(struct job *job)
{
    for (size_t i = 0; i < job->plan.n_parts; i++) {
        struct hm_quantize_module *module = &job->plan.module[job->plan.part[i].slot];
        const char *note;
        if (job->plan.part[i].kind == HM_PART_ABSMAX &&
            hm_folder_writer_whole(job->writer, i, &note))
            module->summed = sscanf(note, "%la %la", &module->energy, &module->error) == 2;
    }
}

static int write_tensors(struct job *job, const char *out_dir)
{
    const struct hm_quantize_plan *plan = &job->plan;
    const struct hm_folder_options options = { .shard_bytes = plan->options->shard_bytes,
                                               .sync_bytes = plan->options->sync_bytes };
    size_t next;

    HM_TRY(hm_folder_writer_open_large(out_dir, plan->spec, plan->n_parts, &options, &job->writer,
                                       job->err));
    recall_errors(job);
    int status = open_reader(job);
    while (status == HM_OK && (next = hm_folder_writer_next(job->writer)) < plan->n_parts)
        status = write_part(job, next);
    if (status == HM_OK)
        status = hm_folder_writer_finish(job->writer, false, job->err);
    else
        hm_folder_writer_leave(job->writer, status == HM_ERR_STOPPED || status == HM_ERR_IO);
    return status;
}

static int write_folder(struct job *job, const char *out_dir)
{
    const struct hm_quantize_plan *plan = &job->plan;
    json_t *config = NULL;

    hm_dynamic_map(true, job->map);
    HM_TRY(hm_arch_config(plan->ckpt.config, &plan->arch, &config, job->err));
    int status = write_tensors(job, out_dir);
    if (status == HM_OK)
        status = hm_model_files_copy(plan->ckpt.dir, out_dir, job->err);
    if (status == HM_OK)
        status = hm_config_write(config, out_dir, job->err);
    json_decref(config);
    return status;
}

/* The proof, from the folder as written: what was to be 4-bit is, experts first of all. */
static int check_folder(const struct job *job, const char *out_dir,
                        struct hm_quantize_report *report)
{
    struct hm_checkpoint out = { 0 };
    int status;

    HM_TRY(hm_checkpoint_open(out_dir, &out, job->err));
    for (size_t i = 0; i < out.n_files; i++) /* small tensors among long stretches of codes */
        hm_map_advise(&out.file[i].map, 0, out.file[i].map.size_bytes, HM_MAP_ROWS);
    status =
        hm_arch_slot_count(&out.arch) == job->plan.n_slots
            ? HM_OK
            : hm_fail(job->err, HM_ERR_CHECK, "'%s' lists other weights than its source", out_dir);
    for (size_t i = 0; i < job->plan.n_slots && status == HM_OK; i++) {
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(&out.arch, i, &slot, name);
        status = hm_weight_open(&out, &slot, &weight, job->err);
        if (status == HM_OK && hm_weight_is_nf4(weight) != job->plan.module[i].nf4)
            status =
                hm_fail(job->err, HM_ERR_CHECK, "'%s': '%s' %s 4-bit", out_dir, name,
                        job->plan.module[i].nf4 ? "should be but is not" : "should not be but is");
        hm_weight_free(weight);
    }
    if (status == HM_OK)
        status = hm_quantize_plan_report(&job->plan, &out, report, job->err);
    hm_checkpoint_close(&out);
    return status;
}

/* In the order of modules, so that it does not matter which run wrote them. */
static double rms_error(const struct hm_quantize_plan *plan)
{
    double energy = 0, error = 0;

    for (size_t i = 0; i < plan->n_slots; i++) {
        energy += plan->module[i].energy;
        error += plan->module[i].error;
    }
    return energy > 0 ? sqrt(fmax(error, 0) / energy) : 0;
}

static uint64_t largest_weight(const struct hm_quantize_plan *plan)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < plan->n_slots; i++) {
        const struct hm_weight *weight = plan->module[i].weight;
        uint64_t values = (uint64_t)hm_weight_rows(weight) * hm_weight_cols(weight);
        largest = values > largest ? values : largest;
    }
    return largest;
}

int hm_quantize(const char *model_dir, const struct hm_quantize_options *options,
                const struct hm_kernels *kernels, const char *out_dir, const struct hm_ctl *ctl,
                struct hm_quantize_report *ret_report, struct hm_error *err)
{
    struct job job = { .ctl = ctl, .err = err };
    struct hm_quantize_report report = { 0 };
    int status;

    HM_TRY(hm_quantize_plan_open(model_dir, options, &job.plan, err));
    if ((status = hm_stream_new(kernels, model_dir, options->compute_dtype, options->blocksize,
                                largest_weight(&job.plan), &job.stream, err)) < 0 ||
        (status = hm_quantize_plan_tensors(&job.plan, err)) < 0 ||
        (status = write_folder(&job, out_dir)) < 0 ||
        (status = check_folder(&job, out_dir, &report)) < 0)
        goto out;
    if (options->digests && (status = hm_reader_digests(job.reader, options->digests, err)) < 0)
        goto out;
    report.rms_error = rms_error(&job.plan);
    hm_folder_journal_remove(out_dir);
out:
    hm_reader_free(job.reader);
    hm_stream_free(job.stream);
    hm_nf4_nested_release(&job.scales.nested);
    hm_free(job.scales.absmax);
    hm_free(job.scales.sums);
    hm_quantize_plan_release(&job.plan);
    if (status < 0)
        hm_quantize_report_release(&report);
    else
        *ret_report = report;
    return status;
}

void hm_quantize_report_release(struct hm_quantize_report *report)
{
    if (!report)
        return;
    for (size_t i = 0; i < report->n_unquantized; i++)
        hm_free(report->unquantized[i]);
    hm_free(report->unquantized);
    *report = (struct hm_quantize_report){ 0 };
}

void hm_quantize_memory(const struct hm_arch *arch, const struct hm_quantize_options *options,
                        int threads, uint64_t *ret_heap_bytes, uint64_t *ret_mapped_bytes)
{
    uint64_t largest = 0, all = 0, tables = 0; /* values of one weight, of all */
    size_t source = hm_dtype_bytes(arch->dtype);

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(arch, i, &slot, name);
        uint64_t values = (uint64_t)slot.rows * slot.cols;
        largest = values > largest ? values : largest;
        all += values;
        tables += sizeof(struct hm_quantize_module) + 6 * HM_NF4_PARTS * 128;
    }
    uint64_t window = hm_stream_window_values(), piece = largest < window ? largest : window;
    *ret_heap_bytes =
        hm_stream_bytes(threads, largest) + tables + hm_reader_bytes(all * source, piece * source) +
        hm_writer_bytes(all * source, HM_DIRECT_BYTES) +
        largest / options->blocksize * (sizeof(float) + sizeof(struct hm_block_sums) + 1);
    *ret_mapped_bytes = piece * source; /* of a matrix read twice */
}
