/* SPDX-License-Identifier: MIT */
/*
 * Field tables: one value at a time from text to the member of a config struct and back to JSON.
 * Every mistake names place, key, and what would be right. The tables themselves belong to the
 * stages; printing them is stage_help.c.
 */
#include "fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/file.h"

static void *member(const struct hm_field *field, void *config)
{
    return (char *)config + field->offset;
}

static const void *member_const(const struct hm_field *field, const void *config)
{
    return (const char *)config + field->offset;
}

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "while reading settings");
}

const char *hm_field_type_name(enum hm_field_type type)
{
    static const char *const name[] = {
        [HM_FIELD_BOOL] = "true/false", [HM_FIELD_COUNT] = "count", [HM_FIELD_SIZE] = "size",
        [HM_FIELD_DOUBLE] = "number",   [HM_FIELD_TEXT] = "text",   [HM_FIELD_CHOICE] = "choice",
        [HM_FIELD_LIST] = "list",       [HM_FIELD_MAP] = "map",
    };
    return name[type];
}

/* --- one value --- */

static int parse_choice(const struct hm_field *field, const char *text, int *ret_choice,
                        struct hm_error *err)
{
    static const char *const synonym[][2] = {
        { "true", "all" }, { "true", "on" }, { "false", "none" }, { "false", "off" }
    };
    char valid[256] = "";
    size_t used = 0;

    for (int i = 0; field->choices[i]; i++) {
        const char *choice = field->choices[i];
        bool same = strcmp(choice, text) == 0;
        for (size_t s = 0; s < sizeof(synonym) / sizeof(synonym[0]); s++)
            same |= strcmp(synonym[s][0], text) == 0 && strcmp(synonym[s][1], choice) == 0;
        if (same) {
            *ret_choice = i;
            return HM_OK;
        }
        if (used < sizeof(valid))
            used += (size_t)snprintf(valid + used, sizeof(valid) - used, "%s%s", i == 0 ? "" : ", ",
                                     choice);
    }
    return hm_fail(err, HM_ERR_USAGE, "'%s' is not one of: %s", text, valid);
}

static int check_range(const struct hm_field *field, double value, const char *text,
                       struct hm_error *err)
{
    char low[HM_DOUBLE_TEXT_BYTES], high[HM_DOUBLE_TEXT_BYTES];

    if ((field->min == 0 && field->max == 0) || (value >= field->min && value <= field->max))
        return HM_OK;
    snprintf(low, sizeof(low), "%.15g", field->min);
    snprintf(high, sizeof(high), "%.15g", field->max);
    return hm_fail(err, HM_ERR_USAGE, "%s is out of range: from %s to %s", text, low, high);
}

/* Bool, count, size, double, choice: no memory held. */
static int parse_scalar(const struct hm_field *field, const char *text, void *config,
                        struct hm_error *err)
{
    void *at = member(field, config);
    uint64_t whole = 0;

    switch (field->type) {
    case HM_FIELD_BOOL:
        return hm_parse_bool(text, at, err);
    case HM_FIELD_DOUBLE:
        HM_TRY(hm_parse_double(text, at, err));
        return check_range(field, *(const double *)at, text, err);
    case HM_FIELD_CHOICE:
        return parse_choice(field, text, at, err);
    case HM_FIELD_COUNT:
        HM_TRY(hm_parse_count(text, &whole, err));
        break;
    default:
        HM_TRY(hm_parse_size(text, &whole, err));
        break;
    }
    if (whole > INT64_MAX) /* JSON keeps no more */
        return hm_fail(err, HM_ERR_USAGE, "%s is out of range: at most %" PRId64, text, INT64_MAX);
    HM_TRY(check_range(field, (double)whole, text, err));
    *(uint64_t *)at = whole;
    return HM_OK;
}

static bool names_file(const struct hm_field *field, const char *text)
{
    if (!field->path || !text || !*text)
        return false;
    for (size_t i = 0; field->choices && field->choices[i]; i++)
        if (strcmp(field->choices[i], text) == 0)
            return false;
    return hm_parse_count(text, &(uint64_t){ 0 }, NULL) < 0;
}

const char *hm_field_path(const struct hm_field *field, const void *config)
{
    const char *text = field->path ? *(char *const *)member_const(field, config) : NULL;

    return names_file(field, text) ? text : NULL;
}

static int set_text(char **slot, const char *text, struct hm_error *err)
{
    char *copy = hm_strdup(HM_MEM_OTHER, text);

    if (!copy)
        return fail_nomem(err);
    hm_free(*slot);
    *slot = copy;
    return HM_OK;
}

static int list_add(struct hm_text_list *list, const char *text, size_t len, struct hm_error *err)
{
    char **item = hm_realloc(HM_MEM_OTHER, list->item, (list->count + 1) * sizeof(*item));

    if (!item)
        return fail_nomem(err);
    list->item = item;
    item[list->count] = hm_strndup(HM_MEM_OTHER, text, len);
    if (!item[list->count])
        return fail_nomem(err);
    list->count++;
    return HM_OK;
}

static void list_clear(struct hm_text_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        hm_free(list->item[i]);
    hm_free(list->item);
    *list = (struct hm_text_list){ 0 };
}

static void map_clear(struct hm_text_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        hm_free(map->key[i]);
        hm_free(map->value[i]);
    }
    hm_free(map->key);
    hm_free(map->value);
    *map = (struct hm_text_map){ 0 };
}

static int map_add(struct hm_text_map *map, const char *key, size_t key_len, const char *value,
                   size_t value_len, struct hm_error *err)
{
    char **keys = hm_realloc(HM_MEM_OTHER, map->key, (map->count + 1) * sizeof(*keys));
    if (!keys)
        return fail_nomem(err);
    map->key = keys;
    char **values = hm_realloc(HM_MEM_OTHER, map->value, (map->count + 1) * sizeof(*values));
    if (!values)
        return fail_nomem(err);
    map->value = values;
    keys[map->count] = hm_strndup(HM_MEM_OTHER, key, key_len);
    values[map->count] = hm_strndup(HM_MEM_OTHER, value, value_len);
    if (keys[map->count] && values[map->count]) {
        map->count++;
        return HM_OK;
    }
    hm_free(keys[map->count]);
    hm_free(values[map->count]);
    return fail_nomem(err);
}

/* The next part of "a, b,c" without blanks around it; returns where to go on, NULL at the end. */
static const char *next_part(const char *text, const char **ret_part, size_t *ret_len)
{
    const char *end = text + strcspn(text, ",");
    const char *last = end;

    while (*text == ' ')
        text++;
    while (last > text && last[-1] == ' ')
        last--;
    *ret_part = text;
    *ret_len = (size_t)(last - text);
    return *end == ',' ? end + 1 : NULL;
}

static int parse_list_text(struct hm_text_list *list, const char *text, struct hm_error *err)
{
    const char *part;
    size_t len;

    while (text) {
        text = next_part(text, &part, &len);
        if (len > 0)
            HM_TRY(list_add(list, part, len, err));
    }
    return HM_OK;
}

/* "a=1, b=2" */
static int parse_map_text(struct hm_text_map *map, const char *text, struct hm_error *err)
{
    const char *part;
    size_t len;

    while (text) {
        text = next_part(text, &part, &len);
        if (len == 0)
            continue;
        const char *mark = memchr(part, '=', len);
        if (!mark || mark == part)
            return hm_fail(err, HM_ERR_USAGE, "'%.*s' is not KEY=VALUE", (int)len, part);
        HM_TRY(map_add(map, part, (size_t)(mark - part), mark + 1, len - (size_t)(mark + 1 - part),
                       err));
    }
    return HM_OK;
}

/* --- a node --- */

static int parse_list_node(const struct hm_node *node, struct hm_text_list *list,
                           struct hm_error *err)
{
    list_clear(list);
    list->given = true;
    if (node->kind == HM_NODE_TEXT)
        return parse_list_text(list, node->text, err);
    if (node->kind != HM_NODE_LIST)
        return hm_fail(err, HM_ERR_USAGE, "must be a list, it is %s", hm_node_kind_name(node));
    for (size_t i = 0; i < node->count; i++) {
        if (node->item[i].kind != HM_NODE_TEXT)
            return hm_fail(err, HM_ERR_USAGE, "item %zu must be one value, it is %s", i + 1,
                           hm_node_kind_name(&node->item[i]));
        HM_TRY(list_add(list, node->item[i].text, strlen(node->item[i].text), err));
    }
    return HM_OK;
}

static int parse_map_node(const struct hm_node *node, struct hm_text_map *map, struct hm_error *err)
{
    map_clear(map);
    if (node->kind == HM_NODE_TEXT)
        return parse_map_text(map, node->text, err);
    if (node->kind != HM_NODE_MAP)
        return hm_fail(err, HM_ERR_USAGE, "must be a map, it is %s", hm_node_kind_name(node));
    for (size_t i = 0; i < node->count; i++) {
        const struct hm_node *value = &node->item[i];
        if (value->kind != HM_NODE_TEXT)
            return hm_fail(err, HM_ERR_USAGE, "'%s' must be one value, it is %s", value->key,
                           hm_node_kind_name(value));
        HM_TRY(map_add(map, value->key, strlen(value->key), value->text, strlen(value->text), err));
    }
    return HM_OK;
}

static int parse_text_node(const struct hm_field *field, const struct hm_node *node,
                           const char *base_dir, char **slot, struct hm_error *err)
{
    char *joined = NULL;

    if (!node->file || !names_file(field, node->text))
        return set_text(slot, node->text, err);
    HM_TRY(hm_path_join(&joined, base_dir, node->text, err));
    hm_free(*slot);
    *slot = joined;
    return HM_OK;
}

static int parse_node(const struct hm_field *field, const struct hm_node *node,
                      const char *base_dir, void *config, struct hm_error *err)
{
    if (node->kind == HM_NODE_NULL) /* "key:" with nothing keeps the default */
        return HM_OK;
    if (field->type == HM_FIELD_LIST)
        return parse_list_node(node, member(field, config), err);
    if (field->type == HM_FIELD_MAP)
        return parse_map_node(node, member(field, config), err);
    if (node->kind != HM_NODE_TEXT)
        return hm_fail(err, HM_ERR_USAGE, "must be one value (%s), it is %s",
                       hm_field_type_name(field->type), hm_node_kind_name(node));
    if (field->type == HM_FIELD_TEXT)
        return parse_text_node(field, node, base_dir, member(field, config), err);
    return parse_scalar(field, node->text, config, err);
}

static int parse_default(const struct hm_field *field, void *config, struct hm_error *err)
{
    if (!field->fallback)
        return HM_OK;
    switch (field->type) {
    case HM_FIELD_TEXT:
        return set_text(member(field, config), field->fallback, err);
    case HM_FIELD_LIST:
        return parse_list_text(member(field, config), field->fallback, err);
    case HM_FIELD_MAP:
        return parse_map_text(member(field, config), field->fallback, err);
    default:
        return parse_scalar(field, field->fallback, config, err);
    }
}

int hm_fields_parse(const struct hm_field *fields, size_t n, const struct hm_node *map,
                    const char *prefix, const char *base_dir, void *config, struct hm_error *err)
{
    char place[HM_NODE_PLACE_BYTES];

    for (size_t i = 0; i < n; i++) {
        const struct hm_node *node = hm_node_find(map, fields[i].name);
        int status = parse_default(&fields[i], config, err);
        if (status == HM_OK && node) {
            status = parse_node(&fields[i], node, base_dir, config, err);
            if (status < 0)
                hm_error_prefix(err, "%s: %s.%s", hm_node_place(node, place), prefix,
                                fields[i].name);
        }
        HM_TRY(status);
    }
    return HM_OK;
}

void hm_fields_release(const struct hm_field *fields, size_t n, void *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < n; i++) {
        void *at = member(&fields[i], config);
        if (fields[i].type == HM_FIELD_TEXT) {
            hm_free(*(char **)at);
            *(char **)at = NULL;
        } else if (fields[i].type == HM_FIELD_LIST) {
            list_clear(at);
        } else if (fields[i].type == HM_FIELD_MAP) {
            map_clear(at);
        }
    }
}

/* --- to JSON --- */

static json_t *list_json(const struct hm_text_list *list)
{
    json_t *array = json_array();

    for (size_t i = 0; array && i < list->count; i++)
        if (json_array_append_new(array, json_string(list->item[i])) < 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static json_t *map_json(const struct hm_text_map *map)
{
    json_t *object = json_object();

    for (size_t i = 0; object && i < map->count; i++)
        if (json_object_set_new(object, map->key[i], json_string(map->value[i])) < 0) {
            json_decref(object);
            return NULL;
        }
    return object;
}

static json_t *value_json(const struct hm_field *field, const void *config)
{
    const void *at = member_const(field, config);
    const char *text;

    switch (field->type) {
    case HM_FIELD_BOOL:
        return json_boolean(*(const bool *)at);
    case HM_FIELD_DOUBLE:
        return json_real(*(const double *)at);
    case HM_FIELD_CHOICE:
        return json_string(field->choices[*(const int *)at]);
    case HM_FIELD_TEXT:
        text = *(char *const *)at;
        return text ? json_string(text) : json_null();
    case HM_FIELD_LIST:
        return list_json(at);
    case HM_FIELD_MAP:
        return map_json(at);
    default:
        return json_integer((json_int_t) * (const uint64_t *)at);
    }
}

int hm_fields_json(const struct hm_field *fields, size_t n, const void *config, bool identity_only,
                   json_t *object, struct hm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (identity_only && fields[i].neutral)
            continue;
        json_t *value = value_json(&fields[i], config);
        if (!value || json_object_set_new(object, fields[i].name, value) < 0)
            return fail_nomem(err);
    }
    return HM_OK;
}
