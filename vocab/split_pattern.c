/* SPDX-License-Identifier: MIT */
/*
 * From the text of a split pattern to nodes; matching is split_match.c's. A fragment's open ends
 * are chained through `next` as -2 - node until what follows is known.
 */
#include "split_pattern.h"

#include <inttypes.h>
#include <string.h>

#define OPEN_END   (-1)
#define DEPTH_MAX  64
#define LAST_SPACE 0x3000u

struct parser {
    struct hm_str text;
    size_t at;
    const char *what;
    struct hm_split_pattern *pattern;
    uint8_t *class_of; /* [HM_UNICODE_CODES] */
    bool fold;         /* within (?i:..) */
    int depth;
    struct hm_error *err;
};
struct fragment {
    int32_t start;
    int32_t ends; /* chain of nodes whose next is open */
};

static int refuse(const struct parser *p, const char *why)
{
    return hm_fail(p->err, HM_ERR_FORMAT,
                   "'%s': the pattern '%.*s' %s at byte %zu; it cannot be read exactly", p->what,
                   (int)(p->text.len < 200 ? p->text.len : 200), p->text.ptr, why, p->at);
}

static bool next_is(const struct parser *p, const char *word)
{
    size_t len = strlen(word);

    return p->text.len - p->at >= len && memcmp(p->text.ptr + p->at, word, len) == 0;
}

static bool skip(struct parser *p, const char *word)
{
    bool found = next_is(p, word);

    p->at += found ? strlen(word) : 0;
    return found;
}

static int node_add(struct parser *p, struct hm_pattern_node node, int32_t *ret_node)
{
    struct hm_split_pattern *pattern = p->pattern;

    if (pattern->n_nodes == HM_PATTERN_MAX_NODES)
        return refuse(p, "is too long");
    *ret_node = (int32_t)pattern->n_nodes;
    pattern->node[pattern->n_nodes++] = node;
    return HM_OK;
}

static void ends_close(struct hm_split_pattern *pattern, int32_t chain, int32_t target)
{
    while (chain != OPEN_END) {
        int32_t *next = &pattern->node[chain].next;
        int32_t after = *next == OPEN_END ? OPEN_END : -2 - *next;
        *next = target;
        chain = after;
    }
}

static int32_t ends_join(struct hm_split_pattern *pattern, int32_t a, int32_t b)
{
    int32_t last = a;

    while (pattern->node[last].next != OPEN_END)
        last = -2 - pattern->node[last].next;
    pattern->node[last].next = -2 - b;
    return a;
}

/* --- sets ------------------------------------------------------------------------------------- */

static void set_put(struct hm_char_set *set, uint32_t first, uint32_t last)
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

static int set_new(struct parser *p, int32_t *ret_set)
{
    struct hm_split_pattern *pattern = p->pattern;

    if (pattern->n_sets == HM_PATTERN_MAX_SETS)
        return refuse(p, "has too many classes");
    struct hm_char_set *set = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*set));
    if (!set)
        return hm_fail_nomem(p->err, "for a pattern");
    *ret_set = (int32_t)pattern->n_sets;
    pattern->set[pattern->n_sets++] = set;
    return HM_OK;
}

/* Other cases of the ASCII letters of the set; Unicode folds two more letters onto them. */
static int set_fold(struct parser *p, struct hm_char_set *set)
{
    for (size_t word = 2; word < HM_UNICODE_CODES / 64; word++)
        if (set->word[word])
            return refuse(p, "folds the case of other letters than ASCII's");
    for (uint32_t lower = 'a'; lower <= 'z'; lower++) {
        if (!set_has(set, lower) && !set_has(set, lower - 32))
            continue;
        set_put(set, lower, lower);
        set_put(set, lower - 32, lower - 32);
        if (lower == 's')
            set_put(set, 0x17f, 0x17f);
        if (lower == 'k')
            set_put(set, 0x212a, 0x212a);
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
            set_put(set, code, code);
}

/* {Name} or {^Name} behind \p or \P. */
static int property(struct parser *p, struct hm_char_set *set, bool negative)
{
    if (!skip(p, "{"))
        return refuse(p, "has \\p without {..}");
    negative ^= skip(p, "^");
    const char *name = p->text.ptr + p->at;
    const char *end = memchr(name, '}', p->text.len - p->at);
    if (!end)
        return refuse(p, "has \\p{ without }");
    size_t len = (size_t)(end - name);
    uint32_t classes = classes_of(name, len);
    if (classes)
        set_put_classes(p, set, classes, negative);
    else if (len == 3 && memcmp(name, "Han", 3) == 0)
        set_put_han(set, negative);
    else
        return refuse(p, "has a property other than L, Lu, Ll, Lt, Lm, Lo, M, N, Nd, Nl, No, P, S, "
                         "Z, C and Han");
    p->at += len + 1;
    return HM_OK;
}

static int hex_code(struct parser *p, size_t digits, uint32_t *ret_code)
{
    uint32_t code = 0;

    if (p->text.len - p->at < digits)
        return refuse(p, "ends within a number");
    for (size_t i = 0; i < digits; i++) {
        static const char hex[] = "0123456789abcdef";
        char c = p->text.ptr[p->at++];
        const char *found = memchr(hex, c >= 'A' && c <= 'F' ? c + 32 : c, 16);
        if (!found)
            return refuse(p, "has a number that is not hexadecimal");
        code = code << 4 | (uint32_t)(found - hex);
    }
    *ret_code = code;
    return HM_OK;
}

/* What follows a backslash: a character, or characters put into set (*ret_is_set). */
static int escape(struct parser *p, struct hm_char_set *set, bool *ret_is_set, uint32_t *ret_code)
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
                set_put(set, code, code);
        if (c == 'S')
            set_put(set, LAST_SPACE + 1, HM_UNICODE_CODES - 1);
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
        return refuse(p, "has an escape that is not known");
    }
}

static int char_next(struct parser *p, uint32_t *ret_code)
{
    unsigned len = hm_utf8_decode(p->text.ptr + p->at, p->text.len - p->at, ret_code);

    if (len == 0)
        return refuse(p, "ends too early or is not UTF-8");
    p->at += len;
    return HM_OK;
}

/* One character of a class, or an escape that is several. */
static int class_item(struct parser *p, struct hm_char_set *set, bool *ret_is_set,
                      uint32_t *ret_code)
{
    *ret_is_set = false;
    if (next_is(p, "[") || next_is(p, "&&"))
        return refuse(p, "has a class within a class");
    return skip(p, "\\") ? escape(p, set, ret_is_set, ret_code) : char_next(p, ret_code);
}

/* Behind '['. */
static int class_read(struct parser *p, int32_t *ret_set)
{
    HM_TRY(set_new(p, ret_set));
    struct hm_char_set *set = p->pattern->set[*ret_set];
    bool negative = skip(p, "^"), is_set = false;
    uint32_t first = 0, last = 0;

    if (next_is(p, "]"))
        return refuse(p, "has an empty class");
    while (!skip(p, "]")) {
        HM_TRY(class_item(p, set, &is_set, &first));
        if (is_set)
            continue;
        last = first;
        if (next_is(p, "-") && p->at + 1 < p->text.len && p->text.ptr[p->at + 1] != ']') {
            p->at++;
            HM_TRY(class_item(p, set, &is_set, &last));
            if (is_set || last < first)
                return refuse(p, "has a range without order");
        }
        set_put(set, first, last);
    }
    if (p->fold)
        HM_TRY(set_fold(p, set));
    for (size_t i = 0; negative && i < HM_UNICODE_CODES / 64; i++)
        set->word[i] = ~set->word[i];
    return HM_OK;
}

/* --- structure -------------------------------------------------------------------------------- */

static int alternatives_read(struct parser *p, struct fragment *ret);

/* {n}, {n,} or {n,m}; nothing else that begins with { is read. */
static int counts_read(struct parser *p, uint32_t *ret_min, uint32_t *ret_max)
{
    uint32_t bound[2] = { 0, 0 };
    size_t which = 0, digits = 0;

    for (; p->at < p->text.len && p->text.ptr[p->at] != '}'; p->at++) {
        char c = p->text.ptr[p->at];
        if (c == ',' && which == 0 && digits > 0) {
            which = 1, digits = 0;
        } else if (c >= '0' && c <= '9' && digits < 6) {
            bound[which] = bound[which] * 10 + (uint32_t)(c - '0');
            digits++;
        } else {
            return refuse(p, "has a count that is not known");
        }
    }
    if (!skip(p, "}") || (which == 0 && digits == 0))
        return refuse(p, "has a count that is not known");
    *ret_min = bound[0];
    *ret_max = which == 0 ? bound[0] : digits == 0 ? HM_PATTERN_NO_MAX : bound[1];
    if (*ret_max == 0 || *ret_max < *ret_min || next_is(p, "+"))
        return refuse(p, "has a count that is not known");
    return HM_OK;
}

static int optional_make(struct parser *p, struct fragment *part)
{
    int32_t past = 0, split = 0;

    HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_JUMP, .next = OPEN_END }, &past));
    HM_TRY(node_add(
        p, (struct hm_pattern_node){ .op = HM_PAT_SPLIT, .branch = part->start, .next = past },
        &split));
    part->start = split;
    part->ends = ends_join(p->pattern, part->ends, past);
    return HM_OK;
}

static int quantifier_read(struct parser *p, struct fragment *part)
{
    struct hm_pattern_node *node = &p->pattern->node[part->start];
    uint32_t min = 1, max = 1;

    if (skip(p, "?"))
        min = 0;
    else if (skip(p, "*"))
        min = 0, max = HM_PATTERN_NO_MAX;
    else if (skip(p, "+"))
        max = HM_PATTERN_NO_MAX;
    else if (skip(p, "{"))
        HM_TRY(counts_read(p, &min, &max));
    else
        return HM_OK;
    bool possessive = skip(p, "+");
    if (next_is(p, "?") || next_is(p, "*") || next_is(p, "{"))
        return refuse(p, "repeats in a way that is not known");
    if (node->op == HM_PAT_STEP && part->ends == part->start && node->min == 1 && node->max == 1) {
        node->min = min, node->max = max, node->possessive = possessive;
        return HM_OK;
    }
    if (min != 0 || max != 1 || possessive || node->op == HM_PAT_EOL || node->op == HM_PAT_LOOK)
        return refuse(p, "repeats more than one character");
    return optional_make(p, part);
}

static int step_add(struct parser *p, int32_t set, uint32_t code, struct fragment *ret)
{
    struct hm_pattern_node node = {
        .op = HM_PAT_STEP, .next = OPEN_END, .set = set, .code = code, .min = 1, .max = 1
    };

    HM_TRY(node_add(p, node, &ret->start));
    ret->ends = ret->start;
    return HM_OK;
}

/* A character of the pattern; within (?i:..) a set of its cases. */
static int literal_add(struct parser *p, uint32_t code, struct fragment *ret)
{
    int32_t set = -1;

    if (p->fold && code < 0x80 && !((code | 32) >= 'a' && (code | 32) <= 'z'))
        return step_add(p, -1, code, ret);
    if (p->fold) {
        static const char *const folded[] = { "ss", "st", "ff", "fi", "fl" };
        for (size_t i = 0; i < sizeof(folded) / sizeof(folded[0]); i++)
            if (p->at < p->text.len && (code | 32) == (uint32_t)folded[i][0] &&
                (p->text.ptr[p->at] | 32) == folded[i][1])
                return refuse(p, "folds letters that one other character stands for");
        HM_TRY(set_new(p, &set));
        set_put(p->pattern->set[set], code, code);
        HM_TRY(set_fold(p, p->pattern->set[set]));
    }
    return step_add(p, set, code, ret);
}

/* Behind "(". */
static int group_read(struct parser *p, struct fragment *ret)
{
    bool fold = p->fold, look = false, negative = false;
    int32_t accept = 0;

    if (skip(p, "?i:"))
        p->fold = true;
    else if (skip(p, "?!"))
        look = negative = true;
    else if (skip(p, "?="))
        look = true;
    else if (!skip(p, "?:") && next_is(p, "?"))
        return refuse(p, "has a group that is not known");
    HM_TRY(alternatives_read(p, ret));
    p->fold = fold;
    if (!skip(p, ")"))
        return refuse(p, "has a group without )");
    if (!look)
        return HM_OK;
    HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_ACCEPT }, &accept));
    ends_close(p->pattern, ret->ends, accept);
    struct hm_pattern_node node = {
        .op = HM_PAT_LOOK, .branch = ret->start, .negative = negative, .next = OPEN_END
    };
    HM_TRY(node_add(p, node, &ret->start));
    ret->ends = ret->start;
    return HM_OK;
}

static int atom_read(struct parser *p, struct fragment *ret)
{
    bool is_set = false;
    uint32_t code = 0;
    int32_t set = -1;

    if (skip(p, "("))
        return group_read(p, ret);
    if (skip(p, "[")) {
        HM_TRY(class_read(p, &set));
        return step_add(p, set, 0, ret);
    }
    if (skip(p, "$")) {
        HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_EOL, .next = OPEN_END },
                        &ret->start));
        ret->ends = ret->start;
        return HM_OK;
    }
    if (skip(p, ".")) {
        HM_TRY(set_new(p, &set));
        set_put(p->pattern->set[set], 0, HM_UNICODE_CODES - 1);
        p->pattern->set[set]->word[0] &= ~((uint64_t)1 << '\n');
        return step_add(p, set, 0, ret);
    }
    if (skip(p, "\\")) {
        HM_TRY(set_new(p, &set));
        HM_TRY(escape(p, p->pattern->set[set], &is_set, &code));
        if (is_set)
            return step_add(p, set, 0, ret);
        hm_free(p->pattern->set[--p->pattern->n_sets]);
        return literal_add(p, code, ret);
    }
    if (p->at < p->text.len && strchr("?*+{^", p->text.ptr[p->at]))
        return refuse(p, "has a sign that is not known here");
    HM_TRY(char_next(p, &code));
    return literal_add(p, code, ret);
}

static int sequence_read(struct parser *p, struct fragment *ret)
{
    struct fragment part = { 0 };
    bool any = false;

    while (p->at < p->text.len && !next_is(p, "|") && !next_is(p, ")")) {
        HM_TRY(atom_read(p, &part));
        HM_TRY(quantifier_read(p, &part));
        if (any)
            ends_close(p->pattern, ret->ends, part.start);
        else
            ret->start = part.start;
        ret->ends = part.ends;
        any = true;
    }
    return any ? (int)HM_OK : refuse(p, "has an empty alternative");
}

static int alternatives_read(struct parser *p, struct fragment *ret)
{
    struct fragment first = { 0 }, rest = { 0 };
    int32_t split = 0;

    if (++p->depth > DEPTH_MAX)
        return refuse(p, "is nested too deep");
    HM_TRY(sequence_read(p, &first));
    if (skip(p, "|")) {
        HM_TRY(alternatives_read(p, &rest));
        struct hm_pattern_node node = { .op = HM_PAT_SPLIT,
                                        .branch = first.start,
                                        .next = rest.start };
        HM_TRY(node_add(p, node, &split));
        first = (struct fragment){ split, ends_join(p->pattern, first.ends, rest.ends) };
    }
    p->depth--;
    *ret = first;
    return HM_OK;
}

/* Whether the end can be reached from a node without a character taken; nodes go forward only. */
static bool may_be_empty(const struct hm_split_pattern *pattern, int32_t which, bool *seen)
{
    for (;;) {
        const struct hm_pattern_node *node = &pattern->node[which];
        if (seen[which])
            return false; /* told already */
        seen[which] = true;
        if (node->op == HM_PAT_ACCEPT)
            return true;
        if (node->op == HM_PAT_STEP && node->min > 0)
            return false;
        if (node->op == HM_PAT_SPLIT && may_be_empty(pattern, node->branch, seen))
            return true;
        which = node->next;
    }
}

static int pattern_read(struct parser *p)
{
    bool seen[HM_PATTERN_MAX_NODES] = { false };
    struct fragment all = { 0 };
    int32_t accept = 0;

    if (p->text.len == 0)
        return refuse(p, "is empty");
    HM_TRY(alternatives_read(p, &all));
    if (p->at < p->text.len)
        return refuse(p, "has ) without (");
    HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_ACCEPT }, &accept));
    ends_close(p->pattern, all.ends, accept);
    p->pattern->root = all.start;
    return may_be_empty(p->pattern, all.start, seen) ? refuse(p, "may match nothing") : (int)HM_OK;
}

int hm_split_pattern_make(struct hm_str text, const char *what,
                          struct hm_split_pattern **ret_pattern, struct hm_error *err)
{
    struct parser p = { .text = text, .what = what, .err = err };
    int status;

    p.pattern = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*p.pattern));
    p.class_of = hm_alloc(HM_MEM_VOCAB, HM_UNICODE_CODES);
    if (p.pattern && p.class_of) {
        hm_unicode_class_table(p.class_of);
        status = pattern_read(&p);
    } else {
        status = hm_fail_nomem(err, "for a pattern");
    }
    hm_free(p.class_of);
    if (status == HM_OK)
        *ret_pattern = p.pattern;
    else
        hm_split_pattern_free(p.pattern);
    return status;
}

void hm_split_pattern_free(struct hm_split_pattern *pattern)
{
    if (!pattern)
        return;
    for (size_t i = 0; i < pattern->n_sets; i++)
        hm_free(pattern->set[i]);
    hm_free(pattern);
}
