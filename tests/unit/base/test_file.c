/* SPDX-License-Identifier: MIT */
/*
 * base/file.c: mappings, bounded reads, and what the process knows of itself.
 */
#include "support/support.h"

#include <sys/stat.h>

static void test_map(void **state)
{
    const char *path = tmp_path(*state, "data");
    const size_t size = 3 * 4096 + 100;
    char *data = hm_calloc(HM_MEM_OTHER, 1, size);
    struct hm_map map = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < size; i++)
        data[i] = (char)(i % 127);
    file_put(path, data, size);
    assert_ok(hm_map_open(path, &map, &err), err);
    assert_int_equal(map.size_bytes, size);
    assert_memory_equal(map.data, data, size);
    hm_map_drop(&map, 0, 5000);
    hm_map_drop(&map, 5000, UINT64_MAX);
    hm_map_drop(&map, size + 1, 10);
    assert_memory_equal(map.data, data, size); /* dropped pages come back from the file */
    hm_map_close(&map);
    hm_map_close(&map);
    hm_free(data);
}

static void test_map_of_odd_paths(void **state)
{
    const char *empty = tmp_path(*state, "empty");
    const char *fifo = tmp_path(*state, "fifo");
    struct hm_map map = { 0 };
    struct hm_error err = { 0 };

    file_put(empty, "", 0);
    assert_ok(hm_map_open(empty, &map, &err), err);
    assert_true(map.size_bytes == 0 && !map.data);
    hm_map_close(&map);
    assert_fails(hm_map_open(tmp_path(*state, "none"), &map, &err), HM_ERR_USAGE, "does not exist",
                 err);
    assert_fails(hm_map_open(tmp_path(*state, "empty/x"), &map, &err), HM_ERR_USAGE,
                 "does not exist", err);
    assert_fails(hm_map_open(*state, &map, &err), HM_ERR_USAGE, "a folder", err);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_fails(hm_map_open(fifo, &map, &err), HM_ERR_USAGE, "pipe", err); /* and does not hang */
}

static void test_dropping_lowers_memory(void **state)
{
    const char *path = tmp_path(*state, "large");
    const size_t size = (size_t)48 << 20;
    char *data = hm_alloc(HM_MEM_OTHER, size);
    struct hm_map map = { 0 };
    struct hm_error err = { 0 };
    unsigned sum = 0;

    memset(data, 1, size);
    file_put(path, data, size);
    hm_free(data);
    assert_ok(hm_map_open(path, &map, &err), err);
    uint64_t before = hm_rss_bytes();
    for (size_t i = 0; i < size; i += 4096)
        sum += map.data[i];
    assert_int_equal(sum, size / 4096);
    uint64_t mapped = hm_rss_bytes();
    hm_map_drop(&map, 0, size);
    uint64_t after = hm_rss_bytes();
    assert_true(mapped >= before + size / 2);
    assert_true(after + size / 2 <= mapped);
    assert_true(hm_rss_peak_bytes() + size / 4 >=
                mapped); /* the system counts in batches of pages */
    hm_map_close(&map);
}

static void test_read(void **state)
{
    const char *path = tmp_path(*state, "text");
    struct hm_buf buf = { 0 };
    struct hm_error err = { 0 };
    uint64_t size;

    file_put(path, "hello\0world", 11);
    assert_ok(hm_file_read(path, 11, &buf, &err), err);
    assert_int_equal(buf.len, 11);
    assert_memory_equal(buf.ptr, "hello\0world", 12);
    hm_buf_release(&buf);
    assert_fails(hm_file_read(path, 10, &buf, &err), HM_ERR_FORMAT, "at most 10", err);
    assert_null(buf.ptr);
    assert_ok(hm_file_size(path, &size, &err), err);
    assert_int_equal(size, 11);
    assert_fails(hm_file_size(tmp_path(*state, "none"), &size, &err), HM_ERR_USAGE, "none", err);
}

static int read_attempt(void *context, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    int status = hm_file_read(context, 1000, &buf, err);

    hm_buf_release(&buf);
    return status;
}

static void test_read_without_memory(void **state)
{
    const char *path = tmp_path(*state, "text");

    file_put(path, "hello", 5);
    assert_true(oom_sweep(read_attempt, (void *)(uintptr_t)path) > 0);
}

static void test_clock(void **state)
{
    double first = hm_clock_seconds();

    (void)state;
    assert_true(first > 0 && hm_clock_seconds() >= first);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_dir_setup, test_dir_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_map),  TEST(test_map_of_odd_paths),    TEST(test_dropping_lowers_memory),
        TEST(test_read), TEST(test_read_without_memory), cmocka_unit_test(test_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
