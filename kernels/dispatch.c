/* SPDX-License-Identifier: MIT */
/*
 * Fills the kernel table: the reference first, then whatever the CPU allows on top of it. A path is
 * known by its name in stage records and training state: "ref" is pure C, "portable" is ref with
 * the matrix products of OpenBLAS, the others are the kernels of their instruction set. A path is
 * tried (trial.h) before it is chosen, once a process, so that one process has one choice.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/cpu.h"
#include "hanmix/kernels/kernels.h"

#include "blas.h"
#include "ref/ref.h"
#include "trial.h"
#include "x86/x86.h"

#define PATH_MARGIN 1.25 /* a lower path must be so much faster: the choice stays the same */

/* In rising order: a path stands on those before it. */
static const struct {
    const char *name;
    unsigned flags;
    void (*fill)(struct hm_kernels *kernels); /* over the reference; NULL: nothing to add */
} paths[] = {
    { "portable", 0, NULL },
#if defined(HM_HAVE_AVX2)
    { "avx2", HM_CPU_AVX2, hm_kernels_fill_avx2 },
#endif
#if defined(HM_HAVE_AVX512)
    { "avx512", HM_CPU_AVX2 | HM_CPU_AVX512, hm_kernels_fill_avx512 },
#endif
#if defined(HM_HAVE_AVX512BF16)
    { "avx512bf16", HM_CPU_AVX2 | HM_CPU_AVX512 | HM_CPU_AVX512BF16, hm_kernels_fill_avx512bf16 },
#endif
#if defined(HM_HAVE_AMX)
    { "amx", HM_CPU_AVX2 | HM_CPU_AVX512 | HM_CPU_AVX512VBMI | HM_CPU_AVX512BF16 | HM_CPU_AMX_BF16,
      hm_kernels_fill_amx },
#endif
};

#define N_PATHS (sizeof(paths) / sizeof(paths[0]))

static bool has_all(unsigned flags, unsigned needed)
{
    return (flags & needed) == needed;
}

void hm_kernels_reference(struct hm_kernels *ret_kernels)
{
    *ret_kernels = (struct hm_kernels){
        .name = "ref",
        .nf4_decode = hm_nf4_decode_ref,
        .nf4_encode = hm_nf4_encode_ref,
        .bf16_to_f32 = hm_bf16_to_f32_ref,
        .f16_to_f32 = hm_f16_to_f32_ref,
        .f32_to_bf16 = hm_f32_to_bf16_ref,
        .f32_round_bf16 = hm_f32_round_bf16_ref,
        .rmsnorm = hm_rmsnorm_ref,
        .rmsnorm_backward = hm_rmsnorm_backward_ref,
        .rope = hm_rope_ref,
        .softmax_tile = hm_softmax_tile_ref,
        .prob_tile = hm_prob_tile_ref,
        .dscore_tile = hm_dscore_tile_ref,
        .swiglu = hm_swiglu_ref,
        .swiglu_backward = hm_swiglu_backward_ref,
        .route = hm_route_ref,
        .xent = hm_xent_ref,
        .adamw = hm_adamw_ref,
        .adamw8 = hm_adamw8_ref,
        .sum_squares = hm_sum_squares_ref,
        .axpy = hm_axpy_ref,
        .scale = hm_scale_ref,
        .add = hm_add_ref,
        .dot = hm_dot_ref,
        .gemm_nt = hm_gemm_nt_ref,
        .gemm_nn = hm_gemm_nn_ref,
        .gemm_tn = hm_gemm_tn_ref,
        .frozen_pack = hm_frozen_pack_ref,
        .frozen_forward = hm_frozen_forward_ref,
        .frozen_backward = hm_frozen_backward_ref,
        .low_project = hm_low_project_ref,
        .low_sums = hm_low_sums_ref,
        .low_join = hm_low_join_ref,
        .low_a_gradient = hm_low_a_gradient_ref,
        .low_b_gradient = hm_low_b_gradient_ref,
    };
}

static void path_fill(struct hm_kernels *kernels, size_t path)
{
    kernels->name = paths[path].name;
    if (paths[path].fill)
        paths[path].fill(kernels);
}

void hm_kernels_init(struct hm_kernels *ret_kernels, unsigned cpu_flags)
{
    hm_blas_init();
    hm_kernels_reference(ret_kernels);
    ret_kernels->gemm_nt = hm_gemm_nt_blas;
    ret_kernels->gemm_nn = hm_gemm_nn_blas;
    ret_kernels->gemm_tn = hm_gemm_tn_blas;
    ret_kernels->frozen_pack = NULL; /* the plain loops would be slower than decoded panels */
    ret_kernels->frozen_forward = NULL;
    ret_kernels->frozen_backward = NULL;
    ret_kernels->low_project = NULL;
    ret_kernels->low_sums = NULL;
    ret_kernels->low_join = NULL;
    ret_kernels->low_a_gradient = NULL;
    ret_kernels->low_b_gradient = NULL;
    for (size_t i = 0; i < N_PATHS; i++)
        if (has_all(cpu_flags, paths[i].flags))
            path_fill(ret_kernels, i);
}

/* The states and rates of all paths, tried once a process; the lock is held by callers. */
static pthread_mutex_t trial_lock = PTHREAD_MUTEX_INITIALIZER;
static struct hm_path tried[N_PATHS];

static void path_try(size_t i)
{
    struct hm_kernels kernels;

    if (tried[i].name)
        return;
    tried[i].name = paths[i].name;
    tried[i].state = HM_PATH_LACKS_FLAGS;
    if (!has_all(hm_cpu_flags(), paths[i].flags))
        return;
    hm_kernels_init(&kernels, paths[i].flags);
    tried[i].state = hm_kernels_trial(&kernels);
    tried[i].products = kernels.frozen_pack != NULL;
}

static double path_gflops(size_t i)
{
    struct hm_kernels kernels;

    if (tried[i].gflops == 0) {
        hm_kernels_init(&kernels, paths[i].flags);
        tried[i].gflops = hm_kernels_trial_gflops(&kernels);
    }
    return tried[i].gflops;
}

/* The highest usable path is taken unless a lower one has products in bf16, or decoded panels, that
 * are clearly faster: on some CPUs AVX512-BF16 has half the rate of f32. Paths below the first
 * without such products differ in f32 alone and rise with their instructions. */
static size_t path_best(unsigned flags, bool measure)
{
    size_t best = N_PATHS;

    for (size_t i = N_PATHS; i-- > 0;) {
        path_try(i);
        if (!has_all(flags, paths[i].flags) || tried[i].state != HM_PATH_GOOD)
            continue;
        if (best == N_PATHS)
            best = i;
        else if (path_gflops(i) > PATH_MARGIN * path_gflops(best))
            best = i;
        if (!measure || !tried[i].products)
            break;
    }
    return best;
}

static const char *const state_texts[] = {
    [HM_PATH_GOOD] = "usable",
    [HM_PATH_LACKS_FLAGS] = "not in this CPU",
    [HM_PATH_FAULTS] = "instructions fault, whatever the flags of the CPU say",
    [HM_PATH_WRONG] = "results are wrong, whatever the flags of the CPU say",
};

const char *hm_path_state_text(const struct hm_path *path)
{
    if (path->state == HM_PATH_LACKS_FLAGS && strcmp(path->name, "amx") == 0)
        return hm_cpu_amx_text(); /* the CPU may have it and the system refuse */
    return state_texts[path->state];
}

static int choose_by_name(struct hm_kernels *ret_kernels, const char *name, struct hm_error *err)
{
    if (strcmp(name, "ref") == 0) {
        hm_kernels_reference(ret_kernels);
        return HM_OK;
    }
    for (size_t i = 0; i < N_PATHS; i++) {
        if (strcmp(name, paths[i].name) != 0)
            continue;
        pthread_mutex_lock(&trial_lock);
        path_try(i);
        pthread_mutex_unlock(&trial_lock);
        if (tried[i].state != HM_PATH_GOOD)
            return hm_fail(err, HM_ERR_USAGE, "kernel path '%s' cannot run on this CPU (%s): %s",
                           name, hm_cpu_model(), hm_path_state_text(&tried[i]));
        hm_kernels_init(ret_kernels, paths[i].flags);
        return HM_OK;
    }
    return hm_fail(err, HM_ERR_USAGE, "no kernel path '%s' in this build", name);
}

int hm_kernels_choose(struct hm_kernels *ret_kernels, const char *name_or_null,
                      struct hm_error *err)
{
    const char *wanted = getenv("HM_CPU");
    bool forced = wanted && *wanted;
    unsigned flags;
    size_t best;

    if (name_or_null)
        return choose_by_name(ret_kernels, name_or_null, err);
    HM_TRY(hm_cpu_flags_capped(&flags, err));
    if (forced && strcmp(wanted, "ref") == 0) {
        hm_kernels_reference(ret_kernels);
        return HM_OK;
    }
    pthread_mutex_lock(&trial_lock);
    best = path_best(flags, !forced);
    pthread_mutex_unlock(&trial_lock);
    if (best == N_PATHS) /* not even the products of OpenBLAS are right */
        hm_kernels_reference(ret_kernels);
    else
        hm_kernels_init(ret_kernels, paths[best].flags);
    return HM_OK;
}

size_t hm_kernels_paths(struct hm_path *list, size_t max)
{
    size_t count = max < N_PATHS ? max : N_PATHS;

    pthread_mutex_lock(&trial_lock);
    for (size_t i = 0; i < count; i++) {
        path_try(i);
        if (tried[i].state == HM_PATH_GOOD)
            path_gflops(i);
        list[i] = tried[i];
    }
    pthread_mutex_unlock(&trial_lock);
    return count;
}

size_t hm_kernels_all(struct hm_kernels *tables, size_t max)
{
    size_t count = 0;

    if (max > 0)
        hm_kernels_reference(&tables[count++]);
    for (size_t i = 0; i < N_PATHS && count < max; i++)
        if (has_all(hm_cpu_flags(), paths[i].flags))
            hm_kernels_init(&tables[count++], paths[i].flags);
    return count;
}
