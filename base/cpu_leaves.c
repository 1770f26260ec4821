/* SPDX-License-Identifier: MIT */
/*
 * What the CPU and the kernel answer, unjudged: the leaves of cpuid that tell instruction sets, the
 * register states that the system has enabled, and its leave to use tiles. base/cpu.c makes flags
 * of it; tests put other answers in its place.
 */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>

#define OSXSAVE             (1u << 27) /* of leaf 1, ecx: xgetbv may be used */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_TILEDATA   18

static uint64_t xcr0_read(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

bool hm_cpu_leaves_read(struct hm_cpu_leaves *ret_leaves)
{
    struct hm_cpu_leaves leaves = { 0 };
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &leaves.c1, &d) || !(leaves.c1 & OSXSAVE))
        return false;
    leaves.xcr0 = xcr0_read();
    if (!__get_cpuid_count(7, 0, &a, &leaves.b7, &leaves.c7, &leaves.d7))
        return false;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        leaves.a71 = a;
    *ret_leaves = leaves;
    return true;
}

bool hm_cpu_brand_read(char name[64])
{
    unsigned reg[12];

    for (unsigned i = 0; i < 3; i++) /* three leaves of 16 bytes */
        if (!__get_cpuid(0x80000002u + i, &reg[4 * i], &reg[4 * i + 1], &reg[4 * i + 2],
                         &reg[4 * i + 3]))
            return false;
    memcpy(name, reg, sizeof(reg));
    name[sizeof(reg)] = '\0';
    return true;
}

int hm_cpu_tiles_request(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILEDATA) == 0 ? 0 : errno;
}
#else
bool hm_cpu_leaves_read(struct hm_cpu_leaves *ret_leaves)
{
    (void)ret_leaves;
    return false;
}

bool hm_cpu_brand_read(char name[64])
{
    (void)name;
    return false;
}

int hm_cpu_tiles_request(void)
{
    return ENOSYS;
}
#endif
