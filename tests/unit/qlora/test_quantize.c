/* SPDX-License-Identifier: MIT */
/*
 * qlora/quantize*.c: layouts that must give the same folder, odd shapes, the report, refusals,
 * stops and allocation failures. Equality with bitsandbytes' own folders is tests/golden/nf4's.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/file.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/qlora/quantize.h"
#include "quantize_rules.h"
#include "small_model.h"

static struct hm_kernels kernels;

static char head[] = "lm_head", gate[] = "gate", embed[] = "embed_tokens";
static char *default_skip[] = { head, embed, gate };

static struct hm_quantize_options defaults(void)
{
    return (struct hm_quantize_options){ .double_quant = true,
                                         .blocksize = 64,
                                         .skip = default_skip,
                                         .n_skip = 3,
                                         .compute_dtype = HM_DTYPE_BF16,
                                         .shard_bytes = UINT64_C(1) << 40 };
}

static int run(const char *from, const char *to, const struct hm_quantize_options *options,
               struct hm_quantize_report *report, struct hm_error *err)
{
    char model[512];

    snprintf(model, sizeof model, "%s", tmp_path(test_dir, "%s", from));
    return hm_quantize(model, options, &kernels, tmp_path(test_dir, "%s", to), NULL, report, err);
}

static void quantize(const char *from, const char *to, const struct hm_quantize_options *options)
{
    struct hm_quantize_report report = { 0 };
    struct hm_error err = { 0 };

    assert_ok(run(from, to, options, &report, &err), err);
    hm_quantize_report_release(&report);
}

static void refuse(const char *from, const struct hm_quantize_options *options, int code,
                   const char *part)
{
    struct hm_quantize_report report = { 0 };
    struct hm_error err = { 0 };

    assert_fails(run(from, "refused", options, &report, &err), code, part, err);
    assert_null(report.unquantized);
}

static void assert_same(const char *a, const char *b)
{
    struct hm_checkpoint x = { 0 }, y = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", a), &x, &err), err);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", b), &y, &err), err);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        assert_string_equal(x.tensor[i]->name, y.tensor[i]->name);
        assert_int_equal(x.tensor[i]->size_bytes, y.tensor[i]->size_bytes);
        assert_memory_equal(x.tensor[i]->data, y.tensor[i]->data, x.tensor[i]->size_bytes);
    }
    hm_checkpoint_close(&x);
    hm_checkpoint_close(&y);
}

static const struct small_model plain = {
    .mixtral = true, .dtype = HM_DTYPE_BF16, .hidden = 32, .ffn = 48
};

/* transformers 5's fused experts are read slice by slice: the folder is the same. */
static void test_fused(void **state)
{
    struct small_model fused = plain;
    const struct hm_quantize_options options = defaults();

    (void)state;
    fused.fused = true;
    small_model_write(tmp_path(test_dir, "plain"), &plain);
    small_model_write(tmp_path(test_dir, "fused"), &fused);
    quantize("plain", "plain4", &options);
    quantize("fused", "fused4", &options);
    assert_same("plain4", "fused4");
}

/* F32 is rounded to the compute type before it is quantised, as a loader would; bf16 values stay.
 */
static void test_wider_source(void **state)
{
    struct small_model wide = plain;
    struct hm_quantize_options options = defaults();

    (void)state;
    wide.dtype = HM_DTYPE_F32;
    small_model_write(tmp_path(test_dir, "wide"), &wide);
    quantize("wide", "wide4", &options);
    assert_same("plain4", "wide4");
    options.compute_dtype = HM_DTYPE_F32;
    quantize("wide", "wide4f", &options);
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "wide4f"), &ckpt, &err), err);
    assert_int_equal(hm_checkpoint_find(&ckpt, "model.norm.weight")->dtype, HM_DTYPE_F32);
    assert_int_equal(ckpt.arch.dtype, HM_DTYPE_F32);
    assert_int_equal(ckpt.arch.quant.compute_dtype, HM_DTYPE_F32);
    hm_checkpoint_close(&ckpt);
}

/* Every decoded value within half a step of its block, for rows that blocks do not divide. */
static void check_values(const char *from, const char *to)
{
    struct hm_checkpoint a = { 0 }, b = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", from), &a, &err), err);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", to), &b, &err), err);
    for (size_t i = 0; i < hm_arch_slot_count(&a.arch); i++) {
        struct hm_weight *x = NULL, *y = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&a.arch, i, &slot, name);
        size_t count = (size_t)slot.rows * slot.cols;
        float *u = hm_alloc_array(HM_MEM_OTHER, count, sizeof *u);
        float *v = hm_alloc_array(HM_MEM_OTHER, count, sizeof *v);
        assert_ok(hm_weight_open(&a, &slot, &x, &err), err);
        assert_ok(hm_weight_open(&b, &slot, &y, &err), err);
        hm_weight_decode(x, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, u, slot.cols);
        hm_weight_decode(y, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, v, slot.cols);
        for (size_t j = 0; j < count; j++)
            if (!(fabsf(u[j] - v[j]) <= (hm_weight_is_nf4(y) ? 0.153F * 0.13F : 0)))
                fail_msg("'%s': value %zu is %g, expected %g", name, j, (double)v[j], (double)u[j]);
        hm_free(u);
        hm_free(v);
        hm_weight_free(x);
        hm_weight_free(y);
    }
    hm_checkpoint_close(&a);
    hm_checkpoint_close(&b);
}

static void test_odd_shapes(void **state)
{
    const struct small_model odd = { .dtype = HM_DTYPE_BF16, .hidden = 36, .ffn = 71 };
    struct hm_quantize_options options = defaults();

    (void)state;
    small_model_write(tmp_path(test_dir, "odd"), &odd);
    for (uint32_t blocksize = 32; blocksize <= 4096; blocksize *= 8) {
        options.blocksize = blocksize;
        options.double_quant = blocksize != 256;
        quantize("odd", "odd4", &options);
        check_values("odd", "odd4");
    }
}

static void test_report(void **state)
{
    struct hm_quantize_options options = defaults();
    struct hm_quantize_report report = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    options.double_quant = false;
    assert_ok(run("plain", "report", &options, &report, &err), err);
    assert_int_equal(report.quantized_tensors, 2 * (4 + 9));
    assert_int_equal(report.n_unquantized, 4);
    assert_string_equal(report.unquantized[0], "model.embed_tokens.weight");
    assert_string_equal(report.unquantized[1], "model.layers.0.block_sparse_moe.gate.weight");
    assert_string_equal(report.unquantized[3], "lm_head.weight");
    assert_int_equal(report.bytes_by_class[HM_BYTES_EMBED], 40 * 32 * 2);
    assert_int_equal(report.bytes_by_class[HM_BYTES_HEAD], 40 * 32 * 2);
    assert_int_equal(report.bytes_by_class[HM_BYTES_GATE], 2 * 3 * 32 * 2);
    assert_int_equal(report.bytes_by_class[HM_BYTES_NORM], 5 * 32 * 2);
    assert_true(report.bytes_by_class[HM_BYTES_EXPERT] > 18 * (32 * 48 / 2 + 24 * 4 + 64));
    assert_true(report.bytes_by_class[HM_BYTES_EXPERT] < 18 * (32 * 48 / 2 + 24 * 4 + 64 + 120));
    assert_true(report.rms_error > 0.03 && report.rms_error < 0.1);
    hm_quantize_report_release(&report);
    hm_quantize_report_release(NULL);
}

/* Without skips everything linear goes; a tied head is named for the loader's sake. */
static void test_skips(void **state)
{
    const struct small_model tied = {
        .tied = true, .dtype = HM_DTYPE_BF16, .hidden = 32, .ffn = 48
    };
    struct hm_quantize_options options = defaults();
    struct hm_quantize_report report = { 0 };
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    char layer[] = "model.layers.0", w1[] = "w1", unknown[] = "w9";
    char *skip[] = { layer, w1, unknown };

    (void)state;
    options.n_skip = 0;
    assert_ok(run("plain", "all4", &options, &report, &err), err);
    assert_int_equal(report.quantized_tensors, 2 * (4 + 9 + 1) + 1);
    assert_int_equal(report.n_unquantized, 1);
    hm_quantize_report_release(&report);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "all4"), &ckpt, &err), err);
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(ckpt.config, "quantization_config"),
                                        "llm_int8_skip_modules")),
        0);
    assert_true(json_is_array(json_object_get(json_object_get(ckpt.config, "quantization_config"),
                                              "llm_int8_skip_modules")));
    hm_checkpoint_close(&ckpt);
    small_model_write(tmp_path(test_dir, "tied"), &tied);
    quantize("tied", "tied4", &options);
    assert_ok(hm_checkpoint_open(tmp_path(test_dir, "tied4"), &ckpt, &err), err);
    assert_int_equal(ckpt.arch.quant.n_skip, 1);
    assert_string_equal(ckpt.arch.quant.skip[0], "lm_head");
    assert_null(hm_checkpoint_find(&ckpt, "lm_head.weight"));
    hm_checkpoint_close(&ckpt);
    options.skip = skip;
    options.n_skip = 2;
    assert_ok(run("plain", "some4", &options, &report, &err), err);
    assert_int_equal(report.quantized_tensors,
                     4 + 6 + 1 + 1); /* layer 1 without w1, its gate, the head */
    hm_quantize_report_release(&report);
    options.n_skip = 3;
    refuse("plain", &options, HM_ERR_USAGE, "skip 'w9' names no module");
}

static void test_skip_rule(void **state)
{
    (void)state;
    assert_true(hm_skip_matches("lm_head", "lm_head"));
    assert_true(hm_skip_matches("gate", "model.layers.0.block_sparse_moe.gate"));
    assert_false(hm_skip_matches("gate", "model.layers.0.mlp.gate_proj"));
    assert_true(hm_skip_matches("layers.0", "model.layers.0.self_attn.q_proj"));
    assert_false(hm_skip_matches("layers.1", "model.layers.10.self_attn.q_proj"));
    assert_false(hm_skip_matches("", "lm_head"));
}

static void test_refusals(void **state)
{
    struct hm_quantize_options options = defaults();
    struct small_model bad = plain;

    (void)state;
    bad.poison = "model.layers.1.block_sparse_moe.experts.2.w3";
    bad.poison_value = NAN;
    small_model_write(tmp_path(test_dir, "nan"), &bad);
    refuse("nan", &options, HM_ERR_FORMAT,
           "layers.1.block_sparse_moe.experts.2.w3.weight' holds NaN");
    options.double_quant = false;
    refuse("nan", &options, HM_ERR_FORMAT,
           "layers.1.block_sparse_moe.experts.2.w3.weight' holds NaN");
    bad.poison = "model.norm";
    bad.poison_value = INFINITY;
    small_model_write(tmp_path(test_dir, "inf"), &bad);
    refuse("inf", &options, HM_ERR_FORMAT, "'model.norm.weight' holds NaN or Inf");
    bad.poison_value = 1e6F;
    small_model_write(tmp_path(test_dir, "large"), &bad);
    options.compute_dtype = HM_DTYPE_F16;
    refuse("large", &options, HM_ERR_FORMAT, "a value beyond F16");
    options.compute_dtype = HM_DTYPE_U8;
    refuse("plain", &options, HM_ERR_USAGE, "compute_dtype");
    options = defaults();
    options.blocksize = 48;
    refuse("plain", &options, HM_ERR_USAGE, "blocksize: found 48");
    options.blocksize = 64;
    refuse("plain4", &options, HM_ERR_USAGE, "4-bit model already");
    refuse("absent", &options, HM_ERR_USAGE, "absent");
}

static volatile sig_atomic_t stop;

static void on_progress(void *context, const struct hm_progress *progress)
{
    uint64_t *calls = context;

    assert_true(progress->done >= 1 && progress->done <= progress->total);
    if (++*calls == 30)
        stop = 1;
}

static void test_stop(void **state)
{
    uint64_t calls = 0;
    const struct hm_ctl ctl = { .stop = &stop, .progress = on_progress, .context = &calls };
    const struct hm_quantize_options options = defaults();
    struct hm_quantize_report report = { 0 };
    struct hm_error err = { 0 };
    char model[512];

    (void)state;
    snprintf(model, sizeof model, "%s", tmp_path(test_dir, "plain"));
    assert_fails(
        hm_quantize(model, &options, &kernels, tmp_path(test_dir, "stopped"), &ctl, &report, &err),
        HM_ERR_STOPPED, "stopped", err);
    assert_int_equal(calls, 30);
    assert_false(hm_path_exists(tmp_path(test_dir, "stopped/model.safetensors")));
}

static int once(void *context, struct hm_error *err)
{
    struct hm_quantize_options options = *(const struct hm_quantize_options *)context;
    struct hm_quantize_report report = { 0 };
    struct hm_file_digests digests = { 0 };

    options.digests = &digests;
    int status = run("tiny", "oom4", &options, &report, err);
    hm_file_digests_release(&digests);
    hm_quantize_report_release(&report);
    return status;
}

static void test_oom(void **state)
{
    const struct small_model tiny = { .tied = true, .dtype = HM_DTYPE_BF16, .hidden = 8, .ffn = 8 };
    struct hm_quantize_options options = defaults();

    (void)state;
    small_model_write(tmp_path(test_dir, "tiny"), &tiny);
    assert_true(oom_sweep(once, &options) > 100);
}

/* The digest of the file read, whichever way its codes go; what a continued run has not read whole
 * it does not tell. */
static void test_digests(void **state)
{
    struct hm_quantize_options options = defaults();
    struct hm_file_digests digests = { 0 };
    uint64_t calls = 0;
    const struct hm_ctl ctl = { .stop = &stop, .progress = on_progress, .context = &calls };
    struct hm_quantize_report report = { 0 };
    struct hm_error err = { 0 };
    char dir[512];

    (void)state;
    snprintf(dir, sizeof dir, "%s", tmp_path(test_dir, "digested"));
    small_model_write(dir, &small_model_digested);
    options.digests = &digests;
    for (int i = 0; i < 2; i++) {
        options.double_quant = i == 0;
        quantize("digested", "digested4", &options);
        assert_digested(&digests, dir);
        assert_ok(hm_dir_remove(tmp_path(test_dir, "digested4"), &err), err);
    }
    stop = 0;
    options.sync_bytes = 1;
    assert_int_equal(
        hm_quantize(dir, &options, &kernels, tmp_path(test_dir, "digested4"), &ctl, &report, &err),
        HM_ERR_STOPPED);
    assert_int_equal(digests.count, 0);
    stop = 0;
    quantize("digested", "digested4", &options);
    assert_int_equal(digests.count, 0);
}

static struct hm_quantize_options resumed;
static char resumed_from[512], resumed_to[512];

static int quantize_again(const struct hm_ctl *ctl)
{
    struct hm_quantize_report report = { 0 };
    int status = hm_quantize(resumed_from, &resumed, &kernels, resumed_to, ctl, &report, NULL);

    hm_quantize_report_release(&report);
    return status;
}

/* Killed after every fifth weight, the folder is that of one run, and so is its report. */
static void test_killed(void **state)
{
    static const uint64_t shard[] = { UINT64_C(1) << 40, 9000 };
    struct hm_quantize_report whole = { 0 }, continued = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    snprintf(resumed_from, sizeof resumed_from, "%s", tmp_path(test_dir, "plain"));
    for (int i = 0; i < 4; i++) {
        char reference[512];
        resumed = defaults();
        resumed.double_quant = i % 2 == 0;
        resumed.shard_bytes = shard[i / 2];
        resumed.sync_bytes = 1;
        snprintf(reference, sizeof reference, "%s", tmp_path(test_dir, "whole%d", i));
        snprintf(resumed_to, sizeof resumed_to, "%s", tmp_path(test_dir, "killed%d", i));
        assert_ok(hm_quantize(resumed_from, &resumed, &kernels, reference, NULL, &whole, &err),
                  err);
        assert_in_range(kill_and_continue(quantize_again, 5, resumed_to), 3, 100);
        assert_same_files(reference, resumed_to);
        /* the report of the last part of a run in two parts */
        assert_ok(hm_dir_remove(resumed_to, &err), err);
        uint64_t calls = 0;
        const struct hm_ctl ctl = { .stop = &stop, .progress = on_progress, .context = &calls };
        stop = 0;
        assert_int_equal(
            hm_quantize(resumed_from, &resumed, &kernels, resumed_to, &ctl, &continued, &err),
            HM_ERR_STOPPED);
        assert_ok(hm_quantize(resumed_from, &resumed, &kernels, resumed_to, NULL, &continued, &err),
                  err);
        assert_true(whole.rms_error == continued.rms_error);
        assert_memory_equal(whole.bytes_by_class, continued.bytes_by_class,
                            sizeof whole.bytes_by_class);
        assert_same_files(reference, resumed_to);
        hm_quantize_report_release(&whole);
        hm_quantize_report_release(&continued);
    }
    stop = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fused),      cmocka_unit_test(test_wider_source),
        cmocka_unit_test(test_odd_shapes), cmocka_unit_test(test_report),
        cmocka_unit_test(test_skips),      cmocka_unit_test(test_skip_rule),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_stop),
        cmocka_unit_test(test_oom),        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_killed),
    };
    hm_kernels_reference(&kernels);
    return cmocka_run_group_tests_name("quantize", tests, test_dir_setup, test_dir_teardown);
}
