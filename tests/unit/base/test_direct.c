/* SPDX-License-Identifier: MIT */
/*
 * base/direct_*.c: pieces of ranges at any offset, a file that shrank, stretches put in any order,
 * errors told late, what is left when all is dropped early.
 */
#include "support/support.h"

#include <fcntl.h>
#include <unistd.h>

#include "hanmix/base/direct.h"
#include "hanmix/base/file.h"

#define FILE_BYTES 300001u

static uint8_t content[FILE_BYTES];

static int open_content(const char *path)
{
    for (size_t i = 0; i < FILE_BYTES; i++)
        content[i] = (uint8_t)(i * 2654435761u >> 13);
    file_put(path, (const char *)content, FILE_BYTES);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static void test_ranges(void **state)
{
    const char *path = tmp_path(*state, "in");
    int fd = open_content(path);
    const struct hm_read_range range[] = {
        { fd, path, 0, FILE_BYTES, 4096 },
        { fd, path, 1, 5000, 7 },
        { fd, path, 4095, 2, 100 },
        { fd, path, 100, 0, 10 },
        { fd, path, FILE_BYTES - 1, 1, 4096 },
        { fd, path, 8192, 100000, 65536 },
    };
    struct hm_reader *reader = NULL;
    struct hm_error err = { 0 };
    const uint8_t *piece = NULL, *before = NULL;
    size_t len = 0;

    assert_ok(hm_reader_new(range, 6, &reader, &err), err);
    for (int r = 0; r < 6; r++)
        for (uint64_t at = 0; at < range[r].bytes; at += len) {
            uint64_t left = range[r].bytes - at;
            uint8_t first = before ? *before : 0;
            assert_ok(hm_reader_next(reader, &piece, &len, &err), err);
            assert_int_equal(len, left < range[r].piece_bytes ? left : range[r].piece_bytes);
            assert_memory_equal(piece, content + range[r].offset + at, len);
            assert_int_equal(before ? *before : 0, first); /* the one before is still there */
            before = piece;
        }
    hm_reader_free(reader);
    assert_ok(hm_reader_new(range, 6, &reader, &err), err); /* dropped while it is ahead */
    hm_reader_free(reader);
    close(fd);
}

static void test_shrunk(void **state)
{
    const char *path = tmp_path(*state, "in");
    int fd = open_content(path);
    const struct hm_read_range range = { fd, path, 0, FILE_BYTES, 65536 };
    struct hm_reader *reader = NULL;
    struct hm_error err = { 0 };
    const uint8_t *piece;
    size_t len;

    assert_int_equal(truncate(path, 100000), 0);
    assert_ok(hm_reader_new(&range, 1, &reader, &err), err);
    assert_ok(hm_reader_next(reader, &piece, &len, &err), err);
    assert_fails(hm_reader_next(reader, &piece, &len, &err), HM_ERR_IO,
                 "shorter than when it was opened", err);
    hm_reader_free(reader);
    close(fd);
}

/* Stretches of odd lengths, the second half first, in buffers of a page or two. */
static void test_places(void **state)
{
    for (size_t buffer = 4096; buffer <= 65536; buffer *= 4) {
        const char *path = tmp_path(*state, "out%zu", buffer);
        struct hm_writer *writer = NULL;
        struct hm_error err = { 0 };
        const size_t half = FILE_BYTES / 2;
        size_t len;

        close(open_content(tmp_path(*state, "in")));
        assert_ok(hm_writer_open(path, buffer, &writer, &err), err);
        for (size_t at = half; at < FILE_BYTES; at += len) {
            len = at % 9973 + 1 < FILE_BYTES - at ? at % 9973 + 1 : FILE_BYTES - at;
            assert_ok(hm_writer_put(writer, at, content + at, len, &err), err);
        }
        assert_ok(hm_writer_put(writer, 0, content, 3, &err), err);
        assert_ok(hm_writer_sync(writer, &err), err);
        assert_ok(hm_writer_put(writer, 3, content + 3, half - 3, &err), err);
        assert_ok(hm_writer_sync(writer, &err), err);
        assert_ok(hm_writer_sync(writer, &err), err);
        hm_writer_close(writer);
        char *text = file_get(path, &len);
        assert_int_equal(len, FILE_BYTES);
        assert_memory_equal(text, content, FILE_BYTES);
        hm_free(text);
    }
}

static void test_refusals(void **state)
{
    struct hm_writer *writer = NULL;
    struct hm_error err = { 0 };

    assert_fails(hm_writer_open(tmp_path(*state, "no/x"), 4096, &writer, &err), HM_ERR_IO, "no/x",
                 err);
    if (access("/dev/full", W_OK) == 0) {
        assert_ok(hm_writer_open("/dev/full", 4096, &writer, &err), err);
        assert_ok(hm_writer_put(writer, 0, "x", 1, &err), err);
        assert_fails(hm_writer_sync(writer, &err), HM_ERR_IO, "No space", err);
        assert_fails(hm_writer_sync(writer, &err), HM_ERR_IO, "No space", err);
        hm_writer_close(writer);
    }
    hm_writer_close(NULL);
    hm_reader_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ranges, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_shrunk, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_places, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, test_dir_setup, test_dir_teardown),
    };
    return cmocka_run_group_tests_name("direct", tests, NULL, NULL);
}
