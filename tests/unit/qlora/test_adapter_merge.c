/* SPDX-License-Identifier: MIT */
/*
 * qlora/adapter_merge.c, merge_rows.c: types, fused and tied bases, what a zero adapter must leave
 * alone, digests, refusals, stops and allocation failures. Equality with PEFT's merge is
 * tests/golden/peft's.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/hash.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/qlora/adapter_merge.h"
#include "hanmix/qlora/quantize.h"
#include "small_model.h"

static char *dir;
static struct hm_kernels kernels;

static const struct small_model plain = {
    .mixtral = true, .dtype = HM_DTYPE_BF16, .hidden = 32, .ffn = 48
};

/* An adapter over `model` with B = value everywhere; embeddings are made twice as large. */
static void make_adapter(const char *model, const char *name, float value, bool embed)
{
    char q_proj[] = "q_proj", other[] = "w1";
    char *target[] = { q_proj, other };
    struct hm_adapter_config config = {
        .rank = 3, .alpha = 6, .target = target, .n_targets = 2, .seed = 5
    };
    struct hm_checkpoint ckpt = { 0 };
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(tmp_path(dir, "%s", model), &ckpt, &err), err);
    config.n_targets = ckpt.arch.experts > 1 ? 2 : 1;
    config.embed = embed ? HM_ROWS_ALL : HM_ROWS_NONE;
    assert_ok(hm_adapter_new(&ckpt, &config, false, &adapter, &err), err);
    for (size_t i = 0; i < adapter->n_params; i++) {
        struct hm_param *param = &adapter->param[i];
        for (size_t j = 0; j < hm_param_values(param); j++) {
            if (param->kind == HM_PARAM_LORA_B)
                param->value[j] = value;
            else if (param->kind == HM_PARAM_EMBED)
                param->value[j] *= 2;
        }
    }
    assert_ok(hm_adapter_save(adapter, &ckpt, model, tmp_path(dir, "%s", name), &err), err);
    hm_adapter_free(adapter);
    hm_checkpoint_close(&ckpt);
}

static int setup(void **state)
{
    struct small_model fused = plain;

    (void)state;
    dir = tmp_new();
    hm_kernels_reference(&kernels);
    fused.fused = true;
    small_model_write(tmp_path(dir, "plain"), &plain);
    small_model_write(tmp_path(dir, "fused"), &fused);
    make_adapter("plain", "adapter", 0.125F, true);
    make_adapter("plain", "zero", 0, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmp_release(dir);
    return 0;
}

static void test_read_digests(void **state)
{
    struct hm_file_digests digests = { 0 };
    const struct hm_adapter_merge_options options = { .dtype = HM_DTYPE_COUNT,
                                                      .shard_bytes = UINT64_C(1) << 40,
                                                      .digests = &digests };
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };
    char model[512], adapter[512];

    (void)state;
    snprintf(model, sizeof model, "%s", tmp_path(dir, "digested"));
    snprintf(adapter, sizeof adapter, "%s", tmp_path(dir, "digested.adapter"));
    small_model_write(model, &small_model_digested);
    make_adapter("digested", "digested.adapter", 0.125F, false);
    assert_ok(hm_adapter_merge(model, adapter, &options, &kernels, tmp_path(dir, "digested.out"),
                               NULL, &report, &err),
              err);
    assert_digested(&digests, model);
}

/* An adapter of zeros over a 4-bit base leaves what its codes say: codes that a reader brings, and
 * those of blocks that do not begin with a window (10 columns in blocks of 4096). */
static void check_codes(const char *base, const char *out)
{
    struct hm_checkpoint from = { 0 }, to = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(base, &from, &err), err);
    assert_ok(hm_checkpoint_open(out, &to, &err), err);
    for (size_t i = 0; i < hm_arch_slot_count(&from.arch); i++) {
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        const struct hm_tensor *written;
        char name[HM_SLOT_NAME_BYTES], tensor[HM_SLOT_NAME_BYTES + 8];
        float values[4096];
        uint8_t expected[2 * 4096];

        hm_arch_slot(&from.arch, i, &slot, name);
        snprintf(tensor, sizeof tensor, "%s.weight", name);
        size_t count = (size_t)slot.rows * slot.cols;
        assert_true(count <= 4096);
        assert_ok(hm_weight_open(&from, &slot, &weight, &err), err);
        hm_weight_decode(weight, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, values,
                         slot.cols);
        hm_floats_store(HM_DTYPE_BF16, values, count, expected);
        assert_ok(hm_checkpoint_need(&to, tensor, &written, &err), err);
        assert_int_equal(written->size_bytes, 2 * count);
        assert_memory_equal(written->data, expected, 2 * count);
        hm_weight_free(weight);
    }
    hm_checkpoint_close(&from);
    hm_checkpoint_close(&to);
}

static void test_four_bit(void **state)
{
    static char head[] = "lm_head", gate[] = "gate", embed[] = "embed_tokens";
    static char *skip[] = { head, embed, gate };
    const struct small_model narrow = {
        .mixtral = true, .dtype = HM_DTYPE_BF16, .hidden = 32, .ffn = 10
    };
    const struct hm_adapter_merge_options options = { .onto_dequantised = true,
                                                      .dtype = HM_DTYPE_COUNT,
                                                      .shard_bytes = 5000 };
    struct hm_error err = { 0 };
    char model[512], base[512], adapter[512];

    (void)state;
    snprintf(model, sizeof model, "%s", tmp_path(dir, "coded"));
    snprintf(adapter, sizeof adapter, "%s", tmp_path(dir, "coded.zero"));
    small_model_write(model, &narrow);
    make_adapter("coded", "coded.zero", 0, false);
    for (uint32_t blocksize = 64; blocksize <= 4096; blocksize *= 8) {
        const struct hm_quantize_options quantise = { .double_quant = blocksize == 64,
                                                      .blocksize = blocksize,
                                                      .skip = skip,
                                                      .n_skip = 3,
                                                      .compute_dtype = HM_DTYPE_BF16,
                                                      .shard_bytes = 9000 };
        struct hm_quantize_report quantised = { 0 };
        struct hm_adapter_merge_report merged = { 0 };
        char out[512];

        snprintf(base, sizeof base, "%s", tmp_path(dir, "coded.%u", blocksize));
        snprintf(out, sizeof out, "%s", tmp_path(dir, "coded.%u.out", blocksize));
        assert_ok(hm_quantize(model, &quantise, &kernels, base, NULL, &quantised, &err), err);
        hm_quantize_report_release(&quantised);
        assert_ok(hm_adapter_merge(base, adapter, &options, &kernels, out, NULL, &merged, &err),
                  err);
        check_codes(base, out);
    }
}

static int run(const char *model, const char *adapter, enum hm_dtype dtype, const char *out,
               const struct hm_ctl *ctl, struct hm_adapter_merge_report *report,
               struct hm_error *err)
{
    const struct hm_adapter_merge_options options = { .dtype = dtype,
                                                      .shard_bytes = UINT64_C(1) << 40 };
    char a[512], b[512];

    snprintf(a, sizeof a, "%s", tmp_path(dir, "%s", model));
    snprintf(b, sizeof b, "%s", tmp_path(dir, "%s", adapter));
    return hm_adapter_merge(a, b, &options, &kernels, tmp_path(dir, "%s", out), ctl, report, err);
}

static struct hm_adapter_merge_report merge(const char *model, const char *adapter,
                                            enum hm_dtype dtype, const char *out)
{
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };

    assert_ok(run(model, adapter, dtype, out, NULL, &report, &err), err);
    return report;
}

static void open_out(const char *name, struct hm_checkpoint *ckpt)
{
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(tmp_path(dir, "%s", name), ckpt, &err), err);
}

static void assert_same(const char *a, const char *b, size_t expected_different)
{
    struct hm_checkpoint x = { 0 }, y = { 0 };
    size_t different = 0;

    open_out(a, &x);
    open_out(b, &y);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        assert_string_equal(x.tensor[i]->name, y.tensor[i]->name);
        assert_int_equal(x.tensor[i]->size_bytes, y.tensor[i]->size_bytes);
        different += memcmp(x.tensor[i]->data, y.tensor[i]->data, x.tensor[i]->size_bytes) != 0;
    }
    assert_int_equal(different, expected_different);
    hm_checkpoint_close(&x);
    hm_checkpoint_close(&y);
}

static void test_zero_adapter(void **state)
{
    struct hm_adapter_merge_report report = merge("plain", "zero", HM_DTYPE_COUNT, "same");

    (void)state;
    assert_same("plain", "same", 0);
    assert_int_equal(report.changed_values, 0);
    assert_int_equal(report.unchanged_values, 2 * (32 * 32 + 3 * 48 * 32));
    assert_true(report.max_abs_delta == 0 && report.relative_norm == 0);
}

static void test_what_changes(void **state)
{
    struct hm_adapter_merge_report report = merge("plain", "adapter", HM_DTYPE_COUNT, "merged");
    struct hm_checkpoint base = { 0 }, merged = { 0 };
    const struct hm_tensor *a, *b;

    (void)state;
    assert_int_equal(report.merged, 2 * 4);
    assert_int_equal(report.replaced, 1);
    assert_true(report.max_abs_delta > 0.1); /* the embedding doubled: at least its largest value */
    assert_same("plain", "merged", 2 * 4 + 1);
    open_out("plain", &base);
    open_out("merged", &merged);
    a = hm_checkpoint_find(&base, "model.embed_tokens.weight");
    b = hm_checkpoint_find(&merged, "model.embed_tokens.weight");
    for (size_t i = 0; i < a->count; i++) {
        float x, y;
        struct hm_error err = { 0 };
        assert_ok(hm_dtype_to_f32(a->dtype, a->data + 2 * i, 1, &x, &err), err);
        assert_ok(hm_dtype_to_f32(b->dtype, b->data + 2 * i, 1, &y, &err), err);
        assert_true(y == 2 * x);
    }
    hm_checkpoint_close(&base);
    hm_checkpoint_close(&merged);
    merge("fused", "adapter", HM_DTYPE_COUNT, "merged_fused");
    assert_same("merged", "merged_fused", 0);
}

/* Rounding once: the 16-bit result is the f32 result rounded. */
static void test_types(void **state)
{
    static const enum hm_dtype dtypes[] = { HM_DTYPE_BF16, HM_DTYPE_F16 };
    struct hm_checkpoint wide = { 0 }, narrow = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    merge("plain", "adapter", HM_DTYPE_F32, "wide");
    open_out("wide", &wide);
    for (size_t d = 0; d < 2; d++) {
        merge("plain", "adapter", dtypes[d], "narrow");
        open_out("narrow", &narrow);
        assert_int_equal(narrow.arch.dtype, dtypes[d]);
        for (size_t i = 0; i < wide.count; i++) {
            const struct hm_tensor *a = wide.tensor[i], *b = narrow.tensor[i];
            uint16_t *rounded = hm_alloc_array(HM_MEM_OTHER, a->count, 2);
            assert_int_equal(a->dtype, HM_DTYPE_F32);
            assert_int_equal(b->dtype, dtypes[d]);
            assert_ok(hm_dtype_from_f32(dtypes[d], (const float *)(const void *)a->data, a->count,
                                        rounded, &err),
                      err);
            assert_memory_equal(rounded, b->data, b->size_bytes);
            hm_free(rounded);
        }
        hm_checkpoint_close(&narrow);
    }
    hm_checkpoint_close(&wide);
}

static void test_tied(void **state)
{
    const struct small_model tied = {
        .tied = true, .dtype = HM_DTYPE_BF16, .hidden = 32, .ffn = 48
    };
    struct hm_checkpoint merged = { 0 };

    (void)state;
    small_model_write(tmp_path(dir, "tied"), &tied);
    make_adapter("tied", "tied_adapter", 0.5F, true);
    struct hm_adapter_merge_report report =
        merge("tied", "tied_adapter", HM_DTYPE_COUNT, "tied_merged");
    assert_int_equal(report.replaced, 1);
    open_out("tied_merged", &merged);
    assert_true(merged.arch.tied);
    assert_null(hm_checkpoint_find(&merged, "lm_head.weight"));
    hm_checkpoint_close(&merged);
}

static void test_digests(void **state)
{
    struct hm_checkpoint merged = { 0 };
    struct hm_error err = { 0 };
    char *text, *line;
    size_t lines = 0;

    (void)state;
    open_out("merged", &merged);
    text = file_get(tmp_path(dir, "merged/digests.tsv"), NULL);
    line = strtok(text, "\n");
    assert_string_equal(line, "tensor\tdtype\tshape\tsha256");
    while ((line = strtok(NULL, "\n"))) {
        char name[200], dtype[16], digest[80], expected[HM_SHA256_HEX_BYTES];
        const struct hm_tensor *tensor;
        assert_int_equal(sscanf(line, "%199s %15s [%*[^]]] %79s", name, dtype, digest), 3);
        tensor = hm_checkpoint_find(&merged, name);
        assert_non_null(tensor);
        assert_string_equal(dtype, "BF16");
        assert_ok(hm_sha256_of(tensor->data, tensor->size_bytes, expected, &err), err);
        assert_string_equal(digest, expected);
        lines++;
    }
    assert_int_equal(lines, merged.count);
    hm_free(text);
    hm_checkpoint_close(&merged);
}

static void refuse(const char *model, const char *adapter, enum hm_dtype dtype, int code,
                   const char *part)
{
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };

    assert_fails(run(model, adapter, dtype, "refused", NULL, &report, &err), code, part, err);
    assert_int_equal(report.tensors, 0);
}

static void test_refusals(void **state)
{
    struct small_model bad = plain;
    const struct small_model other = {
        .mixtral = true, .dtype = HM_DTYPE_BF16, .hidden = 64, .ffn = 48
    };

    (void)state;
    small_model_write(tmp_path(dir, "other"), &other);
    refuse("other", "adapter", HM_DTYPE_COUNT, HM_ERR_FORMAT, "[40, 32]");
    refuse("plain", "adapter", HM_DTYPE_U8, HM_ERR_USAGE, "dtype");
    refuse("plain", "plain", HM_DTYPE_COUNT, HM_ERR_USAGE, "adapter_model.safetensors");
    refuse("adapter", "adapter", HM_DTYPE_COUNT, HM_ERR_USAGE, "config.json");
    bad.poison = "model.layers.0.block_sparse_moe.experts.1.w1";
    bad.poison_value = NAN;
    small_model_write(tmp_path(dir, "nan"), &bad);
    refuse("nan", "adapter", HM_DTYPE_COUNT, HM_ERR_FORMAT,
           "layers.0.block_sparse_moe.experts.1.w1.weight'");
    bad.poison_value = 1e6F;
    small_model_write(tmp_path(dir, "nan"), &bad);
    refuse("nan", "adapter", HM_DTYPE_F16, HM_ERR_FORMAT, "beyond F16");
    make_adapter("plain", "nan_adapter", NAN, false);
    refuse("plain", "nan_adapter", HM_DTYPE_COUNT, HM_ERR_FORMAT, "NaN or Inf");
}

static void on_progress(void *context, const struct hm_progress *progress)
{
    volatile sig_atomic_t *stop = context;

    if (progress->done == 5)
        *stop = 1;
}

static void test_stop(void **state)
{
    volatile sig_atomic_t stop = 0;
    const struct hm_ctl ctl = { .stop = &stop, .progress = on_progress, .context = (void *)&stop };
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(run("plain", "adapter", HM_DTYPE_COUNT, "stopped", &ctl, &report, &err),
                 HM_ERR_STOPPED, "stopped", err);
    assert_false(hm_path_exists(tmp_path(dir, "stopped/model.safetensors")));
}

static int once(void *context, struct hm_error *err)
{
    struct hm_adapter_merge_report report = { 0 };

    (void)context;
    return run("tiny", "tiny_adapter", HM_DTYPE_COUNT, "oom", NULL, &report, err);
}

static void test_oom(void **state)
{
    const struct small_model tiny = { .tied = true, .dtype = HM_DTYPE_BF16, .hidden = 8, .ffn = 8 };

    (void)state;
    small_model_write(tmp_path(dir, "tiny"), &tiny);
    make_adapter("tiny", "tiny_adapter", 1, true);
    assert_true(oom_sweep(once, NULL) > 100);
}

static char killed_model[512], killed_adapter[512], killed_to[512];
static const struct hm_adapter_merge_options killed_options = { .dtype = HM_DTYPE_COUNT,
                                                                .shard_bytes = 9000,
                                                                .sync_bytes = 1 };

static int merge_again(const struct hm_ctl *ctl)
{
    struct hm_adapter_merge_report report = { 0 };

    return hm_adapter_merge(killed_model, killed_adapter, &killed_options, &kernels, killed_to, ctl,
                            &report, NULL);
}

/* Killed after every fifth tensor, the folder is that of one run. */
static void test_killed(void **state)
{
    struct hm_adapter_merge_report report = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    snprintf(killed_model, sizeof killed_model, "%s", tmp_path(dir, "plain"));
    snprintf(killed_adapter, sizeof killed_adapter, "%s", tmp_path(dir, "adapter"));
    snprintf(killed_to, sizeof killed_to, "%s", tmp_path(dir, "killed"));
    assert_in_range(kill_and_continue(merge_again, 5, killed_to), 3, 100);
    char reference[512];
    snprintf(reference, sizeof reference, "%s", tmp_path(dir, "in_one"));
    assert_ok(hm_adapter_merge(killed_model, killed_adapter, &killed_options, &kernels, reference,
                               NULL, &report, &err),
              err);
    assert_true(report.changed_values > 0);
    assert_same_files(reference, killed_to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_zero_adapter), cmocka_unit_test(test_what_changes),
        cmocka_unit_test(test_types),        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_digests),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_stop),         cmocka_unit_test(test_oom),
        cmocka_unit_test(test_killed),       cmocka_unit_test(test_read_digests),
        cmocka_unit_test(test_four_bit),
    };
    return cmocka_run_group_tests_name("adapter_merge", tests, setup, teardown);
}
