/* SPDX-License-Identifier: MIT */
/*
 * The folders of tests/golden/data/bnb4bit, written by transformers and bitsandbytes: every tensor
 * belongs to a weight of the table and is bound once, the right ones are 4-bit, and every value is
 * that of the README's rule, written down here a second time.
 */
#include "support/support.h"

#include "hanmix/checkpoint/weight.h"

#define TABLES_MAX 8

static const struct hm_tensor *beside(const struct hm_checkpoint *ckpt, const char *module,
                                      const char *suffix)
{
    char name[256];

    snprintf(name, sizeof name, "%s.weight%s", module, suffix);
    return hm_checkpoint_find(ckpt, name);
}

/* v = f32(nf4[code] * m), m = absmax or f32(f32(map[q] * nested_absmax[b/256]) + offset). */
static void decode_plainly(const struct hm_checkpoint *ckpt, const char *module, size_t count,
                           bool nested, float *out)
{
    const struct hm_tensor *state = beside(ckpt, module, ".quant_state.bitsandbytes__nf4");
    const uint8_t *codes = beside(ckpt, module, "")->data;
    const uint8_t *absmax = beside(ckpt, module, ".absmax")->data;
    float map[256], top[64] = { 0 };
    struct hm_error err = { 0 };
    json_t *value = NULL;
    double offset = 0;

    assert_ok(hm_json_parse((struct hm_str){ (const char *)state->data, state->size_bytes },
                            "state", &value, &err),
              err);
    if (nested) {
        const struct hm_tensor *tops = beside(ckpt, module, ".nested_absmax");
        assert_true(tops->count <= 64);
        memcpy(top, tops->data, tops->size_bytes);
        memcpy(map, beside(ckpt, module, ".nested_quant_map")->data, sizeof map);
        assert_ok(hm_json_f64(value, "nested_offset", "state", &offset, &err), err);
    }
    json_decref(value);
    for (size_t i = 0; i < count; i++) {
        float scale;
        if (nested) {
            scale = map[absmax[i / 64]] * top[i / 64 / 256];
            scale = scale + (float)offset;
        } else {
            memcpy(&scale, absmax + i / 64 * 4, 4);
        }
        out[i] = hm_nf4_code[i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4] * scale;
    }
}

static void check_weight(const struct hm_checkpoint *ckpt, const struct hm_weight_slot *slot,
                         const char *module, bool nested, uint64_t *bound_bytes)
{
    size_t count = (size_t)slot->rows * slot->cols;
    float *expected = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));
    float *found = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));
    struct hm_kernels tables[TABLES_MAX];
    size_t n = hm_kernels_all(tables, TABLES_MAX);
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_weight_open(ckpt, slot, &weight, &err), err);
    assert_true(hm_weight_is_finite(weight));
    assert_int_equal(hm_weight_dtype(weight), HM_DTYPE_BF16);
    if (hm_weight_is_nf4(weight))
        decode_plainly(ckpt, module, count, nested, expected);
    else
        assert_ok(
            hm_dtype_to_f32(HM_DTYPE_BF16, beside(ckpt, module, "")->data, count, expected, &err),
            err);
    for (size_t k = 0; k < n; k++) {
        hm_weight_decode(weight, &tables[k], 0, slot->rows, 0, slot->cols, HM_ROUND_NONE, found,
                         slot->cols);
        assert_memory_equal(found, expected, count * sizeof(float));
    }
    *bound_bytes += hm_weight_stored_bytes(weight);
    hm_weight_free(weight);
    hm_free(expected);
    hm_free(found);
}

static void check_folder(const char *name, bool nested, bool gate_4bit)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    uint64_t all_bytes = 0, bound_bytes = 0;
    size_t linears = 0;

    assert_ok(hm_checkpoint_open(golden_path(tmp_path("bnb4bit", "%s", name)), &ckpt, &err), err);
    assert_true(ckpt.arch.quant.present);
    assert_int_equal(ckpt.arch.quant.double_quant, nested);
    for (size_t i = 0; i < hm_arch_slot_count(&ckpt.arch); i++) {
        struct hm_weight_slot slot;
        char module[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt.arch, i, &slot, module);
        bool is_4bit = beside(&ckpt, module, ".quant_state.bitsandbytes__nf4") != NULL;
        assert_int_equal(is_4bit, hm_weight_kind_is_linear(slot.kind) &&
                                      slot.kind != HM_WEIGHT_HEAD &&
                                      (gate_4bit || slot.kind != HM_WEIGHT_GATE));
        linears += is_4bit;
        check_weight(&ckpt, &slot, module, nested, &bound_bytes);
    }
    assert_int_equal(linears, 2 * (4 + 12 + (gate_4bit ? 1 : 0)));
    for (size_t i = 0; i < ckpt.count; i++)
        all_bytes += ckpt.tensor[i]->size_bytes;
    assert_int_equal(all_bytes, bound_bytes); /* nothing is left over */
    hm_checkpoint_close(&ckpt);
}

static void test_folders(void **state)
{
    (void)state;
    check_folder("dq_gate4bit", true, true);
    check_folder("dq_gate16bit", true, false);
    check_folder("plain_gate4bit", false, true);
    check_folder("plain_gate16bit", false, false);
}

/* config.json written from what was read is the same, apart from the old spellings. */
static void test_config(void **state)
{
    static const char *const names[] = { "dq_gate4bit", "dq_gate16bit", "plain_gate4bit" };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct hm_checkpoint ckpt = { 0 };
        json_t *written = NULL;
        assert_ok(hm_checkpoint_open(golden_path(tmp_path("bnb4bit", "%s", names[i])), &ckpt, &err),
                  err);
        assert_ok(hm_arch_config(ckpt.config, &ckpt.arch, &written, &err), err);
        json_object_set(written, "dtype", json_object_get(written, "torch_dtype"));
        json_object_del(written, "torch_dtype");
        json_object_set_new(written, "head_dim", json_null());
        assert_true(json_equal(written, ckpt.config));
        json_decref(written);
        hm_checkpoint_close(&ckpt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
