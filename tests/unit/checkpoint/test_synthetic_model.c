/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/synthetic_model.c: folders of every layout open as a model's weights do, are the same
 * for the same seed, and stop when asked.
 */
#include "support/support.h"

#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/checkpoint/weight.h"

static char head[] = "lm_head", gate[] = "gate";
static char *skip[] = { head, gate };

static struct hm_arch arch_new(void)
{
    return (struct hm_arch){ .family = HM_FAMILY_MIXTRAL,
                             .hidden = 64,
                             .ffn = 128,
                             .layers = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .head_dim = 16,
                             .experts = 4,
                             .top_k = 2,
                             .vocab_size = 300,
                             .max_positions = 128,
                             .norm_eps = 1e-5,
                             .rope_theta = 1e4,
                             .bos_id = 1,
                             .eos_id = 2,
                             .dtype = HM_DTYPE_BF16,
                             .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 } };
}

/* Every weight of the architecture is there, finite, and 4-bit where it should be. */
static size_t open_all(const char *dir, const struct hm_arch *arch)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    size_t nf4 = 0;

    assert_ok(hm_checkpoint_open(dir, &ckpt, &err), err);
    assert_int_equal(ckpt.arch.vocab_size, arch->vocab_size);
    assert_int_equal(ckpt.arch.tied, arch->tied);
    for (size_t i = 0; i < hm_arch_slot_count(&ckpt.arch); i++) {
        struct hm_weight_slot slot;
        struct hm_weight *weight = NULL;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt.arch, i, &slot, name);
        assert_ok(hm_weight_open(&ckpt, &slot, &weight, &err), err);
        nf4 += hm_weight_is_nf4(weight);
        hm_weight_free(weight);
    }
    hm_checkpoint_close(&ckpt);
    return nf4;
}

static void test_layouts(void **state)
{
    struct hm_error err = { 0 };
    struct hm_arch arch = arch_new();
    size_t linears = 2 * (4 + 3 * 4);

    (void)state;
    assert_ok(hm_synthetic_make(tmp_path(test_dir, "nested"), &arch, 1, NULL, &err), err);
    assert_int_equal(open_all(tmp_path(test_dir, "nested"), &arch), linears);
    arch.quant.double_quant = false;
    arch.quant.n_skip = 0; /* the router, too */
    assert_ok(hm_synthetic_make(tmp_path(test_dir, "plain"), &arch, 1, NULL, &err), err);
    assert_int_equal(open_all(tmp_path(test_dir, "plain"), &arch), linears + 2);
    arch.quant = (struct hm_quant_config){ 0 };
    arch.dtype = HM_DTYPE_F32;
    arch.tied = true;
    assert_ok(hm_synthetic_make(tmp_path(test_dir, "dense"), &arch, 1, NULL, &err), err);
    assert_int_equal(open_all(tmp_path(test_dir, "dense"), &arch), 0);
}

static void test_same_bytes(void **state)
{
    struct hm_error err = { 0 };
    struct hm_arch arch = arch_new();
    char *text[3];
    size_t len[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        const char *dir = tmp_path(test_dir, "same%u", i);
        assert_ok(hm_synthetic_make(dir, &arch, i == 2 ? 8 : 7, NULL, &err), err);
        text[i] = file_get(tmp_path(dir, HM_MODEL_FILE), &len[i]);
    }
    assert_int_equal(len[0], len[1]);
    assert_memory_equal(text[0], text[1], len[0]);
    assert_int_equal(len[0], len[2]);
    assert_int_not_equal(memcmp(text[0], text[2], len[0]), 0);
    for (unsigned i = 0; i < 3; i++)
        hm_free(text[i]);
}

static void test_stops(void **state)
{
    static volatile sig_atomic_t stop = 1;
    const struct hm_ctl ctl = { .stop = &stop };
    struct hm_error err = { 0 };
    struct hm_arch arch = arch_new();

    (void)state;
    assert_fails(hm_synthetic_make(tmp_path(test_dir, "stopped"), &arch, 1, &ctl, &err),
                 HM_ERR_STOPPED, "stopped", err);
    assert_false(hm_path_exists(tmp_path(test_dir, "stopped/" HM_MODEL_FILE)));
}

static int attempt(void *context, struct hm_error *err)
{
    return hm_synthetic_make(tmp_path(test_dir, "oom"), context, 1, NULL, err);
}

static void test_oom(void **state)
{
    struct hm_arch arch = arch_new();

    (void)state;
    arch.layers = 1;
    arch.experts = 2;
    assert_true(oom_sweep(attempt, &arch) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_layouts),
                                        cmocka_unit_test(test_same_bytes),
                                        cmocka_unit_test(test_stops), cmocka_unit_test(test_oom) };

    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
