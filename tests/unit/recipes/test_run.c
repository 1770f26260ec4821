/* SPDX-License-Identifier: MIT */
/*
 * recipes/engine: digests that are remembered, plans, runs and run folders, with every allocation
 * failing in turn. What users see of runs is tested through the program, in tests/cli/engine_*.sh.
 */
#include "support/support.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "../../../recipes/engine/digest_cache.h"
#include "hanmix/recipes/run.h"

static const char recipe_text[] =
    "stages:\n"
    "- {id: use, stage: test.use, in: {tokenizer: $zh, adapter: $lora}}\n"
    "- {id: zh, stage: test.make, in: {text: {a: 'a*.txt', b: b.txt}}, set: {from: b.txt}}\n"
    "- {id: lora, stage: test.train, in: {tokenizer: $zh}}\n";

static void put_text(const char *dir)
{
    file_put(tmp_path(dir, "a1.txt"), "1", 1);
    file_put(tmp_path(dir, "a2.txt"), "2", 1);
    file_put(tmp_path(dir, "b.txt"), "3", 1);
    file_put(tmp_path(dir, "r.yaml"), recipe_text, strlen(recipe_text));
}

static int load(const char *dir, struct hm_recipe *recipe, struct hm_error *err)
{
    return hm_recipe_load(tmp_path(dir, "r.yaml"), NULL, 0, tmp_path(dir, "run"), recipe, err);
}

/* --- digests --- */

static void make_old(const char *path)
{
    struct timespec times[2] = { { 1000000000, 5 }, { 1000000000, 5 } };

    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_digest_cache(void **state)
{
    char *dir = tmp_new();
    const char *file = tmp_path(dir, "f"), *saved = tmp_path(dir, "cache.json");
    struct hm_digest_cache cache = { 0 };
    struct hm_error err = { 0 };
    char first[HM_SHA256_HEX_BYTES], again[HM_SHA256_HEX_BYTES];

    (void)state;
    file_put(file, "abc", 3);
    make_old(file);
    assert_ok(hm_digest_cache_load(NULL, &cache, &err), err);
    assert_ok(hm_digest_file(&cache, file, NULL, NULL, first, &err), err);
    assert_string_equal(first, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(hm_digest_cache_save(&cache, saved, &err), err);
    hm_digest_cache_release(&cache);

    file_put(file, "xyz", 3); /* the same size and inode, another time */
    assert_ok(hm_digest_cache_load(saved, &cache, &err), err);
    assert_ok(hm_digest_file(&cache, file, NULL, NULL, again, &err), err);
    assert_string_not_equal(again, first);
    assert_true(cache.changed);
    hm_digest_cache_release(&cache);

    /* A cache that is broken or not there is an empty one. */
    file_put(saved, "[1, 2", 5);
    assert_ok(hm_digest_cache_load(saved, &cache, &err), err);
    assert_int_equal(json_object_size(cache.entries), 0);
    assert_fails(hm_digest_file(&cache, tmp_path(dir, "none"), NULL, NULL, again, &err),
                 HM_ERR_USAGE, "none", err);
    hm_digest_cache_release(&cache);
    tmp_release(dir);
}

static void test_digest_recalled(void **state)
{
    char *dir = tmp_new();
    const char *file = tmp_path(dir, "f");
    struct hm_digest_cache cache = { 0 };
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES];

    (void)state;
    file_put(file, "abc", 3);
    make_old(file);
    assert_ok(hm_digest_cache_load(NULL, &cache, &err), err);
    assert_ok(hm_digest_file(&cache, file, NULL, NULL, hex, &err), err);
    cache.changed = false;
    assert_ok(hm_digest_file(&cache, file, NULL, NULL, hex, &err), err);
    assert_false(cache.changed);
    hm_digest_cache_release(&cache);
    tmp_release(dir);
}

/* Each file counts once, one whose digest is known not at all. */
static void test_digest_unread_bytes(void **state)
{
    char *dir = tmp_new();
    struct hm_digest_cache cache = { 0 };
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES];
    uint64_t bytes = 5;

    (void)state;
    file_put(tmp_path(dir, "known"), "abc", 3);
    make_old(tmp_path(dir, "known"));
    file_put(tmp_path(dir, "new"), "abcd", 4);
    file_put(tmp_path(dir, ".hidden"), "abcdef", 6);
    assert_ok(hm_digest_cache_load(NULL, &cache, &err), err);
    assert_ok(hm_digest_file(&cache, tmp_path(dir, "known"), NULL, NULL, hex, &err), err);
    assert_ok(hm_digest_unread_bytes(&cache, dir, &bytes, &err), err);
    assert_int_equal(bytes, 5 + 4);
    assert_ok(hm_digest_unread_bytes(&cache, tmp_path(dir, "new"), &bytes, &err), err);
    assert_int_equal(bytes, 5 + 4);
    assert_fails(hm_digest_unread_bytes(&cache, tmp_path(dir, "none"), &bytes, &err), HM_ERR_USAGE,
                 "none", err);
    hm_digest_cache_release(&cache);
    tmp_release(dir);
}

static void test_digest_folder(void **state)
{
    char *dir = tmp_new();
    struct hm_digest_cache cache = { 0 };
    struct hm_error err = { 0 };
    char first[HM_SHA256_HEX_BYTES], again[HM_SHA256_HEX_BYTES];

    (void)state;
    assert_ok(hm_dir_make(tmp_path(dir, "m/sub"), &err), err);
    file_put(tmp_path(dir, "m/a"), "1", 1);
    file_put(tmp_path(dir, "m/sub/b"), "2", 1);
    assert_ok(hm_digest_cache_load(NULL, &cache, &err), err);
    assert_ok(hm_digest_path(&cache, tmp_path(dir, "m"), NULL, first, &err), err);
    const char lines[] = /* the definition, written out */
        "a\t1\t6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b\n"
        "sub/b\t1\td4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35\n";
    assert_ok(hm_sha256_of(lines, strlen(lines), again, &err), err);
    assert_string_equal(first, again);
    file_put(tmp_path(dir, "m/.hidden"), "x", 1);
    file_put(tmp_path(dir, "m/stage.json"), "x", 1);
    file_put(tmp_path(dir, "m/report.json"), "x", 1);
    assert_ok(hm_digest_path(&cache, tmp_path(dir, "m"), NULL, again, &err), err);
    assert_string_equal(first, again);
    file_put(tmp_path(dir, "m/sub/report.json"), "x", 1);
    assert_ok(hm_digest_path(&cache, tmp_path(dir, "m"), NULL, again, &err), err);
    assert_string_not_equal(first, again);
    hm_digest_cache_release(&cache);
    tmp_release(dir);
}

/* --- plans --- */

static void test_plan(void **state)
{
    char *dir = tmp_new();
    struct hm_recipe recipe = { 0 };
    struct hm_run_plan plan = { 0 };
    struct hm_error err = { 0 };
    uint64_t sum = 0;

    (void)state;
    put_text(dir);
    assert_ok(load(dir, &recipe, &err), err);
    assert_ok(hm_run_plan_make(&recipe, 1, NULL, &plan, &err), err);
    assert_int_equal(plan.n_stages, 3);
    assert_string_equal(recipe.stage[1].id, "lora");
    for (size_t i = 0; i < plan.stage[1].plan.n_memory; i++)
        sum += plan.stage[1].plan.memory[i].bytes;
    assert_true(sum == plan.stage[1].memory_bytes);
    assert_true(plan.stage[1].mapped_bytes == 64u << 20);
    assert_int_equal(plan.memory_stage, 1);
    assert_true(plan.memory_bytes == sum);
    assert_true(plan.memory_unmapped_bytes == sum - (64u << 20));
    struct hm_fit_limits limits = { .memory_bytes = 50u << 20, .last = SIZE_MAX };
    assert_fails(hm_run_plan_fits(&recipe, &plan, &limits, &err), HM_ERR_NOFIT,
                 "weights 64.0 MiB, activations 32.0 MiB", err);
    limits.first = 2;
    assert_ok(hm_run_plan_fits(&recipe, &plan, &limits, &err), err);
    limits = (struct hm_fit_limits){ .memory_bytes = 1u << 30, .machine = true, .last = SIZE_MAX };
    assert_ok(hm_run_plan_fits(&recipe, &plan, &limits, &err), err);
    assert_false(hm_path_exists(tmp_path(dir, "run")));
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    tmp_release(dir);
}

/* --- allocation failures --- */

static int attempt_plan(void *context, struct hm_error *err)
{
    struct hm_recipe recipe = { 0 };
    struct hm_run_plan plan = { 0 };
    json_t *value = NULL;

    HM_TRY(load(context, &recipe, err));
    int status = hm_run_plan_make(&recipe, 1, NULL, &plan, err);
    if (status == HM_OK)
        status = hm_run_plan_json(&recipe, &plan, &value, err);
    json_decref(value);
    hm_run_plan_release(&plan);
    hm_recipe_release(&recipe);
    return status;
}

static int attempt_run(void *context, struct hm_error *err)
{
    struct hm_recipe recipe = { 0 };
    struct hm_run_options options = { .threads = 1 };

    HM_TRY(load(context, &recipe, err));
    int status = hm_run(&recipe, &options, err);
    hm_recipe_release(&recipe);
    return status;
}

static int attempt_status(void *context, struct hm_error *err)
{
    struct hm_run_status status = { 0 };
    struct hm_verify_report report = { 0 };

    HM_TRY(hm_run_status_read(context, &status, err));
    int r = hm_run_verify(context, NULL, &report, err);
    hm_run_status_release(&status);
    return r;
}

static void test_allocation_failures(void **state)
{
    char *dir = tmp_new();

    (void)state;
    put_text(dir);
    assert_true(oom_sweep(attempt_plan, dir) > 50);
    /* A run that fails anywhere leaves a folder in which the next one succeeds. */
    assert_true(oom_sweep(attempt_run, dir) > 50);
    assert_true(hm_path_exists(tmp_path(dir, "run/use/used.txt")));
    assert_true(oom_sweep(attempt_plan, dir) > 50);
    assert_true(oom_sweep(attempt_status, (void *)(uintptr_t)tmp_path(dir, "run")) > 20);
    tmp_release(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digest_cache),  cmocka_unit_test(test_digest_recalled),
        cmocka_unit_test(test_digest_folder), cmocka_unit_test(test_digest_unread_bytes),
        cmocka_unit_test(test_plan),          cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
