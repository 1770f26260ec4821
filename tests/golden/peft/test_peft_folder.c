/* SPDX-License-Identifier: MIT */
/*
 * Adapters that PEFT wrote: loaded with their values, saved again with the same tensors, whatever
 * form they came in.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/model/peft_folder.h"

static struct hm_checkpoint ckpt;
static char *dir;

static int setup(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_checkpoint_open(golden_path("mixtral/model"), &ckpt, &err), err);
    dir = tmp_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    hm_checkpoint_close(&ckpt);
    tmp_release(dir);
    return 0;
}

static struct hm_adapter *load(const char *name)
{
    struct hm_adapter *adapter = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_load(name, &ckpt, false, &adapter, &err), err);
    return adapter;
}

/* Every tensor of ours is a tensor of theirs, with the same bits as F32, and none is missing. */
static void compare_files(const char *ours_dir, const char *theirs_dir, size_t extra)
{
    struct hm_safetensors ours = { 0 }, theirs = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_safetensors_open(tmp_path(ours_dir, "adapter_model.safetensors"), &ours, &err),
              err);
    assert_ok(hm_safetensors_open(tmp_path(theirs_dir, "adapter_model.safetensors"), &theirs, &err),
              err);
    assert_int_equal(ours.count + extra, theirs.count);
    for (size_t i = 0; i < ours.count; i++) {
        const struct hm_tensor *a = &ours.tensor[i];
        const struct hm_tensor *b = hm_safetensors_find(&theirs, a->name);
        float *values;
        if (!b)
            fail_msg("'%s' is not in '%s'", a->name, theirs_dir);
        assert_int_equal(a->dtype, HM_DTYPE_F32);
        assert_int_equal(a->n_dims, 2);
        assert_int_equal(a->shape[0], b->shape[0]);
        assert_int_equal(a->shape[1], b->shape[1]);
        values = hm_alloc_array(HM_MEM_OTHER, b->count, sizeof(float));
        assert_ok(hm_dtype_to_f32(b->dtype, b->data, b->count, values, &err), err);
        assert_memory_equal(a->data, values, b->count * sizeof(float));
        hm_free(values);
    }
    hm_safetensors_close(&ours);
    hm_safetensors_close(&theirs);
}

static void round_trip(const char *name, size_t extra)
{
    struct hm_adapter *adapter, *again;
    struct hm_error err = { 0 };
    char theirs[512];

    snprintf(theirs, sizeof theirs, "%s", golden_path(name));
    adapter = load(theirs);
    assert_ok(hm_adapter_save(adapter, &ckpt, "../base", tmp_path(dir, "%s", name), &err), err);
    compare_files(tmp_path(dir, "%s", name), theirs, extra);
    again = load(tmp_path(dir, "%s", name));
    assert_int_equal(adapter->n_params, again->n_params);
    assert_int_equal(adapter->n_lora, again->n_lora);
    for (size_t i = 0; i < adapter->n_params; i++) {
        const struct hm_param *a = &adapter->param[i], *b = &again->param[i];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->kind, b->kind);
        assert_memory_equal(a->value, b->value, (size_t)a->rows * a->cols * sizeof(float));
    }
    assert_memory_equal(adapter->lora, again->lora, adapter->n_lora * sizeof *adapter->lora);
    assert_memory_equal(adapter->matched, again->matched, sizeof adapter->matched);
    hm_adapter_free(adapter);
    hm_adapter_free(again);
}

static void test_adapter(void **state)
{
    struct hm_adapter *adapter = load(golden_path("peft/adapter"));

    (void)state;
    assert_int_equal(adapter->n_lora, 2 * (4 + 12));
    assert_int_equal(adapter->n_params, 2 * 2 * (4 + 12) + 2);
    assert_int_equal(adapter->param[0].kind, HM_PARAM_EMBED);
    assert_int_equal(adapter->param[adapter->n_params - 1].kind, HM_PARAM_HEAD);
    assert_int_equal(adapter->matched[HM_WEIGHT_W2], 8);
    assert_int_equal(adapter->matched[HM_WEIGHT_GATE], 0);
    for (size_t i = 0; i < adapter->n_lora; i++) {
        assert_int_equal(adapter->lora[i].rank, 8);
        assert_true(adapter->lora[i].scale == 2.0F);
    }
    hm_adapter_free(adapter);
    round_trip("peft/adapter", 0);
}

static void test_rslora(void **state)
{
    struct hm_adapter *adapter = load(golden_path("peft/adapter_rslora"));

    (void)state;
    for (size_t i = 0; i < adapter->n_lora; i++) {
        const struct hm_lora *lora = &adapter->lora[i];
        const char *name = adapter->param[lora->a].name;
        uint32_t rank = strstr(name, "o_proj") ? 16 : strstr(name, "w2") ? 4 : 8;
        double alpha = strstr(name, "w2") ? 12 : 16;
        assert_int_equal(lora->rank, rank);
        assert_true(lora->scale == (float)(alpha / sqrt(rank)));
    }
    hm_adapter_free(adapter);
    round_trip("peft/adapter_rslora", 0);
}

static void test_copies(void **state)
{
    (void)state;
    round_trip("peft/adapter_with_copies", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_rslora),
        cmocka_unit_test(test_copies),
    };
    return cmocka_run_group_tests_name("peft_folder", tests, setup, teardown);
}
