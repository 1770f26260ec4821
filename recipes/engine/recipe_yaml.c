/* SPDX-License-Identifier: MIT */
/*
 * The only file that knows libyaml: events of one document become recipe nodes with their lines.
 * A recipe is hostile until checked: its size, depth and number of values are bounded, and what
 * could expand (aliases) or mean something else to another reader (tags, duplicate keys) is
 * refused.
 */
#include "recipe_yaml.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define MAP_MAX_KEYS 1000u /* bounds the search for duplicates */

struct reader {
    yaml_parser_t parser;
    const char *file; /* NULL: the command line */
    size_t nodes;
};

static int fail_at(struct hm_error *err, const struct reader *reader, size_t line,
                   const char *sentence)
{
    if (!reader->file)
        return hm_fail(err, HM_ERR_USAGE, "command line: %s", sentence);
    return hm_fail(err, HM_ERR_USAGE, "%s:%zu: %s", reader->file, line + 1, sentence);
}

static int fail_parser(struct hm_error *err, const struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    char sentence[400];
    const char *context = parser->context ? parser->context : "";

    if (parser->error == YAML_MEMORY_ERROR)
        return hm_fail_nomem(err, "while reading a recipe");
    if (parser->error == YAML_READER_ERROR) {
        snprintf(sentence, sizeof(sentence), "not valid UTF-8 text: %s",
                 parser->problem ? parser->problem : "unreadable");
        return fail_at(err, reader, parser->mark.line, sentence);
    }
    const char *hint = strstr(context, "alias") || strstr(context, "anchor")
                           ? "; put quotes around a value that begins with * or &"
                           : "";
    snprintf(sentence, sizeof(sentence), "not valid YAML: %s%s%s%s",
             parser->problem ? parser->problem : "malformed", *context ? " " : "", context, hint);
    return fail_at(err, reader, parser->problem_mark.line, sentence);
}

static int next_event(struct reader *reader, yaml_event_t *ret_event, struct hm_error *err)
{
    if (!yaml_parser_parse(&reader->parser, ret_event))
        return fail_parser(err, reader);
    return HM_OK;
}

static bool is_null_word(const yaml_event_t *event)
{
    static const char *const word[] = { "", "~", "null", "Null", "NULL" };

    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++)
        if (strcmp((const char *)event->data.scalar.value, word[i]) == 0)
            return true;
    return false;
}

static int check_scalar(struct reader *reader, const yaml_event_t *event, struct hm_error *err)
{
    if (strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
        return fail_at(err, reader, event->start_mark.line, "a value holds a NUL byte");
    return HM_OK;
}

/* Anchors and tags on any kind of value. */
static int check_plain(struct reader *reader, const yaml_event_t *event, struct hm_error *err)
{
    const yaml_char_t *anchor = NULL, *tag = NULL;

    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (event->type == YAML_ALIAS_EVENT || anchor)
        return fail_at(err, reader, event->start_mark.line,
                       "anchors and aliases (&name, *name) are not used in recipes; write the "
                       "value out, or put quotes around it");
    if (tag)
        return fail_at(err, reader, event->start_mark.line, "tags (!name) are not used in recipes");
    if (++reader->nodes > HM_RECIPE_MAX_NODES)
        return fail_at(err, reader, event->start_mark.line,
                       "a recipe may hold at most 100000 values");
    return HM_OK;
}

static int read_node(struct reader *reader, yaml_event_t *event, int depth, struct hm_node *node,
                     struct hm_error *err);

static int read_list(struct reader *reader, int depth, struct hm_node *node, struct hm_error *err)
{
    for (;;) {
        yaml_event_t event;
        struct hm_node *child = NULL;
        HM_TRY(next_event(reader, &event, err));
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return HM_OK;
        }
        int status = hm_node_add(node, NULL, &child, err);
        if (status == HM_OK)
            status = read_node(reader, &event, depth + 1, child, err);
        yaml_event_delete(&event);
        HM_TRY(status);
    }
}

/* The key of the next pair as a new child; *ret_child NULL at the end of the map. */
static int read_key(struct reader *reader, struct hm_node *node, struct hm_node **ret_child,
                    struct hm_error *err)
{
    yaml_event_t event;
    char sentence[200];
    int status = HM_OK;

    HM_TRY(next_event(reader, &event, err));
    *ret_child = NULL;
    if (event.type == YAML_MAPPING_END_EVENT)
        goto out;
    status = check_plain(reader, &event, err);
    if (status == HM_OK && event.type != YAML_SCALAR_EVENT)
        status = fail_at(err, reader, event.start_mark.line, "a key must be one word");
    if (status == HM_OK)
        status = check_scalar(reader, &event, err);
    if (status < 0)
        goto out;
    const char *key = (const char *)event.data.scalar.value;
    if (node->count >= MAP_MAX_KEYS) {
        status = fail_at(err, reader, event.start_mark.line, "a map may hold at most 1000 keys");
        goto out;
    }
    if (hm_node_find(node, key)) {
        snprintf(sentence, sizeof(sentence), "key '%.100s' is given twice", key);
        status = fail_at(err, reader, event.start_mark.line, sentence);
        goto out;
    }
    status = hm_node_add(node, key, ret_child, err);
    if (status == HM_OK)
        (*ret_child)->line = (int)event.start_mark.line + 1;
out:
    yaml_event_delete(&event);
    return status;
}

static int read_map(struct reader *reader, int depth, struct hm_node *node, struct hm_error *err)
{
    for (;;) {
        yaml_event_t event;
        struct hm_node *child;
        HM_TRY(read_key(reader, node, &child, err));
        if (!child)
            return HM_OK;
        HM_TRY(next_event(reader, &event, err));
        int status = read_node(reader, &event, depth + 1, child, err);
        yaml_event_delete(&event);
        HM_TRY(status);
    }
}

/* The value that `event` begins; the caller deletes the event. */
static int read_node(struct reader *reader, yaml_event_t *event, int depth, struct hm_node *node,
                     struct hm_error *err)
{
    if (depth > HM_RECIPE_MAX_DEPTH)
        return fail_at(err, reader, event->start_mark.line, "values lie more than 16 levels deep");
    HM_TRY(check_plain(reader, event, err));
    node->file = reader->file;
    node->line = (int)event->start_mark.line + 1;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        HM_TRY(check_scalar(reader, event, err));
        if (is_null_word(event))
            return HM_OK;
        return hm_node_set_text(node, (const char *)event->data.scalar.value, err);
    case YAML_SEQUENCE_START_EVENT:
        node->kind = HM_NODE_LIST;
        return read_list(reader, depth, node, err);
    case YAML_MAPPING_START_EVENT:
        node->kind = HM_NODE_MAP;
        return read_map(reader, depth, node, err);
    default:
        return fail_at(err, reader, event->start_mark.line, "a value is missing");
    }
}

/* stream start, document start, value, document end, stream end */
static int read_document(struct reader *reader, struct hm_node *root, struct hm_error *err)
{
    yaml_event_t event;
    bool seen = false;

    for (;;) {
        HM_TRY(next_event(reader, &event, err));
        yaml_event_type_t type = event.type;
        int status = HM_OK;
        if (type == YAML_DOCUMENT_START_EVENT && seen)
            status = fail_at(err, reader, event.start_mark.line, "a second document begins here");
        else if (type == YAML_DOCUMENT_START_EVENT)
            seen = true;
        else if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_END_EVENT &&
                 type != YAML_STREAM_END_EVENT)
            status = read_node(reader, &event, 0, root, err);
        yaml_event_delete(&event);
        HM_TRY(status);
        if (type == YAML_STREAM_END_EVENT)
            return HM_OK;
    }
}

int hm_yaml_parse(struct hm_str text, const char *file, struct hm_node *ret_root,
                  struct hm_error *err)
{
    struct reader reader = { .file = file };

    ret_root->file = file;
    if (text.len > HM_RECIPE_MAX_BYTES)
        return hm_fail(err, HM_ERR_USAGE, "%s: %zu bytes, a recipe has at most %u",
                       file ? file : "command line", text.len, HM_RECIPE_MAX_BYTES);
    if (!yaml_parser_initialize(&reader.parser))
        return hm_fail_nomem(err, "while reading a recipe");
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0) { /* the mark of some editors */
        text.ptr += 3;
        text.len -= 3;
    }
    yaml_parser_set_encoding(&reader.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)text.ptr, text.len);
    int status = read_document(&reader, ret_root, err);
    yaml_parser_delete(&reader.parser);
    return status;
}
