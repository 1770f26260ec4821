/* SPDX-License-Identifier: MIT */
/*
 * Every file of tests/golden/data/nf4 by the rules of its README: codes, absmax, nested absmax,
 * quant_state text and dequantised values of bitsandbytes' CPU path. Run for every kernel table.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/kernels/map8.h"

#define TABLES_MAX 8

struct record { /* one file */
    const char *name;
    struct hm_safetensors file;
    uint64_t rows, cols; /* cols 0: a vector */
    uint64_t count, blocks;
    bool nested;
    float *input;
};

static const struct hm_tensor *need(const struct record *r, const char *name, enum hm_dtype dtype)
{
    const struct hm_tensor *tensor = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_safetensors_need(&r->file, name, dtype, 0, NULL, &tensor, &err), err);
    return tensor;
}

static void record_open(struct record *r, const char *name)
{
    struct hm_error err = { 0 };

    *r = (struct record){ .name = name };
    assert_ok(hm_safetensors_open(golden_path(tmp_path("nf4", "%s", name)), &r->file, &err), err);
    const struct hm_tensor *input = need(r, "input", HM_DTYPE_COUNT);
    r->rows = input->shape[0];
    r->cols = input->n_dims == 2 ? input->shape[1] : 0;
    r->count = input->count;
    r->blocks = (input->count + 63) / 64;
    r->nested = strstr(name, ".dq.") != NULL;
    r->input = hm_alloc_array(HM_MEM_OTHER, r->count, sizeof(float));
    assert_ok(hm_dtype_to_f32(input->dtype, input->data, input->count, r->input, &err), err);
}

static void record_close(struct record *r)
{
    hm_free(r->input);
    hm_safetensors_close(&r->file);
}

/* Codes equal; absmax equal in the plain files. Returns our absmax (hm_free). */
static float *check_encode(const struct record *r, const struct hm_kernels *kernels)
{
    size_t bytes = (r->count + 1) / 2;
    uint8_t *codes = hm_alloc(HM_MEM_OTHER, bytes);
    float *absmax = hm_alloc_array(HM_MEM_OTHER, r->blocks, sizeof(float));

    kernels->nf4_encode(r->input, r->count, 64, codes, absmax);
    const struct hm_tensor *packed = need(r, "packed", HM_DTYPE_U8);
    assert_int_equal(packed->size_bytes, bytes);
    if (memcmp(codes, packed->data, bytes) != 0)
        fail_msg("%s: %s: codes differ", r->name, kernels->name);
    if (!r->nested && memcmp(absmax, need(r, "absmax", HM_DTYPE_F32)->data, r->blocks * 4) != 0)
        fail_msg("%s: %s: absmax differ", r->name, kernels->name);
    hm_free(codes);
    return absmax;
}

static bool is_subnormal(const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        if (fpclassify(values[i]) == FP_SUBNORMAL)
            return true;
    return false;
}

static float recorded_offset(const struct record *r)
{
    const struct hm_tensor *state = need(r, "quant_state", HM_DTYPE_U8);
    struct hm_error err = { 0 };
    json_t *value = NULL;
    double offset = 0;

    assert_ok(hm_json_parse((struct hm_str){ (const char *)state->data, state->size_bytes },
                            "state", &value, &err),
              err);
    assert_ok(hm_json_f64(value, "nested_offset", "state", &offset, &err), err);
    json_decref(value);
    return (float)offset;
}

static void check_near(const struct record *r, const char *what, float found, float expected,
                       float scale)
{
    if (!(fabsf(found - expected) <= 1e-6f * scale))
        fail_msg("%s: %s is %.9g, recorded %.9g", r->name, what, (double)found, (double)expected);
}

/*
 * Nested scales: offset and nested_absmax within 1e-6 of the scales' size, codes at most one step
 * off; a block whose recorded nested_absmax is 0, or denormal scales, hold immaterial codes.
 */
static void check_nested(const struct record *r, const float *absmax)
{
    struct hm_nf4_nested nested = { 0 };
    struct hm_error err = { 0 };
    float map[256], top = 0.0f, recorded[16];
    unsigned off = 0;

    assert_ok(hm_nf4_nest(absmax, r->blocks, &nested, &err), err);
    hm_dynamic_map(true, map);
    assert_memory_equal(map, need(r, "nested_quant_map", HM_DTYPE_F32)->data, sizeof map);
    for (uint64_t i = 0; i < r->blocks; i++)
        top = fmaxf(top, absmax[i]);
    check_near(r, "offset", nested.offset, recorded_offset(r), top);
    const struct hm_tensor *tensor = need(r, "nested_absmax", HM_DTYPE_F32);
    assert_int_equal(tensor->count, (r->blocks + 255) / 256);
    memcpy(recorded, tensor->data, tensor->size_bytes);
    for (uint64_t i = 0; i < tensor->count; i++)
        check_near(r, "nested_absmax", nested.nested_absmax[i], recorded[i], top);
    const uint8_t *codes = need(r, "absmax", HM_DTYPE_U8)->data;
    for (uint64_t i = 0; i < r->blocks && !is_subnormal(absmax, r->blocks); i++) {
        int step = (int)nested.code[i] - (int)codes[i];
        if (recorded[i / 256] == 0.0f && nested.nested_absmax[i / 256] == 0.0f)
            assert_int_equal(nested.code[i], codes[i]); /* both store 0 */
        else if (recorded[i / 256] > 1e-6f * top && abs(step) > 1)
            fail_msg("%s: nested code %d, recorded %d", r->name, nested.code[i], codes[i]);
        else
            off += step != 0;
    }
    assert_true(off * 10 <= r->blocks);
    hm_nf4_nested_release(&nested);
}

/* Our text with the recorded offset is the recorded text. */
static void check_state_text(const struct record *r)
{
    const struct hm_tensor *state = need(r, "quant_state", HM_DTYPE_U8);
    float offset = r->nested ? recorded_offset(r) : 0.0f;
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };

    assert_ok(hm_nf4_state_json(64, need(r, "input", HM_DTYPE_COUNT)->dtype, r->rows, r->cols,
                                r->nested ? &offset : NULL, &text, &err),
              err);
    assert_int_equal(text.len, state->size_bytes);
    assert_memory_equal(text.ptr, state->data, text.len);
    hm_buf_release(&text);
}

/* The file's tensors under the names of a checkpoint, in a folder of one weight; a vector becomes a
 * row. */
static void make_folder(const struct record *r, const char *dir)
{
    static const char *const names[][2] = {
        { "packed", "weight" },
        { "absmax", "weight.absmax" },
        { "quant_map", "weight.quant_map" },
        { "quant_state", "weight.quant_state.bitsandbytes__nf4" },
        { "nested_absmax", "weight.nested_absmax" },
        { "nested_quant_map", "weight.nested_quant_map" },
    };
    struct hm_tensor tensor[6];
    char full[6][128];
    size_t n = r->nested ? 6 : 4;
    float offset = r->nested ? recorded_offset(r) : 0.0f;
    struct hm_buf row_state = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < n; i++) {
        tensor[i] = *need(r, names[i][0], HM_DTYPE_COUNT);
        snprintf(full[i], sizeof full[i], "lm_head.%s", names[i][1]);
        tensor[i].name = full[i];
    }
    if (r->cols == 0) {
        assert_ok(hm_nf4_state_json(64, need(r, "input", HM_DTYPE_COUNT)->dtype, 1, r->rows,
                                    r->nested ? &offset : NULL, &row_state, &err),
                  err);
        tensor[3].data = (const uint8_t *)row_state.ptr;
        tensor[3].shape[0] = row_state.len;
    }
    assert_ok(hm_safetensors_write(tmp_path(dir, "model.safetensors"), tensor, n, NULL, &err), err);
    hm_buf_release(&row_state);
}

/* The stored bytes decode to the recorded values, or to the formula's where the library errs. */
static void check_decode(const struct record *r, const struct hm_checkpoint *ckpt,
                         const struct hm_kernels *kernels)
{
    static const char *const keys[2][2] = {
        { "formula_dequantised_f32", "dequantised_f32" },
        { "formula_dequantised_bf16", "dequantised_bf16" },
    };
    struct hm_weight_slot slot = { .kind = HM_WEIGHT_HEAD,
                                   .rows = r->cols ? (uint32_t)r->rows : 1,
                                   .cols = (uint32_t)(r->cols ? r->cols : r->rows) };
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };
    float *ours = hm_alloc_array(HM_MEM_OTHER, r->count, sizeof(float));
    float *theirs = hm_alloc_array(HM_MEM_OTHER, r->count, sizeof(float));

    assert_ok(hm_weight_open(ckpt, &slot, &weight, &err), err);
    assert_true(hm_weight_is_nf4(weight));
    assert_int_equal(hm_weight_dtype(weight), need(r, "input", HM_DTYPE_COUNT)->dtype);
    assert_true(hm_weight_is_finite(weight));
    for (int round = 0; round < 2; round++) {
        const struct hm_tensor *truth = hm_safetensors_find(&r->file, keys[round][0]);
        if (!truth)
            truth = need(r, keys[round][1], HM_DTYPE_COUNT);
        assert_ok(hm_dtype_to_f32(truth->dtype, truth->data, r->count, theirs, &err), err);
        hm_weight_decode(weight, kernels, 0, slot.rows, 0, slot.cols,
                         round ? HM_ROUND_BF16 : HM_ROUND_NONE, ours, slot.cols);
        for (uint64_t i = 0; i < r->count; i++)
            if (ours[i] != theirs[i]) /* zeros of either sign are equal */
                fail_msg("%s: %s: value %zu is %.9g, recorded %.9g", r->name, kernels->name,
                         (size_t)i, (double)ours[i], (double)theirs[i]);
    }
    hm_weight_free(weight);
    hm_free(ours);
    hm_free(theirs);
}

static void put_config(const char *dir)
{
    static const char text[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"intermediate_size\": "
        "64,"
        " \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"vocab_size\": 64,"
        " \"max_position_embeddings\": 8, \"rms_norm_eps\": 1e-5}";

    file_put(tmp_path(dir, "config.json"), text, sizeof text - 1);
}

static unsigned records_walk(void (*check)(const struct record *r))
{
    struct hm_error err = { 0 };
    struct hm_names names = { 0 };
    unsigned seen = 0;

    assert_ok(hm_dir_list(golden_path("nf4"), &names, &err), err);
    for (size_t i = 0; i < names.count; i++) {
        if (!hm_text_ends(names.item[i], ".safetensors"))
            continue;
        struct record r;
        record_open(&r, names.item[i]);
        check(&r);
        record_close(&r);
        seen++;
    }
    hm_names_release(&names);
    return seen;
}

static void check_quantised(const struct record *r)
{
    struct hm_kernels tables[TABLES_MAX];
    size_t n = hm_kernels_all(tables, TABLES_MAX);

    for (size_t k = 0; k < n; k++) {
        float *absmax = check_encode(r, &tables[k]);
        if (r->nested && k == 0)
            check_nested(r, absmax);
        hm_free(absmax);
    }
    check_state_text(r);
}

static void check_dequantised(const struct record *r)
{
    struct hm_kernels tables[TABLES_MAX];
    size_t n = hm_kernels_all(tables, TABLES_MAX);
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };

    char *dir = tmp_new();
    put_config(dir);
    make_folder(r, dir);
    assert_ok(hm_checkpoint_open(dir, &ckpt, &err), err);
    for (size_t k = 0; k < n; k++)
        check_decode(r, &ckpt, &tables[k]);
    hm_checkpoint_close(&ckpt);
    tmp_release(dir);
}

static void test_quantised(void **state)
{
    (void)state;
    assert_int_equal(records_walk(check_quantised), 68);
}

static void test_dequantised(void **state)
{
    (void)state;
    assert_int_equal(records_walk(check_dequantised), 68);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantised),
        cmocka_unit_test(test_dequantised),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
