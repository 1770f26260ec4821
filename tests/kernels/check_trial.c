/* SPDX-License-Identifier: MIT */
/*
 * Trials of paths: those of this machine pass, instructions that the CPU lacks and wrong results
 * are found, the handler of SIGILL comes back, and a process keeps its choice.
 */
#include <math.h>
#include <signal.h>
#include <stdlib.h>

#include "support/support.h"

#include "hanmix/base/cpu.h"
#include "kernels/trial.h"

#define MAX_TABLES 8

static void this_machine(void **state)
{
    struct hm_kernels tables[MAX_TABLES];
    size_t count = hm_kernels_all(tables, MAX_TABLES);
    (void)state;

    for (size_t i = 0; i < count; i++) {
        if (hm_kernels_trial(&tables[i]) != HM_PATH_GOOD)
            fail_msg("'%s' fails its trial", tables[i].name);
        assert_true(hm_kernels_trial_gflops(&tables[i]) > 0.0);
    }
}

static unsigned seen;

static void count_sigill(int number)
{
    (void)number;
    seen++;
}

static void illegal(const struct hm_frozen *w, uint32_t row0, uint32_t n_rows, const uint16_t *x,
                    size_t m, const struct hm_low_rank *low, bool add, float *y, size_t ldy,
                    void *scratch)
{
    (void)w, (void)row0, (void)n_rows, (void)x, (void)m, (void)low, (void)add, (void)y, (void)ldy;
    (void)scratch;
    raise(SIGILL);
}

/* As a flag that lies: the kernels of AMX where the CPU has none, and a table that faults. */
static void faults(void **state)
{
    struct hm_kernels kernels;
    struct sigaction mine = { .sa_handler = count_sigill }, after;
    (void)state;

    sigaction(SIGILL, &mine, NULL);
    hm_kernels_reference(&kernels);
    kernels.frozen_forward = illegal;
    assert_int_equal(hm_kernels_trial(&kernels), HM_PATH_FAULTS);
    hm_kernels_init(&kernels, ~0u);
    const unsigned flags = hm_cpu_flags();
    const unsigned needed = HM_CPU_AVX512VBMI | HM_CPU_AVX512BF16;
    if (strcmp(kernels.name, "amx") == 0 && (flags & needed) == needed)
        assert_int_equal(hm_kernels_trial(&kernels),
                         flags & HM_CPU_AMX_BF16 ? HM_PATH_GOOD : HM_PATH_FAULTS);
    assert_int_equal(seen, 0);
    sigaction(SIGILL, NULL, &after);
    assert_ptr_equal(after.sa_handler, count_sigill);
    raise(SIGILL);
    assert_int_equal(seen, 1);
    signal(SIGILL, SIG_DFL);
}

static float poison;

static void wrong_backward(const struct hm_frozen *w, uint32_t col0, uint32_t n_cols,
                           const uint16_t *dy, size_t m, const struct hm_low_rank *low, bool add,
                           float *dx, size_t lddx, void *scratch)
{
    struct hm_kernels ref;

    hm_kernels_reference(&ref);
    ref.frozen_backward(w, col0, n_cols, dy, m, low, add, dx, lddx, scratch);
    dx[(m - 1) * lddx + n_cols - 1] += poison;
}

static void wrong(void **state)
{
    struct hm_kernels kernels;
    (void)state;

    hm_kernels_reference(&kernels);
    kernels.frozen_backward = wrong_backward;
    poison = 0.0f;
    assert_int_equal(hm_kernels_trial(&kernels), HM_PATH_GOOD);
    poison = 0.01f;
    assert_int_equal(hm_kernels_trial(&kernels), HM_PATH_WRONG);
    poison = NAN;
    assert_int_equal(hm_kernels_trial(&kernels), HM_PATH_WRONG);
}

static void kept(void **state)
{
    struct hm_path first[HM_PATHS_MAX], again[HM_PATHS_MAX];
    struct hm_kernels chosen, later;
    struct hm_error err = { 0 };
    (void)state;

    unsetenv("HM_CPU");
    assert_ok(hm_kernels_choose(&chosen, NULL, &err), err);
    size_t count = hm_kernels_paths(first, HM_PATHS_MAX);
    assert_in_range(count, 1, HM_PATHS_MAX);
    assert_int_equal(hm_kernels_paths(again, HM_PATHS_MAX), count);
    assert_ok(hm_kernels_choose(&later, NULL, &err), err);
    assert_string_equal(later.name, chosen.name);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(first[i].name, again[i].name);
        assert_true(first[i].gflops == again[i].gflops);
        assert_true((first[i].state == HM_PATH_GOOD) == (first[i].gflops > 0.0));
        if (first[i].state == HM_PATH_LACKS_FLAGS)
            assert_fails(hm_kernels_choose(&later, first[i].name, &err), HM_ERR_USAGE,
                         "not in this CPU", err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_machine),
        cmocka_unit_test(faults),
        cmocka_unit_test(wrong),
        cmocka_unit_test(kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
