/* SPDX-License-Identifier: MIT */
/*
 * corpus/sample_order.c: a permutation in every epoch, other epochs and seeds in another order.
 */
#include "support/support.h"

#include "hanmix/corpus/packed.h"

static void test_permutation(void **state)
{
    static const uint64_t sizes[] = { 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1000, 4099 };
    uint8_t seen[4099];

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++)
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof(seen));
            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t at = hm_sample_index(sizes[s], 42, true, epoch * sizes[s] + i);
                assert_true(at < sizes[s]);
                assert_int_equal(seen[at]++, 0);
            }
        }
}

static void test_identity(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 30; i++)
        assert_int_equal(hm_sample_index(10, 3, false, i), i % 10);
}

/* Fixed points and steps to the next neighbour are as rare as in a random order. */
static void test_order_is_mixed(void **state)
{
    const uint64_t n = 2000;
    unsigned fixed = 0, steps = 0, like_other_seed = 0, like_other_epoch = 0;

    (void)state;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = hm_sample_index(n, 7, true, i);
        fixed += at == i;
        steps += i > 0 && at == hm_sample_index(n, 7, true, i - 1) + 1;
        like_other_seed += at == hm_sample_index(n, 8, true, i);
        like_other_epoch += at == hm_sample_index(n, 7, true, n + i);
    }
    assert_true(fixed < 12 && steps < 12 && like_other_seed < 12 && like_other_epoch < 12);
}

static void test_huge(void **state)
{
    (void)state;
    uint64_t n = UINT64_MAX - 5;
    uint64_t first = hm_sample_index(n, 1, true, 0);
    assert_true(first < n && hm_sample_index(n, 1, true, 1) != first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_order_is_mixed),
        cmocka_unit_test(test_huge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
