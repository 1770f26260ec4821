/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/nf4_format.c: shape of the dynamic map, nested scales by a plain search, the state
 * text. The recorded bytes of bitsandbytes are compared in tests/golden/nf4.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/map8.h"

static void test_map(void **state)
{
    float map[256];

    (void)state;
    hm_dynamic_map(true, map);
    for (int i = 1; i < 256; i++)
        assert_true(map[i] > map[i - 1]);
    assert_true(map[127] == 0.0f && map[255] == 1.0f);
    for (int i = 0; i < 127; i++)
        assert_true(map[i] == -map[254 - i]); /* both signs, no -1 */
    assert_true(fabsf(map[128] - 5.5e-7f) < 1e-12f && fabsf(map[254] - 0.99296874f) < 1e-7f);
}

/* The nearest entry by looking at all of them, the first on a tie. */
static uint8_t nearest_of_all(const float map[256], double x)
{
    int best = 0;

    for (int i = 1; i < 256; i++)
        if (fabs(map[i] - x) < fabs(map[best] - x))
            best = i;
    return (uint8_t)best;
}

static void test_nest(void **state)
{
    enum { N = 600 };
    struct hm_nf4_nested nested = { 0 };
    struct hm_error err = { 0 };
    float absmax[N], map[256];
    double sum = 0;

    (void)state;
    hm_dynamic_map(true, map);
    struct hm_rng_key key = { .seed = 5 };
    for (uint64_t i = 0; i < N; i++) {
        absmax[i] = 0.01f + (float)hm_rng_below(key, i, 1000) / 500.0f;
        sum += absmax[i];
    }
    assert_ok(hm_nf4_nest(absmax, N, &nested, &err), err);
    assert_int_equal(nested.n, N);
    assert_true(nested.offset == (float)(sum / N));
    for (size_t b = 0; b < 3; b++) {
        size_t end = b == 2 ? N : (b + 1) * 256;
        float top = 0;
        for (size_t i = b * 256; i < end; i++)
            top = fmaxf(top, fabsf(absmax[i] - nested.offset));
        assert_true(nested.nested_absmax[b] == top);
        for (size_t i = b * 256; i < end; i++)
            assert_int_equal(
                nested.code[i],
                nearest_of_all(map, (double)(absmax[i] - nested.offset) / (double)top));
    }
    hm_nf4_nested_release(&nested);
    hm_nf4_nested_release(&nested);
}

/* Equal scales leave a zero block; one scale alone too; none is nothing. */
static void test_nest_zero(void **state)
{
    static const float absmax[] = { 0.25f, 0.25f, 0.25f };
    struct hm_nf4_nested nested = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t n = 0; n <= 3; n++) {
        assert_ok(hm_nf4_nest(absmax, n, &nested, &err), err);
        assert_true(nested.offset == (n ? 0.25f : 0.0f));
        for (size_t i = 0; i < n; i++)
            assert_true(nested.code[i] == 0 && nested.nested_absmax[0] == 0.0f);
        hm_nf4_nested_release(&nested);
    }
}

static void test_text(void **state)
{
    static const float offset = 0.031807661056518555f;
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };

    (void)state;
    assert_ok(hm_nf4_state_json(64, HM_DTYPE_BF16, 14336, 4096, &offset, &text, &err), err);
    assert_string_equal(text.ptr,
                        "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", "
                        "\"shape\": [14336, 4096], \"nested_blocksize\": 256, \"nested_dtype\": "
                        "\"float32\", \"nested_offset\": 0.031807661056518555}");
    hm_buf_release(&text);
    assert_ok(hm_nf4_state_json(128, HM_DTYPE_F16, 7, 0, NULL, &text, &err), err);
    assert_string_equal(text.ptr, "{\"quant_type\": \"nf4\", \"blocksize\": 128, \"dtype\": "
                                  "\"float16\", \"shape\": [7]}");
    hm_buf_release(&text);
}

static int attempt(void *context, struct hm_error *err)
{
    static const float absmax[] = { 1.0f, 2.0f };
    struct hm_nf4_nested nested = { 0 };
    struct hm_buf text = { 0 };

    (void)context;
    HM_TRY(hm_nf4_nest(absmax, 2, &nested, err));
    int status = hm_nf4_state_json(64, HM_DTYPE_F32, 2, 64, &nested.offset, &text, err);
    hm_nf4_nested_release(&nested);
    hm_buf_release(&text);
    return status;
}

static void test_oom(void **state)
{
    (void)state;
    assert_true(oom_sweep(attempt, NULL) >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map),  cmocka_unit_test(test_nest), cmocka_unit_test(test_nest_zero),
        cmocka_unit_test(test_text), cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
