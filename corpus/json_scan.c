/* SPDX-License-Identifier: MIT */
/*
 * One JSON object in one pass, without a tree: the line is checked whole, and the members at two
 * paths are found. A line is accepted only when the tree parser (base/json.h) accepts it too and
 * would find the same; whatever is rare (more than KEYS_MAX keys open, escapes in a key, numbers
 * near the limits) or wrong is refused, and the tree decides and has the words for it. A refused
 * line is as it was; of an accepted one the strings found are unescaped in place.
 */
#include <string.h>

#include "internal.h"

#define DEPTH_MAX    64 /* the tree parser's */
#define KEYS_MAX     96
#define KEY_PART_MAX 256

struct member { /* a value found; slices of the line */
    char *text; /* of a string, between the quotes */
    size_t len;
    int depth; /* of the object that holds it; 0: not found */
    bool is_string, escaped;
};

struct wanted { /* a path such as "meta.source", and how far the objects open now lead along it */
    const char *rest[DEPTH_MAX + 2]; /* by depth: what remains of the path */
    int depth;                       /* of the deepest object on the path */
    struct member found;
};

struct scan {
    char *at, *end;
    struct wanted wanted[2];
    size_t n_wanted;
    struct hm_str key[KEYS_MAX]; /* of the objects open, outermost first */
    size_t n_keys;
};

static bool scan_value(struct scan *scan, int depth, struct member *ret_value);

static inline void space_skip(struct scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r'))
        scan->at++;
}

static inline bool take(struct scan *scan, char byte)
{
    if (scan->at == scan->end || *scan->at != byte)
        return false;
    scan->at++;
    return true;
}

static inline bool is_digit(const struct scan *scan)
{
    return scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9';
}

/* --- strings ---------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
        return (c | 0x20) - 'a' + 10;
    return -1;
}

/* The code unit of \uXXXX at `at`, or -1. */
static int32_t unit_read(const char *at, const char *end)
{
    int32_t unit = 0;

    if (end - at < 6 || at[0] != '\\' || at[1] != 'u')
        return -1;
    for (int i = 2; i < 6; i++) {
        int digit = hex_value(at[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* Length of the escape at `at` and what it stands for; 0 when it is none. */
static unsigned escape_read(const char *at, const char *end, uint32_t *ret_code)
{
    static const char name[] = "\"\\/bfnrt", code[] = "\"\\/\b\f\n\r\t";

    if (end - at < 2)
        return 0;
    if (at[1] != 'u') {
        const char *found = at[1] ? strchr(name, at[1]) : NULL;
        *ret_code = found ? (unsigned char)code[found - name] : 0;
        return found ? 2 : 0;
    }
    int32_t unit = unit_read(at, end);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff))
        return 0;
    *ret_code = (uint32_t)unit;
    if (unit < 0xd800 || unit > 0xdbff)
        return 6;
    int32_t low = unit_read(at + 6, end);
    *ret_code = 0x10000u + ((uint32_t)(unit & 0x3ff) << 10 | (uint32_t)(low & 0x3ff));
    return low >= 0xdc00 && low <= 0xdfff ? 12 : 0;
}

bool hm_json_surrogates_mend(char *line, size_t len)
{
    char *end = line + len, *at = line;
    bool mended = false;

    while ((at = memchr(at, '\\', (size_t)(end - at))) != NULL) {
        uint32_t code;
        int32_t unit = unit_read(at, end);
        unsigned used = escape_read(at, end, &code);
        if (used == 0 && unit >= 0) {
            memcpy(at, "\\ufffd", 6);
            mended = true;
        }
        at += used ? used : unit >= 0 ? 6 : 1;
    }
    return mended;
}

/* The string at scan->at, its quotes taken. */
static bool scan_string(struct scan *scan, struct member *ret_value)
{
    bool escaped = false;

    if (!take(scan, '"'))
        return false;
    char *first = scan->at;
    for (;;) {
        uint32_t code;
        struct hm_str rest = { scan->at, (size_t)(scan->end - scan->at) };
        scan->at += hm_utf8_string_span(rest);
        if (take(scan, '"'))
            break;
        unsigned used =
            scan->at < scan->end && *scan->at == '\\' ? escape_read(scan->at, scan->end, &code) : 0;
        if (used == 0)
            return false;
        scan->at += used;
        escaped = true;
    }
    *ret_value = (struct member){
        .text = first, .len = (size_t)(scan->at - 1 - first), .is_string = true, .escaped = escaped
    };
    return true;
}

/* Escapes to what they stand for, which is never longer; the string was scanned before. */
static void unescape(struct member *value)
{
    char *end = value->text + value->len;
    char *escape = memchr(value->text, '\\', value->len), *to = escape;

    while (escape) {
        uint32_t code = 0;
        char *from = escape + escape_read(escape, end, &code);
        to += hm_utf8_encode(code, to);
        escape = memchr(from, '\\', (size_t)(end - from));
        size_t plain = (size_t)((escape ? escape : end) - from);
        memmove(to, from, plain);
        to += plain;
    }
    if (to)
        value->len = (size_t)(to - value->text);
    value->escaped = false;
}

/* --- numbers and words ------------------------------------------------------------------------ */

/* Numbers that a double holds for sure, if not exactly. */
static bool scan_number(struct scan *scan)
{
    take(scan, '-');
    const char *first = scan->at;

    if (!is_digit(scan))
        return false;
    while (is_digit(scan))
        scan->at++;
    size_t digits = (size_t)(scan->at - first);
    if (digits > 1 && *first == '0')
        return false;
    if (take(scan, '.') && !is_digit(scan))
        return false;
    while (is_digit(scan))
        scan->at++;
    if (take(scan, 'e') || take(scan, 'E')) {
        if (!take(scan, '+'))
            take(scan, '-');
        first = scan->at;
        while (is_digit(scan))
            scan->at++;
        if (scan->at == first || scan->at - first > 2)
            return false;
    }
    return digits <= 200;
}

static bool scan_word(struct scan *scan, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, word, len) != 0)
        return false;
    scan->at += len;
    return true;
}

/* --- objects ---------------------------------------------------------------------------------- */

/* Put the key down among those of its object, which begin at `first`; false when it is there. */
static bool key_add(struct scan *scan, size_t first, struct hm_str key)
{
    if (scan->n_keys == KEYS_MAX)
        return false;
    for (size_t i = first; i < scan->n_keys; i++)
        if (hm_str_equal(scan->key[i], key))
            return false;
    scan->key[scan->n_keys++] = key;
    return true;
}

/* An object follows under this key: does the path lead into it? */
static void path_enter(struct wanted *wanted, int depth, struct hm_str key)
{
    const char *rest = wanted->rest[depth];
    const char *dot = strchr(rest, '.');

    if (!dot || (size_t)(dot - rest) >= KEY_PART_MAX ||
        !hm_str_equal(key, (struct hm_str){ rest, (size_t)(dot - rest) }))
        return;
    wanted->rest[depth + 1] = dot + 1;
    wanted->depth = depth + 1;
}

/* The value of one key, at scan->at. What is nearest the top wins, as a key that itself holds a dot
 * is found before the path is taken apart. */
static bool scan_member(struct scan *scan, int depth, struct hm_str key)
{
    struct member value = { 0 };
    bool on_path[2] = { false, false };

    for (size_t i = 0; i < scan->n_wanted; i++) {
        on_path[i] = scan->wanted[i].depth == depth;
        if (on_path[i] && *scan->at == '{')
            path_enter(&scan->wanted[i], depth, key);
    }
    if (!scan_value(scan, depth, &value))
        return false;
    value.depth = depth;
    for (size_t i = 0; i < scan->n_wanted; i++) {
        struct wanted *wanted = &scan->wanted[i];
        if (!on_path[i])
            continue;
        wanted->depth = depth;
        if (hm_str_is(key, wanted->rest[depth]) &&
            (wanted->found.depth == 0 || wanted->found.depth > depth))
            wanted->found = value;
    }
    return true;
}

/* The object at scan->at; depth is its own. */
static bool scan_object(struct scan *scan, int depth)
{
    size_t first = scan->n_keys;

    if (depth > DEPTH_MAX || !take(scan, '{'))
        return false;
    space_skip(scan);
    if (take(scan, '}'))
        return true;
    do {
        struct member key;
        space_skip(scan);
        if (!scan_string(scan, &key) || key.escaped ||
            !key_add(scan, first, (struct hm_str){ key.text, key.len }))
            return false;
        space_skip(scan);
        if (!take(scan, ':'))
            return false;
        space_skip(scan);
        if (scan->at == scan->end ||
            !scan_member(scan, depth, (struct hm_str){ key.text, key.len }))
            return false;
        space_skip(scan);
    } while (take(scan, ','));
    scan->n_keys = first;
    return take(scan, '}');
}

static bool scan_array(struct scan *scan, int depth)
{
    struct member value;

    if (depth > DEPTH_MAX || !take(scan, '['))
        return false;
    space_skip(scan);
    if (take(scan, ']'))
        return true;
    do {
        space_skip(scan);
        if (!scan_value(scan, depth, &value))
            return false;
        space_skip(scan);
    } while (take(scan, ','));
    return take(scan, ']');
}

/* The value at scan->at inside `depth` objects and arrays. */
static bool scan_value(struct scan *scan, int depth, struct member *ret_value)
{
    if (scan->at == scan->end)
        return false;
    switch (*scan->at) {
    case '"':
        return scan_string(scan, ret_value);
    case '{':
        return scan_object(scan, depth + 1);
    case '[':
        return scan_array(scan, depth + 1);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    default:
        return scan_number(scan);
    }
}

bool hm_json_scan(char *line, size_t len, const char *field, const char *set_field,
                  struct json_line *ret_line)
{
    struct scan scan = { .at = line, .end = line + len };
    const char *path[2] = { field, set_field };

    scan.n_wanted = set_field ? 2 : 1;
    for (size_t i = 0; i < scan.n_wanted; i++) {
        scan.wanted[i].rest[1] = path[i];
        scan.wanted[i].depth = 1;
    }
    space_skip(&scan);
    if (!scan_object(&scan, 1))
        return false;
    space_skip(&scan);
    struct member *text = &scan.wanted[0].found, *set = &scan.wanted[1].found;
    if (scan.at != scan.end || !text->is_string)
        return false;
    bool same = set->text == text->text;
    if (text->escaped)
        unescape(text);
    *ret_line = (struct json_line){ .text = { text->text, text->len } };
    if (set->is_string) {
        if (same)
            *set = *text;
        else if (set->escaped)
            unescape(set);
        set->text[set->len] = '\0'; /* where its quote was, or before */
        ret_line->set = set->text;
    }
    return true;
}
