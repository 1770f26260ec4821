/* SPDX-License-Identifier: MIT */
/*
 * The text, and where asked the set's name, of one line of JSONL. Field names may be paths:
 * "meta.source".
 */
#include <string.h>

#include "internal.h"

void hm_json_line_release(struct json_line *line)
{
    json_decref(line->value);
    *line = (struct json_line){ 0 };
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

int hm_json_line_parse(struct hm_str line, const char *where, const struct hm_text_options *options,
                       struct json_line *ret_line, struct hm_error *err)
{
    struct json_line parsed = { 0 };
    const char *field = options->field ? options->field : "text";

    HM_TRY(hm_json_parse(line, where, &parsed.value, err));
    const json_t *text = member_at(parsed.value, field);
    if (!json_is_string(text)) {
        bool there = text != NULL;
        bool is_object = json_is_object(parsed.value);
        hm_json_line_release(&parsed);
        if (!is_object)
            return hm_fail(err, HM_ERR_FORMAT, "'%s': the line is not a JSON object", where);
        return hm_fail(err, HM_ERR_FORMAT,
                       there ? "'%s': field '%s' is not a string" : "'%s': no field '%s'", where,
                       field);
    }
    parsed.text = (struct hm_str){ json_string_value(text), json_string_length(text) };
    if (options->set_field)
        parsed.set = json_string_value(member_at(parsed.value, options->set_field));
    *ret_line = parsed;
    return HM_OK;
}
