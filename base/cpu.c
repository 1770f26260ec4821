/* SPDX-License-Identifier: MIT */
/*
 * Instruction sets, judged from what cpuid and the system answer (cpu_leaves.c), the name of the
 * CPU, cores, and memory with the limits that containers, batch systems and shells put on it.
 */
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "hanmix/base/cpu.h"
#include "hanmix/base/file.h"
#include "internal.h"

static char tiles_text[96] = "not in this CPU"; /* of AMX; written by detect() alone */

#define XCR0_YMM  0x6u
#define XCR0_ZMM  0xe6u
#define XCR0_TILE 0x60000u

static bool has(unsigned reg, unsigned bit)
{
    return reg >> bit & 1;
}

static bool tiles_granted(uint64_t enabled)
{
    if ((enabled & XCR0_TILE) != XCR0_TILE) {
        snprintf(tiles_text, sizeof(tiles_text), "not enabled by the system");
        return false;
    }
    int refused = hm_cpu_tiles_request();
    if (refused)
        snprintf(tiles_text, sizeof(tiles_text), "refused by the kernel (%s; needs Linux 5.16)",
                 strerror(refused));
    else
        snprintf(tiles_text, sizeof(tiles_text), "granted by the kernel");
    return !refused;
}

static unsigned flags_detect(void)
{
    struct hm_cpu_leaves cpu;

    if (!hm_cpu_leaves_read(&cpu))
        return 0;
    bool fma_f16c = has(cpu.c1, 12) && has(cpu.c1, 29);
    if (!fma_f16c || !has(cpu.b7, 5) || (cpu.xcr0 & XCR0_YMM) != XCR0_YMM)
        return 0;
    unsigned flags = HM_CPU_AVX2;
    bool avx512 = has(cpu.b7, 16) && has(cpu.b7, 17) && has(cpu.b7, 30) && has(cpu.b7, 31);
    if (!avx512 || (cpu.xcr0 & XCR0_ZMM) != XCR0_ZMM) /* f dq bw vl */
        return flags;
    flags |= HM_CPU_AVX512;
    if (has(cpu.c7, 1))
        flags |= HM_CPU_AVX512VBMI;
    if (!has(cpu.a71, 5))
        return flags;
    flags |= HM_CPU_AVX512BF16;
    if (has(cpu.d7, 22) && has(cpu.d7, 24) && tiles_granted(cpu.xcr0))
        flags |= HM_CPU_AMX_BF16;
    return flags;
}

static pthread_once_t detect_once = PTHREAD_ONCE_INIT;
static unsigned detected_flags;
static char detected_model[64] = "unknown";

static void detect(void)
{
    char name[sizeof(detected_model)] = { 0 };

    detected_flags = flags_detect();
    if (hm_cpu_brand_read(name))
        memcpy(detected_model, name, sizeof(name));
}

unsigned hm_cpu_flags(void)
{
    pthread_once(&detect_once, detect);
    return detected_flags;
}

const char *hm_cpu_model(void)
{
    pthread_once(&detect_once, detect);
    return detected_model + strspn(detected_model, " ");
}

const char *hm_cpu_amx_text(void)
{
    pthread_once(&detect_once, detect);
    return tiles_text;
}

int hm_cpu_flags_capped(unsigned *ret_flags, struct hm_error *err)
{
    static const struct {
        const char *name;
        unsigned flags;
    } caps[] = {
        { "ref", 0 },
        { "avx2", HM_CPU_AVX2 },
        { "avx512", HM_CPU_AVX2 | HM_CPU_AVX512 | HM_CPU_AVX512VBMI },
        { "avx512bf16", HM_CPU_AVX2 | HM_CPU_AVX512 | HM_CPU_AVX512VBMI | HM_CPU_AVX512BF16 },
        { "amx", ~0u },
    };
    const char *wanted = getenv("HM_CPU");

    if (!wanted || !*wanted)
        wanted = "amx";
    for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
        if (strcmp(wanted, caps[i].name) == 0) {
            *ret_flags = hm_cpu_flags() & caps[i].flags;
            return HM_OK;
        }
    return hm_fail(err, HM_ERR_USAGE, "HM_CPU=%s: expected ref, avx2, avx512, avx512bf16 or amx",
                   wanted);
}

static bool file_number(const char *path, uint64_t *ret)
{
    FILE *file = fopen(path, "re");
    bool good = file && fscanf(file, "%" SCNu64, ret) == 1; /* "max" does not match */

    if (file)
        fclose(file);
    return good;
}

static void take_least(uint64_t *least, uint64_t value)
{
    if (value > 0 && value < *least)
        *least = value;
}

/* The path of this process in the hierarchy of `controller` ("" is cgroup v2); false when there is
 * none. */
static bool cgroup_path(const char *controller, char *path, size_t cap)
{
    char line[1024];
    bool found = false;
    FILE *file = fopen("/proc/self/cgroup", "re");

    while (file && !found && fgets(line, sizeof(line), file)) {
        char *name = strchr(line, ':');
        char *where = name ? strchr(name + 1, ':') : NULL;
        if (!where)
            continue;
        *where++ = '\0';
        where[strcspn(where, "\n")] = '\0';
        if (strcmp(name + 1, controller) == 0) {
            snprintf(path, cap, "%s", where);
            found = true;
        }
    }
    if (file)
        fclose(file);
    return found;
}

/* Least value of `file` over the process's group and all groups above it. */
static void cgroup_least(const char *mount, const char *controller, const char *file,
                         uint64_t *least)
{
    char group[1024];
    char path[1280];
    uint64_t value;

    if (!cgroup_path(controller, group, sizeof(group)))
        return;
    for (;;) {
        char *slash = strrchr(group, '/');
        snprintf(path, sizeof(path), "%s%s/%s", mount, strcmp(group, "/") == 0 ? "" : group, file);
        if (file_number(path, &value))
            take_least(least, value);
        if (!slash || group[0] == '\0')
            return;
        *slash = '\0'; /* last round: the root, with an empty group */
    }
}

static uint64_t environment_number(const char *name)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : 0;
}

uint64_t hm_memory_total_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t hm_memory_limit_bytes(void)
{
    const uint64_t mib = 1024 * 1024;
    uint64_t least = hm_memory_total_bytes();
    struct rlimit space;

    cgroup_least("/sys/fs/cgroup", "", "memory.max", &least);
    cgroup_least("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", &least);
    take_least(&least, environment_number("SLURM_MEM_PER_NODE") * mib);
    take_least(&least, environment_number("SLURM_MEM_PER_CPU") *
                           environment_number("SLURM_CPUS_ON_NODE") * mib);
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
        take_least(&least, space.rlim_cur);
    return least;
}

uint64_t hm_memory_available_bytes(void)
{
    char line[256];
    uint64_t kib;
    uint64_t used = hm_rss_bytes();
    uint64_t limit = hm_memory_limit_bytes();
    uint64_t available = limit > used ? limit - used : 0;
    FILE *file = fopen("/proc/meminfo", "re");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1 && kib * 1024 < available)
            available = kib * 1024;
    if (file)
        fclose(file);
    return available;
}

/* Cores that the quota of a cgroup v2 container grants, rounded up; 0 without a quota. */
static int quota_cores(void)
{
    uint64_t quota, period;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    bool good = file && fscanf(file, "%" SCNu64 " %" SCNu64, &quota, &period) == 2 && period > 0;

    if (file)
        fclose(file);
    return good ? (int)((quota + period - 1) / period) : 0;
}

int hm_cpu_count(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                             : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = quota_cores();

    if (quota > 0 && quota < count)
        count = quota;
    return count > 0 ? count : 1;
}
