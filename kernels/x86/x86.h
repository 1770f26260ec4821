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

#endif
