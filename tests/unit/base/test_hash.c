/* SPDX-License-Identifier: MIT */
/*
 * base/hash.c and bytes.h: SHA-256 by the vectors of FIPS 180-2, digests of files, the stable
 * 64-bit hash.
 */
#include "support/support.h"

#include "hanmix/base/bytes.h"
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

static void test_file(void **state)
{
    char *dir = tmp_new();
    struct hm_error err = { 0 };
    char hex[HM_SHA256_HEX_BYTES];

    (void)state;
    file_put(tmp_path(dir, "x"), "abc", 3);
    assert_ok(hm_sha256_file(tmp_path(dir, "x"), NULL, hex, &err), err);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_fails(hm_sha256_file(tmp_path(dir, "none"), NULL, hex, &err), HM_ERR_USAGE, "none", err);
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

    return hm_sha256_file(context, NULL, hex, err);
}

static void test_without_memory(void **state)
{
    char *dir = tmp_new();
    const char *path = tmp_path(dir, "x");

    (void)state;
    file_put(path, "abc", 3);
    assert_true(oom_sweep(digest_attempt, (void *)(uintptr_t)path) > 0);
    tmp_release(dir);
}

static void test_little_endian(void **state)
{
    const uint8_t bytes[9] = { 0x01, 0x02, 0x03, 0x84, 0x05, 0x06, 0x07, 0x88, 0xff };
    uint8_t to[9];

    (void)state;
    memset(to, 0xff, sizeof(to));
    assert_true(hm_le_get(bytes, 8) == 0x8807060584030201u);
    assert_true(hm_le_get(bytes, 4) == 0x84030201u && hm_le_get(bytes, 0) == 0);
    hm_le_put(to, 0x8807060584030201u, 8);
    assert_memory_equal(to, bytes, 9);
    hm_le_put(to, 0xabcdefu, 2);
    assert_true(to[0] == 0xef && to[1] == 0xcd && to[2] == 0x03);
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
        cmocka_unit_test(test_sha256_vectors), cmocka_unit_test(test_file),
        cmocka_unit_test(test_stop),           cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_little_endian),  cmocka_unit_test(test_hash64),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
