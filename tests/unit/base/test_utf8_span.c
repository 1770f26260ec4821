/* SPDX-License-Identifier: MIT */
/*
 * UTF-8 in bulk against one character after another: every short tail and offset, every pair of
 * bytes inside Chinese text, and random mixtures of whole and broken characters.
 */
#include "support/support.h"

#include "hanmix/base/rng.h"
#include "hanmix/base/str.h"

static size_t plain_span(struct hm_str text, bool in_string)
{
    size_t at = 0;

    while (at < text.len) {
        uint32_t code;
        unsigned char byte = (unsigned char)text.ptr[at];
        unsigned used = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (used == 0 || (in_string && (byte < 0x20 || byte == '"' || byte == '\\')))
            break;
        at += used;
    }
    return at;
}

static void compare(const char *text, size_t len)
{
    char *exact = hm_alloc(HM_MEM_OTHER, len + (len == 0)); /* reading past its end would be seen */
    struct hm_str view = { exact, len };
    size_t valid = plain_span((struct hm_str){ text, len }, false), bad = len;

    memcpy(exact, text, len);
    assert_int_equal(hm_utf8_string_span(view), plain_span(view, true));
    assert_int_equal(hm_utf8_valid(view, &bad), valid == len);
    assert_int_equal(bad, valid);
    if (valid == len)
        assert_int_equal(hm_utf8_begun(view), hm_utf8_count(view));
    hm_free(exact);
}

static void test_every_pair_of_bytes(void **state)
{
    char text[] = "\xe4\xb8\xad\xe6\x96\x87"
                  "ab\xe5\xad\x97 \xe3\x80\x82\xe4\xb8\xad"
                  "12345678\xef\xbc\x8c";
    const size_t len = sizeof(text) - 1;

    (void)state;
    for (size_t at = 0; at + 1 < len; at++) {
        char kept[2] = { text[at], text[at + 1] };
        for (unsigned pair = 0; pair < 0x10000; pair += 1 + (pair & 1 ? 0 : at % 3)) {
            text[at] = (char)(pair >> 8);
            text[at + 1] = (char)(pair & 0xff);
            compare(text, len);
        }
        memcpy(text + at, kept, 2);
    }
}

static void test_random_mixtures(void **state)
{
    static const char *const part[] = { "\xe4\xb8\xad",
                                        "\xe6\x96\x87",
                                        "\xef\xbc\x8c",
                                        "\xed\x9f\xbf",
                                        "\xe0\xa0\x80",
                                        "\xc3\xa9",
                                        "\xf0\x9f\x98\x80",
                                        "a",
                                        "bcd",
                                        "12345678",
                                        " ",
                                        "\"",
                                        "\\",
                                        "\n",
                                        "\x1f",
                                        "\x7f",
                                        "\xed\xa0\x80",
                                        "\xe0\x9f\xbf",
                                        "\x80",
                                        "\xff",
                                        "\xe4\xb8" };
    const struct hm_rng_key key = { 7, 7 };
    uint64_t drawn = 0;

    (void)state;
    for (unsigned round = 0; round < 200000; round++) {
        char text[160];
        size_t len = 0;
        /* most rounds draw from the front of the list: well-formed, then plain but for strings */
        size_t kinds = round % 3 == 0 ? 11 : round % 3 == 1 ? 16 : sizeof(part) / sizeof(part[0]);
        for (uint64_t n = hm_rng_below(key, drawn++, 16); n > 0; n--) {
            const char *next = part[hm_rng_below(key, drawn++, kinds)];
            memcpy(text + len, next, strlen(next));
            len += strlen(next);
        }
        compare(text, len);
    }
}

static void test_count_of_long_text(void **state)
{
    const size_t chars = 5000; /* more words than one sum of bytes holds */
    char *text = hm_alloc(HM_MEM_OTHER, 3 * chars);

    (void)state;
    for (size_t i = 0; i < chars; i++)
        memcpy(text + 3 * i, "\xe4\xb8\xad", 3);
    assert_int_equal(hm_utf8_begun((struct hm_str){ text, 3 * chars }), chars);
    memset(text, 'a', 3 * chars);
    assert_int_equal(hm_utf8_begun((struct hm_str){ text, 3 * chars }), 3 * chars);
    hm_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_of_bytes),
        cmocka_unit_test(test_random_mixtures),
        cmocka_unit_test(test_count_of_long_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
