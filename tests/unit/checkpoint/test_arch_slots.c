/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/arch_slots.c: the slots of the recorded models are exactly the tensors of their files,
 * with the same shapes; counts of published models.
 */
#include "support/support.h"

#include "hanmix/checkpoint/checkpoint.h"

static void check_folder(const char *relative)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    struct hm_weight_slot slot;
    char module[HM_SLOT_NAME_BYTES], name[176], again[160];

    assert_ok(hm_checkpoint_open(golden_path(relative), &ckpt, &err), err);
    assert_int_equal(hm_arch_slot_count(&ckpt.arch), ckpt.count);
    for (size_t i = 0; i < ckpt.count; i++) {
        hm_arch_slot(&ckpt.arch, i, &slot, module);
        hm_arch_slot_name(&ckpt.arch, &slot, again);
        assert_string_equal(module, again);
        snprintf(name, sizeof name, "%s.weight", module);
        const struct hm_tensor *tensor = hm_checkpoint_find(&ckpt, name);
        if (!tensor)
            fail_msg("'%s' is not in %s", name, relative);
        assert_int_equal(tensor->shape[0], slot.rows);
        assert_int_equal(tensor->n_dims, slot.cols == 1 ? 1 : 2);
        if (slot.cols != 1)
            assert_int_equal(tensor->shape[1], slot.cols);
        assert_true(hm_text_ends(module, hm_weight_kind_name(&ckpt.arch, slot.kind)));
        assert_int_equal(hm_weight_kind_is_linear(slot.kind),
                         slot.cols != 1 && slot.kind != HM_WEIGHT_EMBED);
    }
    hm_checkpoint_close(&ckpt);
}

static void test_recorded(void **state)
{
    (void)state;
    check_folder("mixtral/model");
    check_folder("llama/untied-model");
    check_folder("llama/tied-model");
    check_folder("models/stories260K-llama-hf");
    check_folder("models/stories260K-mixtral-hf");
}

static void test_published(void **state)
{
    struct hm_arch mixtral = { .family = HM_FAMILY_MIXTRAL,
                               .hidden = 4096,
                               .ffn = 14336,
                               .layers = 32,
                               .heads = 32,
                               .kv_heads = 8,
                               .head_dim = 128,
                               .experts = 8,
                               .top_k = 2,
                               .vocab_size = 32000 };
    struct hm_arch llama = { .family = HM_FAMILY_LLAMA,
                             .hidden = 4096,
                             .ffn = 11008,
                             .layers = 32,
                             .heads = 32,
                             .kv_heads = 32,
                             .head_dim = 128,
                             .experts = 1,
                             .top_k = 1,
                             .vocab_size = 32000 };
    struct hm_weight_slot slot;
    char name[HM_SLOT_NAME_BYTES];

    (void)state;
    assert_int_equal(hm_arch_slot_count(&mixtral), 995);
    assert_int_equal(hm_arch_slot_count(&llama), 291);
    hm_arch_slot(&mixtral, 994, &slot, name);
    assert_string_equal(name, "lm_head");
    hm_arch_slot(&mixtral, 993, &slot, name);
    assert_string_equal(name, "model.norm");
    hm_arch_slot(&mixtral, 31 + 8, &slot, name);
    assert_string_equal(name, "model.layers.1.block_sparse_moe.experts.0.w1");
    assert_int_equal(slot.layer, 1);
    assert_int_equal(slot.rows, 14336);
    hm_arch_slot(&llama, 9, &slot, name);
    assert_string_equal(name, "model.layers.0.mlp.up_proj");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_published),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
