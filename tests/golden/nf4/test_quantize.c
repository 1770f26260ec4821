/* SPDX-License-Identifier: MIT */
/*
 * The quantiser against folders that transformers and bitsandbytes wrote of the same model: codes
 * and plain scales equal, 8-bit scales equal or one step off, dense tensors and configuration
 * equal.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/parallel.h"
#include "hanmix/qlora/quantize.h"

static struct hm_kernels kernels;

static void quantize(const char *name, bool double_quant, bool skip_gate, uint64_t shard_bytes,
                     struct hm_quantize_report *report)
{
    static char head[] = "lm_head", gate[] = "gate";
    char *skip[] = { head, gate };
    const struct hm_quantize_options options = {
        .double_quant = double_quant,
        .blocksize = 64,
        .skip = skip,
        .n_skip = skip_gate ? 2 : 1,
        .compute_dtype = HM_DTYPE_BF16,
        .shard_bytes = shard_bytes,
    };
    struct hm_error err = { 0 };

    assert_ok(hm_quantize(golden_path("mixtral/model"), &options, &kernels,
                          tmp_path(test_dir, "%s", name), NULL, report, &err),
              err);
}

/* Scales in 8 bit: the library is one step off the exact nearest now and then. */
static void compare_codes(const struct hm_tensor *a, const struct hm_tensor *b, size_t *off,
                          size_t *count)
{
    for (uint64_t i = 0; i < a->size_bytes; i++) {
        int difference = abs(a->data[i] - b->data[i]);
        if (difference > 1)
            fail_msg("'%s': code %zu is %d, expected %d", a->name, (size_t)i, a->data[i],
                     b->data[i]);
        *off += difference != 0;
    }
    *count += a->size_bytes;
}

/* The state text up to the offset, whose last digits depend on the order of a sum. */
static void compare_state(const struct hm_tensor *a, const struct hm_tensor *b)
{
    char ours[512] = "", theirs[512] = "";
    char *x, *y;

    assert_true(a->size_bytes < 512 && b->size_bytes < 512);
    memcpy(ours, a->data, a->size_bytes);
    memcpy(theirs, b->data, b->size_bytes);
    x = strstr(ours, "\"nested_offset\": ");
    y = strstr(theirs, "\"nested_offset\": ");
    if (x && y) {
        double p = strtod(x + 17, NULL), q = strtod(y + 17, NULL);
        assert_true(fabs(p - q) <= 1e-6 * fabs(q));
        *x = *y = '\0';
    }
    assert_string_equal(ours, theirs);
}

static void compare_f32(const struct hm_tensor *a, const struct hm_tensor *b)
{
    for (uint64_t i = 0; i < a->count; i++) {
        float x, y;
        memcpy(&x, a->data + 4 * i, 4);
        memcpy(&y, b->data + 4 * i, 4);
        if (!(fabsf(x - y) <= 2e-6F * fabsf(y)))
            fail_msg("'%s': value %zu is %.9g, expected %.9g", a->name, (size_t)i, (double)x,
                     (double)y);
    }
}

static void compare_folder(const char *ours_dir, const char *theirs_dir)
{
    struct hm_checkpoint ours = { 0 }, theirs = { 0 };
    struct hm_error err = { 0 };
    size_t off = 0, count = 0;

    assert_ok(hm_checkpoint_open(ours_dir, &ours, &err), err);
    assert_ok(hm_checkpoint_open(theirs_dir, &theirs, &err), err);
    assert_int_equal(ours.count, theirs.count);
    for (size_t i = 0; i < ours.count; i++) {
        const struct hm_tensor *a = ours.tensor[i], *b = theirs.tensor[i];

        assert_string_equal(a->name, b->name);
        assert_int_equal(a->dtype, b->dtype);
        if (hm_text_ends(a->name, ".quant_state.bitsandbytes__nf4")) {
            compare_state(a, b);
            continue;
        }
        assert_int_equal(a->n_dims, b->n_dims);
        assert_memory_equal(a->shape, b->shape, a->n_dims * sizeof *a->shape);
        if (hm_text_ends(a->name, ".nested_absmax"))
            compare_f32(a, b);
        else if (hm_text_ends(a->name, ".absmax") && a->dtype == HM_DTYPE_U8)
            compare_codes(a, b, &off, &count);
        else
            assert_memory_equal(a->data, b->data, a->size_bytes);
    }
    assert_true(off * 100 <= count);
    assert_true(json_equal(json_object_get(ours.config, "quantization_config"),
                           json_object_get(theirs.config, "quantization_config")) ||
                json_is_null(json_object_get(json_object_get(theirs.config, "quantization_config"),
                                             "llm_int8_skip_modules")));
    hm_checkpoint_close(&ours);
    hm_checkpoint_close(&theirs);
}

static void check_case(const char *name, bool double_quant, bool skip_gate)
{
    struct hm_quantize_report report = { 0 };
    char theirs[512];

    snprintf(theirs, sizeof theirs, "%s", golden_path(name));
    quantize(name, double_quant, skip_gate, UINT64_C(1) << 40, &report);
    compare_folder(tmp_path(test_dir, "%s", name), theirs);
    assert_int_equal(report.quantized_tensors, 2 * (4 + 12) + (skip_gate ? 0 : 2));
    assert_int_equal(report.n_unquantized, skip_gate ? 4 : 2);
    assert_string_equal(report.unquantized[0], "model.embed_tokens.weight");
    assert_true(report.rms_error > 0.05 && report.rms_error < 0.15);
    assert_true(report.bytes_by_class[HM_BYTES_EXPERT] > 24 * 64 * 128 / 2);
    hm_quantize_report_release(&report);
}

static void test_double(void **state)
{
    (void)state;
    check_case("bnb4bit/dq_gate16bit", true, true);
    check_case("bnb4bit/dq_gate4bit", true, false);
}

static void test_plain(void **state)
{
    (void)state;
    check_case("bnb4bit/plain_gate16bit", false, true);
    check_case("bnb4bit/plain_gate4bit", false, false);
}

/* Small shards cut between a matrix and its scales; threads must not matter. */
static void test_shards_and_threads(void **state)
{
    struct hm_quantize_report report = { 0 };
    struct hm_checkpoint one = { 0 }, many = { 0 };
    struct hm_error err = { 0 };
    int threads = hm_threads();

    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        const char *a = plain ? "one_plain" : "one", *b = plain ? "many_plain" : "many";
        hm_threads_set(1);
        quantize(a, !plain, true, UINT64_C(1) << 40, &report);
        hm_quantize_report_release(&report);
        hm_threads_set(2);
        quantize(b, !plain, true, 3000, &report);
        hm_quantize_report_release(&report);
        hm_threads_set(threads);
        assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", a), &one, &err), err);
        assert_ok(hm_checkpoint_open(tmp_path(test_dir, "%s", b), &many, &err), err);
        assert_int_equal(one.n_files, 1);
        assert_true(many.n_files > 20);
        assert_int_equal(one.count, many.count);
        for (size_t i = 0; i < one.count; i++) {
            assert_string_equal(one.tensor[i]->name, many.tensor[i]->name);
            assert_int_equal(one.tensor[i]->size_bytes, many.tensor[i]->size_bytes);
            assert_memory_equal(one.tensor[i]->data, many.tensor[i]->data,
                                one.tensor[i]->size_bytes);
        }
        hm_checkpoint_close(&one);
        hm_checkpoint_close(&many);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_double),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_shards_and_threads),
    };
    hm_kernels_reference(&kernels);
    return cmocka_run_group_tests_name("quantize", tests, test_dir_setup, test_dir_teardown);
}
