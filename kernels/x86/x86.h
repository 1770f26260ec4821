/* SPDX-License-Identifier: MIT */
/*
 * The door of kernels/x86/ for dispatch.c: put the kernels of an instruction set into a table that
 * already holds the reference. Call only after base/cpu.h has found the set.
 */
#ifndef HANMIX_KERNELS_X86_X86_H
#define HANMIX_KERNELS_X86_X86_H

#include "hanmix/kernels/kernels.h"

void hm_kernels_fill_avx2(struct hm_kernels *kernels);       /* AVX2, FMA, F16C */
void hm_kernels_fill_avx512(struct hm_kernels *kernels);     /* AVX-512 F, BW, DQ, VL */
void hm_kernels_fill_avx512bf16(struct hm_kernels *kernels); /* over avx512 */
void hm_kernels_fill_amx(struct hm_kernels *kernels);        /* over avx512bf16, needs VBMI, too */
/* hm_adamw8 of avx512 with the table look-ups of VBMI. */
void hm_adamw8_avx512vbmi(float *param, const float *grad, const struct hm_moments8 *moments,
                          size_t n, const struct hm_adamw_step *step);
/* The source of amx with its tile instructions in C, over avx512bf16; in tests/kernels alone. */
void hm_kernels_fill_emulated(struct hm_kernels *kernels);

#endif
