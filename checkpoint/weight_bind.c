/* SPDX-License-Identifier: MIT */
/*
 * Finds the tensors of one weight in a checkpoint and checks that they fit together: dense under
 * its own name, a slice of transformers 5's fused experts, or the tensors of a 4-bit matrix.
 * Everything that access relies on is checked here; the values themselves are not touched.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"

#include "weight_parts.h"

#define NAME_BYTES      256
#define STATE_MAX_BYTES 65536
#define CODE_TOLERANCE  1e-6f /* quant_map of a file against the built-in table */

struct binding {
    const struct hm_checkpoint *ckpt;
    const struct hm_weight_slot *slot;
    struct hm_weight *weight;
    char module[NAME_BYTES];
};

static void add_part(struct hm_weight *weight, const struct hm_tensor *tensor, uint64_t offset,
                     uint64_t bytes)
{
    HM_BUG(weight->n_parts == HM_NF4_PARTS);
    weight->part[weight->n_parts++] = (struct weight_part){ tensor, offset, bytes };
}

static int check_dense_type(const struct binding *b, const struct hm_tensor *tensor,
                            struct hm_error *err)
{
    if (hm_dtype_is_weight(tensor->dtype))
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s': tensor '%s' is %s without a quant_state; F32, F16 and BF16 are supported",
                   b->ckpt->dir, tensor->name, hm_dtype_name(tensor->dtype));
}

static int wrong_shape(const struct binding *b, const struct hm_tensor *tensor, uint32_t n_dims,
                       const uint64_t *expected, struct hm_error *err)
{
    char found_text[160], expected_text[160];

    return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' has shape %s, the config needs %s",
                   b->ckpt->dir, tensor->name,
                   hm_shape_text(tensor->n_dims, tensor->shape, found_text, sizeof found_text),
                   hm_shape_text(n_dims, expected, expected_text, sizeof expected_text));
}

/* A dense tensor of n_dims dimensions, of which the weight takes rows x cols from element `first`.
 */
static int bind_dense(const struct binding *b, const struct hm_tensor *tensor, uint32_t n_dims,
                      const uint64_t *shape, uint64_t first, struct hm_error *err)
{
    struct hm_weight *weight = b->weight;

    HM_TRY(check_dense_type(b, tensor, err));
    if (tensor->n_dims != n_dims || memcmp(tensor->shape, shape, n_dims * sizeof *shape) != 0)
        return wrong_shape(b, tensor, n_dims, shape, err);
    uint64_t size = hm_dtype_bytes(tensor->dtype);
    weight->layout = WEIGHT_DENSE;
    weight->dtype = tensor->dtype;
    weight->data = tensor->data + first * size;
    add_part(weight, tensor, first * size, (uint64_t)weight->rows * weight->cols * size);
    return HM_OK;
}

/* One of the tensors beside the codes: dtype and number of elements must be these. */
static int need_beside(const struct binding *b, const char *suffix, enum hm_dtype dtype,
                       uint64_t count, const struct hm_tensor **ret_tensor, struct hm_error *err)
{
    const struct hm_tensor *tensor = NULL;
    char name[NAME_BYTES + 64];

    snprintf(name, sizeof name, "%s.weight.%s", b->module, suffix);
    HM_TRY(hm_checkpoint_need(b->ckpt, name, &tensor, err));
    if (tensor->dtype != dtype || tensor->count != count)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' holds %" PRIu64 " %s, expected %" PRIu64 " %s",
                       b->ckpt->dir, name, tensor->count, hm_dtype_name(tensor->dtype), count,
                       hm_dtype_name(dtype));
    add_part(b->weight, tensor, 0, tensor->size_bytes);
    *ret_tensor = tensor;
    return HM_OK;
}

static int check_state_shape(const struct binding *b, const json_t *state, const char *name,
                             struct hm_error *err)
{
    const json_t *shape = json_object_get(state, "shape");
    json_int_t rows = json_integer_value(json_array_get(shape, 0));
    json_int_t cols = json_integer_value(json_array_get(shape, 1));

    if (json_array_size(shape) != 2 || rows != (json_int_t)b->slot->rows ||
        cols != (json_int_t)b->slot->cols)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': '%s' gives the shape [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
                       "], the config needs [%" PRIu32 ", %" PRIu32 "]",
                       b->ckpt->dir, name, rows, cols, b->slot->rows, b->slot->cols);
    return HM_OK;
}

/* The members of quant_state that matter; what is not NF4 as we know it is refused. */
static int read_state(const struct binding *b, const json_t *state, const char *name, bool nested,
                      struct hm_error *err)
{
    struct hm_weight *weight = b->weight;
    const char *type = NULL, *dtype = NULL;
    uint64_t blocksize = 0, nested_blocksize = 0;
    double offset = 0;

    HM_TRY(hm_json_text(state, "quant_type", name, &type, err));
    HM_TRY(hm_json_text(state, "dtype", name, &dtype, err));
    HM_TRY(hm_json_u64(state, "blocksize", name, &blocksize, err));
    if (strcmp(type, "nf4") != 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': quant_type '%s', expected 'nf4'", name, type);
    if (!hm_nf4_blocksize_ok(blocksize))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': blocksize %" PRIu64 ", expected a power of two from 32 to 4096", name,
                       blocksize);
    HM_TRY(hm_dtype_parse(dtype, &weight->dtype, err));
    if (!hm_dtype_is_weight(weight->dtype))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': dtype '%s', expected a float type", name, dtype);
    HM_TRY(check_state_shape(b, state, name, err));
    if (nested) {
        HM_TRY(hm_json_u64(state, "nested_blocksize", name, &nested_blocksize, err));
        HM_TRY(hm_json_f64(state, "nested_offset", name, &offset, err));
        if (nested_blocksize != HM_NF4_NESTED_BLOCK || !isfinite((float)offset))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': nested_blocksize %" PRIu64
                           " and nested_offset %g; expected %u and a finite f32",
                           name, nested_blocksize, offset, HM_NF4_NESTED_BLOCK);
    }
    weight->layout = nested ? WEIGHT_NF4_NESTED : WEIGHT_NF4;
    weight->blocksize = (uint32_t)blocksize;
    weight->nested_offset = (float)offset;
    return HM_OK;
}

/* bitsandbytes' kernels use their own table whatever the file says; a file that says otherwise is
 * not NF4. */
static int check_quant_map(const struct binding *b, const struct hm_tensor *tensor,
                           struct hm_error *err)
{
    float code[16];

    memcpy(code, tensor->data, sizeof code);
    for (size_t i = 0; i < 16; i++)
        if (!(fabsf(code[i] - hm_nf4_code[i]) <= CODE_TOLERANCE))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': tensor '%s' is not the NF4 table: entry %zu is %g, expected %g",
                           b->ckpt->dir, tensor->name, i, (double)code[i], (double)hm_nf4_code[i]);
    return HM_OK;
}

static int bind_scales(const struct binding *b, bool nested, struct hm_error *err)
{
    struct hm_weight *weight = b->weight;
    uint64_t count = (uint64_t)weight->rows * weight->cols;
    uint64_t blocks = (count + weight->blocksize - 1) / weight->blocksize;
    const struct hm_tensor *tensor = NULL;

    HM_TRY(need_beside(b, "absmax", nested ? HM_DTYPE_U8 : HM_DTYPE_F32, blocks, &tensor, err));
    weight->absmax = tensor->data;
    HM_TRY(need_beside(b, "quant_map", HM_DTYPE_F32, 16, &tensor, err));
    HM_TRY(check_quant_map(b, tensor, err));
    if (!nested)
        return HM_OK;
    uint64_t nested_blocks = (blocks + HM_NF4_NESTED_BLOCK - 1) / HM_NF4_NESTED_BLOCK;
    HM_TRY(need_beside(b, "nested_absmax", HM_DTYPE_F32, nested_blocks, &tensor, err));
    weight->nested_absmax = tensor->data;
    HM_TRY(need_beside(b, "nested_quant_map", HM_DTYPE_F32, 256, &tensor, err));
    weight->nested_map = tensor->data;
    return HM_OK;
}

/* The codes go by bytes: quant_storage may show them as a wider type, padded to a whole element. */
static int bind_nf4(const struct binding *b, const struct hm_tensor *codes,
                    const struct hm_tensor *state_text, struct hm_error *err)
{
    struct hm_weight *weight = b->weight;
    uint64_t need = ((uint64_t)weight->rows * weight->cols + 1) / 2;
    json_t *state = NULL;
    char name[NAME_BYTES + 64];

    if (codes->size_bytes < need || codes->size_bytes - need >= hm_dtype_bytes(codes->dtype))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': tensor '%s' has %" PRIu64 " bytes of codes, [%" PRIu32 ", %" PRIu32
                       "] needs %" PRIu64,
                       b->ckpt->dir, codes->name, codes->size_bytes, weight->rows, weight->cols,
                       need);
    if (state_text->dtype != HM_DTYPE_U8 || state_text->size_bytes > STATE_MAX_BYTES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is no JSON text of bytes",
                       b->ckpt->dir, state_text->name);
    weight->data = codes->data;
    add_part(weight, codes, 0, codes->size_bytes);
    add_part(weight, state_text, 0, state_text->size_bytes);
    snprintf(name, sizeof name, "%s.weight.nested_absmax", b->module);
    bool nested = hm_checkpoint_find(b->ckpt, name) != NULL;
    struct hm_str text = { (const char *)state_text->data, state_text->size_bytes };
    HM_TRY(hm_json_parse(text, state_text->name, &state, err));
    int status = read_state(b, state, state_text->name, nested, err);
    json_decref(state);
    if (status == HM_OK)
        status = bind_scales(b, nested, err);
    return status;
}

/* transformers 5 in memory: experts [E, 2F, D] (rows of w1, then of w3) and [E, D, F]; router
 * mlp.gate. */
static int bind_fused(const struct binding *b, bool *ret_found, struct hm_error *err)
{
    const struct hm_weight_slot *slot = b->slot;
    const struct hm_arch *arch = &b->ckpt->arch;
    bool down = slot->kind == HM_WEIGHT_W2;
    char name[NAME_BYTES];

    *ret_found = false;
    if (arch->family != HM_FAMILY_MIXTRAL || slot->kind < HM_WEIGHT_GATE ||
        slot->kind > HM_WEIGHT_W3)
        return HM_OK;
    snprintf(name, sizeof name, "model.layers.%" PRIu32 ".mlp.%s", slot->layer,
             slot->kind == HM_WEIGHT_GATE ? "gate.weight"
             : down                       ? "experts.down_proj"
                                          : "experts.gate_up_proj");
    const struct hm_tensor *tensor = hm_checkpoint_find(b->ckpt, name);
    *ret_found = tensor != NULL;
    if (!tensor)
        return HM_OK;
    if (slot->kind == HM_WEIGHT_GATE)
        return bind_dense(b, tensor, 2, (uint64_t[]){ slot->rows, slot->cols }, 0, err);
    uint64_t in_one = (down ? 1 : 2) * (uint64_t)slot->rows; /* rows of one expert */
    uint64_t row = slot->expert * in_one + (slot->kind == HM_WEIGHT_W3 ? slot->rows : 0);
    return bind_dense(b, tensor, 3, (uint64_t[]){ arch->experts, in_one, slot->cols },
                      row * slot->cols, err);
}

static int bind(const struct binding *b, struct hm_error *err)
{
    const struct hm_weight_slot *slot = b->slot;
    char name[NAME_BYTES + 64];
    bool found = false;

    snprintf(name, sizeof name, "%s.weight", b->module);
    const struct hm_tensor *tensor = hm_checkpoint_find(b->ckpt, name);
    if (!tensor) {
        HM_TRY(bind_fused(b, &found, err));
        return found ? HM_OK
                     : hm_fail(err, HM_ERR_FORMAT, "'%s': tensor '%s' is missing", b->ckpt->dir,
                               name);
    }
    snprintf(name, sizeof name, "%s.weight.quant_state.bitsandbytes__fp4", b->module);
    if (hm_checkpoint_find(b->ckpt, name))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' is quantised to FP4; only NF4 is supported",
                       b->ckpt->dir, b->module);
    snprintf(name, sizeof name, "%s.weight.quant_state.bitsandbytes__nf4", b->module);
    const struct hm_tensor *state = hm_checkpoint_find(b->ckpt, name);
    if (state && slot->cols > 1)
        return bind_nf4(b, tensor, state, err);
    return bind_dense(b, tensor, slot->cols == 1 ? 1 : 2, (uint64_t[]){ slot->rows, slot->cols }, 0,
                      err);
}

int hm_weight_open(const struct hm_checkpoint *ckpt, const struct hm_weight_slot *slot,
                   struct hm_weight **ret_weight, struct hm_error *err)
{
    struct hm_weight *weight = hm_calloc(HM_MEM_WEIGHT, 1, sizeof *weight);
    struct binding b = { .ckpt = ckpt, .slot = slot, .weight = weight };

    if (!weight)
        return hm_fail_nomem(err, "binding a weight");
    weight->ckpt = ckpt;
    weight->rows = slot->rows;
    weight->cols = slot->cols;
    hm_arch_slot_name(&ckpt->arch, slot, b.module);
    int status = bind(&b, err);
    if (status == HM_OK)
        *ret_weight = weight;
    else
        hm_weight_free(weight);
    return status;
}
