/* SPDX-License-Identifier: MIT */
/*
 * Trials of a path. Flags of a CPU can promise what it, its hypervisor or its emulator does not
 * keep: a small product of each kind runs with SIGILL caught and is compared with the reference
 * before the path is offered. The measurement is the product that training spends its time on, on
 * random data (zeros are faster), best of several runs.
 */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <time.h>

#include "hanmix/base/rng.h"

#include "ref/ref.h"
#include "trial.h"

#define ROWS          48u /* of W in the comparison; odd tails for every path */
#define COLS          192u
#define SMALL_M       21u
#define TIMED_ROWS    256u
#define TIMED_COLS    1024u
#define TIMED_M       64u
#define TIMED_RUNS    8u
#define TIMED_SECONDS 0.008
#define PANEL_ROWS    64u /* decoded at once for gemm_nt */

static struct {
    uint8_t codes[TIMED_ROWS * TIMED_COLS / 2];
    float absmax[TIMED_ROWS * TIMED_COLS / 64];
    float x[TIMED_M * TIMED_COLS];
    float y[TIMED_M * TIMED_ROWS], want[TIMED_M * TIMED_ROWS];
    float panel[PANEL_ROWS * TIMED_COLS];
    uint16_t packed[TIMED_M * TIMED_COLS];
    uint8_t scratch[HM_FROZEN_SCRATCH_BYTES];
    bool filled;
} trial __attribute__((aligned(64)));

static _Thread_local sigjmp_buf *guard; /* of the thread that tries */
static struct sigaction old_action;

static void on_sigill(int number)
{
    if (guard)
        siglongjmp(*guard, 1);
    sigaction(number, &old_action, NULL); /* another thread's: it faults again, as without us */
}

static void trial_fill(void)
{
    const struct hm_rng_key key = { .seed = 4 };

    if (trial.filled)
        return;
    for (size_t i = 0; i < sizeof(trial.codes); i++)
        trial.codes[i] = (uint8_t)hm_rng_below(key, i, 256);
    for (size_t i = 0; i < sizeof(trial.absmax) / sizeof(float); i++)
        trial.absmax[i] = (float)(0.01 + 0.05 * hm_rng_uniform(key, i));
    for (size_t i = 0; i < TIMED_M * TIMED_COLS; i++)
        trial.x[i] = i < 4096 ? (float)hm_rng_normal(key, i) : trial.x[i - 4096] * 0.999f;
    trial.filled = true;
}

static struct hm_frozen matrix_of(uint32_t rows, uint32_t cols)
{
    return (struct hm_frozen){ .layout = HM_FROZEN_NF4,
                               .rows = rows,
                               .cols = cols,
                               .data = trial.codes,
                               .blocksize = 64,
                               .absmax = (const uint8_t *)trial.absmax };
}

static bool near(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-4f * (1.0f + fabsf(want[i])))) /* false for NaN */
            return false;
    return true;
}

/* The frozen product of this side by `kernels`, to out [SMALL_M][ROWS or COLS]. */
static void product(const struct hm_kernels *kernels, enum hm_pack side, float *out)
{
    const struct hm_frozen w = matrix_of(ROWS, COLS);

    if (side == HM_PACK_FORWARD) {
        kernels->frozen_pack(side, SMALL_M, COLS, 0, SMALL_M, 0, COLS, trial.x, COLS, trial.packed);
        kernels->frozen_forward(&w, 0, ROWS, trial.packed, SMALL_M, NULL, false, out, ROWS,
                                trial.scratch);
    } else {
        kernels->frozen_pack(side, SMALL_M, ROWS, 0, SMALL_M, 0, ROWS, trial.x, ROWS, trial.packed);
        kernels->frozen_backward(&w, 0, COLS, trial.packed, SMALL_M, NULL, false, out, COLS,
                                 trial.scratch);
    }
}

static bool decoded_right(const struct hm_kernels *kernels)
{
    kernels->nf4_decode(trial.codes, trial.absmax, 0, ROWS * COLS, 64, HM_ROUND_BF16, trial.panel);
    hm_nf4_decode_ref(trial.codes, trial.absmax, 0, ROWS * COLS, 64, HM_ROUND_BF16, trial.want);
    return near(trial.panel, trial.want, ROWS * COLS);
}

static bool results_right(const struct hm_kernels *kernels)
{
    struct hm_kernels ref;
    static const enum hm_pack sides[] = { HM_PACK_FORWARD, HM_PACK_BACKWARD };

    hm_kernels_reference(&ref);
    if (!decoded_right(kernels))
        return false;
    ref.gemm_nt(SMALL_M, ROWS, COLS, 1.0f, trial.x, COLS, trial.panel, COLS, 0.0f, trial.want,
                ROWS);
    kernels->gemm_nt(SMALL_M, ROWS, COLS, 1.0f, trial.x, COLS, trial.panel, COLS, 0.0f, trial.y,
                     ROWS);
    if (!near(trial.y, trial.want, (size_t)SMALL_M * ROWS))
        return false;
    for (size_t i = 0; kernels->frozen_pack && i < 2; i++) {
        product(&ref, sides[i], trial.want);
        product(kernels, sides[i], trial.y);
        if (!near(trial.y, trial.want, (size_t)SMALL_M * (i == 0 ? ROWS : COLS)))
            return false;
    }
    return true;
}

enum hm_path_state hm_kernels_trial(const struct hm_kernels *kernels)
{
    struct sigaction action = { .sa_handler = on_sigill };
    sigjmp_buf here;
    enum hm_path_state state;

    trial_fill();
    sigemptyset(&action.sa_mask);
    sigaction(SIGILL, &action, &old_action);
    if (sigsetjmp(here, 1) == 0) {
        guard = &here;
        state = results_right(kernels) ? HM_PATH_GOOD : HM_PATH_WRONG;
    } else {
        state = HM_PATH_FAULTS;
    }
    guard = NULL;
    sigaction(SIGILL, &old_action, NULL);
    return state;
}

static void timed_product(const struct hm_kernels *kernels)
{
    const struct hm_frozen w = matrix_of(TIMED_ROWS, TIMED_COLS);

    if (kernels->frozen_pack) {
        kernels->frozen_pack(HM_PACK_FORWARD, TIMED_M, TIMED_COLS, 0, TIMED_M, 0, TIMED_COLS,
                             trial.x, TIMED_COLS, trial.packed);
        kernels->frozen_forward(&w, 0, TIMED_ROWS, trial.packed, TIMED_M, NULL, false, trial.y,
                                TIMED_ROWS, trial.scratch);
        return;
    }
    for (uint32_t row = 0; row < TIMED_ROWS; row += PANEL_ROWS) {
        kernels->nf4_decode(trial.codes, trial.absmax, (uint64_t)row * TIMED_COLS,
                            (size_t)PANEL_ROWS * TIMED_COLS, 64, HM_ROUND_BF16, trial.panel);
        kernels->gemm_nt(TIMED_M, PANEL_ROWS, TIMED_COLS, 1.0f, trial.x, TIMED_COLS, trial.panel,
                         TIMED_COLS, 0.0f, trial.y + row, TIMED_ROWS);
    }
}

/* Of this thread: what other processes take does not count. */
static double cpu_seconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

double hm_kernels_trial_gflops(const struct hm_kernels *kernels)
{
    const double flops = 2.0 * TIMED_M * TIMED_ROWS * TIMED_COLS;
    double best = INFINITY, spent = 0;

    trial_fill();
    timed_product(kernels); /* warms up caches and clock */
    for (unsigned run = 0; run < TIMED_RUNS && spent < TIMED_SECONDS; run++) {
        double begin = cpu_seconds();
        timed_product(kernels);
        double seconds = cpu_seconds() - begin;
        best = seconds < best ? seconds : best;
        spent += seconds;
    }
    return flops / best / 1e9;
}
