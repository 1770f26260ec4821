/* SPDX-License-Identifier: MIT */
/*
 * base/cpu.c: caps by HM_CPU, and figures of the machine that must at least be sane.
 */
#include "support/support.h"

#include <sys/resource.h>

#include "hanmix/base/cpu.h"

static void test_caps(void **state)
{
    struct hm_error err = { 0 };
    unsigned flags = 99;
    unsigned all;

    (void)state;
    unsetenv("HM_CPU");
    assert_ok(hm_cpu_flags_capped(&all, &err), err);
    assert_int_equal(all, hm_cpu_flags());
    setenv("HM_CPU", "ref", 1);
    assert_ok(hm_cpu_flags_capped(&flags, &err), err);
    assert_int_equal(flags, 0);
    setenv("HM_CPU", "avx2", 1);
    assert_ok(hm_cpu_flags_capped(&flags, &err), err);
    assert_int_equal(flags, all & HM_CPU_AVX2);
    setenv("HM_CPU", "avx512", 1);
    assert_ok(hm_cpu_flags_capped(&flags, &err), err);
    assert_int_equal(flags & (HM_CPU_AVX512BF16 | HM_CPU_AMX_BF16), 0);
    setenv("HM_CPU", "avx1024", 1);
    assert_fails(hm_cpu_flags_capped(&flags, &err), HM_ERR_USAGE, "avx1024", err);
    unsetenv("HM_CPU");
}

/* The system's own list must agree with cpuid. */
static void test_flags_agree_with_proc(void **state)
{
#if defined(__x86_64__)
    char line[8192];
    bool avx2 = false;
    bool avx512 = false;
    FILE *file = fopen("/proc/cpuinfo", "r");

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "flags", 5) == 0) {
            avx2 = strstr(line, " avx2") && strstr(line, " fma") && strstr(line, " f16c");
            avx512 = strstr(line, " avx512f") && strstr(line, " avx512bw") &&
                     strstr(line, " avx512dq") && strstr(line, " avx512vl");
            break;
        }
    if (!file)
        skip();
    fclose(file);
    assert_int_equal(!!(hm_cpu_flags() & HM_CPU_AVX2), avx2);
    assert_int_equal(!!(hm_cpu_flags() & HM_CPU_AVX512), avx512);
#else
    assert_int_equal(hm_cpu_flags(), 0);
#endif
    (void)state;
    assert_true(strlen(hm_cpu_model()) > 0);
}

static void test_machine(void **state)
{
    uint64_t total = hm_memory_total_bytes();
    uint64_t limit = hm_memory_limit_bytes();

    (void)state;
    assert_true(hm_cpu_count() >= 1);
    assert_true(total > ((uint64_t)64 << 20));
    assert_true(limit > 0 && limit <= total);
    assert_true(hm_memory_available_bytes() <= limit);
}

static void test_limits_count(void **state)
{
    const uint64_t mib = 1024 * 1024;
    uint64_t before = hm_memory_limit_bytes();
    struct rlimit old;

    (void)state;
    setenv("SLURM_MEM_PER_NODE", "100", 1);
    assert_true(hm_memory_limit_bytes() == 100 * mib);
    unsetenv("SLURM_MEM_PER_NODE");
    setenv("SLURM_MEM_PER_CPU", "50", 1);
    setenv("SLURM_CPUS_ON_NODE", "3", 1);
    assert_true(hm_memory_limit_bytes() == 150 * mib);
    unsetenv("SLURM_MEM_PER_CPU");
    unsetenv("SLURM_CPUS_ON_NODE");
    assert_true(hm_memory_limit_bytes() == before);
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
#if !defined(__SANITIZE_ADDRESS__) /* ASan needs its terabytes of address space */
    struct rlimit small = { before - mib, old.rlim_max };
    struct rlimit now;
    assert_int_equal(setrlimit(RLIMIT_AS, &small), 0);
    assert_int_equal(getrlimit(RLIMIT_AS, &now), 0);
    if (now.rlim_cur == small.rlim_cur) /* qemu-user ignores this limit */
        assert_true(hm_memory_limit_bytes() == before - mib);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_flags_agree_with_proc),
        cmocka_unit_test(test_machine),
        cmocka_unit_test(test_limits_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
