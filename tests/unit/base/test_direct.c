/* SPDX-License-Identifier: MIT */
/*
 * base/direct_*.c: pieces of ranges at any offset, a file that shrank, digests on the way,
 * stretches put in any order, errors told late, what is left when all is dropped early.
 */
#include "support/support.h"

#include <fcntl.h>
#include <unistd.h>

#include "hanmix/base/direct.h"
#include "hanmix/base/file.h"
#include "hanmix/base/hash.h"

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
    assert_fails(hm_reader_next(reader, &piece, &len, &err), HM_ERR_FORMAT,
                 "was cut short while it was read", err);
    hm_reader_free(reader);
    close(fd);
}

/* What a reader of these ranges says the file's digest is; false: nothing. */
static bool digest_of(const struct hm_read_range *range, size_t n, struct hm_error *err,
                      char hex[HM_SHA256_HEX_BYTES])
{
    struct hm_file_digests digests = { 0 };
    struct hm_reader *reader = NULL;
    const uint8_t *piece;
    size_t len;

    assert_ok(hm_reader_new_digesting(range, n, &reader, err), *err);
    for (size_t r = 0; r < n; r++)
        for (uint64_t at = 0; at < range[r].bytes; at += len)
            assert_ok(hm_reader_next(reader, &piece, &len, err), *err);
    assert_ok(hm_reader_digests(reader, &digests, err), *err);
    const char *found = n ? hm_file_digests_find(&digests, range[0].path) : NULL;
    if (found)
        memcpy(hex, found, HM_SHA256_HEX_BYTES);
    assert_null(hm_file_digests_find(&digests, "another"));
    hm_file_digests_release(&digests);
    hm_reader_free(reader);
    return found != NULL;
}

/* Files in file order but for a quarter are digested, others are not. */
static void test_digests(void **state)
{
    const char *path = tmp_path(*state, "in");
    int fd = open_content(path);
    const struct hm_read_range whole = { fd, path, 0, FILE_BYTES, 4096 };
    const struct hm_read_range links[] = {
        { fd, path, 200000, 64, 4096 }, /* small, far ahead */
        { fd, path, 5000, 95000, 10007 },
        { fd, path, 200064, 1, 4096 },
        { fd, path, 100000, 100000, 65536 },
        { fd, path, 100, 0, 10 },
        { fd, path, 200070, FILE_BYTES - 200071, 9999 },
    };
    const struct hm_read_range apart[] = {
        /* a link that would cost two others is left out */
        { fd, path, 0, 100000, 65536 },
        { fd, path, 250000, FILE_BYTES - 250000, 65536 },
        { fd, path, 100000, 100000, 65536 },
        { fd, path, 200000, 50000, 65536 },
    };
    const struct hm_read_range backwards[] = {
        { fd, path, 100000, FILE_BYTES - 100000, 65536 },
        { fd, path, 0, 100000, 65536 },
    };
    const struct hm_read_range holes = { fd, path, 0, FILE_BYTES - FILE_BYTES / 4 - 1, 65536 };
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES], expected[HM_SHA256_HEX_BYTES];

    assert_ok(hm_sha256_of(content, FILE_BYTES, expected, &err), err);
    assert_true(digest_of(&whole, 1, &err, hex));
    assert_string_equal(hex, expected);
    assert_true(digest_of(links, 6, &err, hex));
    assert_string_equal(hex, expected);
    assert_true(digest_of(apart, 4, &err, hex));
    assert_string_equal(hex, expected);
    assert_false(digest_of(backwards, 2, &err, hex));
    assert_false(digest_of(&holes, 1, &err, hex));
    assert_false(digest_of(NULL, 0, &err, hex));
    close(fd);
}

/* A reader given up while it digests; a file that ends within a piece has no digest. */
static void test_digests_given_up(void **state)
{
    const char *path = tmp_path(*state, "in");
    int fd = open_content(path);
    const struct hm_read_range range = { fd, path, 0, FILE_BYTES, 4096 };
    struct hm_file_digests digests = { 0 };
    struct hm_reader *reader = NULL;
    struct hm_error err = { 0 };
    const uint8_t *piece;
    size_t len;

    assert_ok(hm_reader_new_digesting(&range, 1, &reader, &err), err);
    assert_ok(hm_reader_next(reader, &piece, &len, &err), err);
    hm_reader_free(reader);
    assert_int_equal(truncate(path, 6000), 0);
    assert_ok(hm_reader_new_digesting(&range, 1, &reader, &err), err);
    assert_ok(hm_reader_next(reader, &piece, &len, &err), err);
    assert_fails(hm_reader_next(reader, &piece, &len, &err), HM_ERR_FORMAT, "cut short", err);
    assert_ok(hm_reader_digests(reader, &digests, &err), err);
    assert_int_equal(digests.count, 0);
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
        cmocka_unit_test_setup_teardown(test_digests, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_digests_given_up, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_places, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_refusals, test_dir_setup, test_dir_teardown),
    };
    return cmocka_run_group_tests_name("direct", tests, NULL, NULL);
}
