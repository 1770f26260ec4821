/* SPDX-License-Identifier: MIT */
/*
 * base/file_lock.c: a lock held by a child is refused by its pid and falls when the child is
 * killed.
 */
#include "support/support.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_held_by_a_child(void **state)
{
    const char *path = tmp_path(*state, "lock");
    struct hm_error err = { 0 };
    char expected[64];
    int ready[2];
    char byte = 0;
    int fd = -1;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        byte = hm_lock_acquire(path, &fd, NULL) == HM_OK ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    snprintf(expected, sizeof(expected), "locked by process %ld;", (long)pid);
    assert_fails(hm_lock_acquire(path, &fd, &err), HM_ERR_IO, expected, err);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_ok(hm_lock_acquire(path, &fd, &err), err);
    hm_lock_release(fd);
    close(ready[0]);
    close(ready[1]);
}

static void test_in_one_process(void **state)
{
    const char *path = tmp_path(*state, "lock");
    struct hm_error err = { 0 };
    int first = -1;
    int second = -1;

    assert_ok(hm_lock_acquire(path, &first, &err), err);
    assert_fails(hm_lock_acquire(path, &second, &err), HM_ERR_IO, "locked by process", err);
    hm_lock_release(first);
    assert_ok(hm_lock_acquire(path, &second, &err), err);
    hm_lock_release(second);
    hm_lock_release(-1);
    assert_fails(hm_lock_acquire(tmp_path(*state, "none/lock"), &second, &err), HM_ERR_IO,
                 "create lock", err);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_dir_setup, test_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_held_by_a_child),
        TEST(test_in_one_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
