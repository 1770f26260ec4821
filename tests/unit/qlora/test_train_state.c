/* SPDX-License-Identifier: MIT */
/*
 * qlora/train_state.c: what is saved comes back to the bit, damaged and foreign states, how many
 * are kept.
 */
#include "support/support.h"

#include <unistd.h>

#include "hanmix/base/rng.h"
#include "train_state.h"

#define N_PARAMS 2

static char name_a[] = "base_model.model.x.lora_A.weight",
            name_b[] = "base_model.model.x.lora_B.weight";

struct fixture {
    char *dir;
    struct hm_adapter adapter;
    struct hm_param param[N_PARAMS];
    float value[N_PARAMS][12];
    struct hm_kernels kernels;
    struct hm_optimizer *optimizer;
    struct hm_train_identity identity;
    char said[512];
};

static void randomise(struct fixture *f, uint64_t stream)
{
    for (size_t i = 0; i < N_PARAMS * 12; i++) {
        struct hm_rng_key key = { 1, stream };
        f->value[i / 12][i % 12] = (float)hm_rng_normal(key, i);
        f->optimizer->moments[i / 12].first[i % 12] = (float)hm_rng_normal(key, 100 + i);
        f->optimizer->moments[i / 12].second[i % 12] = (float)hm_rng_uniform(key, 200 + i);
    }
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct hm_optimizer_config config = { 0.9, 0.95, 1e-8, 0, 0, false, false };
    struct hm_error err = { 0 };

    f->dir = tmp_new();
    hm_kernels_reference(&f->kernels);
    f->adapter.param = f->param;
    f->adapter.n_params = N_PARAMS;
    for (size_t i = 0; i < N_PARAMS; i++)
        f->param[i] = (struct hm_param){
            .name = i ? name_b : name_a, .rows = i ? 4 : 3, .cols = i ? 3 : 4, .value = f->value[i]
        };
    assert_ok(hm_optimizer_new(&f->adapter, &f->kernels, &config, &f->optimizer, &err), err);
    f->identity = (struct hm_train_identity){ "digest-of-the-settings", "ref", false };
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    hm_optimizer_free(f->optimizer);
    tmp_release(f->dir);
    free(f);
    return 0;
}

static struct hm_train_cursor save(struct fixture *f, uint64_t step, uint64_t keep)
{
    struct hm_train_cursor cursor = { step, step * 64, step * 2, step % 2 == 1,
                                      1.0 / (double)step };
    struct hm_error err = { 0 };

    randomise(f, step);
    f->optimizer->updates = step;
    assert_ok(hm_train_state_save(f->dir, f->optimizer, &cursor, &f->identity, keep, false, &err),
              err);
    return cursor;
}

static void on_message(void *context, const char *sentence)
{
    struct fixture *f = context;
    snprintf(f->said, sizeof(f->said), "%s", sentence);
}

static int load(struct fixture *f, struct hm_train_cursor *cursor, struct hm_error *err)
{
    struct hm_ctl ctl = { .message = on_message, .context = f };

    f->said[0] = '\0';
    return hm_train_state_load(f->dir, f->optimizer, &f->identity, &ctl, cursor, err);
}

static void assert_is_state(struct fixture *f, uint64_t step)
{
    struct hm_train_cursor cursor = { 0 };
    struct hm_error err = { 0 };
    float value[N_PARAMS][12], moments[N_PARAMS][2][12];

    randomise(f, step);
    for (size_t i = 0; i < N_PARAMS; i++) {
        memcpy(value[i], f->value[i], sizeof(value[i]));
        memcpy(moments[i][0], f->optimizer->moments[i].first, sizeof(value[i]));
        memcpy(moments[i][1], f->optimizer->moments[i].second, sizeof(value[i]));
    }
    randomise(f, 999);
    assert_ok(load(f, &cursor, &err), err);
    assert_int_equal(cursor.step, step);
    assert_int_equal(cursor.tokens, step * 64);
    assert_int_equal(cursor.position, step * 2);
    assert_int_equal(cursor.evaluated, step % 2 == 1);
    assert_true(cursor.loss == 1.0 / (double)step);
    assert_int_equal(f->optimizer->updates, step);
    for (size_t i = 0; i < N_PARAMS; i++) {
        assert_memory_equal(f->value[i], value[i], sizeof(value[i]));
        assert_memory_equal(f->optimizer->moments[i].first, moments[i][0], sizeof(value[i]));
        assert_memory_equal(f->optimizer->moments[i].second, moments[i][1], sizeof(value[i]));
    }
}

static void test_round_trip(void **state)
{
    struct fixture *f = *state;
    struct hm_train_cursor cursor = { .step = 7 };
    struct hm_error err = { 0 };

    assert_ok(load(f, &cursor, &err), err);
    assert_int_equal(cursor.step, 0); /* nothing there */
    save(f, 3, 0);
    assert_is_state(f, 3);
    save(f, 20, 0);
    save(f, 100, 0); /* newest by number, not by name */
    assert_is_state(f, 100);
    save(f, 100, 0); /* writing over it */
    assert_is_state(f, 100);
    assert_string_equal(f->said, "");
}

static void test_keep(void **state)
{
    struct fixture *f = *state;

    for (uint64_t step = 1; step <= 5; step++)
        save(f, step, 2);
    for (uint64_t step = 1; step <= 5; step++)
        assert_int_equal(hm_path_exists(tmp_path(f->dir, "state-%u", (unsigned)step)), step >= 4);
    save(f, 6, 0);
    assert_true(hm_path_exists(tmp_path(f->dir, "state-4")));
    assert_is_state(f, 6);
}

/* Unfinished folders and names that only look alike do not count. */
static void test_unfinished(void **state)
{
    struct fixture *f = *state;
    struct hm_error err = { 0 };

    save(f, 2, 0);
    save(f, 4, 0);
    unlink(tmp_path(f->dir, "state-4/DONE"));
    assert_is_state(f, 2);
    assert_ok(hm_path_rename(tmp_path(f->dir, "state-2"), tmp_path(f->dir, "state-02"), &err), err);
    struct hm_train_cursor cursor;
    assert_ok(load(f, &cursor, &err), err);
    assert_int_equal(cursor.step, 0);
    save(f, 4, 1);
    assert_is_state(f, 4);
}

static void damage(const char *path, size_t at, char change)
{
    size_t len;
    char *data = file_get(path, &len);

    data[at < len ? at : len - 1] ^= change;
    file_put(path, data, len);
    hm_free(data);
}

static void test_damaged_states_are_passed_over(void **state)
{
    struct fixture *f = *state;
    struct hm_train_cursor cursor;
    struct hm_error err = { 0 };

    save(f, 2, 0);
    save(f, 4, 0);
    damage(tmp_path(f->dir, "state-4/state.safetensors"), SIZE_MAX, 1);
    assert_is_state(f, 2);
    assert_non_null(strstr(f->said, "state-4"));
    assert_non_null(strstr(f->said, "passed over"));
    save(f, 4, 0);
    damage(tmp_path(f->dir, "state-4/state.json"), 3, 8);
    assert_is_state(f, 2);
    save(f, 4, 0);
    unlink(tmp_path(f->dir, "state-4/state.safetensors"));
    assert_is_state(f, 2);
    assert_non_null(strstr(f->said, "does not exist"));
    save(f, 4, 0);
    file_put(tmp_path(f->dir, "state-4/DONE"), "", 0);
    assert_is_state(f, 2);
    save(f, 4, 0); /* a state under another's name */
    assert_ok(hm_path_rename(tmp_path(f->dir, "state-4"), tmp_path(f->dir, "state-5"), &err), err);
    assert_fails(load(f, &cursor, &err), HM_ERR_FORMAT, "of step 4", err);
    assert_ok(hm_dir_remove(tmp_path(f->dir, "state-5"), &err), err);
    damage(tmp_path(f->dir, "state-2/DONE"), 0, 1);
    assert_ok(load(f, &cursor, &err), err);
    assert_int_equal(cursor.step, 0);
}

static void test_foreign_states_are_refused(void **state)
{
    struct fixture *f = *state;
    struct hm_train_cursor cursor;
    struct hm_error err = { 0 };
    char name[HM_KERNELS_NAME_BYTES];

    assert_ok(hm_train_state_kernels(f->dir, name, &err), err);
    assert_string_equal(name, "");
    save(f, 2, 0);
    assert_ok(hm_train_state_kernels(f->dir, name, &err), err);
    assert_string_equal(name, "ref");
    f->identity.kernels = "avx2";
    assert_fails(load(f, &cursor, &err), HM_ERR_USAGE, "kernel path 'ref', this run uses 'avx2'",
                 err);
    f->identity.allow_kernel_change = true;
    assert_is_state(f, 2);
    f->identity.config_digest = "another";
    assert_fails(load(f, &cursor, &err), HM_ERR_USAGE, "other settings or inputs", err);
    assert_ok(hm_train_state_kernels(tmp_path(f->dir, "none"), name, &err), err);
    assert_string_equal(name, "");
}

/* Other trainables under the same digest: nothing of the state is taken over. */
static void test_other_shapes(void **state)
{
    struct fixture *f = *state;
    struct hm_train_cursor cursor;
    struct hm_error err = { 0 };

    save(f, 2, 0);
    f->param[1].rows = 3;
    f->param[1].cols = 4;
    randomise(f, 50);
    float before = f->value[0][0];
    assert_fails(load(f, &cursor, &err), HM_ERR_FORMAT, "expected [3, 4]", err);
    assert_true(f->value[0][0] == before);
}

/* Moments in 8 bits: codes and scales come back; a state of f32 moments is not taken for one. */
static void test_coded_moments(void **state)
{
    enum { COUNT = 5000, BLOCKS = (COUNT + HM_BLOCK8 - 1) / HM_BLOCK8 };
    const struct hm_optimizer_config config = {
        .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .coded = true
    };
    struct fixture *f = *state;
    struct hm_train_cursor cursor = { .step = 1 };
    struct hm_optimizer *optimizer = NULL;
    struct hm_error err = { 0 };
    float value[2][COUNT], grad[COUNT];
    struct hm_param param = {
        .name = name_a, .rows = COUNT / 8, .cols = 8, .value = value[0], .grad = grad
    };
    struct hm_adapter adapter = { .param = &param, .n_params = 1 };

    for (size_t i = 0; i < COUNT; i++)
        grad[i] = value[0][i] = (float)hm_rng_normal((struct hm_rng_key){ 1, 2 }, i);
    assert_ok(hm_optimizer_new(&adapter, &f->kernels, &config, &optimizer, &err), err);
    const struct hm_moments8 *coded = &optimizer->moments[0].coded;
    hm_optimizer_update(optimizer, 0.1, 1);
    assert_ok(hm_train_state_save(f->dir, optimizer, &cursor, &f->identity, 0, false, &err), err);
    hm_optimizer_update(optimizer, 0.1, 1); /* what comes after the state */
    uint8_t m[COUNT], v[COUNT];
    float absmax[BLOCKS];
    memcpy(m, coded->m, COUNT);
    memcpy(v, coded->v, COUNT);
    memcpy(absmax, coded->v_absmax, sizeof(absmax));
    memcpy(value[1], value[0], sizeof(value[1]));
    memset(coded->m_absmax, 1, sizeof(absmax)); /* the state comes back, and the same after it */
    memset(coded->v_absmax, 2, sizeof(absmax));
    memset(coded->m, 3, COUNT);
    memset(coded->v, 4, COUNT);
    assert_ok(hm_train_state_load(f->dir, optimizer, &f->identity, NULL, &cursor, &err), err);
    assert_int_equal(optimizer->updates, 1);
    hm_optimizer_update(optimizer, 0.1, 1);
    assert_memory_equal(coded->m, m, COUNT);
    assert_memory_equal(coded->v, v, COUNT);
    assert_memory_equal(coded->v_absmax, absmax, sizeof(absmax));
    assert_memory_equal(value[0], value[1], sizeof(value[0]));
    save(f, 2, 0);
    assert_fails(hm_train_state_load(f->dir, optimizer, &f->identity, NULL, &cursor, &err),
                 HM_ERR_FORMAT, "tensors", err);
    hm_optimizer_free(optimizer);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct fixture *f = context;
    struct hm_train_cursor cursor = { 2, 128, 4, false, 0.5 };
    char name[HM_KERNELS_NAME_BYTES];

    HM_TRY(hm_train_state_save(f->dir, f->optimizer, &cursor, &f->identity, 1, false, err));
    HM_TRY(hm_train_state_load(f->dir, f->optimizer, &f->identity, NULL, &cursor, err));
    return hm_train_state_kernels(f->dir, name, err);
}

static void test_out_of_memory(void **state)
{
    assert_true(oom_sweep(oom_attempt, *state) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_keep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unfinished, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_states_are_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_states_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_shapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_coded_moments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
