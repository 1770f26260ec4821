/* SPDX-License-Identifier: MIT */
/*
 * corpus/json_scan.c against the tree: a line that the scan accepts has the same text and the same
 * set's name in its tree; one that it refuses is left as it was. The first line of the input names
 * the field and, after a space, the set's field.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "internal.h"

static bool same(const struct json_line *a, const struct json_line *b)
{
    if (!hm_str_equal(a->text, b->text) || !a->set != !b->set)
        return false;
    return !a->set || strcmp(a->set, b->set) == 0;
}

static void compare(const char *field, const char *set_field, const char *data, size_t len)
{
    struct hm_error err = { 0 };
    struct json_line scanned = { 0 }, read = { 0 };
    char *line = hm_alloc(HM_MEM_OTHER, len + (len == 0)); /* exactly its size */
    char *copy = hm_alloc(HM_MEM_OTHER, len + (len == 0));

    if (line && copy) {
        memcpy(line, data, len);
        memcpy(copy, data, len);
        bool accepted = hm_json_scan(line, len, field, set_field, &scanned);
        HM_BUG(!accepted && memcmp(line, copy, len) != 0);
        int status = hm_json_tree(copy, len, "input", field, set_field, &read, &err);
        HM_BUG(accepted && status == HM_ERR_FORMAT);
        HM_BUG(accepted && status == HM_OK && !same(&scanned, &read));
    }
    hm_free(line);
    hm_free(copy);
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const char *newline = memchr(text, '\n', size);
    char head[64] = "";
    char *set_field = NULL;

    if (!newline || (size_t)(newline - text) >= sizeof(head))
        return 0;
    memcpy(head, text, (size_t)(newline - text));
    char *space = strchr(head, ' ');
    if (space) {
        *space = '\0';
        set_field = space + 1;
    }
    size_t first = (size_t)(newline - text) + 1;
    compare(head, set_field, text + first, size - first);
    return 0;
}
