/* SPDX-License-Identifier: MIT */
/*
 * From the text of a split pattern to nodes; classes of characters are split_class.c's, matching is
 * split_match.c's. A fragment's open ends are chained through `next` as -2 - node until what
 * follows is known.
 */
#include "split_parser.h"

#include <string.h>

#define OPEN_END  (-1)
#define DEPTH_MAX 64

struct fragment {
    int32_t start;
    int32_t ends; /* chain of nodes whose next is open */
};

static int node_add(struct parser *p, struct hm_pattern_node node, int32_t *ret_node)
{
    struct hm_split_pattern *pattern = p->pattern;

    if (pattern->n_nodes == HM_PATTERN_MAX_NODES)
        return hm_pattern_refuse(p, "is too long");
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
            return hm_pattern_refuse(p, "has a count that is not known");
        }
    }
    if (!hm_pattern_skip(p, "}") || (which == 0 && digits == 0))
        return hm_pattern_refuse(p, "has a count that is not known");
    *ret_min = bound[0];
    *ret_max = which == 0 ? bound[0] : digits == 0 ? HM_PATTERN_NO_MAX : bound[1];
    if (*ret_max == 0 || *ret_max < *ret_min || hm_pattern_next_is(p, "+"))
        return hm_pattern_refuse(p, "has a count that is not known");
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

    if (hm_pattern_skip(p, "?"))
        min = 0;
    else if (hm_pattern_skip(p, "*"))
        min = 0, max = HM_PATTERN_NO_MAX;
    else if (hm_pattern_skip(p, "+"))
        max = HM_PATTERN_NO_MAX;
    else if (hm_pattern_skip(p, "{"))
        HM_TRY(counts_read(p, &min, &max));
    else
        return HM_OK;
    bool possessive = hm_pattern_skip(p, "+");
    if (hm_pattern_next_is(p, "?") || hm_pattern_next_is(p, "*") || hm_pattern_next_is(p, "{"))
        return hm_pattern_refuse(p, "repeats in a way that is not known");
    if (node->op == HM_PAT_STEP && part->ends == part->start && node->min == 1 && node->max == 1) {
        node->min = min, node->max = max, node->possessive = possessive;
        return HM_OK;
    }
    if (min != 0 || max != 1 || possessive || node->op == HM_PAT_EOL || node->op == HM_PAT_LOOK)
        return hm_pattern_refuse(p, "repeats more than one character");
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
                return hm_pattern_refuse(p, "folds letters that one other character stands for");
        HM_TRY(hm_pattern_set_new(p, &set));
        hm_char_set_put(p->pattern->set[set], code, code);
        HM_TRY(hm_pattern_set_fold(p, p->pattern->set[set]));
    }
    return step_add(p, set, code, ret);
}

/* Behind "(". */
static int group_read(struct parser *p, struct fragment *ret)
{
    bool fold = p->fold, look = false, negative = false;
    int32_t accept = 0;

    if (hm_pattern_skip(p, "?i:"))
        p->fold = true;
    else if (hm_pattern_skip(p, "?!"))
        look = negative = true;
    else if (hm_pattern_skip(p, "?="))
        look = true;
    else if (!hm_pattern_skip(p, "?:") && hm_pattern_next_is(p, "?"))
        return hm_pattern_refuse(p, "has a group that is not known");
    HM_TRY(alternatives_read(p, ret));
    p->fold = fold;
    if (!hm_pattern_skip(p, ")"))
        return hm_pattern_refuse(p, "has a group without )");
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

    if (hm_pattern_skip(p, "("))
        return group_read(p, ret);
    if (hm_pattern_skip(p, "[")) {
        HM_TRY(hm_pattern_class_read(p, &set));
        return step_add(p, set, 0, ret);
    }
    if (hm_pattern_skip(p, "$")) {
        HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_EOL, .next = OPEN_END },
                        &ret->start));
        ret->ends = ret->start;
        return HM_OK;
    }
    if (hm_pattern_skip(p, ".")) {
        HM_TRY(hm_pattern_set_new(p, &set));
        hm_char_set_put(p->pattern->set[set], 0, HM_UNICODE_CODES - 1);
        p->pattern->set[set]->word[0] &= ~((uint64_t)1 << '\n');
        return step_add(p, set, 0, ret);
    }
    if (hm_pattern_skip(p, "\\")) {
        HM_TRY(hm_pattern_set_new(p, &set));
        HM_TRY(hm_pattern_escape(p, p->pattern->set[set], &is_set, &code));
        if (is_set)
            return step_add(p, set, 0, ret);
        hm_free(p->pattern->set[--p->pattern->n_sets]);
        return literal_add(p, code, ret);
    }
    if (p->at < p->text.len && strchr("?*+{^", p->text.ptr[p->at]))
        return hm_pattern_refuse(p, "has a sign that is not known here");
    HM_TRY(hm_pattern_char_next(p, &code));
    return literal_add(p, code, ret);
}

static int sequence_read(struct parser *p, struct fragment *ret)
{
    struct fragment part = { 0 };
    bool any = false;

    while (p->at < p->text.len && !hm_pattern_next_is(p, "|") && !hm_pattern_next_is(p, ")")) {
        HM_TRY(atom_read(p, &part));
        HM_TRY(quantifier_read(p, &part));
        if (any)
            ends_close(p->pattern, ret->ends, part.start);
        else
            ret->start = part.start;
        ret->ends = part.ends;
        any = true;
    }
    return any ? (int)HM_OK : hm_pattern_refuse(p, "has an empty alternative");
}

static int alternatives_read(struct parser *p, struct fragment *ret)
{
    struct fragment first = { 0 }, rest = { 0 };
    int32_t split = 0;

    if (++p->depth > DEPTH_MAX)
        return hm_pattern_refuse(p, "is nested too deep");
    HM_TRY(sequence_read(p, &first));
    if (hm_pattern_skip(p, "|")) {
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
        return hm_pattern_refuse(p, "is empty");
    HM_TRY(alternatives_read(p, &all));
    if (p->at < p->text.len)
        return hm_pattern_refuse(p, "has ) without (");
    HM_TRY(node_add(p, (struct hm_pattern_node){ .op = HM_PAT_ACCEPT }, &accept));
    ends_close(p->pattern, all.ends, accept);
    p->pattern->root = all.start;
    return may_be_empty(p->pattern, all.start, seen) ? hm_pattern_refuse(p, "may match nothing")
                                                     : (int)HM_OK;
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
