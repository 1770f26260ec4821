/* SPDX-License-Identifier: MIT */
/*
 * A 16- or 32-bit model folder to bitsandbytes' 4-bit layout, streamed weight by weight.
 *
 * Two passes over the weights when scales are double quantised: file headers come first and hold
 * the length of every quant_state text, which holds the mean of all scales of its matrix. Values
 * are first rounded to the compute type, as transformers loads them before bitsandbytes sees them.
 * What was written is opened again and every expert shown to be 4-bit. Memory: the buffers of one
 * stream, the scales of one matrix, and the nested scales of all (1/16384 of the values).
 */
#include "hanmix/qlora/quantize.h"

#include <math.h>

#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/map8.h"
#include "quantize_plan.h"
#include "quantize_stream.h"

struct scales { /* of the matrix worked on last */
    size_t slot;
    bool valid;
    float *absmax;
    struct hm_block_sums *sums; /* only filled when codes were written */
    size_t cap;                 /* blocks */
    struct hm_nf4_nested nested;
};

struct job {
    struct hm_quantize_plan plan;
    struct hm_stream *stream;
    struct scales scales;
    double error_sum, energy_sum;
    uint64_t steps_done, steps;
    const struct hm_ctl *ctl;
    struct hm_error *err;
};

/* Progress counts read passes over weights. */
static int step_done(struct job *job)
{
    const struct hm_progress progress = { "quantise", "weights", ++job->steps_done, job->steps,
                                          NULL };

    hm_ctl_progress(job->ctl, &progress);
    if (hm_ctl_stopped(job->ctl))
        return hm_fail(job->err, HM_ERR_STOPPED, "quantising was stopped");
    return HM_OK;
}

static void bind(struct job *job, size_t slot, char name[HM_SLOT_NAME_BYTES])
{
    struct hm_weight_slot weight;

    hm_arch_slot(&job->plan.arch, slot, &weight, name);
    hm_stream_bind(job->stream, job->plan.module[slot].weight, name);
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

/* Scales of a slot, and its codes into writer when it is not NULL. */
static int encode(struct job *job, size_t slot, struct hm_folder_writer *writer)
{
    const struct hm_quantize_module *module = &job->plan.module[slot];
    struct scales *scales = &job->scales;
    char name[HM_SLOT_NAME_BYTES];

    HM_TRY(reserve_scales(job, module->n_blocks));
    bind(job, slot, name);
    HM_TRY(hm_stream_encode(job->stream, writer, scales->absmax, writer ? scales->sums : NULL,
                            job->err));
    if (job->plan.options->double_quant)
        HM_TRY(hm_nf4_nest(scales->absmax, module->n_blocks, &scales->nested, job->err));
    scales->slot = slot;
    scales->valid = true;
    return HM_OK;
}

/* First pass: nested scales and state text of every 4-bit module. */
static int make_states(struct job *job)
{
    const struct hm_quantize_options *options = job->plan.options;

    for (size_t i = 0; i < job->plan.n_slots; i++) {
        struct hm_quantize_module *module = &job->plan.module[i];
        uint32_t rows = hm_weight_rows(module->weight), cols = hm_weight_cols(module->weight);

        if (!module->nf4)
            continue;
        if (options->double_quant) {
            HM_TRY(encode(job, i, NULL));
            module->offset = job->scales.nested.offset;
            module->nested_absmax = job->scales.nested.nested_absmax;
            job->scales.nested.nested_absmax = NULL; /* moved */
            job->scales.valid = false;
            HM_TRY(step_done(job));
        }
        HM_TRY(hm_nf4_state_json(options->blocksize, options->compute_dtype, rows, cols,
                                 options->double_quant ? &module->offset : NULL, &module->state,
                                 job->err));
    }
    return HM_OK;
}

/* Error of the codes just written, by the scales that a reader will compute. */
static void add_error(struct job *job, const struct hm_quantize_module *module,
                      const float map[256])
{
    const struct scales *scales = &job->scales;

    for (size_t b = 0; b < module->n_blocks; b++) {
        const struct hm_block_sums *sum = &scales->sums[b];
        float scale = scales->absmax[b];

        if (job->plan.options->double_quant) {
            float a =
                map[scales->nested.code[b]] * scales->nested.nested_absmax[b / HM_NF4_NESTED_BLOCK];
            scale = a + scales->nested.offset;
        }
        job->energy_sum += sum->energy;
        job->error_sum +=
            sum->energy - 2.0 * scale * sum->product + (double)scale * scale * sum->square;
    }
}

static int write_part(struct job *job, struct hm_folder_writer *writer, size_t index,
                      const float map[256])
{
    const struct hm_quantize_part *part = &job->plan.part[index];
    const struct hm_quantize_module *module = &job->plan.module[part->slot];
    const struct scales *scales = &job->scales;
    size_t bytes = (size_t)hm_tensor_spec_bytes(&job->plan.spec[index]);
    char name[HM_SLOT_NAME_BYTES];

    switch (part->kind) {
    case HM_PART_DENSE:
        bind(job, part->slot, name);
        HM_TRY(hm_stream_dense(job->stream, writer, job->err));
        return step_done(job);
    case HM_PART_CODES:
        HM_TRY(encode(job, part->slot, writer));
        add_error(job, module, map);
        return step_done(job);
    case HM_PART_ABSMAX: /* right behind its codes, unless a type or a shard came between */
        if (!scales->valid || scales->slot != part->slot)
            HM_TRY(encode(job, part->slot, NULL));
        return hm_folder_writer_data(
            writer,
            job->plan.options->double_quant ? (const void *)scales->nested.code : scales->absmax,
            bytes, job->err);
    case HM_PART_MAP:
        return hm_folder_writer_data(writer, hm_nf4_code, bytes, job->err);
    case HM_PART_NESTED_ABSMAX:
        return hm_folder_writer_data(writer, module->nested_absmax, bytes, job->err);
    case HM_PART_NESTED_MAP:
        return hm_folder_writer_data(writer, map, bytes, job->err);
    case HM_PART_STATE:
        return hm_folder_writer_data(writer, module->state.ptr, bytes, job->err);
    }
    HM_BUG(true);
    return HM_ERR_CHECK;
}

static int write_folder(struct job *job, const char *out_dir)
{
    const struct hm_quantize_plan *plan = &job->plan;
    struct hm_folder_writer *writer = NULL;
    json_t *config = NULL;
    float map[256];
    size_t next;
    int status;

    hm_dynamic_map(true, map);
    HM_TRY(hm_arch_config(plan->ckpt.config, &plan->arch, &config, job->err));
    status = hm_folder_writer_open(out_dir, plan->spec, plan->n_parts, plan->options->shard_bytes,
                                   &writer, job->err);
    while (status == HM_OK && (next = hm_folder_writer_next(writer)) < plan->n_parts)
        status = write_part(job, writer, next, map);
    if (status == HM_OK) {
        status = hm_folder_writer_finish(writer, false, job->err);
        writer = NULL;
    }
    if (status == HM_OK)
        status = hm_model_files_copy(plan->ckpt.dir, out_dir, job->err);
    if (status == HM_OK)
        status = hm_config_write(config, out_dir, job->err);
    hm_folder_writer_abort(writer);
    json_decref(config);
    return status;
}

/* The proof, from the folder as written: what was to be 4-bit is, experts first of all. */
static int check_folder(const struct job *job, const char *out_dir)
{
    struct hm_checkpoint out = { 0 };
    int status;

    HM_TRY(hm_checkpoint_open(out_dir, &out, job->err));
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
    hm_checkpoint_close(&out);
    return status;
}

int hm_quantize(const char *model_dir, const struct hm_quantize_options *options,
                const struct hm_kernels *kernels, const char *out_dir, const struct hm_ctl *ctl,
                struct hm_quantize_report *ret_report, struct hm_error *err)
{
    struct job job = { .ctl = ctl, .err = err };
    struct hm_quantize_report report = { 0 };
    int status;

    HM_TRY(hm_quantize_plan_open(model_dir, options, &job.plan, err));
    for (size_t i = 0; i < job.plan.n_slots; i++)
        job.steps += job.plan.module[i].nf4 && options->double_quant ? 2 : 1;
    if ((status = hm_stream_new(kernels, model_dir, options->compute_dtype, options->blocksize,
                                &job.stream, err)) < 0 ||
        (status = make_states(&job)) < 0 ||
        (status = hm_quantize_plan_tensors(&job.plan, err)) < 0 ||
        (status = write_folder(&job, out_dir)) < 0 || (status = check_folder(&job, out_dir)) < 0 ||
        (status = hm_quantize_plan_report(&job.plan, &report, err)) < 0)
        goto out;
    report.rms_error = job.energy_sum > 0 ? sqrt(fmax(job.error_sum, 0) / job.energy_sum) : 0;
out:
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
    uint64_t largest = 0; /* values of one weight */
    uint64_t nested =
        0; /* scales of all nested blocks are kept from the first pass to the second */

    for (size_t i = 0; i < hm_arch_slot_count(arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(arch, i, &slot, name);
        uint64_t values = (uint64_t)slot.rows * slot.cols;
        largest = values > largest ? values : largest;
        nested += sizeof(struct hm_quantize_module) + 1024;
        if (options->double_quant && hm_weight_kind_is_linear(slot.kind))
            nested += values / options->blocksize / HM_NF4_NESTED_BLOCK * sizeof(float);
    }
    *ret_heap_bytes =
        hm_stream_bytes(threads) + nested +
        largest / options->blocksize * (sizeof(float) + sizeof(struct hm_block_sums) + 1);
    uint64_t resident = hm_stream_window_values();
    *ret_mapped_bytes = (largest < resident ? largest : resident) * hm_dtype_bytes(arch->dtype);
}
