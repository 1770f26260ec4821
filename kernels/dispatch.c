/* SPDX-License-Identifier: MIT */
/*
 * Fills the kernel table: the reference first, then whatever the CPU allows on top of it. A path is
 * known by its name in stage records and training state: "ref" is pure C, "portable" is ref with
 * the matrix products of OpenBLAS, the others are the kernels of their instruction set.
 */
#include <stdlib.h>

#include "hanmix/base/cpu.h"
#include "hanmix/kernels/kernels.h"

#include "blas.h"
#include "ref/ref.h"
#include "x86/x86.h"

/* In rising order: of those whose flags are all there, the last one is taken. */
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
    for (size_t i = 0; i < N_PATHS; i++)
        if (has_all(cpu_flags, paths[i].flags))
            path_fill(ret_kernels, i);
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
        if (!has_all(hm_cpu_flags(), paths[i].flags))
            return hm_fail(err, HM_ERR_USAGE,
                           "kernel path '%s' needs instructions that this CPU (%s) lacks", name,
                           hm_cpu_model());
        hm_kernels_init(ret_kernels, paths[i].flags);
        return HM_OK;
    }
    return hm_fail(err, HM_ERR_USAGE, "no kernel path '%s' in this build", name);
}

int hm_kernels_choose(struct hm_kernels *ret_kernels, const char *name_or_null,
                      struct hm_error *err)
{
    const char *wanted = getenv("HM_CPU");
    unsigned flags;

    if (name_or_null)
        return choose_by_name(ret_kernels, name_or_null, err);
    HM_TRY(hm_cpu_flags_capped(&flags, err));
    if (wanted && strcmp(wanted, "ref") == 0)
        hm_kernels_reference(ret_kernels);
    else
        hm_kernels_init(ret_kernels, flags);
    return HM_OK;
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
