/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/write_journal.c: what is written is read back; torn, repeated, foreign and damaged
 * lines end it; another plan finds nothing.
 */
#include "support/support.h"

#include "hanmix/base/file.h"
#include "write_journal.h"

enum { COUNT = 4 };

static const char *const key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* How many tensors the journal of a folder says are whole. */
static size_t read_back(const char *dir, const char *plan, struct hm_whole_tensor found[COUNT])
{
    struct hm_write_journal journal;
    struct hm_error err = { 0 };
    bool whole[COUNT] = { false };
    size_t count = 0;

    assert_ok(hm_write_journal_open(dir, plan, whole, found, COUNT, &journal, &err), err);
    hm_write_journal_release(&journal);
    for (size_t i = 0; i < COUNT; i++)
        count += whole[i];
    return count;
}

static void write_two(const char *dir)
{
    const struct hm_whole_tensor one = { .bytes = 77, .note = "0x1p+3 -0x1p-2" };
    struct hm_whole_tensor two = { .bytes = UINT64_MAX }, found[COUNT];
    struct hm_write_journal journal;
    struct hm_error err = { 0 };
    bool whole[COUNT] = { false };

    memcpy(two.sha256, key, HM_SHA256_HEX_BYTES);
    assert_ok(hm_write_journal_open(dir, key, whole, found, COUNT, &journal, &err), err);
    assert_ok(hm_write_journal_add(&journal, 2, &one, &err), err);
    assert_ok(hm_write_journal_flush(&journal, &err), err);
    assert_ok(hm_write_journal_add(&journal, 0, &two, &err), err);
    assert_ok(hm_write_journal_flush(&journal, &err), err);
    assert_ok(hm_write_journal_add(&journal, 1, &one, &err), err); /* never flushed */
    hm_write_journal_release(&journal);
}

static void test_back(void **state)
{
    struct hm_whole_tensor found[COUNT];
    char other[HM_SHA256_HEX_BYTES];

    assert_int_equal(read_back(*state, key, found), 0);
    write_two(*state);
    assert_int_equal(read_back(*state, key, found), 2);
    assert_int_equal(found[2].bytes, 77);
    assert_string_equal(found[2].note, "0x1p+3 -0x1p-2");
    assert_string_equal(found[2].sha256, "");
    assert_true(found[0].bytes == UINT64_MAX);
    assert_string_equal(found[0].sha256, key);
    assert_string_equal(found[0].note, "");
    memcpy(other, key, sizeof other);
    other[0] = 'f';
    assert_int_equal(read_back(*state, other, found), 0);
}

/* Whatever byte is changed or wherever it is cut: lines before it count, it and those behind do
 * not. */
static void test_damage(void **state)
{
    struct hm_whole_tensor found[COUNT];
    char path[512];
    size_t len;

    write_two(*state);
    snprintf(path, sizeof path, "%s", tmp_path(*state, "%s", HM_WRITE_JOURNAL_FILE));
    char *text = file_get(path, &len);
    size_t first = (size_t)(strchr(text, '\n') - text) + 1;
    size_t second = (size_t)(strchr(text + first, '\n') - text) + 1;
    for (size_t at = 0; at < len; at++) {
        size_t expected = at < second ? 0 : 1;
        char before = text[at];
        text[at] = (char)(before ^ 1);
        file_put(path, text, len);
        assert_int_equal(read_back(*state, key, found), expected);
        text[at] = before;
        file_put(path, text, at);
        assert_int_equal(read_back(*state, key, found), expected);
    }
    char *twice = hm_alloc(HM_MEM_OTHER, 2 * len);
    memcpy(twice, text, len);
    memcpy(twice + len, text + first, len - first); /* the same lines again */
    file_put(path, twice, 2 * len - first);
    assert_int_equal(read_back(*state, key, found), 2);
    memset(twice, 'x', len); /* no line at all */
    file_put(path, twice, len);
    assert_int_equal(read_back(*state, key, found), 0);
    hm_free(twice);
    hm_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_back, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_damage, test_dir_setup, test_dir_teardown),
    };
    return cmocka_run_group_tests_name("write_journal", tests, NULL, NULL);
}
