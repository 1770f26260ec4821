/* SPDX-License-Identifier: MIT */
/*
 * Recorded lines of JSON, one by one, and ids recorded in them.
 */
#ifndef HANMIX_TESTS_GOLDEN_LINES_H
#define HANMIX_TESTS_GOLDEN_LINES_H

#include "support/support.h"

#include "hanmix/base/json.h"

/* Calls check for every line of a recorded file; returns how many there were. */
static inline size_t each_line(const char *file, void (*check)(size_t line, const json_t *value))
{
    size_t len;
    char *all = file_get(golden_path(file), &len);
    size_t lines = 0;

    for (char *at = all; at < all + len; lines++) {
        char *end = memchr(at, '\n', (size_t)(all + len - at));
        struct hm_error err = { 0 };
        json_t *value = NULL;
        assert_non_null(end);
        assert_ok(hm_json_parse((struct hm_str){ at, (size_t)(end - at) }, file, &value, &err),
                  err);
        check(lines, value);
        json_decref(value);
        at = end + 1;
    }
    hm_free(all);
    return lines;
}

/* The place of the first id that differs, or -1 when all are equal. */
static inline long ids_differ(const int32_t *id, size_t count, const json_t *expected)
{
    size_t n = json_array_size(expected);

    for (size_t i = 0; i < n || i < count; i++)
        if (i >= n || i >= count || id[i] != json_integer_value(json_array_get(expected, i)))
            return (long)i;
    return -1;
}

#endif
