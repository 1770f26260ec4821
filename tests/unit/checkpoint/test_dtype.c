/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/dtype.c: names and sizes of every type, conversions at any alignment, rounding, NaN.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/checkpoint/dtype.h"

static void test_names(void **state)
{
    static const size_t bytes[HM_DTYPE_COUNT] = { 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8 };
    struct hm_error err = { 0 };
    enum hm_dtype found = HM_DTYPE_COUNT;

    (void)state;
    for (int i = 0; i < HM_DTYPE_COUNT; i++) {
        enum hm_dtype dtype = (enum hm_dtype)i;
        assert_int_equal(hm_dtype_bytes(dtype), bytes[i]);
        assert_ok(hm_dtype_parse(hm_dtype_name(dtype), &found, &err), err);
        assert_int_equal(found, dtype);
        assert_ok(hm_dtype_parse(hm_dtype_hf_name(dtype), &found, &err), err);
        assert_int_equal(found, dtype);
    }
    assert_ok(hm_dtype_parse("bf16", &found, &err), err);
    assert_int_equal(found, HM_DTYPE_BF16);
    assert_fails(hm_dtype_parse("float17", &found, &err), HM_ERR_FORMAT, "'float17' is not known",
                 err);
    assert_int_equal(found, HM_DTYPE_BF16);
}

static void test_to_f32(void **state)
{
    static const uint16_t bf16[] = { 0x3f80, 0xc049, 0x0001, 0x7fc0 };
    static const uint16_t f16[] = { 0x3c00, 0xc248, 0x0001, 0x7e00 };
    static const double f64[] = { 1.0, -3.140625, 1e-40, NAN };
    static const float expected[3][3] = { { 1.0f, -3.140625f, 0x1p-133f },
                                          { 1.0f, -3.140625f, 0x1p-24f },
                                          { 1.0f, -3.140625f, 1e-40f } };
    static const enum hm_dtype dtypes[] = { HM_DTYPE_BF16, HM_DTYPE_F16, HM_DTYPE_F64 };
    const void *data[] = { bf16, f16, f64 };
    struct hm_error err = { 0 };
    uint8_t bytes[33];
    float out[4];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        memcpy(bytes + 1, data[i], 4 * hm_dtype_bytes(dtypes[i])); /* unaligned */
        assert_ok(hm_dtype_to_f32(dtypes[i], bytes + 1, 4, out, &err), err);
        assert_memory_equal(out, expected[i], sizeof expected[i]);
        assert_true(isnan(out[3]));
    }
    assert_ok(hm_dtype_to_f32(HM_DTYPE_F32, expected[0], 3, out, &err), err);
    assert_memory_equal(out, expected[0], sizeof expected[0]);
    assert_ok(hm_dtype_to_f32(HM_DTYPE_F32, NULL, 0, out, &err), err);
    assert_fails(hm_dtype_to_f32(HM_DTYPE_I32, expected[0], 3, out, &err), HM_ERR_FORMAT,
                 "I32 is not one of F16, BF16, F32, F64", err);
}

/* Ties to even, overflow to infinity, NaN kept. */
static void test_from_f32(void **state)
{
    static const float in[] = { 1.00390625f, 1.01171875f, 65520.0f, -1.0f, NAN };
    static const uint16_t bf16[] = { 0x3f80, 0x3f82, 0x4780, 0xbf80, 0x7fc0 };
    static const uint16_t f16[] = { 0x3c04, 0x3c0c, 0x7c00, 0xbc00, 0x7e00 };
    struct hm_error err = { 0 };
    uint8_t bytes[41];
    double f64[5];

    (void)state;
    assert_ok(hm_dtype_from_f32(HM_DTYPE_BF16, in, 5, bytes + 1, &err), err);
    assert_memory_equal(bytes + 1, bf16, sizeof bf16);
    assert_ok(hm_dtype_from_f32(HM_DTYPE_F16, in, 5, bytes + 1, &err), err);
    assert_memory_equal(bytes + 1, f16, sizeof f16);
    assert_ok(hm_dtype_from_f32(HM_DTYPE_F32, in, 5, bytes + 1, &err), err);
    assert_memory_equal(bytes + 1, in, sizeof in);
    assert_ok(hm_dtype_from_f32(HM_DTYPE_F64, in, 5, bytes + 1, &err), err);
    memcpy(f64, bytes + 1, sizeof f64);
    assert_true(f64[0] == 1.00390625 && f64[2] == 65520.0 && isnan(f64[4]));
    assert_fails(hm_dtype_from_f32(HM_DTYPE_U8, in, 5, bytes, &err), HM_ERR_FORMAT, "U8 is not one",
                 err);
}

/* What was checked before needs no status. */
static void test_floats(void **state)
{
    static const float in[] = { 1.00390625f, -2.5f, 0.0f };
    uint8_t bytes[7];
    float out[3];

    (void)state;
    hm_floats_store(HM_DTYPE_BF16, in, 3, bytes + 1);
    hm_floats_load(HM_DTYPE_BF16, bytes + 1, 3, out);
    assert_true(out[0] == 1.0f && out[1] == -2.5f && out[2] == 0.0f);
    for (int i = 0; i < HM_DTYPE_COUNT; i++)
        assert_int_equal(hm_dtype_is_weight((enum hm_dtype)i),
                         i == HM_DTYPE_F16 || i == HM_DTYPE_BF16 || i == HM_DTYPE_F32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_to_f32),
        cmocka_unit_test(test_from_f32),
        cmocka_unit_test(test_floats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
