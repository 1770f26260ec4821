/* SPDX-License-Identifier: MIT */
/*
 * base/map_pages.c: pages pulled in and given back, and what is said of a file cut short in use.
 */
#include "support/support.h"

#include <sys/mman.h>
#include <unistd.h>

#define SIZE ((size_t)5 * 65536 + 100)

/* A file of SIZE bytes with a pattern, mapped. */
static struct hm_map pattern_map(const char *path, char *data)
{
    struct hm_map map = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i % 251);
    file_put(path, data, SIZE);
    assert_ok(hm_map_open(path, &map, &err), err);
    return map;
}

static void test_fetch_and_forget(void **state)
{
    const char *path = tmp_path(*state, "data");
    char *data = hm_alloc(HM_MEM_OTHER, SIZE);
    struct hm_map map = pattern_map(path, data), none = { 0 };
    struct hm_error err = { 0 };
    unsigned char present[SIZE / 4096 + 1];

    for (int access = HM_MAP_NORMAL; access <= HM_MAP_SMALL; access++) {
        hm_map_advise(&map, 5000, 100000, (enum hm_map_access)access);
        assert_ok(hm_map_fetch(&map, path, 5000, 100000, &err), err);
        assert_int_equal(mincore((void *)(uintptr_t)map.data, SIZE, present), 0);
        for (size_t page = 1; page < (5000 + 100000) / 4096; page++)
            assert_true(present[page] & 1);
        hm_map_forget(&map, 5000, 100000);
        assert_memory_equal(map.data, data, SIZE); /* they come back from the file */
    }
    assert_ok(hm_map_fetch(&map, path, 0, UINT64_MAX, &err), err);
    assert_ok(hm_map_fetch(&map, path, SIZE + 1, 1, &err), err);
    assert_ok(hm_map_fetch(&map, path, 7, 0, &err), err);
    assert_ok(hm_map_fetch(&none, path, 0, 10, &err), err);
    hm_map_forget(&none, 0, 10);
    hm_map_forget(&map, 0, UINT64_MAX);
    assert_memory_equal(map.data, data, SIZE);
    hm_map_close(&map);
    hm_free(data);
}

static void test_file_cut_in_use(void **state)
{
    const char *path = tmp_path(*state, "cut");
    char *data = hm_alloc(HM_MEM_OTHER, SIZE);
    struct hm_map map = pattern_map(path, data);
    struct hm_error err = { 0 };

    assert_int_equal(truncate(path, 65536), 0);
    if (madvise((void *)(uintptr_t)(map.data + 131072), 4096, MADV_POPULATE_READ) == 0)
        skip(); /* qemu-user answers so without looking */
    assert_ok(hm_map_fetch(&map, path, 0, 65536, &err), err);
    assert_fails(hm_map_fetch(&map, path, 60000, 20000, &err), HM_ERR_FORMAT,
                 "was cut from 327780 to 65536 bytes", err);
    assert_ok(hm_map_blank(&map, 65536, SIZE, &err), err);
    for (size_t i = 65536; i < SIZE; i++)
        assert_int_equal(map.data[i], 0);
    assert_memory_equal(map.data, data, 65536);
    hm_map_close(&map);
    hm_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch_and_forget),
        cmocka_unit_test(test_file_cut_in_use),
    };
    return cmocka_run_group_tests(tests, test_dir_setup, test_dir_teardown);
}
