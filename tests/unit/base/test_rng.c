/* SPDX-License-Identifier: MIT */
/*
 * base/rng.c against the known-answer vectors of Random123 (kat_vectors, philox4x32 10) and by
 * moments.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/rng.h"

static void test_known_vectors(void **state)
{
    static const struct {
        struct hm_rng_key key;
        uint64_t counter;
        uint32_t expected[4];
    } vector[] = {
        { { 0, 0 }, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { UINT64_MAX, UINT64_MAX },
          UINT64_MAX,
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x299f31d0a4093822, 0x0370734413198a2e },
          0x85a308d3243f6a88,
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(vector) / sizeof(vector[0]); i++) {
        uint32_t out[4];
        hm_rng_block(vector[i].key, vector[i].counter, out);
        assert_memory_equal(out, vector[i].expected, sizeof(out));
        assert_int_equal(hm_rng_u64(vector[i].key, vector[i].counter),
                         (uint64_t)vector[i].expected[1] << 32 | vector[i].expected[0]);
    }
}

static void test_moments(void **state)
{
    const struct hm_rng_key key = { 7, 11 };
    const unsigned n = 200000;
    double sum[4] = { 0 };
    double uniform_sum = 0;

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        double u = hm_rng_uniform(key, i);
        double z = hm_rng_normal(key, i);
        assert_true(u >= 0 && u < 1 && isfinite(z));
        uniform_sum += u;
        for (int power = 0; power < 4; power++)
            sum[power] += pow(z, power + 1);
    }
    assert_true(fabs(uniform_sum / n - 0.5) < 0.003);
    assert_true(fabs(sum[0] / n) < 0.01);
    assert_true(fabs(sum[1] / n - 1) < 0.02);
    assert_true(fabs(sum[2] / n) < 0.04);
    assert_true(fabs(sum[3] / n - 3) < 0.1);
}

static void test_below(void **state)
{
    const struct hm_rng_key key = { 3, 5 };
    unsigned count[7] = { 0 };

    (void)state;
    for (unsigned i = 0; i < 70000; i++) {
        uint64_t draw = hm_rng_below(key, i, 7);
        assert_true(draw < 7);
        count[draw]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(count[i], 9500, 10500);
    for (unsigned i = 0; i < 1000; i++)
        assert_true(hm_rng_below(key, i, (uint64_t)1 << 63) == hm_rng_u64(key, i) >> 1);
    assert_int_equal(hm_rng_below(key, 9, 1), 0);
}

static void test_streams_differ(void **state)
{
    (void)state;
    assert_true(hm_rng_u64((struct hm_rng_key){ 1, 0 }, 0) !=
                hm_rng_u64((struct hm_rng_key){ 0, 1 }, 0));
    assert_true(hm_rng_u64((struct hm_rng_key){ 1, 0 }, 0) !=
                hm_rng_u64((struct hm_rng_key){ 1, 0 }, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_vectors),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_streams_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
