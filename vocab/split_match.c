/* SPDX-License-Identifier: MIT */
/*
 * Matching of split patterns: backtracking over nodes, a loop over one class at a time, so that
 * recursion is no deeper than the pattern is long. Steps are counted: a hostile pattern ends with
 * an error, not in hours.
 */
#include "split_pattern.h"

struct matcher {
    const struct hm_split_pattern *pattern;
    const unsigned char *text;
    size_t len;
    uint64_t steps_left;
    bool exhausted;
};

/* text is valid UTF-8 */
static unsigned decode(const unsigned char *at, uint32_t *ret_code)
{
    if (at[0] < 0x80) {
        *ret_code = at[0];
        return 1;
    }
    if (at[0] < 0xe0) {
        *ret_code = (at[0] & 0x1fu) << 6 | (at[1] & 0x3fu);
        return 2;
    }
    if (at[0] < 0xf0) {
        *ret_code = (at[0] & 0xfu) << 12 | (at[1] & 0x3fu) << 6 | (at[2] & 0x3fu);
        return 3;
    }
    *ret_code = (at[0] & 7u) << 18 | (at[1] & 0x3fu) << 12 | (at[2] & 0x3fu) << 6 | (at[3] & 0x3fu);
    return 4;
}

static bool is_in(const struct hm_split_pattern *pattern, const struct hm_pattern_node *node,
                  uint32_t code)
{
    if (node->set < 0)
        return code == node->code;
    return pattern->set[node->set]->word[code / 64] >> code % 64 & 1;
}

/* Take up to node->max characters from *at on; how many. */
static uint32_t take(struct matcher *m, const struct hm_pattern_node *node, size_t *at)
{
    uint32_t n = 0, code = 0;

    while (n < node->max && *at < m->len) {
        unsigned len = decode(m->text + *at, &code);
        if (!is_in(m->pattern, node, code))
            break;
        *at += len;
        n++;
    }
    if (m->steps_left <= n) {
        m->exhausted = true;
        m->steps_left = 0;
    } else {
        m->steps_left -= n + 1;
    }
    return n;
}

static bool match_from(struct matcher *m, int32_t which, size_t at, size_t *ret_end);

/* The rest after a loop that took n characters up to at, giving them back one by one. */
static bool match_behind(struct matcher *m, const struct hm_pattern_node *node, uint32_t n,
                         size_t at, size_t *ret_end)
{
    for (;;) {
        if (m->exhausted)
            return false;
        if (match_from(m, node->next, at, ret_end))
            return true;
        if (n == node->min)
            return false;
        do
            at--;
        while ((m->text[at] & 0xc0) == 0x80);
        n--;
        m->steps_left -= m->steps_left > 0;
        m->exhausted = m->steps_left == 0;
    }
}

static bool match_from(struct matcher *m, int32_t which, size_t at, size_t *ret_end)
{
    for (;;) {
        const struct hm_pattern_node *node = &m->pattern->node[which];
        size_t unused = 0;
        uint32_t n;
        switch (node->op) {
        case HM_PAT_ACCEPT:
            *ret_end = at;
            return true;
        case HM_PAT_JUMP:
            break;
        case HM_PAT_EOL:
            if (at < m->len && m->text[at] != '\n')
                return false;
            break;
        case HM_PAT_LOOK:
            if (match_from(m, node->branch, at, &unused) == node->negative || m->exhausted)
                return false;
            break;
        case HM_PAT_SPLIT:
            if (match_from(m, node->branch, at, ret_end))
                return true;
            break;
        case HM_PAT_STEP:
            n = take(m, node, &at);
            if (n < node->min || m->exhausted)
                return false;
            if (n > node->min && !node->possessive)
                return match_behind(m, node, n, at, ret_end);
            break;
        }
        which = node->next;
    }
}

int hm_split_pattern_find(const struct hm_split_pattern *pattern, struct hm_str text, size_t from,
                          struct hm_match *ret_match, struct hm_error *err)
{
    struct matcher m = { .pattern = pattern,
                         .text = (const unsigned char *)text.ptr,
                         .len = text.len,
                         .steps_left = (1u << 22) + 64 * (uint64_t)text.len };
    const struct hm_pattern_node *root = &pattern->node[pattern->root];
    bool run = root->op == HM_PAT_STEP && root->max == HM_PATTERN_NO_MAX;
    uint32_t code;

    for (size_t at = from; at < text.len;) {
        if (match_from(&m, pattern->root, at, &ret_match->end)) {
            ret_match->start = at;
            return 1;
        }
        if (m.exhausted)
            return hm_fail(err, HM_ERR_FORMAT,
                           "a pattern of the tokenizer takes too many steps on a text of %zu bytes",
                           text.len);
        size_t after = at;
        if (run) /* a later start in the same run tries a part of the same ends */
            take(&m, root, &after);
        at = after > at ? after : at + decode(m.text + at, &code);
    }
    return 0;
}
