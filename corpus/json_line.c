/* SPDX-License-Identifier: MIT */
/*
 * The text, and where asked the set's name, of one line of JSONL. Field names may be paths:
 * "meta.source". json_scan.c reads nearly all lines; of the others the tree tells what they hold or
 * what is wrong with them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"

void hm_line_where(char where[HM_LINE_WHERE_BYTES], const char *path, uint64_t number)
{
    snprintf(where, HM_LINE_WHERE_BYTES, "%s:%" PRIu64, path, number);
}

/* The member at a dotted path; a key that itself holds a dot is found first. */
static const json_t *member_at(const json_t *object, const char *path)
{
    const json_t *found = json_object_get(object, path);
    const char *dot = strchr(path, '.');
    char key[256];

    if (found || !dot || (size_t)(dot - path) >= sizeof(key))
        return found;
    memcpy(key, path, (size_t)(dot - path));
    key[dot - path] = '\0';
    const json_t *child = json_object_get(object, key);
    return child ? member_at(child, dot + 1) : NULL;
}

/* Put the strings found in a tree where the line was, which is longer than both. */
static void strings_place(char *line, const json_t *text, const json_t *set,
                          struct json_line *ret_line)
{
    size_t len = json_string_length(text);

    memcpy(line, json_string_value(text), len);
    *ret_line = (struct json_line){ .text = { line, len } };
    if (!json_is_string(set))
        return;
    char *name = set == text ? line : line + len;
    memcpy(name, json_string_value(set), json_string_length(set));
    name[json_string_length(set)] = '\0';
    ret_line->set = name;
}

int hm_json_tree(char *line, size_t len, const char *where, const char *field,
                 const char *set_field, struct json_line *ret_line, struct hm_error *err)
{
    json_t *value = NULL;

    HM_TRY(hm_json_parse_reals((struct hm_str){ line, len }, where, &value, err));
    const json_t *text = member_at(value, field);
    int status = HM_OK;
    if (json_is_string(text))
        strings_place(line, text, set_field ? member_at(value, set_field) : NULL, ret_line);
    else if (!json_is_object(value))
        status = hm_fail(err, HM_ERR_FORMAT, "'%s': the line is not a JSON object", where);
    else
        status = hm_fail(err, HM_ERR_FORMAT,
                         text ? "'%s': field '%s' is not a string" : "'%s': no field '%s'", where,
                         field);
    json_decref(value);
    return status;
}

int hm_json_line_parse(char *line, size_t len, const char *path, uint64_t number,
                       const struct hm_text_options *options, struct json_line *ret_line,
                       struct hm_error *err)
{
    const char *field = options->field ? options->field : "text";

    if (hm_json_scan(line, len, field, options->set_field, ret_line))
        return HM_OK;
    if (hm_json_surrogates_mend(line, len) &&
        hm_json_scan(line, len, field, options->set_field, ret_line))
        return HM_OK;
    char where[HM_LINE_WHERE_BYTES];
    hm_line_where(where, path, number);
    return hm_json_tree(line, len, where, field, options->set_field, ret_line, err);
}
