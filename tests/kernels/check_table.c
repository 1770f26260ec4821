/* SPDX-License-Identifier: MIT */
/*
 * The choice of a path: no entry of a table is NULL but those of products with
 * frozen matrices, names choose and are refused, HM_CPU caps.
 */
#include <stdlib.h>

#include "support/support.h"

#include "hanmix/base/cpu.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/kernels/peak.h"

#define MAX_TABLES 8

static void full(void **state)
{
    struct hm_kernels tables[MAX_TABLES];
    size_t count = hm_kernels_all(tables, MAX_TABLES);
    (void)state;

    assert_in_range(count, 2, MAX_TABLES);
    assert_string_equal(tables[0].name, "ref");
    assert_string_equal(tables[1].name, "portable");
    for (size_t t = 0; t < count; t++) {
        const bool frozen = tables[t].frozen_pack != NULL; /* all three or none */
        assert_true(frozen == (tables[t].frozen_forward != NULL));
        assert_true(frozen == (tables[t].frozen_backward != NULL));
        const size_t end = frozen ? sizeof(tables[t]) : offsetof(struct hm_kernels, frozen_pack);
        for (size_t at = 0; at < end; at += sizeof(void *)) {
            void *entry;
            memcpy(&entry, (const char *)&tables[t] + at, sizeof(entry));
            if (!entry)
                fail_msg("entry %zu of the table '%s' is NULL", at / sizeof(void *),
                         tables[t].name);
        }
    }
    assert_int_equal(hm_kernels_all(tables, 1), 1);
}

static void by_name(void **state)
{
    struct hm_kernels tables[MAX_TABLES], chosen;
    struct hm_error err = { 0 };
    size_t count = hm_kernels_all(tables, MAX_TABLES);
    (void)state;

    for (size_t t = 0; t < count; t++) {
        assert_ok(hm_kernels_choose(&chosen, tables[t].name, &err), err);
        assert_memory_equal(&chosen, &tables[t], sizeof(chosen));
    }
    assert_fails(hm_kernels_choose(&chosen, "sse9", &err), HM_ERR_USAGE, "sse9", err);
    assert_string_equal(chosen.name, tables[count - 1].name); /* untouched */
}

static void by_environment(void **state)
{
    struct hm_kernels chosen, last[MAX_TABLES];
    struct hm_error err = { 0 };
    size_t count = hm_kernels_all(last, MAX_TABLES);
    (void)state;

    unsetenv("HM_CPU");
    assert_ok(hm_kernels_choose(&chosen, NULL, &err), err); /* by measurement */
    assert_true(strcmp(chosen.name, "ref") != 0);
    setenv("HM_CPU", "amx", 1); /* up to it, unmeasured */
    assert_ok(hm_kernels_choose(&chosen, NULL, &err), err);
    assert_string_equal(chosen.name, last[count - 1].name);
    setenv("HM_CPU", "ref", 1);
    assert_ok(hm_kernels_choose(&chosen, NULL, &err), err);
    assert_memory_equal(&chosen, &last[0], sizeof(chosen));
    setenv("HM_CPU", "avx2", 1);
    assert_ok(hm_kernels_choose(&chosen, NULL, &err), err);
    assert_true(strcmp(chosen.name, "avx512") != 0);
    setenv("HM_CPU", "abacus", 1);
    assert_fails(hm_kernels_choose(&chosen, NULL, &err), HM_ERR_USAGE, "abacus", err);
    unsetenv("HM_CPU");
    hm_kernels_init(&chosen, 0);
    assert_string_equal(chosen.name, "portable");
}

static void peak(void **state)
{
    struct hm_kernels kernels;
    (void)state;

    hm_kernels_init(&kernels, hm_cpu_flags());
    assert_true(hm_gemm_peak_gflops(&kernels, 600, 0.0) > 0.0);
    uint64_t before = hm_mem_total_bytes();
    for (int fail = 0; fail < 3; fail++) {
        hm_alloc_fail_after(fail);
        assert_true(hm_gemm_peak_gflops(&kernels, 64, 0.0) == 0.0);
        hm_alloc_fail_after(-1);
    }
    assert_int_equal(hm_mem_total_bytes(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full),
        cmocka_unit_test(by_name),
        cmocka_unit_test(by_environment),
        cmocka_unit_test(peak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
