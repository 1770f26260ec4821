/* SPDX-License-Identifier: MIT */
/*
 * base/file_write.c: the old file or the whole new one, on success, failure, full disk and kill.
 */
#include "support/support.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int teardown(void **state)
{
    chmod(*state, 0700);
    return test_dir_teardown(state);
}

static size_t entries(const char *dir)
{
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_dir_list(dir, &names, &err), err);
    size_t count = names.count;
    hm_names_release(&names);
    return count;
}

static void assert_content(const char *path, const char *expected)
{
    char *text = file_get(path, NULL);

    assert_string_equal(text, expected);
    hm_free(text);
}

static void test_write_replaces(void **state)
{
    const char *path = tmp_path(*state, "out");
    struct hm_error err = { 0 };

    assert_ok(hm_file_write(path, "one", 3, &err), err);
    assert_ok(hm_file_write(path, "two!", 4, &err), err);
    assert_content(path, "two!");
    assert_int_equal(entries(*state), 1);
}

static void test_write_in(void **state)
{
    struct hm_out_file file = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_file_write_in(*state, "out", "one", 3, &err), err);
    assert_content(tmp_path(*state, "out"), "one");
    assert_ok(hm_out_open_in(*state, "out", &file, &err), err);
    assert_ok(hm_out_end(&file, hm_out_printf(&file, &err, "%d", 2), &err), err);
    assert_content(tmp_path(*state, "out"), "2");
    assert_ok(hm_out_open_in(*state, "out", &file, &err), err);
    assert_int_equal(hm_out_end(&file, HM_ERR_FORMAT, &err), HM_ERR_FORMAT);
    assert_content(tmp_path(*state, "out"), "2");
    assert_int_equal(entries(*state), 1);
    assert_fails(hm_file_write_in(*state, "none/out", "one", 3, &err), HM_ERR_IO, "none/out", err);
}

static void test_stream(void **state)
{
    const char *path = tmp_path(*state, "out");
    const size_t large = 700000; /* more than the buffer */
    char *block = hm_alloc(HM_MEM_OTHER, large);
    struct hm_out_file file = { 0 };
    struct hm_error err = { 0 };
    size_t len;

    memset(block, 'z', large);
    assert_ok(hm_out_open(path, &file, &err), err);
    for (int i = 0; i < 100000; i++)
        assert_ok(hm_out_printf(&file, &err, "%05d\n", i), err);
    assert_ok(hm_out_write(&file, block, large, &err), err);
    block[2000] = '\0';
    assert_ok(hm_out_printf(&file, &err, "%s", block), err); /* longer than the stack buffer */
    assert_int_equal(file.written_bytes, 600000 + large + 2000);
    assert_false(hm_path_exists(path));
    assert_ok(hm_out_commit(&file, &err), err);
    char *text = file_get(path, &len);
    assert_int_equal(len, 600000 + large + 2000);
    for (int i = 0; i < 100000; i += 777)
        assert_int_equal(atoi(text + 6 * i), i);
    assert_int_equal(text[len - 1], 'z');
    hm_free(text);
    hm_free(block);
}

static void test_abort_leaves_the_old_file(void **state)
{
    const char *path = tmp_path(*state, "out");
    struct hm_out_file file = { 0 };
    struct hm_error err = { 0 };

    file_put(path, "old", 3);
    assert_ok(hm_out_open(path, &file, &err), err);
    assert_ok(hm_out_write(&file, "new", 3, &err), err);
    hm_out_abort(&file);
    hm_out_abort(&file);
    assert_content(path, "old");
    assert_int_equal(entries(*state), 1);
}

/* In a child: write more than the file size limit lets through; exit 0 when it failed as it should.
 */
static void child_writes_too_much(const char *path)
{
    const struct rlimit limit = { 300000, 300000 };
    struct hm_error err = { 0 };
    size_t len = 1 << 20;
    char *block = hm_calloc(HM_MEM_OTHER, 1, len);

    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    int status = hm_file_write(path, block, len, &err);
    _exit(status == HM_ERR_IO && strstr(err.text, "out.tmp") && strstr(err.text, "too large") ? 0
                                                                                              : 1);
}

static void test_full_disk_leaves_the_old_file(void **state)
{
    const char *path = tmp_path(*state, "out");
    int exit_state = -1;

    file_put(path, "old", 3);
    pid_t pid = fork();
    if (pid == 0)
        child_writes_too_much(path);
    waitpid(pid, &exit_state, 0);
    assert_int_equal(exit_state, 0);
    assert_content(path, "old");
    assert_int_equal(entries(*state), 1);
}

static void test_kill_leaves_the_old_file(void **state)
{
    const char *path = tmp_path(*state, "out");
    struct hm_out_file file = { 0 };
    struct hm_error err = { 0 };

    file_put(path, "old", 3);
    pid_t pid = fork();
    if (pid == 0) {
        if (hm_out_open(path, &file, NULL) == HM_OK)
            hm_out_write(&file, "half", 4, NULL);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    assert_content(path, "old");
    assert_ok(hm_file_write(path, "new", 3, &err), err); /* over the leftover temporary */
    assert_content(path, "new");
    assert_int_equal(entries(*state), 1);
}

static void test_bad_places(void **state)
{
    struct hm_error err = { 0 };

    assert_fails(hm_file_write(tmp_path(*state, "none/out"), "x", 1, &err), HM_ERR_IO, "none/out",
                 err);
    assert_fails(hm_file_write(*state, "x", 1, &err), HM_ERR_IO, "folder", err);
    if (geteuid() == 0) /* root writes everywhere: the rest cannot be tested as root */
        return;
    chmod(*state, 0500);
    assert_fails(hm_file_write(tmp_path(*state, "out"), "x", 1, &err), HM_ERR_IO, "ermission", err);
}

static int write_attempt(void *context, struct hm_error *err)
{
    return hm_file_write(context, "new", 3, err);
}

static int copy_attempt(void *context, struct hm_error *err)
{
    char *to = NULL;

    HM_TRY(hm_format(&to, err, "%s.copy", (const char *)context));
    int status = hm_file_copy(context, to, err);
    hm_free(to);
    return status;
}

static int link_attempt(void *context, struct hm_error *err)
{
    char *to = NULL;

    bool linked = false;

    HM_TRY(hm_format(&to, err, "%s.link", (const char *)context));
    int status = hm_file_link(context, to, &linked, err);
    hm_free(to);
    return status;
}

static void test_without_memory(void **state)
{
    const char *path = tmp_path(*state, "out");

    file_put(path, "old", 3);
    assert_true(oom_sweep(copy_attempt, (void *)(uintptr_t)path) >= 5);
    assert_true(oom_sweep(link_attempt, (void *)(uintptr_t)path) >= 2);
    assert_true(oom_sweep(write_attempt, (void *)(uintptr_t)path) >= 4);
    assert_content(path, "new");
    assert_content(tmp_path(*state, "out.copy"), "old");
    assert_int_equal(entries(*state), 3);
}

static void test_append(void **state)
{
    const char *path = tmp_path(*state, "log");
    struct hm_error err = { 0 };

    assert_ok(hm_file_append(path, "a\n", 2, &err), err);
    assert_ok(hm_file_append(path, "b\n", 2, &err), err);
    assert_content(path, "a\nb\n");
    assert_fails(hm_file_append("/dev/full", "x", 1, &err), HM_ERR_IO, "No space", err);
}

static void test_copy_and_link(void **state)
{
    const char *from = tmp_path(*state, "from");
    const char *to = tmp_path(*state, "to");
    const char *link = tmp_path(*state, "link");
    struct stat a, b;
    struct hm_error err = { 0 };
    bool linked = false;

    file_put(from, "data", 4);
    file_put(to, "old", 3);
    assert_ok(hm_file_link(from, to, &linked, &err), err);
    assert_content(to, "data");
    assert_true(stat(from, &a) == 0 && stat(to, &b) == 0);
    assert_true(linked);                                   /* a clone or the same file */
    assert_ok(hm_file_link(from, to, &linked, &err), err); /* a second time */
    assert_int_equal(entries(*state), 2);
    /* a symbolic link, as model caches have: what it points to, not the link */
    assert_int_equal(symlink("from", link), 0);
    assert_ok(hm_file_link(link, to, &linked, &err), err);
    assert_true(lstat(to, &b) == 0 && S_ISREG(b.st_mode));
    assert_content(to, "data");
    /* another file system: nothing */
    char *far = hm_path_exists("/dev/shm") ? strdup("/dev/shm/hanmix-link-XXXXXX") : NULL;
    int fd = far ? mkstemp(far) : -1;
    if (fd >= 0 && fstat(fd, &b) == 0 && b.st_dev != a.st_dev) {
        assert_ok(hm_file_link(from, far, &linked, &err), err);
        assert_false(linked);
        assert_content(far, "");
    }
    if (fd >= 0) {
        close(fd);
        unlink(far);
    }
    free(far);
    assert_int_equal(stat(to, &b), 0);
    assert_int_equal(unlink(link), 0);
    assert_ok(hm_file_copy(from, to, &err), err);
    assert_true(stat(to, &b) == 0 && a.st_ino != b.st_ino);
    assert_content(to, "data");
    assert_fails(hm_file_copy(tmp_path(*state, "none"), to, &err), HM_ERR_USAGE, "none", err);
    assert_content(to, "data");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_dir_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_write_replaces),
        TEST(test_write_in),
        TEST(test_stream),
        TEST(test_abort_leaves_the_old_file),
        TEST(test_full_disk_leaves_the_old_file),
        TEST(test_kill_leaves_the_old_file),
        TEST(test_bad_places),
        TEST(test_without_memory),
        TEST(test_append),
        TEST(test_copy_and_link),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
