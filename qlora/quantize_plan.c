/* SPDX-License-Identifier: MIT */
/*
 * The tensors of a 4-bit folder before they are written: which weights become NF4, the six tensors
 * that carry each of them, the type of the rest, the configuration, and the sizes by class. The
 * work itself is quantize.c's.
 */
#include "quantize_plan.h"

#include <float.h>
#include <string.h>

#include "hanmix/checkpoint/nf4_format.h"
#include "quantize_rules.h"

static const char *const part_suffix[] = {
    [HM_PART_DENSE] = "",
    [HM_PART_CODES] = "",
    [HM_PART_ABSMAX] = ".absmax",
    [HM_PART_MAP] = ".quant_map",
    [HM_PART_NESTED_ABSMAX] = ".nested_absmax",
    [HM_PART_NESTED_MAP] = ".nested_quant_map",
    [HM_PART_STATE] = ".quant_state.bitsandbytes__nf4",
};

static int fail_nomem(const struct hm_quantize_plan *plan, struct hm_error *err)
{
    return hm_fail_nomem(err, "planning the quantising of '%s'", plan->ckpt.dir);
}

static int check_options(const struct hm_quantize_options *options, struct hm_error *err)
{
    uint32_t size = options->blocksize;
    enum hm_dtype dtype = options->compute_dtype;

    if (!hm_nf4_blocksize_ok(size))
        return hm_fail(err, HM_ERR_USAGE,
                       "blocksize: found %u, expected a power of two from 32 to 4096", size);
    if (!hm_dtype_is_weight(dtype))
        return hm_fail(err, HM_ERR_USAGE,
                       "compute_dtype: found %s, expected bfloat16, float16 or float32",
                       hm_dtype_hf_name(dtype));
    return HM_OK;
}

/* transformers leaves a tied head alone only when its name is in the list. */
static int list_skips(struct hm_quantize_plan *plan, struct hm_error *err)
{
    static char head[] = "lm_head";
    const struct hm_quantize_options *options = plan->options;
    bool listed = false;

    plan->skip = hm_alloc_array(HM_MEM_OTHER, options->n_skip + 1, sizeof(char *));
    if (!plan->skip)
        return fail_nomem(plan, err);
    for (size_t i = 0; i < options->n_skip; i++) {
        plan->skip[plan->n_skip++] = options->skip[i];
        listed = listed || strcmp(options->skip[i], head) == 0;
    }
    if (plan->ckpt.arch.tied && !listed)
        plan->skip[plan->n_skip++] = head;
    return HM_OK;
}

static void set_arch(struct hm_quantize_plan *plan)
{
    plan->arch = plan->ckpt.arch;
    plan->arch.dtype = plan->options->compute_dtype;
    plan->arch.quant = (struct hm_quant_config){
        .present = true,
        .double_quant = plan->options->double_quant,
        .compute_dtype = plan->options->compute_dtype,
        .storage_dtype = HM_DTYPE_U8,
        .skip = plan->skip,
        .n_skip = plan->n_skip,
    };
}

static int open_modules(struct hm_quantize_plan *plan, struct hm_error *err)
{
    bool *nf4;
    int status = HM_OK;

    plan->n_slots = hm_arch_slot_count(&plan->ckpt.arch);
    plan->module = hm_calloc(HM_MEM_OTHER, plan->n_slots, sizeof *plan->module);
    nf4 = hm_alloc_array(HM_MEM_OTHER, plan->n_slots, sizeof *nf4);
    if (!plan->module || !nf4)
        status = fail_nomem(plan, err);
    else
        status = hm_quantize_select(&plan->ckpt.arch, plan->skip, plan->n_skip, nf4, err);
    for (size_t i = 0; i < plan->n_slots && status == HM_OK; i++) {
        struct hm_quantize_module *module = &plan->module[i];
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(&plan->ckpt.arch, i, &slot, name);
        module->nf4 = nf4[i];
        module->n_blocks =
            (size_t)(((uint64_t)slot.rows * slot.cols + plan->options->blocksize - 1) /
                     plan->options->blocksize);
        status = hm_weight_open(&plan->ckpt, &slot, &module->weight, err);
    }
    hm_free(nf4);
    return status;
}

int hm_quantize_plan_open(const char *model_dir, const struct hm_quantize_options *options,
                          struct hm_quantize_plan *plan, struct hm_error *err)
{
    int status;

    *plan = (struct hm_quantize_plan){ .options = options };
    HM_TRY(check_options(options, err));
    HM_TRY(hm_checkpoint_open(model_dir, &plan->ckpt, err));
    if (plan->ckpt.arch.quant.present)
        status = hm_fail(err, HM_ERR_USAGE, "'%s' is a 4-bit model already: give the 16-bit one",
                         model_dir);
    else if ((status = list_skips(plan, err)) == HM_OK)
        status = open_modules(plan, err);
    if (status < 0)
        hm_quantize_plan_release(plan);
    else
        set_arch(plan);
    return status;
}

static int add_part(struct hm_quantize_plan *plan, size_t slot, enum hm_quantize_part_kind kind,
                    struct hm_tensor_spec spec, struct hm_error *err)
{
    struct hm_weight_slot weight;
    char name[HM_SLOT_NAME_BYTES];

    hm_arch_slot(&plan->arch, slot, &weight, name);
    HM_TRY(hm_format(&spec.name, err, "%s.weight%s", name, part_suffix[kind]));
    plan->spec[plan->n_parts] = spec;
    plan->part[plan->n_parts++] = (struct hm_quantize_part){ .slot = slot, .kind = kind };
    return HM_OK;
}

static struct hm_tensor_spec vector(enum hm_dtype dtype, uint64_t count)
{
    return (struct hm_tensor_spec){ .dtype = dtype, .n_dims = 1, .shape = { count } };
}

/* Of its kind: a number of 17 digits and an exponent. */
static int longest_state(const struct hm_quantize_plan *plan, size_t slot, size_t *ret_bytes,
                         struct hm_error *err)
{
    const struct hm_quantize_options *options = plan->options;
    const struct hm_weight *weight = plan->module[slot].weight;
    const float longest = FLT_MIN;
    struct hm_buf text = { 0 };

    HM_TRY(hm_nf4_state_json(options->blocksize, options->compute_dtype, hm_weight_rows(weight),
                             hm_weight_cols(weight), options->double_quant ? &longest : NULL, &text,
                             err));
    *ret_bytes = text.len;
    hm_buf_release(&text);
    return HM_OK;
}

static int add_nf4(struct hm_quantize_plan *plan, size_t slot, uint64_t values,
                   struct hm_error *err)
{
    const struct hm_quantize_module *module = &plan->module[slot];
    struct hm_tensor_spec codes = { .dtype = HM_DTYPE_U8,
                                    .n_dims = 2,
                                    .shape = { (values + 1) / 2, 1 } };
    bool nested = plan->options->double_quant;
    size_t n_nested = (module->n_blocks + HM_NF4_NESTED_BLOCK - 1) / HM_NF4_NESTED_BLOCK;
    size_t state_bytes = 0;

    HM_TRY(longest_state(plan, slot, &state_bytes, err));
    HM_TRY(add_part(plan, slot, HM_PART_CODES, codes, err));
    HM_TRY(add_part(plan, slot, HM_PART_ABSMAX,
                    vector(nested ? HM_DTYPE_U8 : HM_DTYPE_F32, module->n_blocks), err));
    HM_TRY(add_part(plan, slot, HM_PART_MAP, vector(HM_DTYPE_F32, 16), err));
    if (nested) {
        HM_TRY(add_part(plan, slot, HM_PART_NESTED_ABSMAX, vector(HM_DTYPE_F32, n_nested), err));
        HM_TRY(add_part(plan, slot, HM_PART_NESTED_MAP, vector(HM_DTYPE_F32, 256), err));
    }
    return add_part(plan, slot, HM_PART_STATE, vector(HM_DTYPE_U8, state_bytes), err);
}

int hm_quantize_plan_tensors(struct hm_quantize_plan *plan, struct hm_error *err)
{
    plan->spec = hm_calloc(HM_MEM_OTHER, plan->n_slots * HM_NF4_PARTS, sizeof *plan->spec);
    plan->part = hm_calloc(HM_MEM_OTHER, plan->n_slots * HM_NF4_PARTS, sizeof *plan->part);
    if (!plan->spec || !plan->part)
        return fail_nomem(plan, err);
    for (size_t i = 0; i < plan->n_slots; i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];

        hm_arch_slot(&plan->arch, i, &slot, name);
        plan->module[i].first_part = plan->n_parts;
        if (plan->module[i].nf4) {
            HM_TRY(add_nf4(plan, i, (uint64_t)slot.rows * slot.cols, err));
            plan->module[i].n_parts = plan->n_parts - plan->module[i].first_part;
            continue;
        }
        plan->module[i].n_parts = 1;
        struct hm_tensor_spec dense = { .dtype = plan->arch.dtype,
                                        .n_dims = slot.cols > 1 ? 2 : 1,
                                        .shape = { slot.rows, slot.cols } };
        HM_TRY(add_part(plan, i, HM_PART_DENSE, dense, err));
    }
    return HM_OK;
}

static enum hm_byte_class byte_class(enum hm_weight_kind kind)
{
    switch (kind) {
    case HM_WEIGHT_EMBED:
        return HM_BYTES_EMBED;
    case HM_WEIGHT_HEAD:
        return HM_BYTES_HEAD;
    case HM_WEIGHT_GATE:
        return HM_BYTES_GATE;
    case HM_WEIGHT_W1:
    case HM_WEIGHT_W2:
    case HM_WEIGHT_W3:
        return HM_BYTES_EXPERT;
    case HM_WEIGHT_Q:
    case HM_WEIGHT_K:
    case HM_WEIGHT_V:
    case HM_WEIGHT_O:
        return HM_BYTES_ATTENTION;
    default:
        return HM_BYTES_NORM;
    }
}

int hm_quantize_plan_report(const struct hm_quantize_plan *plan, const struct hm_checkpoint *out,
                            struct hm_quantize_report *report, struct hm_error *err)
{
    struct hm_weight_slot slot;
    char name[HM_SLOT_NAME_BYTES];

    report->unquantized = hm_calloc(HM_MEM_OTHER, plan->n_slots, sizeof(char *));
    if (!report->unquantized)
        return fail_nomem(plan, err);
    for (size_t i = 0; i < plan->n_parts; i++) {
        const struct hm_tensor *tensor;
        HM_TRY(hm_checkpoint_need(out, plan->spec[i].name, &tensor, err));
        hm_arch_slot(&plan->arch, plan->part[i].slot, &slot, name);
        report->bytes_by_class[byte_class(slot.kind)] += tensor->size_bytes;
        report->quantized_tensors += plan->part[i].kind == HM_PART_CODES;
        if (plan->part[i].kind != HM_PART_DENSE || plan->spec[i].n_dims != 2)
            continue;
        report->unquantized[report->n_unquantized] = hm_strdup(HM_MEM_OTHER, plan->spec[i].name);
        if (!report->unquantized[report->n_unquantized])
            return fail_nomem(plan, err);
        report->n_unquantized++;
    }
    return HM_OK;
}

void hm_quantize_plan_release(struct hm_quantize_plan *plan)
{
    for (size_t i = 0; plan->module && i < plan->n_slots; i++) {
        hm_weight_free(plan->module[i].weight);
        hm_buf_release(&plan->module[i].state);
    }
    for (size_t i = 0; i < plan->n_parts; i++)
        hm_free(plan->spec[i].name);
    hm_free(plan->module);
    hm_free(plan->spec);
    hm_free(plan->part);
    hm_free(plan->skip);
    hm_checkpoint_close(&plan->ckpt);
    *plan = (struct hm_quantize_plan){ 0 };
}
