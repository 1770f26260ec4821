/* SPDX-License-Identifier: MIT */
/*
 * base/cpu.c: what is made of the answers of other CPUs and kernels, which stand here in the place
 * of base/cpu_leaves.c. A set of instructions counts when its registers are kept by the system and
 * those below it are there; tiles when the kernel grants them.
 */
#include "support/support.h"

#include <errno.h>

#include "base/cpu.c" /* its own copy, to judge more than once */

#define YMM (XCR0_YMM | 1u)
#define ZMM (XCR0_ZMM | 1u)
#define ALL (ZMM | XCR0_TILE)

static const struct hm_cpu_leaves server = { .c1 = 1u << 12 | 1u << 27 | 1u << 29,
                                             .b7 = 1u << 5 | 1u << 16 | 1u << 17 | 3u << 30,
                                             .c7 = 1u << 1,
                                             .d7 = 1u << 22 | 1u << 24,
                                             .a71 = 1u << 5,
                                             .xcr0 = ALL };
#define UP_TO_BF16 (HM_CPU_AVX2 | HM_CPU_AVX512 | HM_CPU_AVX512VBMI | HM_CPU_AVX512BF16)

static struct hm_cpu_leaves answer;
static bool answers;
static int refusal;
static unsigned asked;

bool hm_cpu_leaves_read(struct hm_cpu_leaves *ret_leaves)
{
    if (answers)
        *ret_leaves = answer;
    return answers;
}

bool hm_cpu_brand_read(char name[64])
{
    (void)name;
    return false;
}

int hm_cpu_tiles_request(void)
{
    asked++;
    return refusal;
}

static void assert_flags(unsigned flags, bool asks, const char *text)
{
    asked = 0;
    assert_int_equal(flags_detect(), flags);
    assert_int_equal(asked, asks);
    if (text)
        assert_string_equal(tiles_text, text);
}

static int fresh(void **state)
{
    (void)state;
    answer = server;
    answers = true;
    refusal = 0;
    return 0;
}

static void test_tiles(void **state)
{
    (void)state;
    assert_flags(UP_TO_BF16 | HM_CPU_AMX_BF16, true, "granted by the kernel");
    refusal = EPERM;
    assert_flags(UP_TO_BF16, true,
                 "refused by the kernel (Operation not permitted; needs Linux 5.16)");
    refusal = EINVAL; /* what kernels say that do not know the call */
    assert_flags(UP_TO_BF16, true, "refused by the kernel (Invalid argument; needs Linux 5.16)");
    refusal = 0;
    answer.xcr0 = ZMM;
    assert_flags(UP_TO_BF16, false, "not enabled by the system");
}

static void test_lesser(void **state)
{
    (void)state;
    answer.d7 = 1u << 24; /* tiles, but none of bf16 */
    assert_flags(UP_TO_BF16, false, NULL);
    answer.a71 = 0;
    assert_flags(UP_TO_BF16 & ~(unsigned)HM_CPU_AVX512BF16, false, NULL);
    answer.c7 = 0;
    assert_flags(HM_CPU_AVX2 | HM_CPU_AVX512, false, NULL);
    answer.xcr0 = YMM; /* the system does not keep zmm */
    assert_flags(HM_CPU_AVX2, false, NULL);
    answer.xcr0 = 1;
    assert_flags(0, false, NULL);
    answer = server;
    answer.b7 &= ~(1u << 30); /* no bw */
    assert_flags(HM_CPU_AVX2, false, NULL);
    answer.c1 &= ~(1u << 12); /* no fma */
    assert_flags(0, false, NULL);
    answers = false;
    assert_flags(0, false, NULL);
    assert_string_equal(hm_cpu_model(), "unknown");
    assert_int_equal(hm_cpu_flags(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup(test_tiles, fresh),
                                        cmocka_unit_test_setup(test_lesser, fresh) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
