/* SPDX-License-Identifier: MIT */
/*
 * Merging against PEFT's merge_and_unload of f32 factors into the bf16 base, and against the f32
 * sum over the dequantised 4-bit base; same bytes for any number of threads and shards.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/qlora/adapter_merge.h"

static struct hm_kernels kernels;

static void merge(const char *model, const char *adapter, bool dequantised, enum hm_dtype dtype,
                  uint64_t shard_bytes, const char *out, struct hm_adapter_merge_report *report)
{
    const struct hm_adapter_merge_options options = { .onto_dequantised = dequantised,
                                                      .dtype = dtype,
                                                      .shard_bytes = shard_bytes };
    struct hm_error err = { 0 };
    char model_dir[512], adapter_dir[512];

    snprintf(model_dir, sizeof model_dir, "%s", golden_path(model));
    snprintf(adapter_dir, sizeof adapter_dir, "%s", golden_path(adapter));
    assert_ok(hm_adapter_merge(model_dir, adapter_dir, &options, &kernels,
                               tmp_path(test_dir, "%s", out), NULL, report, &err),
              err);
}

static void open_model(const char *path, struct hm_checkpoint *ckpt)
{
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(path, ckpt, &err), err);
}

static void test_against_peft(void **state)
{
    struct hm_adapter_merge_report report = { 0 };
    struct hm_checkpoint ours = { 0 }, theirs = { 0 };
    size_t off = 0, count = 0;

    (void)state;
    merge("mixtral/model", "peft/adapter", false, HM_DTYPE_COUNT, UINT64_C(1) << 40, "merged",
          &report);
    open_model(tmp_path(test_dir, "merged"), &ours);
    open_model(golden_path("peft/merged_f32_adapter"), &theirs);
    assert_int_equal(ours.count, theirs.count);
    for (size_t i = 0; i < ours.count; i++) {
        const struct hm_tensor *a = ours.tensor[i], *b = theirs.tensor[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->dtype, b->dtype);
        assert_int_equal(a->count, b->count);
        for (uint64_t v = 0; v < a->count; v++) {
            uint16_t x, y;
            memcpy(&x, a->data + 2 * v, 2);
            memcpy(&y, b->data + 2 * v, 2);
            if (abs(x - y) > 1)
                fail_msg("'%s': value %zu is %04x, expected %04x", a->name, (size_t)v, x, y);
            off += x != y;
        }
        count += a->count;
    }
    assert_true(off <=
                count / 100000); /* another order of summation may cross a rounding boundary */
    assert_null(json_object_get(ours.config, "quantization_config"));
    assert_int_equal(report.tensors, ours.count);
    assert_int_equal(report.merged, 32);
    assert_int_equal(report.replaced, 2);
    assert_true(report.changed_values > report.unchanged_values);
    assert_true(report.max_abs_delta > 0 && report.relative_norm > 0);
    assert_true(hm_path_exists(tmp_path(test_dir, "merged/digests.tsv")));
    assert_true(hm_path_exists(tmp_path(test_dir, "merged/generation_config.json")));
    hm_checkpoint_close(&ours);
    hm_checkpoint_close(&theirs);
}

/* PEFT with bf16 factors rounds the delta, then the sum: half a step of each apart from ours. */
static void test_against_bf16_factors(void **state)
{
    struct hm_checkpoint base = { 0 }, ours = { 0 }, theirs = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    open_model(golden_path("mixtral/model"), &base);
    open_model(tmp_path(test_dir, "merged"), &ours);
    open_model(golden_path("peft/merged_bf16_adapter"), &theirs);
    for (size_t i = 0; i < ours.count; i++) {
        for (uint64_t v = 0; v < ours.tensor[i]->count; v++) {
            float w, x, y;
            assert_ok(hm_dtype_to_f32(HM_DTYPE_BF16, base.tensor[i]->data + 2 * v, 1, &w, &err),
                      err);
            assert_ok(hm_dtype_to_f32(HM_DTYPE_BF16, ours.tensor[i]->data + 2 * v, 1, &x, &err),
                      err);
            assert_ok(hm_dtype_to_f32(HM_DTYPE_BF16, theirs.tensor[i]->data + 2 * v, 1, &y, &err),
                      err);
            if (fabsf(x - y) > (fabsf(x - w) / 256 + fabsf(x) / 128) * 1.01F)
                fail_msg("'%s': value %zu is %g, expected %g", ours.tensor[i]->name, (size_t)v,
                         (double)x, (double)y);
        }
    }
    hm_checkpoint_close(&base);
    hm_checkpoint_close(&ours);
    hm_checkpoint_close(&theirs);
}

/* f32 output of one matrix over a base against w + s * (B A) in double. */
static void check_matrix(const struct hm_checkpoint *base, const struct hm_checkpoint *merged,
                         const struct hm_adapter *adapter, size_t index)
{
    const struct hm_lora *lora = &adapter->lora[adapter->lora_of_slot[index]];
    const float *a = adapter->param[lora->a].value, *b = adapter->param[lora->b].value;
    struct hm_weight *from = NULL, *to = NULL;
    struct hm_weight_slot slot;
    struct hm_error err = { 0 };
    char name[HM_SLOT_NAME_BYTES];
    float *w, *x;
    double worst = 0;

    hm_arch_slot(&base->arch, index, &slot, name);
    assert_ok(hm_weight_open(base, &slot, &from, &err), err);
    assert_ok(hm_weight_open(merged, &slot, &to, &err), err);
    w = hm_alloc_array(HM_MEM_OTHER, (size_t)slot.rows * slot.cols, sizeof *w);
    x = hm_alloc_array(HM_MEM_OTHER, (size_t)slot.rows * slot.cols, sizeof *x);
    hm_weight_decode(from, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, w, slot.cols);
    hm_weight_decode(to, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, x, slot.cols);
    for (size_t i = 0; i < slot.rows; i++) {
        for (size_t j = 0; j < slot.cols; j++) {
            double sum = 0;
            for (size_t r = 0; r < lora->rank; r++)
                sum += (double)b[i * lora->rank + r] * a[r * slot.cols + j];
            worst =
                fmax(worst, fabs(w[i * slot.cols + j] + lora->scale * sum - x[i * slot.cols + j]));
        }
    }
    assert_true(worst < 1e-6);
    hm_free(w);
    hm_free(x);
    hm_weight_free(from);
    hm_weight_free(to);
}

static void check_dequantised(const char *adapter_name, const char *out)
{
    struct hm_adapter_merge_report report = { 0 };
    struct hm_checkpoint base = { 0 }, merged = { 0 };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    merge("bnb4bit/dq_gate16bit", adapter_name, true, HM_DTYPE_F32, UINT64_C(1) << 40, out,
          &report);
    open_model(golden_path("bnb4bit/dq_gate16bit"), &base);
    open_model(tmp_path(test_dir, "%s", out), &merged);
    assert_false(merged.arch.quant.present);
    assert_int_equal(merged.arch.dtype, HM_DTYPE_F32);
    assert_ok(hm_adapter_load(golden_path(adapter_name), &base, false, &adapter, &err), err);
    for (size_t i = 0; i < hm_arch_slot_count(&base.arch); i++)
        if (adapter->lora_of_slot[i] >= 0)
            check_matrix(&base, &merged, adapter, i);
    hm_adapter_free(adapter);
    hm_checkpoint_close(&base);
    hm_checkpoint_close(&merged);
}

static void test_dequantised(void **state)
{
    (void)state;
    check_dequantised("peft/adapter", "merged_nf4");
    check_dequantised("peft/adapter_rslora", "merged_nf4_rslora");
}

static void test_four_bit_needs_onto(void **state)
{
    const struct hm_adapter_merge_options options = { .onto_dequantised = false,
                                                      .dtype = HM_DTYPE_COUNT,
                                                      .shard_bytes = UINT64_C(1) << 40 };
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_adapter_merge(golden_path("bnb4bit/dq_gate16bit"), golden_path("peft/adapter"),
                                  &options, &kernels, tmp_path(test_dir, "no"), NULL, &report,
                                  &err),
                 HM_ERR_USAGE, "4-bit", err);
    assert_false(hm_path_exists(tmp_path(test_dir, "no")));
}

static void test_shards_and_threads(void **state)
{
    struct hm_adapter_merge_report report = { 0 }, again = { 0 };
    struct hm_checkpoint one = { 0 }, many = { 0 };
    int threads = hm_threads();

    (void)state;
    hm_threads_set(1);
    merge("mixtral/model", "peft/adapter_with_copies", false, HM_DTYPE_COUNT, UINT64_C(1) << 40,
          "one", &report);
    hm_threads_set(2);
    merge("mixtral/model", "peft/adapter", false, HM_DTYPE_COUNT, 20000, "many", &again);
    hm_threads_set(threads);
    assert_memory_equal(&report, &again, sizeof report);
    open_model(tmp_path(test_dir, "one"), &one);
    open_model(tmp_path(test_dir, "many"), &many);
    assert_true(many.n_files > 10);
    assert_int_equal(one.count, many.count);
    for (size_t i = 0; i < one.count; i++) {
        assert_string_equal(one.tensor[i]->name, many.tensor[i]->name);
        assert_memory_equal(one.tensor[i]->data, many.tensor[i]->data, one.tensor[i]->size_bytes);
    }
    hm_checkpoint_close(&one);
    hm_checkpoint_close(&many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_peft),       cmocka_unit_test(test_against_bf16_factors),
        cmocka_unit_test(test_dequantised),        cmocka_unit_test(test_four_bit_needs_onto),
        cmocka_unit_test(test_shards_and_threads),
    };
    hm_kernels_reference(&kernels);
    return cmocka_run_group_tests_name("merge", tests, test_dir_setup, test_dir_teardown);
}
