/* SPDX-License-Identifier: MIT */
/*
 * base/alloc.c: alignment, counters, overflow, failures on demand.
 */
#include "support/support.h"

#include "hanmix/base/parallel.h"

static void test_alignment_and_contents(void **state)
{
    (void)state;
    for (size_t size = 0; size < 300; size += 7) {
        unsigned char *block = hm_alloc(HM_MEM_OTHER, size);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        memset(block, 0x5a, size);
        hm_free(block);
    }
    unsigned char *zeros = hm_calloc(HM_MEM_TENSOR, 1000, 7);
    for (size_t i = 0; i < 7000; i++)
        assert_int_equal(zeros[i], 0);
    hm_free(zeros);
    hm_free(NULL);
}

static void test_realloc_keeps_contents(void **state)
{
    size_t size = 1;
    unsigned char *block = hm_realloc(HM_MEM_TEXT, NULL, size);
    unsigned char *others[64] = { 0 };

    (void)state;
    block[0] = 0;
    for (int i = 0; i < 20; i++) {
        if (i < 64)
            others[i] = hm_alloc(HM_MEM_TEXT, 100 + 13 * (size_t)i); /* so that blocks must move */
        block = hm_realloc(HM_MEM_TEXT, block, 2 * size + 3);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (size_t at = 0; at < size; at++)
            assert_int_equal(block[at], at % 251);
        size = 2 * size + 3;
        for (size_t at = 0; at < size; at++)
            block[at] = (unsigned char)(at % 251);
    }
    block = hm_realloc(HM_MEM_TEXT, block, 10);
    for (size_t at = 0; at < 10; at++)
        assert_int_equal(block[at], at);
    hm_free(block);
    for (int i = 0; i < 64; i++)
        hm_free(others[i]);
}

static void test_counters(void **state)
{
    uint64_t before = hm_mem_current_bytes(HM_MEM_WEIGHT);

    (void)state;
    hm_mem_peak_reset();
    void *a = hm_alloc(HM_MEM_WEIGHT, 1000);
    void *b = hm_alloc(HM_MEM_WEIGHT, 500);
    assert_int_equal(hm_mem_current_bytes(HM_MEM_WEIGHT), before + 1500);
    a = hm_realloc(HM_MEM_WEIGHT, a, 2000);
    hm_free(b);
    assert_int_equal(hm_mem_current_bytes(HM_MEM_WEIGHT), before + 2000);
    assert_int_equal(hm_mem_peak_bytes(HM_MEM_WEIGHT), before + 2500);
    hm_free(a);
    assert_int_equal(hm_mem_current_bytes(HM_MEM_WEIGHT), before);
    hm_mem_peak_reset();
    assert_int_equal(hm_mem_peak_bytes(HM_MEM_WEIGHT), before);
    assert_string_equal(hm_mem_tag_name(HM_MEM_ACTIVATION), "activations");
}

static void test_overflow_fails(void **state)
{
    volatile size_t most = SIZE_MAX; /* or the compiler refuses to compile the mistake */

    (void)state;
    assert_null(hm_calloc(HM_MEM_OTHER, most / 2, 3));
    assert_null(hm_alloc_array(HM_MEM_OTHER, most, most));
    assert_null(hm_alloc(HM_MEM_OTHER, most));
    assert_null(hm_alloc(HM_MEM_OTHER, most - 64));
    assert_null(hm_strndup(HM_MEM_OTHER, "", most));
}

static void test_failures_on_demand(void **state)
{
    uint64_t before = hm_mem_total_bytes();

    (void)state;
    hm_alloc_fail_after(2);
    void *a = hm_alloc(HM_MEM_OTHER, 8);
    void *b = hm_calloc(HM_MEM_OTHER, 1, 8);
    assert_true(a && b);
    assert_null(hm_alloc(HM_MEM_OTHER, 8));
    assert_null(hm_realloc(HM_MEM_OTHER, a, 64));
    assert_null(hm_strdup(HM_MEM_OTHER, "text"));
    hm_alloc_fail_after(-1);
    char *text = hm_strdup(HM_MEM_OTHER, "text");
    assert_string_equal(text, "text");
    hm_free(text);
    hm_free(a);
    hm_free(b);
    assert_int_equal(hm_mem_total_bytes(), before);
}

static void churn(void *context, size_t index, int worker)
{
    (void)context;
    (void)worker;
    for (size_t i = 1; i < 200; i++) {
        char *block = hm_alloc(HM_MEM_SCRATCH, i * (index % 13 + 1));
        block[0] = 'x';
        block = hm_realloc(HM_MEM_SCRATCH, block, 2 * i);
        hm_free(block);
    }
}

static void test_counters_under_threads(void **state)
{
    uint64_t before = hm_mem_current_bytes(HM_MEM_SCRATCH);

    (void)state;
    hm_threads_set(4);
    hm_parallel_for(200, churn, NULL);
    assert_int_equal(hm_mem_current_bytes(HM_MEM_SCRATCH), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment_and_contents),
        cmocka_unit_test(test_realloc_keeps_contents),
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_overflow_fails),
        cmocka_unit_test(test_failures_on_demand),
        cmocka_unit_test(test_counters_under_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
