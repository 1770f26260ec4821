/* SPDX-License-Identifier: MIT */
/*
 * What this CPU and machine can do: instruction sets, cores, memory limits.
 * HM_CPU=ref|avx2|avx512|avx512bf16|amx caps the flags.
 * Thread class: thread safe.
 */
#ifndef HANMIX_BASE_CPU_H
#define HANMIX_BASE_CPU_H

#include <stdbool.h>
#include <stdint.h>

#include "hanmix/base/status.h"

enum hm_cpu_flag {
    HM_CPU_AVX2 = 1 << 0,       /* avx2, fma, f16c */
    HM_CPU_AVX512 = 1 << 1,     /* f, bw, dq, vl */
    HM_CPU_AVX512VBMI = 1 << 2, /* vbmi */
    HM_CPU_AVX512BF16 = 1 << 3,
    HM_CPU_AMX_BF16 = 1 << 4,
};

unsigned hm_cpu_flags(void); /* by cpuid and OS support; 0 off x86 */
/* after HM_CPU; an unknown name is HM_ERR_USAGE */
int hm_cpu_flags_capped(unsigned *ret_flags, struct hm_error *err);
const char *hm_cpu_model(void);       /* static text; "unknown" */
const char *hm_cpu_amx_text(void);    /* whether tiles may be used, or why not; static text */
int hm_cpu_count(void);               /* cores this process may run on */
uint64_t hm_memory_total_bytes(void); /* physical */
uint64_t hm_memory_limit_bytes(void); /* least of physical, cgroup v1/v2, Slurm, RLIMIT_AS */
uint64_t hm_memory_available_bytes(void);

#endif
