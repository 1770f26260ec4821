/* SPDX-License-Identifier: MIT */
/*
 * base/hash.c: SHA-256 by the vectors of FIPS 180-2, digests of files and folders, the stable
 * 64-bit hash.
 */
#include "support/support.h"

#include "hanmix/base/hash.h"

static void test_sha256_vectors(void **state)
{
    static const struct {
        const char *text;
        const char *hex;
    } vector[] = {
        { "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
        { "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1" },
    };
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof(vector) / sizeof(vector[0]); i++) {
        assert_ok(hm_sha256_of(vector[i].text, strlen(vector[i].text), hex, &err), err);
        assert_string_equal(hex, vector[i].hex);
    }
    struct hm_sha256 sha = { 0 };
    assert_ok(hm_sha256_init(&sha, &err), err);
    for (int i = 0; i < 1000000; i++)
        hm_sha256_add(&sha, "a", 1);
    hm_sha256_finish(&sha, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    hm_sha256_release(&sha);
}

static void test_files_and_folders(void **state)
{
    char *dir = tmp_new();
    struct hm_error err = { 0 };
    char file[HM_SHA256_HEX_BYTES];
    char one[HM_SHA256_HEX_BYTES];
    char two[HM_SHA256_HEX_BYTES];

    (void)state;
    file_put(tmp_path(dir, "b"), "abc", 3);
    assert_ok(hm_sha256_path(tmp_path(dir, "b"), file, &err), err);
    assert_string_equal(file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(hm_dir_make(tmp_path(dir, "a"), &err), err);
    file_put(tmp_path(dir, "a/x"), "", 0);
    assert_ok(hm_sha256_path(dir, one, &err), err);

    char lines[400]; /* the definition, written out */
    snprintf(lines, sizeof(lines),
             "a/x\t0\te3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nb\t3\t%s\n",
             file);
    assert_ok(hm_sha256_of(lines, strlen(lines), two, &err), err);
    assert_string_equal(one, two);

    file_put(tmp_path(dir, "a/x"), "!", 1);
    assert_ok(hm_sha256_path(dir, two, &err), err);
    assert_string_not_equal(one, two);
    assert_fails(hm_sha256_file(tmp_path(dir, "none"), NULL, one, &err), HM_ERR_USAGE, "none", err);
    tmp_release(dir);
}

static void test_stop(void **state)
{
    static const sig_atomic_t stop = 1;
    const struct hm_ctl ctl = { .stop = &stop };
    char *dir = tmp_new();
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES];

    (void)state;
    file_put(tmp_path(dir, "x"), "abc", 3);
    assert_fails(hm_sha256_file(tmp_path(dir, "x"), &ctl, hex, &err), HM_ERR_STOPPED, "stopped",
                 err);
    tmp_release(dir);
}

static int digest_attempt(void *context, struct hm_error *err)
{
    char hex[HM_SHA256_HEX_BYTES];

    return hm_sha256_path(context, hex, err);
}

static void test_without_memory(void **state)
{
    char *dir = tmp_new();
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_dir_make(tmp_path(dir, "a"), &err), err);
    file_put(tmp_path(dir, "a/x"), "abc", 3);
    assert_true(oom_sweep(digest_attempt, dir) > 5);
    tmp_release(dir);
}

static void test_hash64(void **state)
{
    char bytes[64] = { 0 };

    (void)state;
    /* Fixed for good: files written by one version are read by the next. */
    assert_true(hm_mix64(0) ==
                0xe220a8397b1dcdafu); /* the first output of splitmix64 from seed 0 */
    assert_true(hm_unit_interval(0) == 0 && hm_unit_interval(UINT64_MAX) < 1);
    assert_true(hm_unit_interval((uint64_t)1 << 63) == 0.5);
    assert_true(hm_hash64("hanmix", 6, 0) == hm_hash64("hanmix", 6, 0));
    assert_true(hm_hash64("hanmix", 6, 0) != hm_hash64("hanmix", 6, 1));
    for (size_t len = 0; len < sizeof(bytes); len++) { /* zero bytes of any length all differ */
        for (size_t other = 0; other < len; other++)
            assert_true(hm_hash64(bytes, len, 0) != hm_hash64(bytes, other, 0));
        uint64_t before = hm_hash64(bytes, sizeof(bytes), 0);
        bytes[len] ^= 1;
        int changed = __builtin_popcountll(before ^ hm_hash64(bytes, sizeof(bytes), 0));
        assert_in_range(changed, 12, 52);
        bytes[len] ^= 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sha256_vectors), cmocka_unit_test(test_files_and_folders),
        cmocka_unit_test(test_stop),           cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_hash64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
