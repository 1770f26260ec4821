/* SPDX-License-Identifier: MIT */
/*
 * base/file_path.c: folders, globs, listings, free space.
 */
#include "support/support.h"

#include <unistd.h>

static void test_join(void **state)
{
    static const char *const cases[][3] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" },
        { "a", "/b", "/b" }, { "/", "b", "/b" },
    };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *path = NULL;
        assert_ok(hm_path_join(&path, cases[i][0], cases[i][1], &err), err);
        assert_string_equal(path, cases[i][2]);
        hm_free(path);
    }
}

static void test_tail(void **state)
{
    static const struct {
        const char *path, *tail;
        int names;
    } cases[] = {
        { "/a/b/c", "b/c", 2 },   { "/a/b/c", "c", 1 }, { "b/c", "b/c", 2 },   { "c", "c", 2 },
        { "/a/b/c/", "b/c/", 2 }, { "", "", 1 },        { "/b/c", "/b/c", 3 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(hm_path_tail(cases[i].path, cases[i].names), cases[i].tail);
}

static void test_holds(void **state)
{
    struct hm_error err = { 0 };
    bool found;

    file_put(tmp_path(*state, "train.hmp"), "x", 1);
    assert_ok(hm_dir_holds(*state, "train.hmp", &found, &err), err);
    assert_true(found);
    assert_ok(hm_dir_holds(*state, "valid.hmp", &found, &err), err);
    assert_false(found);
    assert_ok(hm_dir_holds_ending(*state, ".hmp", &found, &err), err);
    assert_true(found);
    assert_ok(hm_dir_holds_ending(*state, ".hmq", &found, &err), err);
    assert_false(found);
    assert_fails(hm_dir_holds_ending(tmp_path(*state, "none"), ".hmp", &found, &err), HM_ERR_USAGE,
                 "none", err);
}

static void test_make_and_remove(void **state)
{
    const char *outside = tmp_path(*state, "outside");
    struct hm_error err = { 0 };

    assert_ok(hm_dir_make(tmp_path(*state, "a/b//c/"), &err), err);
    assert_ok(hm_dir_make(tmp_path(*state, "a/b/c"), &err), err);
    assert_true(hm_path_is_dir(tmp_path(*state, "a/b/c")));
    file_put(tmp_path(*state, "a/b/file"), "x", 1);
    file_put(outside, "x", 1);
    assert_fails(hm_dir_make(tmp_path(*state, "outside/sub"), &err), HM_ERR_USAGE, "outside", err);
    assert_int_equal(symlink("..", tmp_path(*state, "a/b/up")), 0); /* must not be followed */
    assert_int_equal(symlink(outside, tmp_path(*state, "a/link")), 0);
    assert_ok(hm_dir_remove(tmp_path(*state, "a"), &err), err);
    assert_false(hm_path_exists(tmp_path(*state, "a")));
    assert_true(hm_path_exists(outside));
    assert_ok(hm_dir_remove(tmp_path(*state, "a"), &err), err);
    assert_ok(hm_dir_remove(outside, &err), err);
    assert_false(hm_path_exists(outside));
}

static void test_glob_is_sorted(void **state)
{
    static const char *const name[] = { "b.zst", "a10.zst", "a9.zst", "B.zst", "c.txt" };
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++)
        file_put(tmp_path(*state, "%s", name[i]), "", 0);
    assert_ok(hm_glob(tmp_path(*state, "*.zst"), &names, &err), err);
    assert_int_equal(names.count, 4);
    assert_string_equal(names.item[0], tmp_path(*state, "B.zst"));
    assert_string_equal(names.item[1], tmp_path(*state, "a10.zst"));
    assert_string_equal(names.item[2], tmp_path(*state, "a9.zst"));
    assert_string_equal(names.item[3], tmp_path(*state, "b.zst"));
    hm_names_release(&names);
    assert_fails(hm_glob(tmp_path(*state, "*.none"), &names, &err), HM_ERR_USAGE, "no file matches",
                 err);
    assert_null(names.item);
    file_put(tmp_path(*state, "odd[1].txt"), "", 0);
    assert_ok(hm_glob(tmp_path(*state, "odd[1].txt"), &names, &err),
              err); /* a name, not a pattern */
    assert_int_equal(names.count, 1);
    hm_names_release(&names);
    assert_ok(hm_dir_list(*state, &names, &err), err);
    assert_int_equal(names.count, 6);
    assert_string_equal(names.item[0], "B.zst");
    hm_names_release(&names);
    assert_fails(hm_dir_list(tmp_path(*state, "none"), &names, &err), HM_ERR_USAGE,
                 "does not exist", err);
}

static int list_attempt(void *context, struct hm_error *err)
{
    struct hm_names names = { 0 };
    int status = hm_dir_list(context, &names, err);

    hm_names_release(&names);
    return status;
}

static int glob_attempt(void *context, struct hm_error *err)
{
    struct hm_names names = { 0 };
    char *pattern = NULL;

    HM_TRY(hm_format(&pattern, err, "%s/*", (const char *)context));
    int status = hm_glob(pattern, &names, err);
    hm_free(pattern);
    hm_names_release(&names);
    return status;
}

static int make_attempt(void *context, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_format(&path, err, "%s/x/y/z", (const char *)context));
    int status = hm_dir_make(path, err);
    hm_free(path);
    return status;
}

static void test_without_memory(void **state)
{
    for (int i = 0; i < 5; i++)
        file_put(tmp_path(*state, "%d", i), "", 0);
    assert_true(oom_sweep(list_attempt, *state) >= 5);
    assert_true(oom_sweep(glob_attempt, *state) >= 5);
    assert_true(oom_sweep(make_attempt, *state) >= 2);
}

static void test_rename_and_free_space(void **state)
{
    struct hm_error err = { 0 };
    uint64_t bytes = 0;

    file_put(tmp_path(*state, "a"), "x", 1);
    assert_ok(hm_path_rename(tmp_path(*state, "a"), tmp_path(*state, "b"), &err), err);
    assert_true(hm_path_exists(tmp_path(*state, "b")));
    assert_fails(hm_path_rename(tmp_path(*state, "a"), tmp_path(*state, "c"), &err), HM_ERR_IO,
                 "rename", err);
    assert_ok(hm_disk_free(tmp_path(*state, "not/yet/made"), &bytes, &err), err);
    assert_true(bytes > 0);
    assert_ok(hm_disk_free("plain-name-that-is-not-there", &bytes, &err), err);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_dir_setup, test_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join),      cmocka_unit_test(test_tail), TEST(test_holds),
        TEST(test_make_and_remove),       TEST(test_glob_is_sorted),   TEST(test_without_memory),
        TEST(test_rename_and_free_space),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
