/* SPDX-License-Identifier: MIT */
/*
 * Classes of characters in split patterns: [..], \p{..} and other escapes, cases of letters. What
 * is not known is refused by name.
 */
#include <string.h>

#include "split_parser.h"

#define LAST_SPACE 0x3000u

int hm_pattern_refuse(const struct parser *p, const char *why)
{
    return hm_fail(p->err, HM_ERR_FORMAT,
                   "'%s': the pattern '%.*s' %s at byte %zu; it cannot be read exactly", p->what,
                   (int)(p->text.len < 200 ? p->text.len : 200), p->text.ptr, why, p->at);
}

bool hm_pattern_next_is(const struct parser *p, const char *word)
{
    size_t len = strlen(word);

    return p->text.len - p->at >= len && memcmp(p->text.ptr + p->at, word, len) == 0;
}

bool hm_pattern_skip(struct parser *p, const char *word)
{
    bool found = hm_pattern_next_is(p, word);

    p->at += found ? strlen(word) : 0;
    return found;
}

/* --- sets ------------------------------------------------------------------------------------- */

void hm_char_set_put(struct hm_char_set *set, uint32_t first, uint32_t last)
{
    for (uint32_t code = first; code <= last; code++)
        set->word[code / 64] |= (uint64_t)1 << code % 64;
}

static bool set_has(const struct hm_char_set *set, uint32_t code)
{
    return set->word[code / 64] >> code % 64 & 1;
}

static void set_put_classes(const struct parser *p, struct hm_char_set *set, uint32_t classes,
                            bool negative)
{
    for (uint32_t code = 0; code < HM_UNICODE_CODES; code++)
        if ((classes >> p->class_of[code] & 1) != negative)
            set->word[code / 64] |= (uint64_t)1 << code % 64;
}

int hm_pattern_set_new(struct parser *p, int32_t *ret_set)
{
    struct hm_split_pattern *pattern = p->pattern;

    if (pattern->n_sets == HM_PATTERN_MAX_SETS)
        return hm_pattern_refuse(p, "has too many classes");
    struct hm_char_set *set = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*set));
    if (!set)
        return hm_fail_nomem(p->err, "for a pattern");
    *ret_set = (int32_t)pattern->n_sets;
    pattern->set[pattern->n_sets++] = set;
    return HM_OK;
}

/* Other cases of the ASCII letters of the set; Unicode folds two more letters onto them. */
int hm_pattern_set_fold(struct parser *p, struct hm_char_set *set)
{
    for (size_t word = 2; word < HM_UNICODE_CODES / 64; word++)
        if (set->word[word])
            return hm_pattern_refuse(p, "folds the case of other letters than ASCII's");
    for (uint32_t lower = 'a'; lower <= 'z'; lower++) {
        if (!set_has(set, lower) && !set_has(set, lower - 32))
            continue;
        hm_char_set_put(set, lower, lower);
        hm_char_set_put(set, lower - 32, lower - 32);
        if (lower == 's')
            hm_char_set_put(set, 0x17f, 0x17f);
        if (lower == 'k')
            hm_char_set_put(set, 0x212a, 0x212a);
    }
    return HM_OK;
}

static uint32_t classes_of(const char *name, size_t len)
{
    static const struct {
        const char *name;
        uint32_t classes;
    } known[] = {
        { "L", 0x3e },
        { "Lu", 1u << HM_CLASS_LU },
        { "Ll", 1u << HM_CLASS_LL },
        { "Lt", 1u << HM_CLASS_LT },
        { "Lm", 1u << HM_CLASS_LM },
        { "Lo", 1u << HM_CLASS_LO },
        { "M", 1u << HM_CLASS_MARK },
        { "N", 1u << HM_CLASS_ND | 1u << HM_CLASS_NL | 1u << HM_CLASS_NO },
        { "Nd", 1u << HM_CLASS_ND },
        { "Nl", 1u << HM_CLASS_NL },
        { "No", 1u << HM_CLASS_NO },
        { "P", 1u << HM_CLASS_PUNCTUATION },
        { "S", 1u << HM_CLASS_SYMBOL },
        { "Z", 1u << HM_CLASS_SEPARATOR },
        { "C", 1u << HM_CLASS_OTHER },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
            return known[i].classes;
    return 0;
}

static void set_put_han(struct hm_char_set *set, bool negative)
{
    for (uint32_t code = 0; code < HM_UNICODE_CODES; code++)
        if (hm_unicode_is_han(code) != negative)
            hm_char_set_put(set, code, code);
}

/* {Name} or {^Name} behind \p or \P. */
static int property(struct parser *p, struct hm_char_set *set, bool negative)
{
    if (!hm_pattern_skip(p, "{"))
        return hm_pattern_refuse(p, "has \\p without {..}");
    negative ^= hm_pattern_skip(p, "^");
    const char *name = p->text.ptr + p->at;
    const char *end = memchr(name, '}', p->text.len - p->at);
    if (!end)
        return hm_pattern_refuse(p, "has \\p{ without }");
    size_t len = (size_t)(end - name);
    uint32_t classes = classes_of(name, len);
    if (classes)
        set_put_classes(p, set, classes, negative);
    else if (len == 3 && memcmp(name, "Han", 3) == 0)
        set_put_han(set, negative);
    else
        return hm_pattern_refuse(
            p, "has a property other than L, Lu, Ll, Lt, Lm, Lo, M, N, Nd, Nl, No, P, S, "
               "Z, C and Han");
    p->at += len + 1;
    return HM_OK;
}

static int hex_code(struct parser *p, size_t digits, uint32_t *ret_code)
{
    uint32_t code = 0;

    if (p->text.len - p->at < digits)
        return hm_pattern_refuse(p, "ends within a number");
    for (size_t i = 0; i < digits; i++) {
        static const char hex[] = "0123456789abcdef";
        char c = p->text.ptr[p->at++];
        const char *found = memchr(hex, c >= 'A' && c <= 'F' ? c + 32 : c, 16);
        if (!found)
            return hm_pattern_refuse(p, "has a number that is not hexadecimal");
        code = code << 4 | (uint32_t)(found - hex);
    }
    *ret_code = code;
    return HM_OK;
}

/* What follows a backslash: a character, or characters put into set (*ret_is_set). */
int hm_pattern_escape(struct parser *p, struct hm_char_set *set, bool *ret_is_set,
                      uint32_t *ret_code)
{
    char c = p->at < p->text.len ? p->text.ptr[p->at++] : '\0';

    *ret_is_set = strchr("pPsSdD", c) && c;
    switch (c) {
    case 'p':
    case 'P':
        return property(p, set, c == 'P');
    case 's':
    case 'S':
        for (uint32_t code = 0; code <= LAST_SPACE; code++)
            if (hm_unicode_is_space(code) != (c == 'S'))
                hm_char_set_put(set, code, code);
        if (c == 'S')
            hm_char_set_put(set, LAST_SPACE + 1, HM_UNICODE_CODES - 1);
        return HM_OK;
    case 'd':
    case 'D':
        set_put_classes(p, set, 1u << HM_CLASS_ND, c == 'D');
        return HM_OK;
    case 'n':
        *ret_code = '\n';
        return HM_OK;
    case 'r':
        *ret_code = '\r';
        return HM_OK;
    case 't':
        *ret_code = '\t';
        return HM_OK;
    case 'f':
        *ret_code = '\f';
        return HM_OK;
    case 'u':
        return hex_code(p, 4, ret_code);
    default:
        if ((unsigned char)c < 0x80 && c > ' ' && !strchr("0123456789", c) &&
            !((c | 32) >= 'a' && (c | 32) <= 'z')) {
            *ret_code = (unsigned char)c;
            return HM_OK;
        }
        return hm_pattern_refuse(p, "has an escape that is not known");
    }
}

int hm_pattern_char_next(struct parser *p, uint32_t *ret_code)
{
    unsigned len = hm_utf8_decode(p->text.ptr + p->at, p->text.len - p->at, ret_code);

    if (len == 0)
        return hm_pattern_refuse(p, "ends too early or is not UTF-8");
    p->at += len;
    return HM_OK;
}

/* One character of a class, or an escape that is several. */
static int class_item(struct parser *p, struct hm_char_set *set, bool *ret_is_set,
                      uint32_t *ret_code)
{
    *ret_is_set = false;
    if (hm_pattern_next_is(p, "[") || hm_pattern_next_is(p, "&&"))
        return hm_pattern_refuse(p, "has a class within a class");
    return hm_pattern_skip(p, "\\") ? hm_pattern_escape(p, set, ret_is_set, ret_code)
                                    : hm_pattern_char_next(p, ret_code);
}

/* Behind '['. */
int hm_pattern_class_read(struct parser *p, int32_t *ret_set)
{
    HM_TRY(hm_pattern_set_new(p, ret_set));
    struct hm_char_set *set = p->pattern->set[*ret_set];
    bool negative = hm_pattern_skip(p, "^"), is_set = false;
    uint32_t first = 0, last = 0;

    if (hm_pattern_next_is(p, "]"))
        return hm_pattern_refuse(p, "has an empty class");
    while (!hm_pattern_skip(p, "]")) {
        HM_TRY(class_item(p, set, &is_set, &first));
        if (is_set)
            continue;
        last = first;
        if (hm_pattern_next_is(p, "-") && p->at + 1 < p->text.len &&
            p->text.ptr[p->at + 1] != ']') {
            p->at++;
            HM_TRY(class_item(p, set, &is_set, &last));
            if (is_set || last < first)
                return hm_pattern_refuse(p, "has a range without order");
        }
        hm_char_set_put(set, first, last);
    }
    if (p->fold)
        HM_TRY(hm_pattern_set_fold(p, set));
    for (size_t i = 0; negative && i < HM_UNICODE_CODES / 64; i++)
        set->word[i] = ~set->word[i];
    return HM_OK;
}
