/* SPDX-License-Identifier: MIT */
/*
 * JSON over jansson: bounded parsing, typed members with errors that name file and key, and writing
 * in the layout of Python's json.dumps(ensure_ascii=False), reals in their shortest form, so that
 * files compare.
 */
#include <string.h>

#include "hanmix/base/file.h"
#include "hanmix/base/json.h"

#define DEPTH_MAX 64

/* Deepest nesting of [ and { outside strings; the parser itself recurses, so this comes first. */
static int nesting_depth(struct hm_str text)
{
    int depth = 0;
    int deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string && (c == '[' || c == '{') && ++depth > deepest)
            deepest = depth;
        else if (!in_string && (c == ']' || c == '}'))
            depth--;
    }
    return deepest;
}

static int parse(struct hm_str text, const char *what, size_t flags, json_t **ret_value,
                 struct hm_error *err)
{
    json_error_t found;

    if (nesting_depth(text) > DEPTH_MAX)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': JSON is nested deeper than %d", what, DEPTH_MAX);
    const char *start = text.ptr ? text.ptr : "";
    json_t *value = json_loadb(
        start, text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL | flags, &found);
    if (!value) {
        /* jansson 2.14 leaves the sentence empty on most paths that run out of memory */
        if (json_error_code(&found) == json_error_out_of_memory || found.text[0] == '\0')
            return hm_fail_nomem(err, "parsing '%s'", what);
        if (!memchr(start, '\n', text.len)) /* one line of a file, that `what` names */
            return hm_fail(err, HM_ERR_FORMAT, "'%s': not JSON at column %d: %s", what,
                           found.column, found.text);
        return hm_fail(err, HM_ERR_FORMAT, "'%s': not JSON at line %d, column %d: %s", what,
                       found.line, found.column, found.text);
    }
    *ret_value = value;
    return HM_OK;
}

int hm_json_parse(struct hm_str text, const char *what, json_t **ret_value, struct hm_error *err)
{
    return parse(text, what, 0, ret_value, err);
}

int hm_json_parse_reals(struct hm_str text, const char *what, json_t **ret_value,
                        struct hm_error *err)
{
    return parse(text, what, JSON_DECODE_INT_AS_REAL, ret_value, err);
}

int hm_json_load(const char *path, uint64_t max_bytes, json_t **ret_value, struct hm_error *err)
{
    struct hm_buf buf = { 0 };

    HM_TRY(hm_file_read(path, max_bytes, &buf, err));
    int status = hm_json_parse((struct hm_str){ buf.ptr, buf.len }, path, ret_value, err);
    hm_buf_release(&buf);
    return status;
}

struct writer {
    struct hm_buf *buf;
    int indent; /* spaces a level; 0 writes one line */
    struct hm_error *err;
};

static int write_value(const struct writer *w, const json_t *value, int depth);

static int write_string(const struct writer *w, const char *text, size_t len)
{
    HM_TRY(hm_buf_append(w->buf, "\"", 1, w->err));
    for (size_t from = 0, at = 0; at <= len; at++) {
        unsigned char c = at < len ? (unsigned char)text[at] : '"';
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        HM_TRY(hm_buf_append(w->buf, text + from, at - from, w->err)); /* the plain run before c */
        from = at + 1;
        if (at == len)
            break;
        static const char plain[] = "\"\\\b\f\n\r\t";
        static const char name[] = "\"\\bfnrt";
        const char *found = c ? strchr(plain, c) : NULL;
        if (found)
            HM_TRY(hm_buf_printf(w->buf, w->err, "\\%c", name[found - plain]));
        else
            HM_TRY(hm_buf_printf(w->buf, w->err, "\\u%04x", c));
    }
    return hm_buf_append(w->buf, "\"", 1, w->err);
}

/* What stands between "[" and the first member, two members, or the last member and "]". */
static int write_break(const struct writer *w, int depth, bool between)
{
    if (w->indent == 0)
        return between ? hm_buf_text(w->buf, ", ", w->err) : HM_OK;
    return hm_buf_printf(w->buf, w->err, "%s\n%*s", between ? "," : "", w->indent * depth, "");
}

static int write_array(const struct writer *w, const json_t *array, int depth)
{
    size_t count = json_array_size(array);

    HM_TRY(hm_buf_text(w->buf, "[", w->err));
    for (size_t i = 0; i < count; i++) {
        HM_TRY(write_break(w, depth + 1, i > 0));
        HM_TRY(write_value(w, json_array_get(array, i), depth + 1));
    }
    if (count > 0)
        HM_TRY(write_break(w, depth, false));
    return hm_buf_text(w->buf, "]", w->err);
}

static int write_object(const struct writer *w, const json_t *object, int depth)
{
    json_t *walked = (json_t *)(uintptr_t)object; /* the iterators of jansson 2.14 take no const */
    bool first = true;

    HM_TRY(hm_buf_text(w->buf, "{", w->err));
    for (void *at = json_object_iter(walked); at; at = json_object_iter_next(walked, at)) {
        const char *key = json_object_iter_key(at);
        HM_TRY(write_break(w, depth + 1, !first));
        HM_TRY(write_string(w, key, strlen(key)));
        HM_TRY(hm_buf_text(w->buf, ": ", w->err));
        HM_TRY(write_value(w, json_object_iter_value(at), depth + 1));
        first = false;
    }
    if (!first)
        HM_TRY(write_break(w, depth, false));
    return hm_buf_text(w->buf, "}", w->err);
}

static int write_value(const struct writer *w, const json_t *value, int depth)
{
    char number[HM_DOUBLE_TEXT_BYTES];

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return write_object(w, value, depth);
    case JSON_ARRAY:
        return write_array(w, value, depth);
    case JSON_STRING:
        return write_string(w, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return hm_buf_printf(w->buf, w->err, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    case JSON_REAL:
        hm_double_text(json_real_value(value), number);
        return hm_buf_text(w->buf, number, w->err);
    case JSON_TRUE:
        return hm_buf_text(w->buf, "true", w->err);
    case JSON_FALSE:
        return hm_buf_text(w->buf, "false", w->err);
    case JSON_NULL:
        break;
    }
    return hm_buf_text(w->buf, "null", w->err);
}

int hm_json_dump(const json_t *value, struct hm_buf *buf, struct hm_error *err)
{
    struct writer w = { buf, 0, err };

    if (!value)
        return hm_fail_nomem(err, "building JSON");
    return write_value(&w, value, 0);
}

int hm_json_save(const char *path, const json_t *value, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    struct writer w = { &buf, 2, err };

    if (!value)
        return hm_fail_nomem(err, "building '%s'", path);
    int status = write_value(&w, value, 0);
    if (status == HM_OK)
        status = hm_buf_text(&buf, "\n", err);
    if (status == HM_OK)
        status = hm_file_write(path, buf.ptr, buf.len, err);
    hm_buf_release(&buf);
    return status;
}

int hm_json_save_in(const char *dir, const char *name, const json_t *value, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, name, err));
    int status = hm_json_save(path, value, err);
    hm_free(path);
    return status;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return json_integer_value(value) < 0 ? "a negative integer" : "an integer";
    case JSON_REAL:
        return "a real number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a truth value";
    case JSON_NULL:
        break;
    }
    return "null";
}

static int wrong_type(const char *what, const char *key, const char *expected, const json_t *found,
                      struct hm_error *err)
{
    return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' must be %s, found %s", what, key, expected,
                   type_name(found));
}

/* The member, NULL when absent or null, and *status when it must be there or object is none. */
static json_t *member(const json_t *object, const char *key, const char *what, bool required,
                      int *status, struct hm_error *err)
{
    json_t *value = json_object_get(object, key);

    *status = HM_OK;
    if (!json_is_object(object))
        *status = hm_fail(err, HM_ERR_FORMAT, "'%s': expected an object with '%s'", what, key);
    else if ((!value || json_is_null(value)) && required)
        *status = hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' is missing", what, key);
    return json_is_null(value) ? NULL : value;
}

static int get_u64(const json_t *object, const char *key, const char *what, bool required,
                   uint64_t *ret, struct hm_error *err)
{
    int status;
    json_t *value = member(object, key, what, required, &status, err);

    if (status < 0 || !value)
        return status;
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return wrong_type(what, key, "a non-negative integer", value, err);
    *ret = (uint64_t)json_integer_value(value);
    return HM_OK;
}

static int get_f64(const json_t *object, const char *key, const char *what, bool required,
                   double *ret, struct hm_error *err)
{
    int status;
    json_t *value = member(object, key, what, required, &status, err);

    if (status < 0 || !value)
        return status;
    if (!json_is_number(value))
        return wrong_type(what, key, "a number", value, err);
    *ret = json_number_value(value);
    return HM_OK;
}

static int get_text(const json_t *object, const char *key, const char *what, bool required,
                    const char **ret, struct hm_error *err)
{
    int status;
    json_t *value = member(object, key, what, required, &status, err);

    if (status < 0 || !value)
        return status;
    if (!json_is_string(value))
        return wrong_type(what, key, "a string", value, err);
    if (strlen(json_string_value(value)) != json_string_length(value))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': '%s' holds a NUL character", what, key);
    *ret = json_string_value(value);
    return HM_OK;
}

int hm_json_u64(const json_t *object, const char *key, const char *what, uint64_t *ret,
                struct hm_error *err)
{
    return get_u64(object, key, what, true, ret, err);
}

int hm_json_f64(const json_t *object, const char *key, const char *what, double *ret,
                struct hm_error *err)
{
    return get_f64(object, key, what, true, ret, err);
}

int hm_json_text(const json_t *object, const char *key, const char *what, const char **ret,
                 struct hm_error *err)
{
    return get_text(object, key, what, true, ret, err);
}

int hm_json_u64_opt(const json_t *object, const char *key, const char *what, uint64_t *ret,
                    struct hm_error *err)
{
    return get_u64(object, key, what, false, ret, err);
}

int hm_json_f64_opt(const json_t *object, const char *key, const char *what, double *ret,
                    struct hm_error *err)
{
    return get_f64(object, key, what, false, ret, err);
}

int hm_json_text_opt(const json_t *object, const char *key, const char *what, const char **ret,
                     struct hm_error *err)
{
    return get_text(object, key, what, false, ret, err);
}

int hm_json_bool_opt(const json_t *object, const char *key, const char *what, bool *ret,
                     struct hm_error *err)
{
    int status;
    json_t *value = member(object, key, what, false, &status, err);

    if (status < 0 || !value)
        return status;
    if (!json_is_boolean(value))
        return wrong_type(what, key, "true or false", value, err);
    *ret = json_is_true(value);
    return HM_OK;
}
